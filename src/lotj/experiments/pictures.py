"""Pictures of the documentation, from result files: each is drawn anew only when what it shows has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lotj.experiments.practice_table import Column, Result, pool, pooled, title
from lotj.experiments.practised import WINDOW
from lotj.experiments.reward_levers import BASE
from lotj.experiments.reward_table import PAPER, TITLES, by_method, mean_over_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Told apart by everybody (Okabe and Ito)."""
MUTED = "#777777"


def draw_once(path: Path, shown: Any, draw: Callable[[], Figure]) -> bool:
    """Draw a picture unless the file already shows the same. The file names what it shows: its bytes depend on the
    versions of what draws it.

    Args:
        path: of the PNG file.
        shown: the figures in it, as JSON; nothing is drawn where it is empty.
        draw: makes the picture.

    Returns:
        Whether it was drawn.
    """
    digest = hashlib.sha256(json.dumps(shown).encode()).hexdigest()
    if not shown or _digest(path) == digest:
        return False
    import matplotlib

    matplotlib.use("Agg")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw().savefig(path, metadata={"Comment": digest, "Software": None})
    return True


def practice_picture(results: Sequence[Result], path: Path) -> bool:
    """Draw how true success grows over practice: a panel for each connector, a curve for each recipe, reward and guard,
    pooled over seeds and both scenarios; on the left what the offline policy came to, on the right what practice did.

    Returns:
        Whether it was drawn.
    """
    lines = pool(results)
    panels: dict[str, dict[Column, list[float]]] = {}
    ends: dict[str, dict[Column, tuple[float, float]]] = {}
    for connector in dict.fromkeys(connector for connector, _ in lines):
        own = [line for (name, _), line in lines.items() if name == connector]
        columns = sorted({column for line in own for column in line.after}, key=_by_itself_first)
        # A result is listed once for each scenario; its curve has both.
        panels[connector] = {column: _rolling(own[0].results[column]) for column in columns}
        ends[connector] = {
            column: (_share([line.before for line in own]), _share([line.after[column] for line in own]))
            for column in columns
        }
    return draw_once(path, [_as_json(panels), _as_json(ends)] if panels else [], lambda: _draw(panels, ends))


def _as_json(panels: Mapping[str, Mapping[Column, Any]]) -> dict[str, dict[str, Any]]:
    """Columns by their titles, as JSON wants keys."""
    return {name: {title(column): value for column, value in own.items()} for name, own in panels.items()}


def table_iv_picture(results: Sequence[Result], path: Path, frames: str = "expert") -> bool:
    """Draw Table IV: each draw's accuracy by method with mean and interval, beside the paper's figure.

    Returns:
        Whether it was drawn.
    """
    methods = by_method(results, frames)
    shown = {method: [row["accuracy_half"] for _, row in sorted(rows.items())] for method, rows in methods.items()}
    order = sorted(shown, key=lambda method: -float(np.mean(shown[method])))

    def draw() -> Figure:
        figure, axis = new_figure(5.6, 2.8)
        for place, method in enumerate(order):
            _dots(axis, place, shown[method])
            paper = PAPER.get(method)
            if paper is not None:
                first = "the paper's" if place == 0 else None
                axis.plot(paper, place, "D", mfc="white", mec=COLOURS[1], ms=6, label=first)
        axis.set_yticks(range(len(order)), [TITLES.get(method, method) for method in order])
        axis.invert_yaxis()
        axis.set_xlabel("balanced accuracy on connectors never seen, threshold 0.5")
        figure.legend(loc="outside upper right", frameon=False, fontsize=8, ncols=3)
        return figure

    return draw_once(path, shown, draw)


def levers_picture(results: Sequence[Result], path: Path, frames: str = "all") -> bool:
    """Draw what each change to the reward's training does to AUROC, draw by draw, against no change.

    Returns:
        Whether it was drawn.
    """
    rows = by_method(results, frames)
    base = rows.pop(BASE, {})
    shown: dict[str, list[float]] = {}
    for lever, own in rows.items():
        seeds = sorted(set(own) & set(base))
        if seeds:
            shown[lever] = [own[seed]["auroc"] - base[seed]["auroc"] for seed in seeds]
    order = sorted(shown, key=lambda lever: -float(np.mean(shown[lever])))

    def draw() -> Figure:
        figure, axis = new_figure(5.6, 1.0 + 0.24 * len(order))
        axis.axvline(0.0, color=MUTED, lw=0.8)
        for place, lever in enumerate(order):
            _dots(axis, place, shown[lever])
        axis.set_yticks(range(len(order)), [lever.replace("-", " ") for lever in order])
        axis.invert_yaxis()
        axis.set_xlabel("change of AUROC on connectors never seen")
        figure.legend(loc="outside upper right", frameon=False, fontsize=8, ncols=3)
        return figure

    return draw_once(path, shown, draw)


def _dots(axis: Axes, place: int, values: Sequence[float]) -> None:
    """A row: each draw, and the mean with its 95% interval."""
    mean, label = mean_over_draws(values), place == 0
    axis.plot(values, np.full(len(values), place), "o", color=MUTED, ms=3, alpha=0.7, label="a draw" if label else None)
    reach = np.nan_to_num([[mean.value - mean.low], [mean.high - mean.value]])
    name = "mean, 95% interval over draws" if label else None
    axis.errorbar(mean.value, place, xerr=reach, fmt="o", color=COLOURS[0], ms=5, capsize=3, lw=1.2, label=name)


def _draw(
    panels: Mapping[str, Mapping[Column, Sequence[float]]], ends: Mapping[str, Mapping[Column, tuple[float, float]]]
) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.6 * across, 0.5 + 2.3 * down), dpi=120, layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    columns = list(dict.fromkeys(column for own in panels.values() for column in own))
    colour = dict(zip([column for column in columns if column.reward == "learned"], COLOURS))
    for axis, (connector, own) in zip(axes, panels.items()):
        longest = max(len(curve) for curve in own.values()) + WINDOW - 1
        for column, curve in own.items():
            # A guard that refutes nothing leaves the same curve: dashed, it shows both.
            dashes = ":" if column not in colour else "-" if column.guard == "off" else "--"
            style: dict[str, Any] = {"color": colour.get(column, MUTED), "lw": 1.4, "ls": dashes}
            axis.plot(np.arange(WINDOW, WINDOW + len(curve)), curve, label=title(column), **style)
            before, after = ends[connector][column]
            axis.plot(-0.03 * longest, before, ">", color="black", ms=5, clip_on=False)
            axis.plot(1.03 * longest, after, "<", color=style["color"], ms=6, clip_on=False)
        axis.set_title(connector, fontsize=9)
        axis.set_xlim(-0.03 * longest, 1.03 * longest)
        axis.set_ylim(0, 1)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        _plain(axis)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.supxlabel(f"trial of practice (true success over {WINDOW} trials)", fontsize=9)
    handles = {text: handle for axis in axes[: len(panels)] for handle, text in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return figure


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure (inches) of one axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axis = figure.subplots()
    _plain(axis)
    return figure, axis


def _by_itself_first(column: Column) -> tuple[bool, str, bool, bool, tuple[str, ...]]:
    """Sorts columns: what the robot does by itself, without a guard, then what needs one, then diagnostics."""
    return column.reward != "learned", column.recipe, column.guard != "off", column.rule != "chosen", column.settings


def _plain(axis: Axes) -> None:
    axis.grid(color="#dddddd", lw=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _rolling(results: Sequence[Result]) -> list[float]:
    """True success over `WINDOW` trials in a row, pooled over results, as long as the shortest practice."""
    shortest = min(len(result["curve"]) for result in results)
    curves = [[bool(trial["true_success"]) for trial in result["curve"][:shortest]] for result in results]
    success = np.mean(curves, axis=0)  # (trials,)
    return np.convolve(success, np.full(min(WINDOW, shortest), 1 / min(WINDOW, shortest)), mode="valid").tolist()


def _share(counts: Sequence[Mapping[int, tuple[int, int]]]) -> float:
    successes, trials = np.sum([pooled(one) for one in counts], axis=0)
    return float(successes / trials)


def _digest(path: Path) -> str | None:
    """What a picture says that it shows; None where there is none."""
    if not path.exists():
        return None
    from PIL import Image

    with Image.open(path) as picture:
        return picture.info.get("Comment")
