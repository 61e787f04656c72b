"""The reward model over the number of training connectors, from result files: a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lotj.experiments.pictures import COLOURS, draw_once, new_figure
from lotj.experiments.reward_connectors import is_generated
from lotj.experiments.reward_table import Mean, by_method, markdown, mean_over_draws, paired, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_RESULTS = "No results yet: `lotj tables connectors` writes them.\n"
PICTURE = "img/reward-connectors.png"
"""Where the curve is, from the folder of the documentation."""
PAPER = {25: "the paper's reward model", 50: "the paper's policy"}
"""Training connectors that the paper used, and for what."""
CURVES = {"auroc": "AUROC", "accuracy_balanced": "accuracy, balanced threshold", "accuracy_half": "accuracy at 0.5"}
"""What the picture shows."""
COLUMNS = ("accuracy_half", "accuracy_balanced", "auroc", "true_positive_rate", "false > 2 mm", "false beside")


class Point(NamedTuple):
    """One number of training connectors."""

    connectors: int
    generated: tuple[int, int]
    """How many of them are generated: fewest and most of all draws."""
    trajectories: int
    """Of each connector."""
    draws: Mapping[int, Mapping[str, float]]
    """seed -> ``reward_table.figures``."""

    @property
    def control(self) -> bool:
        """Whether all of its connectors are generated."""
        return self.generated[0] == self.connectors

    def mean(self, figure: str) -> Mean:
        """A figure over the draws."""
        return mean_over_draws([draw[figure] for draw in self.draws.values()])


def points(results: Sequence[Mapping[str, Any]], frames: str = "all") -> list[Point]:
    """The rows of the table, by number of connectors, a control after the catalogue's.

    Args:
        results: result files of ``lotj tables connectors``.
        frames: as in ``reward_table.figures``.
    """
    found = []
    for label, draws in by_method(results, frames).items():
        cases = [result["case"] for result in results if result["case"]["method"] == label]
        generated = [sum(map(is_generated, case["draw"]["train"])) for case in cases]
        size = len(cases[0]["draw"]["train"])
        found.append(Point(size, (min(generated), max(generated)), cases[0]["trajectories"], draws))
    return sorted(found, key=lambda point: (point.connectors, point.control))


def connectors_table(results: Sequence[Mapping[str, Any]], frames: str = "all") -> str:
    """A row for each number of training connectors as markdown, or a line that says that there are no results."""
    rows = points(results, frames)
    if not rows:
        return NO_RESULTS
    head = ["training connectors", "generated", "trajectories of each", "accuracy at 0.5", "at the balanced threshold"]
    head += ["AUROC", "true positives", "false, > 2 mm short", "false, pressed beside", "draws", ""]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        fewest, most = row.generated
        cells = [str(row.connectors), str(most) if fewest == most else f"{fewest}-{most}", str(row.trajectories)]
        cells += [show(row.mean(column)) for column in COLUMNS]
        lines.append([*cells, str(len(row.draws)), _label(row, rows)])
    return markdown(lines)


def curve_picture(results: Sequence[Mapping[str, Any]], path: Path, frames: str = "all") -> bool:
    """Draw AUROC and accuracies over the number of training connectors, with intervals over draws.

    Returns:
        Whether it was drawn.
    """
    rows = points(results, frames)
    shown = [(row.connectors, row.control, [row.mean(figure) for figure in CURVES]) for row in rows]
    return draw_once(path, shown, lambda: _curves(rows))


def _curves(rows: Sequence[Point]) -> Figure:
    figure, axis = new_figure(6.4, 4.0)
    for place, (name, colour) in enumerate(zip(CURVES, COLOURS)):
        for control in (False, True):
            beside = 1 + 0.02 * (place - 1) + 0.1 * control
            _draw(axis, [row for row in rows if row.control == control], name, colour, beside)
    sizes = sorted({row.connectors for row in rows})
    axis.set_xscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel("training connectors, the number of trajectories being the same")
    axis.set_ylabel("on held-out connectors")
    # An interval may reach beyond what a rate can be.
    axis.set_ylim(max(0.0, axis.get_ylim()[0]), min(1.0, axis.get_ylim()[1]))
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=7.5, columnspacing=1.0)
    return figure


def _draw(axis: Any, rows: Sequence[Point], figure: str, colour: str, beside: float) -> None:
    """One figure's curve, or its controls as hollow squares; a little beside their number, lest intervals hide one
    another."""
    if not rows:
        return
    means = [row.mean(figure) for row in rows]
    value = np.array([mean.value for mean in means])
    # One draw has no interval.
    reach = np.nan_to_num([[mean.value - mean.low for mean in means], [mean.high - mean.value for mean in means]])
    place = np.array([row.connectors for row in rows]) * beside
    control = rows[0].control
    style: dict[str, Any] = {"fmt": "s", "mfc": "white"} if control else {"fmt": "o-"}
    label = f"{CURVES[figure]}{', generated' if control else ''}"
    axis.errorbar(place, value, yerr=reach, color=colour, lw=1.2, ms=5, capsize=3, label=label, **style)


def _label(row: Point, rows: Sequence[Point]) -> str:
    """How a row stands to the paper, and a control to the row that it belongs to."""
    if not row.control:
        if row.connectors > max(PAPER):
            return f"beyond the paper's {' or '.join(map(str, PAPER))}"
        return f"as many as {PAPER[row.connectors]} had" if row.connectors in PAPER else ""
    label = "control: all generated, beyond the paper"
    for other in rows:
        seeds = sorted(set(row.draws) & set(other.draws))
        if other.connectors == row.connectors and not other.control and seeds:
            test = paired([row.draws[s]["auroc"] for s in seeds], [other.draws[s]["auroc"] for s in seeds])
            p_value = "" if np.isnan(test.p_t) else f" (p = {test.p_t:.2f})"
            label += f"; AUROC {test.difference:+.3f}{p_value} against {other.connectors} of the catalogue"
    return label
