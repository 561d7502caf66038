"""The flags of the command line: what one setting is."""
