"""The scripted policies that collect data: they know where the socket is, as the calibrated robot of Sec. IV does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lotj.sim.env import InsertionEnv
from lotj.types import Observation

CENTRED = 0.001
"""m: within this of the centreline the expert goes down (Sec. IV)."""


@dataclass(frozen=True)
class ExpertConfig:
    """The predefined policy of Sec. IV and two variations that a reward needs to see (slow insertions, wrong
    places)."""

    noise_probability: float = 0.2
    """Chance of a uniformly random action in place of the scripted one (Sec. IV: 0.2)."""
    speed: float = 1.0
    """Share of the full step; small values insert slowly and show every depth."""
    wrong_place: float = 0.0
    """m: aim this far beside the socket, in a direction drawn for each trial, and press there."""
    hover: float | None = None
    """m above the socket's mouth: stay at this height there instead of pressing."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise_probability <= 1:
            raise ValueError(f"ExpertConfig.noise_probability must be in 0..1, got {self.noise_probability}")
        if not 0 < self.speed <= 1:
            raise ValueError(f"ExpertConfig.speed must be in (0, 1], got {self.speed}")
        if self.wrong_place < 0:
            raise ValueError(f"ExpertConfig.wrong_place cannot be negative, got {self.wrong_place}")
        if self.hover is not None and self.hover < 0:
            raise ValueError(f"ExpertConfig.hover must be None or a height of 0 or more, got {self.hover}")


class Expert:
    """Move towards the centreline of the socket until within 1 mm, then down."""

    def __init__(self, env: gym.Env[Any, Any], config: ExpertConfig | None = None) -> None:
        base = env.unwrapped
        if not isinstance(base, InsertionEnv):
            raise TypeError(
                f"the scripted expert reads the simulator's ground truth; it cannot drive {type(base).__name__}"
            )
        self._env, self.config = base, config or ExpertConfig()
        self._aim: NDArray[np.float64] | None = None

    def reset(self) -> None:
        """Forget the last trial's wrong place."""
        self._aim = None

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """The scripted action (A,); noisy with the configured probability."""
        size = len(self._env.action_scale)
        if self._aim is None:
            angle = rng.uniform(0, 2 * np.pi)
            self._aim = self.config.wrong_place * np.array([np.cos(angle), np.sin(angle)])
        if rng.random() < self.config.noise_probability:
            return rng.uniform(-1, 1, size).astype(np.float32)
        rotation = self._env.data.xmat[self._env.model.body("socket").id].reshape(3, 3)
        depth, scale = self._env.connector.insertion_depth, self._env.action_scale[:3]
        if self.config.hover is None:
            action = scripted_action(self._env.tip_in_socket, rotation, depth, self._aim, scale) * self.config.speed
        else:
            error = np.array([*self._aim, depth + self.config.hover]) - self._env.tip_in_socket
            action = np.clip(rotation @ error / scale, -1, 1) * self.config.speed
        return np.concatenate([action, np.zeros(size - 3)]).astype(np.float32)


def scripted_action(
    tip_in_socket: NDArray[np.float64],
    socket_rotation: NDArray[np.float64],
    insertion_depth: float,
    aim: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where to move next: to the centreline, then down it.

    Args:
        tip_in_socket: (3,) m.
        socket_rotation: (3, 3), from the socket's into the base frame.
        insertion_depth: m.
        aim: (2,) m beside the socket's axis, where to press instead.
        scale: (3,) m for an action of 1.

    Returns:
        (3,) in [-1, 1], along the base frame's axes.
    """
    error = np.array([*(aim - tip_in_socket[:2]), 0.0])
    if np.hypot(*error[:2]) < CENTRED:
        error[2] = -1.0
    elif tip_in_socket[2] < insertion_depth + 0.0005:
        # Off the axis and down on the face: lift a little, or friction holds the plug where it is.
        error[2] = 0.002
    return np.clip(socket_rotation @ error / scale, -1, 1)
