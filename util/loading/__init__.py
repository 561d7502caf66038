"""Reading what others made, without trusting it: checkpoints, downloads, JSON."""
