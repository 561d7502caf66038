"""Commands around the library: `python -m tools.NAME --help`."""
