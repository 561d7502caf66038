"""The parts of `tools.reliability.fuzz`: how files are damaged, which code reads them, and what counts as a finding."""
