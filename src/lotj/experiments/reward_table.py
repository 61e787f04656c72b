"""Table IV from result files: means over draws with intervals, paired tests between methods, rates by distance.

A draw (one seed) is the unit: connectors scored by one network are not independent, so intervals and tests are over
draws. For every pair of methods the difference is taken draw by draw, which cancels how hard a draw is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

PAPER = {"daib": 0.88, "dann": 0.71, "daib-lambda-0": 0.77, "vib": 0.79, "erm": 0.76}
"""Table IV of the paper: mean accuracy over five held-out connectors."""
TITLES = {"daib": "DAIB", "dann": "DANN", "daib-lambda-0": "DAIB, λ = 0", "vib": "VIB", "erm": "ERM"}
DISTANCES = ("0-1 mm", "1-2 mm", "2-4 mm", "> 4 mm")


class Mean(NamedTuple):
    """A mean over draws and its 95% interval (Student's t)."""

    value: float
    low: float
    high: float
    draws: int


def mean_over_draws(values: Sequence[float]) -> Mean:
    """Mean and 95% interval; with one draw the interval is (nan, nan)."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return Mean(float(array.mean()), float("nan"), float("nan"), len(array))
    half = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return Mean(float(array.mean()), float(array.mean() - half), float(array.mean() + half), len(array))


class Paired(NamedTuple):
    """A comparison of two methods on the same draws."""

    difference: float
    """Mean of first minus second."""
    p_t: float
    """Paired t-test, two-sided; nan with fewer than two draws."""
    p_signs: float
    """Exact sign-flip test, two-sided: with n draws it cannot be below 2 / 2^n."""
    draws: int


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare two methods draw by draw."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    n = len(difference)
    if n < 2:
        return Paired(float(difference.mean()), float("nan"), float("nan"), n)
    signs = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1)
    flipped = np.abs(difference @ signs)
    p_signs = float(np.mean(flipped >= np.abs(difference.sum()) - 1e-12))
    p_t = float(stats.ttest_rel(first, second).pvalue) if np.ptp(difference) > 0 else float(not difference.any())
    return Paired(float(difference.mean()), p_t, p_signs, n)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All result files of ``lotj.experiments.reward_runs.run_case`` in a folder, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def figures(result: Mapping[str, Any], frames: str = "expert") -> dict[str, float]:
    """The figures of one network, each a mean over its held-out connectors.

    Args:
        result: a result file.
        frames: ``expert`` counts the paper's scripted policy alone, ``all`` slow insertions and wrong places too.

    Returns:
        ``accuracy`` at 0.5, at the ``balanced`` and at the ``operating`` threshold (balanced: each connector half
        positive, half negative), ``auroc``, ``true_positive_rate`` and false positive rates by distance at the
        operating threshold, the latter over all connectors' frames together.
    """
    rows = [row[frames] for row in result["connectors"]]
    values = {f"accuracy_{cut}": float(np.mean([_balanced(row, cut) for row in rows])) for cut in result["cuts"]}
    values["auroc"] = float(np.mean([row["auroc"] for row in rows]))
    operating = [row["operating"] for row in rows]
    values["true_positive_rate"] = float(
        np.mean([cut["true_positives"] / row["positives"] for cut, row in zip(operating, rows)])
    )
    for place, name in enumerate(DISTANCES):
        bins = [cut["by_distance"][place] for cut in operating]
        negatives = sum(one["negatives"] for one in bins)
        fired = sum(one["false_positives"] for one in bins)
        values[f"false {name}"] = fired / negatives if negatives else float("nan")
    far = [cut["by_distance"][place] for cut in operating for place in (2, 3)]
    beside = [cut["beside"] for cut in operating]
    pressed = sum(one["negatives"] for one in beside)
    values["false beside"] = sum(one["false_positives"] for one in beside) / pressed if pressed else float("nan")
    values["false > 2 mm"] = sum(one["false_positives"] for one in far) / max(1, sum(one["negatives"] for one in far))
    return values


def by_method(results: Sequence[Mapping[str, Any]], frames: str = "expert") -> dict[str, dict[int, dict[str, float]]]:
    """method -> seed -> ``figures``."""
    table: dict[str, dict[int, dict[str, float]]] = {}
    for result in results:
        case = result["case"]
        table.setdefault(case["method"], {})[case["seed"]] = figures(result, frames)
    return table


def table_iv(results: Sequence[Mapping[str, Any]], frames: str = "expert") -> str:
    """Table IV as markdown: a row for each method, best mean accuracy first."""
    columns = ("accuracy_half", "accuracy_balanced", "accuracy_operating", "auroc")
    head = ["method", "paper", "accuracy at 0.5", "at the balanced threshold", "at the operating threshold", "AUROC"]
    lines = [[*head, "draws"], ["---"] * (len(head) + 1)]
    for method, rows in _in_order(results, frames):
        cells = [TITLES.get(method, method), f"{PAPER[method]:.0%}" if method in PAPER else ""]
        cells += [show(_mean(rows, column)) for column in columns]
        lines.append([*cells, str(len(rows))])
    return markdown(lines)


def errors_table(results: Sequence[Mapping[str, Any]], frames: str = "expert") -> str:
    """What is wrong at the operating threshold, as markdown: successes missed; failures taken for successes by how
    short of full depth they are, with intervals; their share beyond 2 mm draw by draw. Methods as in ``table_iv``."""
    far = "> 2 mm"
    places = [*(f"false, {name}" for name in (*DISTANCES, far)), "false, pressed beside"]
    head = ["method", "missed", *places, f"false, {far}, by draw"]
    lines = [head, ["---"] * len(head)]
    for method, rows in _in_order(results, frames):
        missed = mean_over_draws([1 - row["true_positive_rate"] for row in rows.values()])
        each = ", ".join(f"{100 * row[f'false {far}']:.1f}" for _, row in sorted(rows.items()))
        cells = [_share(rows, f"false {name}") for name in (*DISTANCES, far, "beside")]
        lines.append([TITLES.get(method, method), _per_cent(missed), *cells, f"{each}%"])
    return markdown(lines)


def _in_order(results: Sequence[Mapping[str, Any]], frames: str) -> list[tuple[str, dict[int, dict[str, float]]]]:
    """Methods and their figures, best mean accuracy first."""
    return sorted(by_method(results, frames).items(), key=lambda item: -_mean(item[1], "accuracy_half").value)


def paired_tests(results: Sequence[Mapping[str, Any]], of: str, figure: str, frames: str = "expert") -> str:
    """Paired tests of one method against all others, as markdown."""
    methods = by_method(results, frames)
    lines = [[f"{TITLES.get(of, of)} against", "difference", "p, paired t", "p, sign flips", "draws"], ["---"] * 5]
    for other in sorted(set(methods) - {of}):
        seeds = sorted(set(methods[of]) & set(methods[other]))
        if seeds:
            test = paired(
                [methods[of][seed][figure] for seed in seeds], [methods[other][seed][figure] for seed in seeds]
            )
            cells = [f"{test.difference:+.3f}", f"{test.p_t:.3f}", f"{test.p_signs:.3f}", str(test.draws)]
            lines.append([TITLES.get(other, other), *cells])
    return markdown(lines)


def show(mean: Mean) -> str:
    """A share: ``.881 (.860-.902)``; its interval ends at 0 and 1."""
    if np.isnan(mean.low):
        return f"{mean.value:.3f}"
    return f"{mean.value:.3f} ({max(mean.low, 0.0):.3f}-{min(mean.high, 1.0):.3f})"


def _mean(rows: Mapping[int, Mapping[str, float]], figure: str) -> Mean:
    return mean_over_draws([row[figure] for row in rows.values()])


def _share(rows: Mapping[int, Mapping[str, float]], figure: str) -> str:
    """Per cent, over the draws that have such frames."""
    known = [row[figure] for row in rows.values() if not np.isnan(row[figure])]
    return _per_cent(mean_over_draws(known)) if known else "no frames"


def _per_cent(mean: Mean) -> str:
    """``1.2% (0.0-2.9%)``; its interval ends at 0 and 100."""
    if np.isnan(mean.low):
        return f"{mean.value:.1%}"
    low, high = max(mean.low, 0.0), min(mean.high, 1.0)
    return f"{mean.value:.1%} ({100 * low:.1f}-{100 * high:.1f}%)"


def _balanced(row: Mapping[str, Any], cut: str) -> float:
    hit = row[cut]["true_positives"] / row["positives"]
    return (hit + 1 - row[cut]["false_positives"] / row["negatives"]) / 2


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table of cells, header and rule included."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
