"""What the robot keeps of its own trials: every frame stored once and encoded once, by the encoding it acted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotj.algos.learner import Learner, image_to_batch
from lotj.data.augment import Augment
from lotj.data.features import FeatureBuffer
from lotj.data.store import TrajectoryStore
from lotj.types import Observation, Trajectory


class EncodingPolicy:
    """The learner as it acts in a trial, keeping each frame's encoding so that it is computed once."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._features: list[Tensor] = []

    def reset(self) -> None:
        """Begin a trial."""
        self._features = []
        self._learner.reset()

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """Encode the image, remember that, act on it."""
        self._features.append(encode_frame(self._learner, observation["image"]))
        return self._learner.act_on(self._features[-1], rng, explore)

    def features(self, trajectory: Trajectory) -> Tensor:
        """Encodings (T + 1, F) of the trial just made; its last frame, on which nobody acted, is encoded now."""
        assert len(self._features) == len(trajectory)
        return torch.cat([*self._features, encode_frame(self._learner, trajectory.image[-1])])


def encode_frame(learner: Learner, image: NDArray[np.uint8]) -> Tensor:
    """Encoding (1, F) of one image (H, W, 3). Always a batch of one, since rounding may differ between batch sizes."""
    return learner.encode(image_to_batch(image))


class OnlineMemory:
    """The robot's own trials: whole in a store, encoded in ``buffer``, and the rewarded ones told to the learner.

    Args:
        path: of the store.
        learner: encodes frames.
        capacity: frames that the buffer holds.
        views: augmented versions kept of each frame, beside the frame itself.
        augment: how they are augmented; None where there are none.
    """

    def __init__(
        self, path: Path, learner: Learner, capacity: int, views: int = 0, augment: Augment | None = None
    ) -> None:
        self._path = path
        self._learner = learner
        self._capacity = capacity
        self._views, self._augment = views, augment
        self._store: TrajectoryStore | None = None

    def __enter__(self) -> OnlineMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store.close()

    def restore(self, trials: int, learned: Callable[[int, Trajectory], Trajectory | None] | None = None) -> None:
        """Take up the first ``trials`` stored trials by encoding them again, and drop later ones from the file.

        Must be called before anything else, once the learner can encode.

        Args:
            trials: how many.
            learned: what is to be learned from trial ``number`` (from 1) as it is stored: that, another label, or None
                for nothing; all of them as they are by default.
        """
        self._store = TrajectoryStore(self._path, mode="a")
        self._store.truncate(trials)
        self.buffer = FeatureBuffer(
            self._capacity, self._learner.feature_dim, self._learner.action_dim, self._views + 1
        )
        for index in range(trials):
            stored = self._store.read(index)
            trajectory = stored if learned is None else learned(index + 1, stored)
            if trajectory is not None:
                features = torch.cat([encode_frame(self._learner, image) for image in trajectory.image])
                self._remember(trajectory, features)

    def append(self, trajectory: Trajectory, features: Tensor, *, learn: bool = True) -> None:
        """Keep a trial: ``features`` (T + 1, F) of its frames; ``learn=False`` stores it and learns nothing from it."""
        assert self._store is not None
        self._store.append(trajectory)
        if learn:
            self._remember(trajectory, features)

    def _remember(self, trajectory: Trajectory, features: Tensor) -> None:
        action, reward = torch.from_numpy(trajectory.action), torch.from_numpy(trajectory.reward)
        views = torch.stack([features, *self._augmented(trajectory)])  # (views + 1, T + 1, F)
        self.buffer.add(views, action, reward, _ended(trajectory))
        if trajectory.terminated:
            self._learner.remember_success(views[:, :-1].flatten(0, 1), action.repeat(len(views), 1))

    def _augmented(self, trajectory: Trajectory) -> Iterator[Tensor]:
        """Encodings (T + 1, F) of each version of a trial's frames, the same whenever it is taken up again."""
        generator = torch.Generator().manual_seed(trajectory.seed)
        image = torch.from_numpy(trajectory.image).permute(0, 3, 1, 2)
        for _ in range(self._views):
            assert self._augment is not None
            yield self._learner.encode(self._augment(image, generator))


def _ended(trajectory: Trajectory) -> bool:
    """Whether nothing of worth can follow a trial's last image: success was claimed there, also where that was refuted,
    or the plug was lost from the fingers. A trial that only ran out of time could have gone on. Offline data has the
    same rule (``TrajectoryStore.task_ended``), but for refuted claims, a mark that ``--keep`` does not carry over."""
    lost = (trajectory.privileged.get(key, False) for key in ("refuted", "dislodged"))
    return trajectory.terminated or any(bool(np.any(flags)) for flags in lost)
