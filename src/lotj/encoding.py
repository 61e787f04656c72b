"""Frozen features of the offline data, computed once and kept in a file that is mapped (Sec. V-C: convolutions are
frozen in practice)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

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
from lotj.files import to_json
from lotj.offline import Known, content_of

BATCH = 128
"""Frames encoded at once: larger batches leave the processor's cache (``results/encoding.json``)."""


@dataclass(frozen=True)
class FeatureConfig:
    """The cache of frozen features of the offline data."""

    views: int = 1
    """Differently augmented versions of each frame."""
    augment: AugmentConfig | None = None
    """Of offline frames; None is the recipe's own (``RecipeConfig.frozen``)."""
    sources: tuple[str, ...] | None = None
    """Whose offline trajectories practice mixes in; None is the recipe's own choice (``RecipeConfig.frozen``)."""
    fit_images: int = 4096
    """Offline images that projections are fitted on."""
    seed: int = 0
    """Of the augmentation."""


class Cache(NamedTuple):
    """A file of features, and whose they are."""

    path: Path
    encoding: str
    """Tells the networks, and all else that decides what ``Learner.encode`` gives; another makes the file anew."""


def offline_features(
    learner: Learner,
    config: FeatureConfig,
    store: TrajectoryStore,
    known: Known,
    cache: Cache | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureBuffer:
    """Fit the learner's encoding on offline frames and encode them all, ``views`` times; reuse the cache where there is
    one.

    Args:
        learner: fitted here.
        config: views, augmentation, sources.
        store: the offline data.
        known: the split; only training connectors come in.
        cache: where to keep fit and features, for further practices with the same offline phase.
        progress: called with (frames encoded, frames in all).
    """
    dataset = _frames(store, known, config)
    about = "" if cache is None else _about(cache, config, dataset)
    feature = None if cache is None else _cached(learner, cache, about)
    if feature is None:
        rng = np.random.default_rng(config.seed)
        sample = np.sort(rng.choice(dataset.frames, min(config.fit_images, dataset.frames), replace=False))
        learner.fit(dataset.frame_images(rows) for rows in np.array_split(sample, max(1, len(sample) // 256)))
        feature = _encode_all(learner, dataset, config, None if cache is None else cache.path, progress)
        if cache is not None:
            # Written last: it says that the numbers are complete.
            save_state(cache.path, {"fit": learner.fit_state(), "about": about})
    return _fill(learner, dataset, torch.from_numpy(feature), config.views)


def is_cached(learner: Learner, config: FeatureConfig, store: TrajectoryStore, known: Known, cache: Cache) -> bool:
    """Whether ``offline_features`` would find these frames, as these networks encode them, in the cache."""
    dataset = _frames(store, known, config)
    return _cached(learner, cache, _about(cache, config, dataset)) is not None


def _frames(store: TrajectoryStore, known: Known, config: FeatureConfig) -> TransitionDataset:
    """What is encoded. Each image is read once at most, and none where there is a cache: they stay on the disk."""
    return TransitionDataset(store, known.train, sources=config.sources, preload=False)


def _about(cache: Cache, config: FeatureConfig, dataset: TransitionDataset) -> str:
    """What the cached features are of, as JSON: whose networks, how seen, which frames."""
    frames = hashlib.sha256(dataset.trajectories.astype("<i8").tobytes()).hexdigest()
    about = {"encoding": cache.encoding, "config": to_json(config), "trajectories": frames}
    content = content_of(dataset.store, dataset.trajectories)
    return json.dumps(about if content is None else {**about, "content": content})


def _cached(learner: Learner, cache: Cache, about: str) -> NDArray[np.float16] | None:
    """The features (frames, views, F) where the cache holds these, and the learner fitted as then; None elsewhere."""
    if not cache.path.exists():
        return None
    held = load_state(cache.path)
    if held.get("about") != about:
        return None
    learner.load_fit_state(held["fit"])
    feature: NDArray[np.float16] = np.load(cache.path.with_suffix(".npy"), mmap_mode="c")
    return feature


def _encode_all(
    learner: Learner,
    dataset: TransitionDataset,
    config: FeatureConfig,
    path: Path | None,
    progress: Callable[[int, int], None],
) -> NDArray[np.float16]:
    """(frames, views, F) of every frame of the data set; in a file beside the cache that is mapped, where there is one:
    at full scale they would not fit into memory. Two processes that encode at once each write a file of their own, and
    the last one's, which is the same, stays."""
    if config.augment is None:
        raise ValueError("FeatureConfig.augment is None: RecipeConfig.frozen knows the recipes' own")
    augment, generator = Augment(config.augment), torch.Generator().manual_seed(config.seed)
    shape = (dataset.frames, config.views, learner.feature_dim)
    feature: NDArray[np.float16]
    if path is None:
        feature = np.empty(shape, np.float16)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.npy")
        feature = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
    for rows in _chunks(dataset.frames, BATCH):
        image = dataset.frame_images(rows)
        for view in range(config.views):
            feature[rows[0] : rows[-1] + 1, view] = learner.encode(augment(image, generator)).cpu().half().numpy()
        progress(int(rows[-1]) + 1, dataset.frames)
    if path is not None:
        cast(np.memmap[Any, Any], feature).flush()
        path.unlink(missing_ok=True)
        os.replace(temporary, path.with_suffix(".npy"))
    return feature


def _fill(learner: Learner, dataset: TransitionDataset, feature: Tensor, views: int) -> FeatureBuffer:
    buffer = FeatureBuffer(dataset.frames, learner.feature_dim, learner.action_dim, views, feature=feature)
    index, ended = dataset.store.index, dataset.store.task_ended
    actions, rewards = dataset.store.actions, dataset.store.rewards
    for trajectory, domain in zip(dataset.trajectories.tolist(), dataset.domains.tolist()):
        length, offset = int(index.length[trajectory]), int(index.transition_offset[trajectory])
        rows = slice(offset, offset + length)
        buffer.add(None, torch.tensor(actions[rows]), torch.tensor(rewards[rows]), bool(ended[trajectory]), domain)
    return buffer


def _chunks(total: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, total, size):
        yield np.arange(start, min(start + size, total))
