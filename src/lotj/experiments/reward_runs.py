"""Reward classification on connectors that training never saw (Table IV, Sec. VI-B): draws, runs, scores.

A *case* is one network: a method, a draw of connectors, a seed. It is trained on its training connectors, calibrated on
its validation connectors and scored on its held-out ones; close variants are on one side of every draw, and the four
test connectors and their variants are in none unless a case names them. Each case leaves one result file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lotj.algos.calibration import auroc, sigmoid
from lotj.data.batches import pressed_beside
from lotj.data.store import TrajectoryStore
from lotj.experiments.reward_variants import View, train_members
from lotj.files import to_json, write_json
from lotj.nets.bottleneck import METHODS, BottleneckConfig
from lotj.offline import Known, PolicyStage, RewardStage
from lotj.provenance import provenance
from lotj.reward_validation import Classifier
from lotj.run import read_metrics
from lotj.sim.connectors import get_connector, load_catalogue
from lotj.sim.distance import barred_from_training
from lotj.types import later

BottledStage = TypeVar("BottledStage", RewardStage, PolicyStage)
"""The stages whose network has a bottleneck."""

DISTANCE_MM = (0.0, 1.0, 2.0, 4.0, 1000.0)
"""Edges of the intervals of missing depth that false positives are counted in; the last is open."""
TOLERANCE = 0.01
"""Share of a fixed number of training trajectories that may be missing."""


@dataclass(frozen=True)
class Draw:
    """Which connectors a case trains on, calibrates on and is scored on; no group is on two sides."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class RewardCase:
    """One network of an experiment."""

    name: str
    """Of its folder and its result file."""
    method: str
    """One of ``lotj.nets.bottleneck.METHODS``."""
    seed: int
    """Of weights and batches; the draw has its own."""
    draw: Draw
    """Connectors."""
    stage: RewardStage
    """Everything else about training."""
    trajectories: int | None = None
    """At most this many of each training connector; None takes all that were collected."""
    crop: float = 1.0
    """Share of the picture's side that is used, its middle: it is collected larger, and cut to the network's size."""
    before: int = later(0)
    """How many earlier frames are seen beside each, as if by more cameras."""
    members: int = later(1)
    """Networks, of other seeds, whose mean logit is the answer."""

    def __post_init__(self) -> None:
        cameras = self.stage.model.encoder.cameras
        if self.members < 1 or self.before < 0 or cameras % (1 + self.before):
            raise ValueError(
                f"RewardCase {self.name}: expected members of at least 1, and a multiple of 1 + before pictures, got "
                f"members {self.members}, before {self.before} and {cameras} pictures (encoder.cameras)"
            )

    @property
    def view(self) -> View:
        """What it sees."""
        encoder = self.stage.model.encoder
        cameras = encoder.cameras // (1 + self.before)
        return View(round(encoder.image_size / self.crop), encoder.image_size, cameras, self.before)


@dataclass(frozen=True)
class RewardTableConfig:
    """Table IV's protocol: several draws, every method on each."""

    methods: tuple[str, ...] = tuple(METHODS)
    """What is compared; all have the same budget and the same settings but for the bottleneck's."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """One draw of connectors and one training seed each."""
    train: int = 25
    """Training connectors (Sec. VI-B)."""
    validation: int = 5
    """Connectors for temperature and threshold; neither trained on nor scored."""
    held_out: int = 20
    """Connectors scored; the paper had 5."""
    stage: RewardStage = field(default_factory=RewardStage)
    """Network, augmentation, steps and sampling, the same for every method."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.methods) - set(METHODS)):
            raise ValueError(f"RewardTableConfig.methods: unknown {unknown}; expected some of {', '.join(METHODS)}")
        for name in ("train", "validation", "held_out"):
            if getattr(self, name) < 1:
                raise ValueError(f"RewardTableConfig.{name} must be at least 1, got {getattr(self, name)}")

    def cases(self) -> list[RewardCase]:
        """Every method on every draw; draw by draw, so that a part of the table compares methods already."""
        return [
            RewardCase(
                f"{method}-s{seed}",
                method,
                seed,
                draw_connectors(seed, self.train, self.validation, self.held_out),
                with_method(self.stage, method),
            )
            for seed in self.seeds
            for method in self.methods
        ]


def with_method(stage: BottledStage, method: str) -> BottledStage:
    """The stage with the bottleneck of one of Table IV's methods, sized and weighted like the stage's own."""
    base = stage.model.bottleneck
    kept = ("adversarial_warmup", "domain_hidden", "domain_learning_rate")
    changes: dict[str, Any] = {name: getattr(base, name) for name in kept}
    bottleneck = BottleneckConfig.of(method, base.dim, **changes)
    if bottleneck.adversarial_weight:
        bottleneck = replace(bottleneck, adversarial_weight=base.adversarial_weight)
    if bottleneck.kl_weight:
        bottleneck = replace(bottleneck, kl_weight=base.kl_weight)
    return replace(stage, model=replace(stage.model, bottleneck=bottleneck))


def drawable_connectors() -> list[str]:
    """Names of the catalogue but for the test connectors, their close variants and their twins in other families."""
    return [name for name in load_catalogue() if name not in barred_from_training()]


def draw_connectors(
    seed: int, train: int | None, validation: int, held_out: int, names: Sequence[str] | None = None
) -> Draw:
    """Draw the sides at random, whole groups at a time.

    A group that straddles the end of a side leaves it: its surplus variants are on no side.

    Args:
        seed: of the draw.
        train: training connectors, None for all that are left; fewer are the first of more.
        validation: validation connectors.
        held_out: connectors to be scored, drawn first: the same ones whatever ``train`` is.
        names: what to draw from; ``drawable_connectors()`` by default.

    Raises:
        ValueError: there are too few connectors.
    """
    connectors = [get_connector(name) for name in (names if names is not None else drawable_connectors())]
    groups: dict[str, list[str]] = {}
    for connector in connectors:
        groups.setdefault(connector.group, []).append(connector.name)
    order = np.random.default_rng([seed, 4]).permutation(sorted(groups))
    sides: list[tuple[str, ...]] = []
    place = 0
    for size in (held_out, validation, train):
        side: list[str] = []
        wanted = len(connectors) if size is None else size
        while len(side) < wanted and place < len(order):
            side += groups[str(order[place])][: wanted - len(side)]
            place += 1
        if size is not None and len(side) < size:
            raise ValueError(
                f"{held_out} + {validation} + {train} connectors were asked for, {len(connectors)} in "
                f"{len(groups)} groups are there to draw from; ask for fewer, or generate more"
            )
        sides.append(tuple(side))
    return Draw(train=sides[2], validation=sides[1], held_out=sides[0])


def run_case(
    case: RewardCase,
    store_path: Path,
    runs: Path,
    results: Path,
    progress: Callable[[int, int, Mapping[str, float]], None] = lambda done, total, metrics: None,
    training_path: Path | None = None,
) -> dict[str, Any]:
    """Train, calibrate and score one case, or read its result where it is done. Resumes after a kill.

    Args:
        case: what to run.
        store_path: the trajectories of all its connectors.
        runs: folder of the training runs.
        results: folder of the result files; ``<name>.json`` is written when the case is done. Under ``training`` it
            holds the last metrics of each network: what the encoding keeps (``kl``, nats) and hides (``domain_loss``).
        progress: called with (steps done, steps in all, metrics).
        training_path: the trajectories of the training connectors, where they are not in ``store_path``.

    Raises:
        ValueError: too few trajectories of the training connectors are stored.
    """
    with TrajectoryStore(store_path) as store, TrajectoryStore(training_path or store_path) as training:
        known = Known(case.draw.train, case.draw.validation)
        stage = replace(case.stage, trajectories=case.trajectories)
        trained_on = count_training(case, training)
        apart = store if training_path else None
        model, rule, validated = train_members(
            case.members, stage, training, known, runs / case.name, case.seed, progress, apart
        )
        cuts = {"half": 0.5, "balanced": validated["balanced_threshold"], "operating": rule.threshold}
        outcome = {
            "case": to_json(case),
            **provenance(),
            "collect": store.metadata.get("collect"),
            "collect_training": training.metadata.get("collect") if training_path else None,
            "trained_on": trained_on,
            "cuts": cuts,
            "frames": rule.frames,
            "validation": {key: validated[key] for key in ("accuracy", "accuracy_at_threshold", "auroc")},
            "training": [_last(path) for path in sorted((runs / case.name).rglob("metrics.jsonl"))],
            "connectors": [score(model, store, name, cuts) for name in case.draw.held_out],
        }
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / f"{case.name}.json", outcome)
    return outcome


def _last(metrics: Path) -> dict[str, float]:
    """The last metrics of a network but for the time, which is another in each run."""
    return {name: value for name, value in read_metrics(metrics.parent)[-1].items() if name != "seconds"}


def count_training(case: RewardCase, store: TrajectoryStore) -> int:
    """How many trajectories a case trains on: dislodged ones were discarded, so there may be fewer than were rolled.

    Raises:
        ValueError: the case says how many it needs of each connector, and more than 1% of the sum are missing.
    """
    stored = [int(np.count_nonzero(store.index.connector == name)) for name in case.draw.train]
    if case.trajectories is None:
        return sum(stored)
    found = sum(min(count, case.trajectories) for count in stored)
    wanted = case.trajectories * len(stored)
    if found < (1 - TOLERANCE) * wanted:
        fewest = int(np.argmin(stored))
        raise ValueError(
            f"{store.path} holds {found} of the {wanted} trajectories that {case.name} trains on "
            f"({stored[fewest]} of {case.draw.train[fewest]!r}, {case.trajectories} expected); collect more of each"
        )
    return found


def score(model: Classifier, store: TrajectoryStore, connector: str, cuts: Mapping[str, float]) -> dict[str, Any]:
    """Raw counts of one held-out connector, for all its frames and for those of the paper's scripted policy alone.

    Returns:
        ``name``, ``family``, and under ``all`` and ``expert`` the counts of ``count_frames``.
    """
    ids = np.flatnonzero(store.index.connector == connector)
    if not len(ids):
        raise ValueError(f"{store.path} holds no trajectory of {connector!r}; collect it first")
    trajectories = [store.read(int(i)) for i in ids]
    logit = np.concatenate([model.logit(trajectory.image) for trajectory in trajectories])
    label = np.concatenate([t.privileged["success"] for t in trajectories]).astype(bool)
    tip = np.concatenate([t.privileged["tip_in_socket"] for t in trajectories])
    force = np.concatenate([t.privileged["force"] for t in trajectories])
    expert = np.concatenate([np.full(len(t.image), t.source == "expert") for t in trajectories])
    probability = sigmoid(logit / model.logit_temperature)
    return {
        "name": connector,
        "family": get_connector(connector).family,
        "all": count_frames(probability, label, tip, force, cuts),
        "expert": count_frames(probability[expert], label[expert], tip[expert], force[expert], cuts),
    }


def count_frames(
    probability: NDArray[np.floating[Any]],
    label: NDArray[np.bool_],
    tip: NDArray[np.floating[Any]],
    force: NDArray[np.floating[Any]],
    cuts: Mapping[str, float],
) -> dict[str, Any]:
    """Counts that every figure of the table derives from.

    Args:
        probability: (N,) calibrated.
        label: (N,) true success.
        tip: (N, 3) m, tip in the socket's frame: z is the depth missing.
        force: (N,) N.
        cuts: thresholds by name.

    Returns:
        ``positives``, ``negatives``, ``auroc``; under each cut's name ``true_positives``, ``false_positives`` and
        ``by_distance``: false positives and negatives in each interval of ``DISTANCE_MM``, and ``beside``: the same of
        frames on which the plug is pressed beside the hole.
    """
    short = tip[:, 2] * 1e3
    beside = pressed_beside(label, tip, force)
    counts: dict[str, Any] = {
        "positives": int(label.sum()),
        "negatives": int((~label).sum()),
        "auroc": auroc(label, probability),
    }
    for name, threshold in cuts.items():
        fired = probability >= threshold
        by_distance = []
        for low, high in pairwise(DISTANCE_MM):
            # Below 0 mm the tip is deeper than nominal; a failure there is beside the axis.
            here = ~label & (short <= high) & ((short > low) | (low == 0.0))
            by_distance.append({"false_positives": int((fired & here).sum()), "negatives": int(here.sum())})
        counts[name] = {
            "true_positives": int((fired & label).sum()),
            "false_positives": int((fired & ~label).sum()),
            "by_distance": by_distance,
            "beside": {"false_positives": int((fired & beside).sum()), "negatives": int(beside.sum())},
        }
    return counts
