"""Reading annotation files: checks, repairs, and one in-memory form for all formats."""
