"""Hand-engineered insertion strategies that see nothing (Sec. VI-A): straight down, random search, spiral search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lotj.types import Observation

PRESS = -0.6
"""Downward action while searching: pressing, not ramming."""


class StraightDown:
    """Move straight down from the starting position."""

    def reset(self) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """(3,) down."""
        return np.array([0, 0, -1], np.float32)


class RandomSearch:
    """Straight down, then five randomly sampled positions while pressing down.

    Positions are drawn within ``radius`` of where contact was made; blind dead reckoning moves between them.
    """

    def __init__(self, samples: int = 5, radius: float = 0.01, step: float = 0.005, descent: int = 5) -> None:
        """``radius`` and ``step`` in metres; ``descent`` control periods to reach the surface."""
        self._samples, self._radius, self._step, self._descent = samples, radius, step, descent
        self._each = (20 - descent) // samples
        self.reset()

    def reset(self) -> None:
        """Start over."""
        self._time = 0
        self._here = np.zeros(2)
        self._goal = np.zeros(2)

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """(3,) the next action of the search."""
        time, self._time = self._time, self._time + 1
        if time < self._descent:
            return np.array([0, 0, -1], np.float32)
        if (time - self._descent) % self._each == 0:
            angle, radius = rng.uniform(0, 2 * np.pi), self._radius * np.sqrt(rng.random())
            self._goal = radius * np.array([np.cos(angle), np.sin(angle)])
        action = np.clip((self._goal - self._here) / self._step, -1, 1)
        self._here += action * self._step
        return np.array([*action, PRESS], np.float32)


class SpiralSearch:
    """Straight down, then an Archimedean spiral around the point of contact while pressing down."""

    def __init__(self, pitch: float = 0.0025, arc: float = 0.0035, step: float = 0.005, descent: int = 4) -> None:
        """``pitch`` between turns, ``arc`` travelled a period and ``step`` of a unit action, in metres."""
        self._pitch, self._arc, self._step, self._descent = pitch, arc, step, descent
        self.reset()

    def reset(self) -> None:
        """Start over."""
        self._time = 0
        self._angle = 0.0
        self._here = np.zeros(2)

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """(3,) the next action of the spiral."""
        time, self._time = self._time, self._time + 1
        if time < self._descent:
            return np.array([0, 0, -1], np.float32)
        radius = self._pitch * self._angle / (2 * np.pi)
        self._angle += self._arc / max(radius, self._pitch / 2)
        radius = self._pitch * self._angle / (2 * np.pi)
        goal = radius * np.array([np.cos(self._angle), np.sin(self._angle)])
        action = np.clip((goal - self._here) / self._step, -1, 1)
        self._here += action * self._step
        return np.array([*action, PRESS], np.float32)


BASELINES: dict[str, Callable[[], StraightDown | RandomSearch | SpiralSearch]] = {
    "straight-down": StraightDown,
    "random-search": RandomSearch,
    "spiral-search": SpiralSearch,
}
