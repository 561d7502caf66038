"""Documents, and the code that the lesson shows."""
