"""Stress tests of training, data reading and checkpoints: `python -m tools.reliability.NAME --help`."""
