"""Where images come from that are no files: addresses, and iterators that yield one after the other."""
