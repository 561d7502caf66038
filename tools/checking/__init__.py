"""What `python -m tools.check` looks for in a data set, and how it shows what it found."""
