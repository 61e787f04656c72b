"""What some levers need beside settings: pictures made of others, and several networks that answer as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lotj.algos.reward import RewardModel
from lotj.data.store import TrajectoryStore
from lotj.files import lock, write_json
from lotj.judge import SuccessRule
from lotj.offline import Known, Progress, RewardStage, train_reward
from lotj.reward_validation import Classifier, calibrate
from lotj.seeds import stream_seed


class View(NamedTuple):
    """What a case sees; cases with the same view share a store."""

    collected_px: int
    """Side of the picture as it was collected."""
    px: int
    """Side of its middle, which is seen."""
    cameras: int
    """Whose pictures stand side by side."""
    before: int
    """How many earlier frames stand beside each."""

    @property
    def is_as_collected(self) -> bool:
        """Nothing to be cut out or to be put beside."""
        return self.px == self.collected_px and not self.before


def derive_store(
    source: Path, path: Path, view: View, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Copy a store with the pictures of a view; continues a copy that was begun.

    Args:
        source: the trajectories as they were collected.
        path: the copy.
        view: the middle of each camera's picture is taken, and the frames before it are put to its right, the latest
            first. Before the first frame of a trajectory there was nothing else than that frame.
        progress: called with (trajectories done, in all).

    Raises:
        BusyError: another process makes the same copy.
        ValueError: the copy that is there is of another collection.
    """
    with (
        lock(path.with_suffix(".lock")),
        TrajectoryStore(source) as store,
        TrajectoryStore(path, mode="a") as derived,
    ):
        edge = (store.shape.height - view.px) // 2
        middle = slice(edge, edge + view.px)
        of = {key: store.metadata[key] for key in ("connectors", "action_scale", "provenance", "collect")}
        held = {key: derived.metadata.get(key, value) for key, value in of.items()}
        if held != of or len(derived) > len(store):
            raise ValueError(f"{path} was made of another {source.name} than is there now; delete it to make it anew")
        for key, value in of.items():
            derived.set_metadata(key, value)
        for index in range(len(derived), len(store)):
            trajectory = store.read(index)
            pictures = np.split(trajectory.image, store.shape.cameras, axis=2)
            image = np.concatenate([picture[:, middle, middle] for picture in pictures], axis=2)
            at = np.arange(len(image))
            seen = [image[np.maximum(at - back, 0)] for back in range(view.before + 1)]
            derived.append(replace(trajectory, image=np.concatenate(seen, axis=2)))
            progress(index + 1, len(store))


class Ensemble:
    """Several reward models as one: the mean of their calibrated logits.

    Args:
        members: of whatever seeds.
    """

    def __init__(self, members: Sequence[RewardModel]) -> None:
        self.members = tuple(members)
        self.logit_temperature = 1.0
        self.threshold = 0.5

    def logit(self, image: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """(B,) of camera images (B, H, W, 3) uint8."""
        return np.mean([member.logit(image) / member.logit_temperature for member in self.members], axis=0)


def train_members(
    members: int,
    stage: RewardStage,
    store: TrajectoryStore,
    known: Known,
    folder: Path,
    seed: int,
    progress: Progress,
    validation_store: TrajectoryStore | None,
) -> tuple[Classifier, SuccessRule, Mapping[str, Any]]:
    """Train one network, or several of other seeds as an `Ensemble`, with its rule and what validation says of it.

    Args:
        members: how many; each of several has a folder of its own in ``folder``, and resumes there.
        stage: as for `lotj.offline.train_reward`, and so are the others.
        store: to train on.
        known: the split.
        folder: of the run.
        seed: of the one; those of several follow from it.
        progress: of each.
        validation_store: where the validation connectors are, if they are not in ``store``.
    """
    if members == 1:
        model, rule = train_reward(stage, store, known, folder, seed, progress, validation_store)
        return model, rule, json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    trained = []
    for member in range(members):
        own = stream_seed(seed, "member", str(member))
        trained.append(train_reward(stage, store, known, folder / str(member), own, progress, validation_store)[0])
    calibration = validation_store or store
    ensemble, rule, evaluation = calibrate(Ensemble(trained), calibration, known.validation, stage.false_fire_limit)
    write_json(folder / "evaluation.json", evaluation)
    return ensemble, rule, evaluation
