"""Stress tests of training, data and checkpoints: `python -m tools.reliability.NAME`."""
