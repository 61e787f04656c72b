"""The documentation's pictures: what they show, and that they are drawn when it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lotj.experiments import pictures
from lotj.experiments.pictures import levers_picture, practice_picture, table_iv_picture
from lotj.experiments.practised import WINDOW


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is drawn, to be asked what is in it."""
    kept: list[Figure] = []
    draw_once = pictures.draw_once

    def keep(path: Path, shown: Any, draw: Any) -> bool:
        def kept_draw() -> Figure:
            kept.append(draw())
            return kept[-1]

        return draw_once(path, shown, kept_draw)

    monkeypatch.setattr(pictures, "draw_once", keep)
    return kept


def practice(connector: str, reward: str, seed: int, truth: str, before: int, after: int) -> dict[str, Any]:
    """A result: successes (1) and failures (0) in practice, counts of 20 before and after in both scenarios."""
    counts = {"offline_true": [before, 20], "online_true": [after, 20]}
    return {
        "case": {"name": f"{connector}-{reward}-s{seed}", "recipe": "ensemble", "reward": reward, "seed": seed},
        "connector": connector,
        "validation": False,
        "scenarios": {"I": counts, "II": counts},
        "curve": [{"trial": i, "true_success": one == "1", "steps": 5} for i, one in enumerate(truth, start=1)],
    }


def test_practice_by_hand(tmp_path: Path, drawn: list[Figure]) -> None:
    """Two seeds, one of which learns at trial 21: half, then a twentieth of a half more for each trial; a panel for
    each connector, ground truth drawn apart; offline on the left, practised on the right."""
    truths = {0: "1" * 25, 1: "0" * WINDOW + "1" * 5}
    results = [practice("europlug", "learned", seed, truth, 5, 15 + seed) for seed, truth in truths.items()]
    results += [practice("europlug", "ground-truth", 0, "1" * 25, 5, 20), practice("b", "learned", 0, "0" * 25, 0, 2)]
    gated = practice("europlug", "learned", 0, "1" * 25, 5, 20)
    results.insert(0, gated | {"case": gated["case"] | {"guard": "gate"}})
    path = tmp_path / "practice.png"
    assert practice_picture(results, path)
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == ["europlug", "b"]
    curves = {line.get_label(): line for line in axes[0].lines if not line.get_label().startswith("_")}
    gate = "ensemble, learned, gate"
    assert list(curves) == ["ensemble, learned", gate, "ensemble, ground-truth (diagnostic)"]
    assert (curves["ensemble, learned"].get_linestyle(), curves[gate].get_linestyle()) == ("-", "--")
    learned = curves["ensemble, learned"]
    np.testing.assert_array_equal(learned.get_xdata(), np.arange(20, 26))
    np.testing.assert_allclose(learned.get_ydata(), 0.5 + np.arange(6) / 40)
    assert curves["ensemble, ground-truth (diagnostic)"].get_linestyle() == ":"
    ends = [float(line.get_ydata()[0]) for line in axes[0].lines if line.get_label().startswith("_")]
    assert ends == pytest.approx([10 / 40, 62 / 80, 10 / 40, 1.0, 10 / 40, 1.0])
    with Image.open(path) as picture:
        assert picture.width > 600


def reward_result(method: str, seed: int, accuracy: float, auroc: float) -> dict[str, Any]:
    """A result file of one connector: as many false alarms as misses, at every cut."""
    wrong = round(100 * (1 - accuracy))
    cut = {"true_positives": 100 - wrong, "false_positives": wrong}
    cut |= {"by_distance": [{"false_positives": 0, "negatives": 25}] * 4, "beside": cut | {"negatives": 9}}
    frames = {"positives": 100, "negatives": 100, "auroc": auroc, "half": cut, "balanced": cut, "operating": cut}
    cuts = {"half": 0.5, "balanced": 0.4, "operating": 0.9}
    return {"case": {"method": method, "seed": seed}, "cuts": cuts, "connectors": [{"all": frames, "expert": frames}]}


def test_table_iv_has_the_papers_figures_beside(tmp_path: Path, drawn: list[Figure]) -> None:
    """The best method on top, each draw a dot, and the paper's figure where it has one."""
    results = [reward_result("erm", seed, 0.8 + 0.02 * seed, 0.9) for seed in range(3)]
    results += [reward_result("daib", seed, 0.9, 0.9) for seed in range(3)]
    assert table_iv_picture(results, tmp_path / "iv.png")
    axis = drawn[0].axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["DAIB", "ERM"]
    dots = [
        np.asarray(line.get_xdata()) for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata()) == 3
    ]
    np.testing.assert_allclose(dots, [[0.9] * 3, [0.8, 0.82, 0.84]])
    papers = [float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() == "D"]
    assert papers == [0.88, 0.76]


def test_levers_are_differences_of_the_same_draw(tmp_path: Path, drawn: list[Figure]) -> None:
    """A lever without a draw in common with the base is not drawn; without any there is no picture."""
    base = [reward_result("base", seed, 0.9, 0.9 + 0.01 * seed) for seed in range(2)]
    better = [reward_result("closer", seed, 0.9, 0.95 + 0.01 * seed) for seed in range(2)]
    other = [reward_result("32-px", 7, 0.9, 0.5)]
    assert not levers_picture([*base, *other], tmp_path / "levers.png")
    assert levers_picture([*base, *better, *other], tmp_path / "levers.png")
    axis = drawn[0].axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["closer"]
    dots = [line for line in axis.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o"]
    np.testing.assert_allclose(dots[0].get_xdata(), [0.05, 0.05])


def test_a_picture_is_drawn_when_what_it_shows_changes(tmp_path: Path) -> None:
    """Once for the same results, whatever else the file holds; anew for others; never without results."""
    path = tmp_path / "img" / "practice.png"
    assert not practice_picture([], path) and not path.exists()
    one = practice("a", "learned", 0, "01" * 15, 3, 9)
    assert practice_picture([one], path) and not practice_picture([json.loads(json.dumps(one))], path)
    assert practice_picture([practice("a", "learned", 0, "01" * 15, 3, 10)], path)
