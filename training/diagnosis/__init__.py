"""What goes wrong: the worst batch, the first module that is not finite, why nothing is learned."""
