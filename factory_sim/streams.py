"""Named random streams: one for each decision, so that adding a draw moves nobody else's numbers."""

import zlib

import numpy as np


def stream(seed: int, *name: str) -> np.random.Generator:
    """Return the stream of one named decision, e.g. ``stream(7, "arrivals", "chat")``."""
    key = tuple(zlib.crc32(part.encode()) for part in name)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
