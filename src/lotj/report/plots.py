"""Figures of a report as inline SVG. Colours are CSS variables, so that one figure reads in light and in dark mode."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from lotj.evaluate import COLUMNS, Evaluation
from lotj.report.records import Frames, PracticeTrial
from lotj.stats import clopper_pearson

# Stand-ins that matplotlib accepts; ``_to_svg`` turns them into var(--...) of the page's style sheet.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
BEFORE, TRUE, JUDGED, BAD = "#050505", "#060606", "#070707", "#080808"
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper",
    BEFORE: "--before", TRUE: "--true", JUDGED: "--judged", BAD: "--bad",
}  # fmt: skip

DISTANCE_EDGES_MM = (0.0, 1.0, 2.0, 4.0, np.inf)
"""Bins of the distance from full insertion, in millimetres."""

_STYLE: Any = {
    "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 9.0, "text.color": INK, "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID, "axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.7, "xtick.color": MUTED,
    "ytick.color": MUTED, "xtick.major.size": 0, "ytick.major.size": 0, "figure.facecolor": "none",
    "legend.frameon": False, "legend.fontsize": 8.5,
}  # fmt: skip


class Rate(NamedTuple):
    """A share with its exact 95% interval, ready to draw."""

    successes: int
    trials: int

    @property
    def value(self) -> float:
        """The rate, 0 without trials."""
        return self.successes / self.trials if self.trials else 0.0

    @property
    def error(self) -> tuple[float, float]:
        """Distances from the rate to the ends of its interval."""
        low, high = clopper_pearson(self.successes, self.trials)
        return self.value - low, high - self.value


def success_bars(before: Evaluation | None, after: Evaluation | None) -> str:
    """Draw *true*, *judged* and *rewarded* before and after practice: a panel a scenario, 95% intervals, counts."""
    some = after or before
    assert some is not None
    scenarios = some.config.scenarios
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axes = figure.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
        for axis, scenario in zip(axes, scenarios):
            for offset, evaluation, colour, label in (
                (-0.2, before, BEFORE, "before practice"), (0.2, after, TRUE, "after practice")
            ):  # fmt: skip
                if evaluation is None:
                    continue
                for x, column in enumerate(reversed(COLUMNS)):
                    successes = evaluation.count(scenario, column)
                    if successes is not None:
                        rate = Rate(successes, len(evaluation.scenario(scenario)))
                        _bar(axis, x + offset, rate, colour, label if x == 0 else None, column != "true")
            axis.set_xticks(range(3), ["true", "judged", "rewarded"])
            axis.set_xlim(-0.55, 2.55)
            _percent(axis)
            axis.grid(axis="x", visible=False)
            axis.set_title(f"scenario {scenario}", fontsize=9, color=INK)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
        return _to_svg(figure, "success", "Success before and after practice")


def learning_curve(trials: Sequence[PracticeTrial], window: int = 20) -> str:
    """Draw the rolling rates of true success (with its 95% band) and predicted success; ticks mark true successes."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axis = figure.subplots()
        number = np.array([trial.trial for trial in trials])
        first = min(window, len(trials)) // 2  # rates over fewer trials than half a window say little
        for values, colour, label, band, style in (
            ([trial.true for trial in trials], TRUE, "true success", True, "-"),
            ([trial.judged for trial in trials], JUDGED, "predicted success", False, (0, (4, 2))),
        ):
            if None in values:
                continue
            rates = [Rate(*_window(values, i, window)) for i in range(first, len(values))]
            axis.plot(number[first:], [r.value for r in rates], color=colour, lw=2, ls=style, label=label)  # type: ignore[arg-type]
            if band:
                low, high = ([r.value + s * r.error[k] for r in rates] for s, k in ((-1, 0), (1, 1)))
                axis.fill_between(number[first:], low, high, color=colour, alpha=0.15, lw=0)
                hits = number[np.array(values, bool)]
                axis.plot(hits, np.full(len(hits), 1.045), "|", color=colour, ms=5, mew=0.9, clip_on=False)
        axis.set_xlim(number.min(), max(number.max(), number.min() + 1))
        axis.set_xlabel(f"practice trial (rates over the last {window} trials)")
        _percent(axis)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        return _to_svg(figure, "curve", "Learning curve over practice")


def fire_by_distance(frames: Frames) -> str:
    """Draw the share of images above the threshold: inserted ones, and others by distance from full insertion."""
    millimetres = 1000 * frames.distance
    names, groups = ["inserted"], [frames.success]
    for low, high in pairwise(DISTANCE_EDGES_MM):
        names.append(f"{low:.0f}–{high:.0f} mm" if np.isfinite(high) else f"> {low:.0f} mm")
        groups.append(~frames.success & (millimetres >= low) & (millimetres < high))
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axis = figure.subplots()
        for x, group in enumerate(groups):
            if group.any():
                _bar(
                    axis,
                    x,
                    Rate(int(frames.above[group].sum()), int(group.sum())),
                    TRUE if x == 0 else JUDGED,
                    None,
                    False,
                    0.6,
                )
            else:
                axis.annotate("no images", (x, 0.02), ha="center", color=MUTED, fontsize=8)
        axis.set_xticks(range(len(names)), names)
        axis.set_xlim(-0.6, len(names) - 0.4)
        axis.axvline(0.5, color=MUTED, lw=0.8, ls=":")
        axis.grid(axis="x", visible=False)
        _percent(axis)
        axis.set_ylabel("images above the threshold")
        axis.set_xlabel("true state of the plug: inserted, or not inserted and this far away")
        return _to_svg(figure, "distance", "Reward model by distance from full insertion")


def reliability(frames: Frames, bins: int = 10) -> tuple[str, float]:
    """Draw predicted probability against observed frequency; the dots' area says how many images a bin holds.

    Returns:
        The figure, and the expected calibration error: the mean gap between the two, weighted by images.
    """
    which = np.minimum((frames.probability * bins).astype(int), bins - 1)
    filled = [b for b in range(bins) if (which == b).any()]
    count = np.array([(which == b).sum() for b in filled])
    predicted = np.array([frames.probability[which == b].mean() for b in filled])
    rates = [Rate(int(frames.success[which == b].sum()), int(n)) for b, n in zip(filled, count)]
    observed = np.array([rate.value for rate in rates])
    error = float((count * np.abs(predicted - observed)).sum() / count.sum())
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":", label="perfectly calibrated")
        axis.errorbar(predicted, observed, yerr=np.array([r.error for r in rates]).T, color=JUDGED, lw=1.2, alpha=0.7)
        axis.scatter(predicted, observed, s=12 + 180 * count / count.max(), color=JUDGED, zorder=3, lw=0)
        axis.set_xlim(-0.05, 1.05)
        axis.set_xlabel("predicted probability of success")
        axis.set_ylabel("share truly inserted")
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _percent(axis)
        axis.legend(loc="upper left")
        return _to_svg(figure, "reliability", "Calibration of the reward model"), error


def contact_forces(trials: Sequence[PracticeTrial], limit: float | None) -> str:
    """Draw the largest contact force of each practice trial, by outcome, with the force limit where it is known."""
    groups = (
        ("not inserted", BEFORE, "o", [(t.trial, t.max_force) for t in trials if not t.true and not t.dislodged]),
        ("inserted", TRUE, "o", [(t.trial, t.max_force) for t in trials if t.true and not t.dislodged]),
        ("dislodged", BAD, "X", [(t.trial, t.max_force) for t in trials if t.dislodged]),
    )
    line = None if limit is None else (limit, f"limit {limit:g} N")
    return _scatter(groups, line, "largest contact force, N", "force", "Contact forces over practice")


def judged_distance(trials: Sequence[PracticeTrial]) -> str:
    """Draw how far from full insertion the plug was, in mm, wherever practice predicted a success."""
    points = [
        (t.trial, t.true_when_judged, t.distance_when_judged) for t in trials if t.distance_when_judged is not None
    ]
    groups = (
        ("paid, not inserted", JUDGED, "o", [(n, 1000 * d) for n, true, d in points if not true]),
        ("paid, inserted", TRUE, "o", [(n, 1000 * d) for n, true, d in points if true]),
    )
    return _scatter(groups, None, "distance from full insertion, mm", "paid", "Distance at each predicted success")


def _scatter(
    groups: Sequence[tuple[str, str, str, Sequence[tuple[int, float | None]]]],
    limit: tuple[float, str] | None,
    ylabel: str,
    name: str,
    title: str,
) -> str:
    """Draw points by trial, in groups of (label, colour, marker, points), and a limit."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.0), layout="constrained")
        axis = figure.subplots()
        for label, colour, marker, points in groups:
            known = [(x, y) for x, y in points if y is not None]
            if known:
                axis.scatter(
                    [x for x, _ in known],
                    [y for _, y in known],
                    s=16,
                    color=colour,
                    marker=marker,
                    lw=0,
                    alpha=0.85,
                    label=label,
                )
        if limit is not None:
            axis.axhline(limit[0], color=BAD, lw=1.2, ls="--", label=limit[1])
        axis.set_ylim(0, None)
        axis.set_xlim(0, None)
        axis.set_xlabel("practice trial")
        axis.set_ylabel(ylabel)
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, columnspacing=1.0, handletextpad=0.4)
        return _to_svg(figure, name, title)


def _bar(axis: Axes, x: float, rate: Rate, colour: str, label: str | None, pale: bool, width: float = 0.36) -> None:
    axis.bar(x, rate.value, width, color=colour, alpha=0.4 if pale else 1.0, label=label, lw=0)
    error: NDArray[np.float64] = np.array(rate.error).reshape(2, 1)
    axis.errorbar(x, rate.value, yerr=error, color=INK, lw=1, capsize=2.5, capthick=1)
    axis.annotate(
        f"{rate.successes}/{rate.trials}", (x, min(rate.value + rate.error[1], 1.0)), (0, 2),
        textcoords="offset points", ha="center", va="bottom", fontsize=7 if width < 0.5 else 8, color=INK,
    )  # fmt: skip


def _percent(axis: Axes) -> None:
    axis.set_ylim(0, 1.09)
    axis.set_yticks(np.linspace(0, 1, 5))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _window(values: Sequence[bool | None], index: int, window: int) -> tuple[int, int]:
    recent = values[max(0, index - window + 1) : index + 1]
    return sum(bool(value) for value in recent), len(recent)


def _to_svg(figure: Figure, name: str, title: str) -> str:
    """Render without prolog, metadata or size, ids made unique, colours as CSS variables."""
    out = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = (
        re.sub(r' (xmlns|xmlns:xlink|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    )
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]*)', svg))
    prefix = f"{name}-{hashlib.sha256(svg.encode()).hexdigest()[:8]}"  # a page may hold several figures of one name
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = svg.replace("'DejaVu Sans'", "system-ui, sans-serif")
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
