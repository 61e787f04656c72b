"""The interface of a recipe that practises over frozen features, and the helpers that recipes share (Sec. V-C).

The life of a learner::

    learner.fit(images)                 # whatever ``encode`` needs, from a sample of offline images; often nothing
    offline.append(learner.encode(...)) # every offline frame and view, once
    learner.prepare(offline)            # whatever precedes practice, e.g. warming critics up
    for each trial:
        learner.reset(); learner.act_on(learner.encode(image), rng, explore=True) ...
        learner.remember_success(...)   # only where the robot rewarded itself
        learner.update(batch) ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lotj.types import Observation


class Batch(Protocol):
    """What an update reads: ``lotj.data.replay.FeatureBatch``, named here by shape: algorithms do not import data."""

    @property
    def feature(self) -> Tensor: ...  # (B, F) float32
    @property
    def next_feature(self) -> Tensor: ...  # (B, F) float32
    @property
    def action(self) -> Tensor: ...  # (B, A) in [-1, 1]
    @property
    def reward(self) -> Tensor: ...  # (B,) float32, describes next_feature
    @property
    def terminated(self) -> Tensor: ...  # (B,) bool; a timeout is not one
    @property
    def domain(self) -> Tensor: ...  # (B,) int64, -1 = no class
    @property
    def online(self) -> Tensor: ...  # (B,) bool


class Samples(Protocol):
    """Somewhere to draw batches from: ``lotj.data.replay.FeatureBuffer``."""

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        """Draw transitions uniformly, with replacement."""
        ...


class Learner(Protocol):
    """A recipe of practice. It is a ``lotj.types.Policy`` that improves."""

    name: str
    """The recipe; every output names it."""
    feature_dim: int
    """F, the length of an encoded frame; final once ``fit`` has run."""
    action_dim: int

    def fit(self, images: Iterable[Tensor]) -> dict[str, float]:
        """Fit what ``encode`` needs, from batches (B, 3, H, W) uint8 of offline images; often nothing: {}."""
        ...

    def fit_state(self) -> dict[str, Any]:
        """What ``fit`` found, so that several practices over the same offline data need to fit and encode it once."""
        ...

    def load_fit_state(self, state: Mapping[str, Any]) -> None:
        """Take the place of ``fit``."""

    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) uint8 to (B, F) float32: frozen, deterministic, computed once for each frame."""
        ...

    def prepare(self, offline: Samples) -> dict[str, float]:
        """Do once what precedes practice, from encoded offline data; return metrics."""
        ...

    def reset(self) -> None:
        """Called once before each trial."""

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """``act_on(encode(image))`` for one observation."""
        ...

    def act_on(self, feature: Tensor, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """Action (A,) in [-1, 1] for one encoded frame (1, F); deterministic unless ``explore``."""
        ...

    def remember_success(self, feature: Tensor, action: Tensor) -> None:
        """Take note of a trial that the robot rewarded: ``feature`` (T, F), ``action`` (T, A). Recipes may imitate it
        or ignore it.

        What is remembered is not part of ``state_dict``: a resumed practice tells it again, in order.
        """

    def update(self, batch: Batch) -> dict[str, float]:
        """Take one gradient step; return metrics."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that practice changes or ``fit`` found, random generators included, for ``lotj.checkpoint.save_state``.

        A resumed run continues exactly.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""


def image_to_batch(image: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """One image (H, W, 3) uint8 as a batch (1, 3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).unsqueeze(0).to(device)


class DeviceBatch(NamedTuple):
    """A ``Batch`` on a learner's device."""

    feature: Tensor
    next_feature: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    domain: Tensor
    online: Tensor


def batch_to(batch: Batch, device: torch.device) -> DeviceBatch:
    """Move a batch; free where it is there already."""
    return DeviceBatch(*(getattr(batch, name).to(device) for name in DeviceBatch._fields))


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, discount: float) -> Tensor:
    """Eq. 1's target r + γ V(s') (B,); only ``terminated`` stops the bootstrap, a timeout does not."""
    return reward + discount * next_value * (~terminated).to(reward.dtype)


def ema_update(target: Sequence[Tensor], source: Sequence[Tensor], target_rate: float) -> None:
    """Move the target in place: target ← (1 − target_rate) · target + target_rate · source."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target), list(source), target_rate)


def freeze(module: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients: frozen convolutions freeze their normalisation statistics too."""
    module.eval()
    return module.requires_grad_(False)
