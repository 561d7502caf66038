"""The forms that `tools.export` writes: how each is written, read, made smaller, and timed."""
