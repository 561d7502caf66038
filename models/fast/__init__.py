"""Fast forms of parts of the network. Each computes what the plain form computes, and is tested against it."""
