"""Drawing: boxes, masks, curves, fonts."""
