"""Numbers and memory that go wrong: the worst batch, the first module that is not finite."""
