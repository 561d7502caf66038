"""A page in the browser that shows what a detector finds: `python -m tools.web CKPT`."""
