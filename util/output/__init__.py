"""An output folder: one process writes to it at a time."""
