"""What a store tells about all of its trajectories at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Shape(NamedTuple):
    """The sizes that all trajectories of a store share."""

    height: int
    width: int
    state: int
    action: int

    @property
    def cameras(self) -> int:
        """How many square pictures stand side by side in an image; 1 where it is no row of squares."""
        return self.width // self.height if self.width % self.height == 0 else 1


@dataclass(frozen=True)
class TrajectoryIndex:
    """One row a trajectory, ``N`` in all, in the order they were appended. A trajectory's id is its row number."""

    length: NDArray[np.int64]
    """(N,) transitions in each, ``T``; it has ``T + 1`` frames."""
    connector: NDArray[np.str_]
    """(N,)"""
    robot: NDArray[np.str_]
    """(N,)"""
    source: NDArray[np.str_]
    """(N,)"""
    seed: NDArray[np.int64]
    """(N,)"""
    terminated: NDArray[np.bool_]
    """(N,)"""
    truncated: NDArray[np.bool_]
    """(N,)"""
    successes: NDArray[np.int64]
    """(N,) frames with ``privileged["success"]``; -1 where that was not recorded."""

    def __len__(self) -> int:
        return len(self.length)

    @cached_property
    def transition_offset(self) -> NDArray[np.int64]:
        """(N + 1,) where each trajectory starts in `TrajectoryStore.actions` and `rewards`."""
        return np.concatenate([[0], np.cumsum(self.length)]).astype(np.int64)

    @cached_property
    def frame_offset(self) -> NDArray[np.int64]:
        """(N + 1,) where each trajectory starts in `TrajectoryStore.states` and `privileged`."""
        return np.concatenate([[0], np.cumsum(self.length + 1)]).astype(np.int64)
