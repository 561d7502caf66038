"""The first moments of a command, before torch is imported."""
