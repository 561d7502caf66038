"""Ids that last from frame to frame, and what is counted with them."""
