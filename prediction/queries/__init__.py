"""The object queries of an image: which become detections, and which need a mask."""
