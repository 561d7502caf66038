"""A number for each name that never changes, whatever else is in the data set."""

from __future__ import annotations

import hashlib


def stable_number(name: str) -> float:
    """A number in [0, 1) that depends on the name alone and is evenly spread over different names."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
