"""How well a reward model's probabilities can be trusted, and where to cut them.

Everything here is fitted on *validation connectors drawn from the training set*, never on the connector being
practised. Rates are averaged over connectors first (macro), so that a connector with many frames does not speak for the
others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import rankdata

SURE = 1e-6
"""Probabilities keep this distance from 0 and 1, so that a threshold above any score still lies within 1."""
LOG_TEMPERATURE_RANGE = (-4.0, 4.0)
"""Natural logarithm of the temperatures that ``fit_logit_temperature`` searches."""


class ReliabilityBin(NamedTuple):
    """One bar of a reliability diagram: predictions in [low, high), the last bin closed."""

    low: float
    high: float
    samples: int
    confidence: float
    """Mean predicted probability; nan in an empty bin."""
    frequency: float
    """Share of true labels; nan in an empty bin."""


def fit_logit_temperature(logit: ArrayLike, label: ArrayLike) -> float:
    """The temperature T > 0 that minimises the cross-entropy of sigmoid(logit / T) (Guo et al. 2017).

    Args:
        logit: (N,).
        label: (N,) 0 or 1, both present.
    """
    logit, label = _scores_and_labels(logit, label)
    sign = np.where(label, 1.0, -1.0)

    def cross_entropy(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -sign * logit / np.exp(log_temperature)).mean())

    found = minimize_scalar(cross_entropy, bounds=LOG_TEMPERATURE_RANGE, method="bounded")
    return float(np.exp(found.x))


def balanced_threshold(label: ArrayLike, probability: ArrayLike, connector: ArrayLike) -> float:
    """The threshold with the highest balanced accuracy, averaged over connectors.

    Args:
        label: (N,) 0 or 1.
        probability: (N,) in (0, 1).
        connector: (N,) names; those that lack a class do not count.
    """
    candidates = np.unique(np.quantile(np.asarray(probability, np.float64), np.linspace(0.0, 1.0, 401)))
    scores = [
        np.mean(list(balanced_accuracy(label, np.asarray(probability) >= candidate, connector).values()))
        for candidate in candidates
    ]
    best = np.flatnonzero(np.isclose(scores, np.max(scores)))
    # The middle of a plateau is the most stable choice on it.
    return float(candidates[best[len(best) // 2]])


def balanced_accuracy(label: ArrayLike, predicted: ArrayLike, connector: ArrayLike) -> dict[str, float]:
    """Mean of true positive and true negative rate, for each connector that has both classes."""
    label, predicted = np.asarray(label).astype(bool), np.asarray(predicted).astype(bool)
    connector = np.asarray(connector)
    result: dict[str, float] = {}
    for name in np.unique(connector):
        here = connector == name
        positive, negative = here & label, here & ~label
        if positive.any() and negative.any():
            result[str(name)] = float((predicted[positive].mean() + (~predicted[negative]).mean()) / 2)
    return result


def sigmoid(logit: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities in [``SURE``, 1 - ``SURE``] of logits, float64."""
    return np.clip(expit(np.asarray(logit, np.float64)), SURE, 1 - SURE)


def auroc(label: ArrayLike, score: ArrayLike) -> float:
    """Probability that a random positive scores above a random negative, ties counting half (rank statistic).

    Raises:
        ValueError: if a class is missing.
    """
    score, label = _scores_and_labels(score, label)
    ranks = rankdata(score)
    positives, negatives = int(label.sum()), int((~label).sum())
    return float((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def reliability(probability: ArrayLike, label: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Predicted against observed frequency in ``bins`` equal intervals of probability."""
    probability, label = np.asarray(probability, np.float64), np.asarray(label).astype(bool)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, bins - 1)
    rows = []
    for index in range(bins):
        here = place == index
        confidence = float(probability[here].mean()) if here.any() else float("nan")
        frequency = float(label[here].mean()) if here.any() else float("nan")
        rows.append(ReliabilityBin(edges[index], edges[index + 1], int(here.sum()), confidence, frequency))
    return rows


def expected_calibration_error(probability: ArrayLike, label: ArrayLike, bins: int = 10) -> float:
    """Mean distance between predicted and observed frequency over the bins of ``reliability``, by count."""
    rows = [row for row in reliability(probability, label, bins) if row.samples]
    total = sum(row.samples for row in rows)
    return sum(row.samples / total * abs(row.confidence - row.frequency) for row in rows)


def _scores_and_labels(score: ArrayLike, label: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    scores, labels = np.asarray(score, np.float64), np.asarray(label).astype(bool)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"scores and labels must both be (N,), got {scores.shape} and {labels.shape}")
    if labels.all() or not labels.any():
        raise ValueError(f"both classes must be present, got {int(labels.sum())} positives in {len(labels)}")
    return scores, labels
