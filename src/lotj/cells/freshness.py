"""Whether the cameras still see: a frozen one goes on giving its last picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOVED = 2e-4
"""m: the tool has moved, and a camera that sees must tell."""


class Freshness:
    """Counts identical pictures in a row while the tool moved; where it rests, a picture may stay the same."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: dict[int, tuple[NDArray[np.uint8], NDArray[np.float64], int]] = {}

    def saw(self, images: Sequence[NDArray[np.uint8]], position: NDArray[np.float64]) -> bool:
        """Whether every camera still seems to see."""
        if not self._limit:
            return True
        for camera, image in enumerate(images):
            last, where, same = self._last.get(camera, (None, position, 1))
            if last is None or not np.array_equal(image, last):
                self._last[camera] = image, position, 1
            elif np.linalg.norm(position - where) > MOVED:
                self._last[camera] = image, position, same + 1
        return all(same < self._limit for _, _, same in self._last.values())
