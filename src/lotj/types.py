"""What flows through lotj: trajectories on disk, transitions in memory, and the protocols between rooms.

Conventions, everywhere: SI units; images HWC uint8 on disk and CHW uint8 in batches; ``reward[t]`` describes
``image[t + 1]`` (Sec. V-C labels a transition with R(s'); Eq. 1 prints r(s)); ``terminated`` is an end of the task,
``truncated`` an end of patience.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Observation: TypeAlias = Mapping[str, NDArray[Any]]
"""What a policy may see: ``image`` (H, W, 3) uint8, and ``state`` (S,) float32 where the cell gives one."""

PRIVILEGED = "privileged/"
"""Prefix of ground truth in ``info``. Collection and evaluation may read it; practice never sees it."""


@dataclass(frozen=True)
class Trajectory:
    """One trial, as stored on disk. ``T`` actions, ``T + 1`` observations, ``T <= 20`` in the paper."""

    image: NDArray[np.uint8]
    """(T + 1, H, W, 3) RGB."""
    state: NDArray[np.float32]
    """(T + 1, S); S = 0 where proprioception is off."""
    action: NDArray[np.float32]
    """(T, A) in [-1, 1]."""
    reward: NDArray[np.float32]
    """(T,) ``reward[t]`` describes ``image[t + 1]``."""
    terminated: bool
    """The last transition ended the task (by ground truth in collection, by the reward model in practice)."""
    truncated: bool
    """The trial was cut off: horizon reached or the connector dislodged."""
    connector: str
    robot: str
    seed: int
    source: str
    """Who acted: ``expert``, ``slow``, ``wrong-place``, ``practice`` ..."""
    privileged: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Ground truth for analysis only, keyed without the prefix: ``success`` (T + 1,) bool, ``tip_in_socket`` (T + 1,
    3) metres, ``force`` (T + 1,) newton. ``tip_in_socket`` is zero at full insertion; z is the remaining depth."""

    def __len__(self) -> int:
        return len(self.action)


class StoppedError(RuntimeError):
    """Work stopped because a person should look at something; what was done is saved, and repeating continues."""


class Policy(Protocol):
    """Anything that acts: scripted or learned."""

    def reset(self) -> None:
        """Called once before each trial."""

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """Return an action (A,) in [-1, 1]; deterministic unless ``explore``."""
        ...


def noisy_action(action: NDArray[np.float32], std: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """``action`` with Gaussian noise, clipped to [-1, 1]."""
    return np.clip(action + std * rng.standard_normal(action.shape), -1, 1).astype(np.float32)


class RewardModel(Protocol):
    """Anything that scores images for success."""

    def probability(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of success (B,) for images (B, H, W, 3) uint8, with a deterministic encoding."""
        ...


LATER = "came later"
"""Key of a field's metadata."""


def later(default: Any) -> Any:
    """A dataclass field that its class did not always have; its default is what held before (`lotj.files.to_json`)."""
    return field(default=default, metadata={LATER: True})


class Trials(NamedTuple):
    """A row of a table: how often something worked."""

    method: str
    phase: str
    connector: str
    scenario: str
    successes: int
    trials: int
