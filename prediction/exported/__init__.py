"""Detectors that `tools.export` wrote: reading and running them as if they were checkpoints."""
