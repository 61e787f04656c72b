"""What a batch is. Fields are singular nouns; ``B`` rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

HELD_OUT = -1
"""The domain of a connector that has no class."""


class Transition(NamedTuple):
    """A batch of (s, a, r, s') with pixels."""

    image: Tensor
    """(B, 3, H, W) uint8, channels last in memory."""
    next_image: Tensor
    """(B, 3, H, W) uint8, channels last in memory."""
    state: Tensor
    """(B, S) float32"""
    next_state: Tensor
    """(B, S) float32"""
    action: Tensor
    """(B, A) float32 in [-1, 1]."""
    reward: Tensor
    """(B,) float32; describes ``next_image``."""
    terminated: Tensor
    """(B,) bool: nothing of worth can follow ``next_image`` (``TrajectoryStore.task_ended``); a trial that ran out of
    time bootstraps."""
    domain: Tensor
    """(B,) int64, -1 where the connector has no class."""


class FeatureBatch(NamedTuple):
    """A batch of (s, a, r, s') with frozen features in place of pixels."""

    feature: Tensor
    """(B, F) float32"""
    next_feature: Tensor
    """(B, F) float32"""
    action: Tensor
    """(B, A) float32 in [-1, 1]."""
    reward: Tensor
    """(B,) float32; describes ``next_feature``."""
    terminated: Tensor
    """(B,) bool"""
    domain: Tensor
    """(B,) int64, -1 where the connector has no class."""
    online: Tensor
    """(B,) bool: practised, not collected."""


class FrameBatch(NamedTuple):
    """A batch of labelled frames for the reward classifier."""

    image: Tensor
    """(B, 3, H, W) uint8, channels last in memory."""
    label: Tensor
    """(B,) bool: ground-truth success."""
    domain: Tensor
    """(B,) int64"""


@dataclass(frozen=True)
class FrameSampling:
    """What a batch of frames is made of, within each connector."""

    positive_share: float = 0.5
    """Share of successes in a batch (Sec. VI-B: half)."""
    near_share: float | None = None
    """Share of near misses among the negatives; None draws negatives as they come. A connector that lacks one kind
    gives the other."""
    beside_share: float | None = None
    """Share of failures pressed beside the hole among the negatives; needs recorded forces. The plug resting on the
    socket's face is what practice finds first (docs/reward.md)."""
    near_depth: float = 0.004
    """A near miss is within this of full depth, metres."""
    near_lateral: float = 0.003
    """A near miss is within this of the socket's axis, metres; beside is beyond."""
    beside_force: float = 2.0
    """A failure is pressed from this force on, newton."""

    def __post_init__(self) -> None:
        for name in ("positive_share", "near_share", "beside_share"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}: expected a share in [0, 1], got {value}")
        if (self.near_share or 0.0) + (self.beside_share or 0.0) > 1.0:
            raise ValueError(
                f"near_share {self.near_share} and beside_share {self.beside_share} are shares of the same negatives: "
                "they must not sum to more than 1"
            )
        for name in ("near_depth", "near_lateral", "beside_force"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)}")


def pressed_beside(
    label: NDArray[np.bool_],
    tip: NDArray[np.floating[Any]],
    force: NDArray[np.floating[Any]],
    sampling: FrameSampling | None = None,
) -> NDArray[np.bool_]:
    """Which frames (N,) show a plug that is pressed down beside the hole.

    Args:
        label: (N,) true success.
        tip: (N, 3) m, tip in the socket's frame.
        force: (N,) N.
        sampling: what beside and pressed mean.
    """
    sampling = sampling or FrameSampling()
    off_axis = np.linalg.norm(tip[:, :2], axis=1) > sampling.near_lateral
    return ~label & off_axis & (force >= sampling.beside_force)
