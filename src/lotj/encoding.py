"""Frozen features of the offline data, computed once and kept in a file that is mapped (Sec. V-C: convolutions are
frozen in practice)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotj.algos.learner import Learner
from lotj.checkpoint import load_state, save_state
from lotj.data.augment import Augment, AugmentConfig
from lotj.data.features import FeatureBuffer
from lotj.data.replay import TransitionDataset
from lotj.data.store import TrajectoryStore
from lotj.offline import Known


@dataclass(frozen=True)
class FeatureConfig:
    """The cache of frozen features of the offline data."""

    views: int = 1
    """Differently augmented versions of each frame."""
    augment: AugmentConfig = AugmentConfig()
    """Offline frames are augmented, online ones never (Sec. V-C)."""
    sources: tuple[str, ...] = ("expert",)
    """Which offline trajectories practice mixes in: those worth imitating."""
    fit_images: int = 4096
    """Offline images that projections are fitted on."""
    seed: int = 0
    """Of the augmentation."""


def offline_features(
    learner: Learner,
    config: FeatureConfig,
    store: TrajectoryStore,
    known: Known,
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureBuffer:
    """Fit the learner's encoding on offline frames and encode them all, ``views`` times; reuse the cache where there is
    one.

    Args:
        learner: fitted here.
        config: views, augmentation, sources.
        store: the offline data.
        known: the split; only training connectors come in.
        cache: file to keep fit and features in, for further practices with the same offline phase.
        progress: called with (frames encoded, frames in all).
    """
    dataset = TransitionDataset(store, known.train, sources=config.sources)
    numbers = cache.with_suffix(".npy") if cache is not None else None
    if cache is not None and numbers is not None and cache.exists():
        learner.load_fit_state(load_state(cache)["fit"])
        feature = np.load(numbers, mmap_mode="c")
    else:
        rng = np.random.default_rng(config.seed)
        sample = np.sort(rng.choice(dataset.frames, min(config.fit_images, dataset.frames), replace=False))
        learner.fit(dataset.frame_images(rows) for rows in np.array_split(sample, max(1, len(sample) // 256)))
        feature = _encode_all(learner, dataset, config, numbers, progress)
        if cache is not None:
            # Written last: it says that the numbers are complete.
            save_state(cache, {"fit": learner.fit_state()})
    return _fill(learner, dataset, torch.from_numpy(feature), config.views)


def _encode_all(
    learner: Learner,
    dataset: TransitionDataset,
    config: FeatureConfig,
    path: Path | None,
    progress: Callable[[int, int], None],
) -> NDArray[np.float16]:
    """(frames, views, F) of every frame of the data set; in a file that is mapped, where there is a path: at full scale
    they would not fit into memory."""
    augment, generator = Augment(config.augment), torch.Generator().manual_seed(config.seed)
    shape = (dataset.frames, config.views, learner.feature_dim)
    feature: NDArray[np.float16]
    if path is None:
        feature = np.empty(shape, np.float16)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        feature = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    for rows in _chunks(dataset.frames, 512):
        image = dataset.frame_images(rows)
        for view in range(config.views):
            feature[rows[0] : rows[-1] + 1, view] = learner.encode(augment(image, generator)).cpu().half().numpy()
        progress(int(rows[-1]) + 1, dataset.frames)
    if isinstance(feature, np.memmap):
        feature.flush()
    return feature


def _fill(learner: Learner, dataset: TransitionDataset, feature: Tensor, views: int) -> FeatureBuffer:
    buffer = FeatureBuffer(dataset.frames, learner.feature_dim, learner.action_dim, views, feature=feature)
    index = dataset.store.index
    actions, rewards = dataset.store.actions, dataset.store.rewards
    for trajectory, domain in zip(dataset.trajectories.tolist(), dataset.domains.tolist()):
        length, offset = int(index.length[trajectory]), int(index.transition_offset[trajectory])
        rows = slice(offset, offset + length)
        terminated = bool(index.terminated[trajectory])
        buffer.add(None, torch.tensor(actions[rows]), torch.tensor(rewards[rows]), terminated, domain)
    return buffer


def _chunks(total: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, total, size):
        yield np.arange(start, min(start + size, total))
