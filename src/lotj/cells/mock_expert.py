"""The scripted expert of a rehearsal over HTTP: the mock robot server tells it where the socket is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lotj.cells.serl_http import SerlHttpEnv
from lotj.sim.expert import scripted_action
from lotj.types import Observation


class HttpExpert:
    """The scripted expert of a rehearsal: the mock tells it where the socket is.

    Args:
        env: of a rehearsal.
        noise: chance of a uniformly random action.
        speed: share of the full step.
        beside: m beside the socket where it presses instead.
    """

    def __init__(self, env: SerlHttpEnv, noise: float = 0.0, speed: float = 1.0, beside: float = 0.0) -> None:
        self._env, self._noise, self._speed, self._beside = env, noise, speed, beside
        self._aim: NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forget the last trial's wrong place."""
        self._aim = None

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """The scripted action (3,); noisy with the given probability."""
        if self._aim is None:
            angle = rng.uniform(0, 2 * np.pi)
            self._aim = self._beside * np.array([np.cos(angle), np.sin(angle)])
        if rng.random() < self._noise:
            return rng.uniform(-1, 1, 3).astype(np.float32)
        truth = self._env.server.ask("mock/truth")
        tip, rotation = np.array(truth["tip_in_socket"]), np.array(truth["socket_rotation"])
        action = scripted_action(
            tip, rotation, truth["insertion_depth"], self._aim, np.full(3, self._env.metres_per_unit)
        )
        return (action * self._speed).astype(np.float32)


def expert(cell: Any, noise: float, speed: float, beside: float) -> HttpExpert:
    """For ``expert`` in a rehearsal's file."""
    return HttpExpert(cell.env.unwrapped, noise, speed, beside)
