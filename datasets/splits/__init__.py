"""Splitting a data set that has no validation part: what belongs together, and which side it goes to."""
