"""A trained reward model on validation connectors: its temperature, what pays and ends a trial, and how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lotj.algos.calibration import (
    auroc,
    balanced_accuracy,
    balanced_threshold,
    expected_calibration_error,
    fit_logit_temperature,
    reliability,
    sigmoid,
)
from lotj.data.batches import pressed_beside
from lotj.data.store import TrajectoryStore
from lotj.judge import SuccessRule, choose_rule
from lotj.types import Trajectory


class Classifier(Protocol):
    """What can be calibrated: a ``RewardModel``, or several as one."""

    logit_temperature: float
    threshold: float

    def logit(self, image: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """Raw logit (B,) of camera images (B, H, W, 3) uint8."""


ClassifierT = TypeVar("ClassifierT", bound=Classifier)


def calibrate(
    model: ClassifierT, store: TrajectoryStore, validation: Sequence[str], false_fire_limit: float
) -> tuple[ClassifierT, SuccessRule, dict[str, Any]]:
    """Fit temperature and rule on validation connectors; none of it looks at a held-out one.

    Returns:
        The calibrated model, the rule, and the evaluation (accuracy, AUROC, reliability, rates by distance, the rule's
        table).
    """
    ids = np.flatnonzero(np.isin(store.index.connector, list(validation)))
    if not len(ids):
        raise ValueError(f"the store has no trajectories of the validation connectors {list(validation)}; collect them")
    trajectories, logits = [], []
    for i in ids:
        trajectory = store.read(int(i))
        logits.append(model.logit(trajectory.image))
        # At full scale the images of all validation trajectories would not fit into memory.
        trajectories.append(replace(trajectory, image=trajectory.image[:0]))
    label = np.concatenate([t.privileged["success"] for t in trajectories]).astype(bool)
    connector = np.concatenate([[t.connector] * (len(t) + 1) for t in trajectories])
    short = np.concatenate([_tip(t)[:, 2] for t in trajectories])
    flat = np.concatenate(logits)
    weight = _rebalanced(label, connector)
    model.logit_temperature = fit_logit_temperature(flat[weight], label[weight])
    probabilities = [sigmoid(logit / model.logit_temperature) for logit in logits]
    choice = choose_rule(trajectories, probabilities, false_fire_limit=false_fire_limit)
    model.threshold = choice.rule.threshold
    probability = np.concatenate(probabilities)
    by_connector = balanced_accuracy(label, probability >= 0.5, connector)
    at_threshold = balanced_accuracy(label, probability >= choice.rule.threshold, connector)
    evaluation = {
        "connectors": sorted(by_connector),
        "frames": choice.rule.frames,
        "threshold": choice.rule.threshold,
        "balanced_threshold": balanced_threshold(label, probability, connector),
        "logit_temperature": model.logit_temperature,
        "accuracy": float(np.mean(list(by_connector.values()))),
        "accuracy_by_connector": by_connector,
        "accuracy_at_threshold": float(np.mean(list(at_threshold.values()))),
        "auroc": float(np.mean([auroc(label[connector == c], flat[connector == c]) for c in by_connector])),
        "calibration_error": expected_calibration_error(probability[weight], label[weight]),
        "reliability": [row._asdict() for row in reliability(probability[weight], label[weight])],
        "rates_by_distance": _rates_by_distance(probability >= choice.rule.threshold, label, short),
        "pressed_beside": _rate_beside(probability >= choice.rule.threshold, label, trajectories),
        "rule": choice.as_json(),
    }
    return model, choice.rule, evaluation


def _rebalanced(label: np.ndarray, connector: np.ndarray) -> np.ndarray:
    """Rows, drawn without randomness, with as many positives as negatives within each connector.

    Raises:
        ValueError: no connector has both.
    """
    rows = []
    for name in np.unique(connector):
        positive, negative = (np.flatnonzero((connector == name) & (label == value)) for value in (True, False))
        size = min(len(positive), len(negative))
        rows += [part[np.linspace(0, len(part) - 1, size).astype(int)] for part in (positive, negative) if size]
    if not rows:
        seen = ", ".join(f"{name}: {int(label[connector == name].sum())}" for name in np.unique(connector))
        raise ValueError(
            f"no validation connector has both successes and failures (successes among its frames: {seen}), so nothing "
            "can be calibrated; collect more trajectories of each, or name others"
        )
    return np.concatenate(rows)


def _rate_beside(fired: np.ndarray, label: np.ndarray, trajectories: Sequence[Trajectory]) -> dict[str, int] | None:
    """How often frames fire on which the plug is pressed beside the hole; None where this was not recorded."""
    if not all({"force", "tip_in_socket"} <= set(trajectory.privileged) for trajectory in trajectories):
        return None
    tip = np.concatenate([_tip(trajectory) for trajectory in trajectories])
    force = np.concatenate([trajectory.privileged["force"] for trajectory in trajectories])
    here = pressed_beside(label, tip, force)
    return {"frames": int(here.sum()), "fired": int(fired[here].sum())}


def _tip(trajectory: Trajectory) -> np.ndarray:
    """(T + 1, 3) m, NaN where the cell does not know it."""
    known = trajectory.privileged.get("tip_in_socket")
    return np.full((len(trajectory) + 1, 3), np.nan, np.float32) if known is None else np.asarray(known)


def _rates_by_distance(fired: np.ndarray, label: np.ndarray, short: np.ndarray) -> list[dict[str, float | int]]:
    """How often frames fire, split by the depth still missing (millimetres); the first row is true successes."""
    rows: list[dict[str, float | int]] = [
        {"from_mm": 0.0, "to_mm": 0.0, "frames": int(label.sum()), "fired": int(fired[label].sum())}
    ]
    for low, high in ((0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 1000.0)):
        here = ~label & (short * 1e3 > low) & (short * 1e3 <= high)
        rows.append({"from_mm": low, "to_mm": high, "frames": int(here.sum()), "fired": int(fired[here].sum())})
    return rows
