"""Seeds: one number a run, and from it a stream of its own for everything that draws."""

from __future__ import annotations

import zlib

import numpy as np


def stream_seed(seed: int, *names: str) -> int:
    """The seed of one stream of a run.

    Two streams of the same seed must not be equal: networks would start with the same weights, noise and batches would
    be drawn alike, two connectors would be practised from the same places.

    Args:
        seed: of the run, not negative.
        names: what the stream is for, from the general to the special, for example ``"reward", "batches"``.

    Returns:
        63 bits, the same on every machine.
    """
    words = [seed, *(zlib.crc32(name.encode()) for name in names)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
