"""The parts of `tools.to_coco`: what is read, and how each format is written."""
