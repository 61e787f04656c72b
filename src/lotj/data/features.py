"""Frozen features of whole trajectories: what practice draws its batches from (Sec. V-C)."""

from __future__ import annotations

import torch
from torch import Tensor

from lotj.data.batches import HELD_OUT, FeatureBatch


class FeatureBuffer:
    """Features of whole trajectories in memory: each frame is there once, a transition is a pair of neighbours.

    It only grows; nothing is overwritten.

    Args:
        capacity: Frames that fit.
        feature_dim: F.
        action_dim: A.
        views: Versions of each frame (augmented differently), of which a draw picks one.
        dtype: ``torch.float16`` halves the memory; batches are float32 either way.
        feature: (capacity, views, F) that holds all features already, for example mapped from a file; they are then not
            given to `add`, and nothing is copied.
    """

    def __init__(
        self,
        capacity: int,
        feature_dim: int,
        action_dim: int,
        views: int = 1,
        dtype: torch.dtype = torch.float32,
        feature: Tensor | None = None,
    ) -> None:
        for name, value in (("capacity", capacity), ("feature_dim", feature_dim), ("views", views)):
            if value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
        self.capacity, self.views, self.frames = capacity, views, 0
        self._length = 0
        self._filled = feature is not None
        if feature is not None and feature.shape != (capacity, views, feature_dim):
            raise ValueError(f"feature: expected {(capacity, views, feature_dim)}, got {tuple(feature.shape)}")
        self._feature = torch.empty(capacity, views, feature_dim, dtype=dtype) if feature is None else feature
        self._first = torch.empty(capacity, dtype=torch.int64)
        self._action = torch.empty(capacity, action_dim)
        self._reward = torch.empty(capacity)
        self._terminated = torch.empty(capacity, dtype=torch.bool)
        self._domain = torch.empty(capacity, dtype=torch.int64)

    def __len__(self) -> int:
        """Number of transitions."""
        return self._length

    @property
    def features(self) -> Tensor:
        """(frames, views, F), as stored."""
        return self._feature[: self.frames]

    def add(
        self, feature: Tensor | None, action: Tensor, reward: Tensor, terminated: bool, domain: int = HELD_OUT
    ) -> None:
        """Take in a trajectory of T transitions.

        Args:
            feature: (T + 1, F), or (views, T + 1, F); None where the buffer was made with all features.
            action: (T, A).
            reward: (T,), ``reward[t]`` describes frame t + 1.
            terminated: The last transition ended the task.
            domain: Of its connector; -1 for a held-out one.

        Raises:
            ValueError: Shapes do not fit, or the buffer is full.
        """
        length = len(action)
        if (feature is None) != self._filled:
            raise ValueError("feature: expected None exactly where the buffer was made with all features")
        if feature is None:
            feature = self._feature[self.frames : self.frames + length + 1].transpose(0, 1)
        feature = feature[None] if feature.ndim == 2 else feature
        expected = (self.views, length + 1, self._feature.shape[2])
        if feature.shape != expected or reward.shape != (length,) or action.shape[1:] != self._action.shape[1:]:
            got = f"{tuple(feature.shape)}, {tuple(action.shape)}, {tuple(reward.shape)}"
            raise ValueError(f"feature, action, reward: expected {expected}, (T, A) and (T,), got {got}")
        if self.frames + length + 1 > self.capacity:
            raise ValueError(
                f"capacity: {self.capacity} frames hold {self.frames}, so {length + 1} more do not fit; "
                "make it trials x (horizon + 1)"
            )
        frames, rows = slice(self.frames, self.frames + length + 1), slice(self._length, self._length + length)
        if not self._filled:
            self._feature[frames] = feature.detach().transpose(0, 1).to(self._feature)
        self._first[rows] = torch.arange(self.frames, self.frames + length)
        self._action[rows] = action
        self._reward[rows] = reward
        self._terminated[rows] = torch.arange(length) == (length - 1 if terminated else length)
        self._domain[rows] = domain
        self.frames += length + 1
        self._length += length

    def sample(self, batch: int, generator: torch.Generator) -> FeatureBatch:
        """Draw transitions uniformly, with replacement: the rows that `TransitionDataset.sample` draws."""
        rows = torch.randint(self._length, (batch,), generator=generator)
        place = self._first[rows] * self.views
        view = (
            torch.randint(self.views, (2, batch), generator=generator) if self.views > 1 else torch.zeros(2, 1).long()
        )
        flat = self._feature.view(-1, self._feature.shape[2])
        return FeatureBatch(
            feature=flat[place + view[0]].float(),
            next_feature=flat[place + self.views + view[1]].float(),
            action=self._action[rows],
            reward=self._reward[rows],
            terminated=self._terminated[rows],
            domain=self._domain[rows],
            online=torch.zeros(batch, dtype=torch.bool),
        )
