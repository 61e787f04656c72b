"""Table IV as an experiment: draws, scores, statistics, rendered tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_store import make_trajectory

from lotj.cli_tables import REWARD_CONNECTORS, REWARD_LEVERS, REWARD_TABLE
from lotj.data.store import TrajectoryStore
from lotj.experiments.redteam_table import (
    candidates_table,
    check_table,
    families_table,
    guard_table,
    redteam_table,
    senses_table,
)
from lotj.experiments.render import TABLES, stale_tables
from lotj.experiments.reward_levers import LEVERS, RewardLeversConfig, levers_table
from lotj.experiments.reward_runs import (
    RewardTableConfig,
    count_frames,
    draw_connectors,
    drawable_connectors,
    run_case,
    score,
    with_method,
)
from lotj.experiments.reward_table import errors_table, figures, mean_over_draws, paired, paired_tests, table_iv
from lotj.experiments.reward_variants import Ensemble, View, derive_store
from lotj.nets.bottleneck import METHODS
from lotj.presets import PRESETS, with_cameras
from lotj.reward_validation import calibrate
from lotj.sim.connectors import TEST_CONNECTORS, get_connector, variants_of
from lotj.stats import signed_ranks
from lotj.types import Trajectory

RNG = np.random.default_rng(0)


def test_no_group_is_on_two_sides_and_no_test_connector_on_any() -> None:
    """For many draws: sizes as asked, sides without a shared group, none of the four test connectors' groups."""
    barred = {get_connector(name).group for test in TEST_CONNECTORS for name in variants_of(test)}
    seen = set()
    for seed in range(20):
        draw = draw_connectors(seed, 25, 5, 20)
        sides = (draw.train, draw.validation, draw.held_out)
        assert tuple(len(side) for side in sides) == (25, 5, 20)
        groups = [{get_connector(name).group for name in side} for side in sides]
        assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
        assert not (groups[0] | groups[1] | groups[2]) & barred
        seen.add(draw)
    assert len(seen) == 20


def test_more_training_connectors_keep_the_held_out_ones() -> None:
    """The curve over the number of training connectors scores the same connectors at every point."""
    few, many = draw_connectors(3, 10, 5, 20), draw_connectors(3, 50, 5, 20)
    assert few.held_out == many.held_out and few.validation == many.validation
    assert set(few.train) <= set(many.train)


def test_too_few_connectors_are_refused() -> None:
    """The error says how many there are."""
    with pytest.raises(ValueError, match=f"{len(drawable_connectors())} in"):
        draw_connectors(0, 100, 5, 20)


def test_methods_differ_in_the_bottleneck_alone() -> None:
    """Same network, steps, batches, augmentation; the stage's own weights where a method has that loss, else none."""
    stage = PRESETS["desk"].reward
    stage = replace(
        stage,
        model=replace(stage.model, bottleneck=replace(stage.model.bottleneck, adversarial_weight=0.07, kl_weight=0.02)),
    )
    for method, (_, adversary, divergence) in METHODS.items():
        changed = with_method(stage, method)
        own = changed.model.bottleneck
        assert own.adversarial_weight == (0.07 if adversary else 0.0)
        assert own.kl_weight == (0.02 if divergence else 0.0)
        assert own.dim == stage.model.bottleneck.dim
        assert replace(changed, model=stage.model) == stage
        assert replace(changed.model, bottleneck=stage.model.bottleneck) == stage.model


def test_every_lever_changes_one_thing_and_the_base_nothing() -> None:
    """Each change makes another stage; the draws are Table IV's; an unknown name is answered with the nearest."""
    config = RewardLeversConfig(stage=with_cameras(PRESETS["desk"], 1).reward, seeds=(0, 1))
    cases = config.cases()
    assert len({case.name for case in cases}) == len(cases) == 2 * len(LEVERS)
    stages = {case.method: case.stage for case in cases}
    assert stages["base"] == with_method(config.stage, "daib")
    changed = {case.method: (case.stage, case.crop, case.members) for case in cases}
    assert all(change != changed["base"] for name, change in changed.items() if name != "base")
    assert {case.method for case in cases if case.view.cameras == 2} == {"two-cameras"}
    assert {case.method for case in cases if case.view.before} == {"two-frames"}
    assert {case.method for case in cases if not case.view.is_as_collected} == {"two-frames", "closer"}
    assert {(case.method, case.view.collected_px) for case in cases if case.view.collected_px != 64} == {
        ("32-px", 32),
        ("96-px", 96),
        ("closer", 96),
    }
    table = RewardTableConfig(stage=config.stage).cases()
    assert {case.draw for case in cases} == {case.draw for case in table if case.seed < 2}
    assert stages["half-the-steps"].model.decay_steps == stages["half-the-steps"].steps == config.stage.steps // 2
    with pytest.raises(ValueError, match="did you mean 'shift-8'"):
        RewardLeversConfig(levers=("shift8",))


def test_levers_are_compared_with_the_base_draw_by_draw() -> None:
    """The table's difference is that of paired draws; the base has none."""
    results = [a_result("base", seed, 6) for seed in range(3)] + [a_result("shift-8", seed, 9) for seed in range(3)]
    for result in results[3:]:
        result["connectors"][0]["all"]["auroc"] = 0.95 + 0.001 * result["case"]["seed"]
    table = levers_table(results)
    assert table.index("| shift-8 |") < table.index("| base |") and "+0.051" in table


def test_counts_by_hand() -> None:
    """Frames at known depths: who fires at which threshold, in which interval of missing depth."""
    probability = np.array([0.9, 0.4, 0.95, 0.6, 0.1, 0.7, 0.8])
    label = np.array([1, 1, 0, 0, 0, 0, 0], bool)
    depth_mm = np.array([0.0, 0.5, 0.5, 1.5, 3.0, 3.9, 12.0])
    tip = np.stack([np.zeros(7), np.zeros(7), depth_mm / 1e3], axis=1)
    tip[6, 0] = 0.01
    force = np.array([9.0, 0, 9, 9, 0, 9, 9])
    counts = count_frames(probability, label, tip, force, {"half": 0.5, "strict": 0.75})
    assert counts["half"]["beside"] == {"false_positives": 1, "negatives": 1}
    assert (counts["positives"], counts["negatives"]) == (2, 5)
    assert (counts["half"]["true_positives"], counts["half"]["false_positives"]) == (1, 4)
    assert (counts["strict"]["true_positives"], counts["strict"]["false_positives"]) == (1, 2)
    fired = [(row["false_positives"], row["negatives"]) for row in counts["half"]["by_distance"]]
    assert fired == [(1, 1), (1, 1), (1, 2), (1, 1)]
    # 10 pairs of a positive and a negative: .9 beats all but .95, .4 beats .1.
    assert counts["auroc"] == pytest.approx(5 / 10)


def test_every_negative_is_counted_once() -> None:
    """Whatever the depth, below zero included, the intervals partition the negatives."""
    depth = RNG.uniform(-0.001, 0.03, 400)
    label = RNG.random(400) < 0.3
    tip = np.stack([np.zeros(400), np.zeros(400), depth], axis=1)
    counts = count_frames(RNG.random(400), label, tip, np.zeros(400), {"half": 0.5})
    assert sum(row["negatives"] for row in counts["half"]["by_distance"]) == counts["negatives"]
    fired = sum(row["false_positives"] for row in counts["half"]["by_distance"])
    assert fired == counts["half"]["false_positives"]


def test_mean_and_interval_are_students() -> None:
    """Against scipy's own interval; one draw has none."""
    values = [0.8, 0.85, 0.9, 0.82, 0.88]
    mean = mean_over_draws(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (mean.low, mean.high) == (pytest.approx(low), pytest.approx(high))
    assert np.isnan(mean_over_draws([0.5]).low)


def test_paired_tests_by_hand() -> None:
    """Five differences of one sign: the sign-flip test's smallest p is 2 / 32; the t-test is scipy's. Equal lists have
    p = 1."""
    first, second = np.array([0.9, 0.8, 0.85, 0.95, 0.7]), np.array([0.85, 0.78, 0.8, 0.9, 0.69])
    test = paired(first.tolist(), second.tolist())
    assert test.p_signs == pytest.approx(2 / 32)
    assert test.p_t == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert test.difference == pytest.approx(np.mean(first - second))
    same = paired(first.tolist(), first.tolist())
    assert same.p_t == 1.0 and same.p_signs == 1.0


def a_result(method: str, seed: int, hits: int) -> dict[str, Any]:
    """A result file of one held-out connector: ``hits`` of 10 successes found, one false alarm in 20 at 3 mm."""
    rows = [{"false_positives": 0, "negatives": 5} for _ in range(4)]
    rows[2] = {"false_positives": 1, "negatives": 5}
    beside = {"false_positives": 1, "negatives": 4}
    cut = {"true_positives": hits, "false_positives": 1, "by_distance": rows, "beside": beside}
    frames = {"positives": 10, "negatives": 20, "auroc": 0.9, "half": cut, "balanced": cut, "operating": cut}
    everything = dict(frames)
    return {
        "case": {"method": method, "seed": seed},
        "cuts": {"half": 0.5, "balanced": 0.4, "operating": 0.9},
        "connectors": [{"name": "a", "family": "f", "all": everything, "expert": frames}],
    }


def test_figures_by_hand() -> None:
    """Balanced accuracy is the mean of both rates; distances pool frames."""
    values = figures(a_result("erm", 0, 8))
    assert values["accuracy_half"] == pytest.approx((0.8 + 0.95) / 2)
    assert values["false 2-4 mm"] == pytest.approx(1 / 5) and values["false 0-1 mm"] == 0
    assert values["false > 2 mm"] == pytest.approx(1 / 10)
    assert values["true_positive_rate"] == pytest.approx(0.8)
    assert values["false beside"] == pytest.approx(1 / 4)


def test_families_are_counted_by_who_was_fooled_most() -> None:
    """Sums by family, the most often fooled first, then all, of the first round; a connector counts as exploited from
    one claim in five, of twenty, on."""
    counts = {"usb-a": (20, 3), "usb-b": (20, 4), "lego-2x2": (19, 19), "rj45": (0, 0)}
    attacks = [{"connector": name, "claimed": n, "claimed_falsely": false} for name, (n, false) in counts.items()]
    attacks += [{**attack, "round": 2} for attack in attacks]
    rows = families_table({"attacks": {"attacks": attacks}}).splitlines()[2:]
    assert [row.strip("| ").split(" | ") for row in rows] == [
        ["bricks", "1", "19", "19", "100.0%", "0"],
        ["usb", "2", "40", "7", "17.5%", "1"],
        ["modular", "1", "0", "0", "0.0%", "0"],
        ["all", "4", "59", "26", "44.1%", "1"],
    ]


def test_rewards_are_compared_practice_by_practice() -> None:
    """Sums over connectors and seeds; p by the practices that both rewards had; how many connectors fooled it; rewards
    that were not practised with have no line."""
    cases = [
        ("usb-b", 0, "scripted", 12, 5),
        ("usb-b", 1, "scripted", 14, 2),
        ("rj45", 0, "scripted", 16, 0),
        ("rj45", 0, "red-teamed", 17, 0),
        ("usb-b", 1, "red-teamed", 16, 1),
        ("usb-b", 0, "red-teamed", 17, 0),
        ("bnc", 0, "red-teamed", 40, 0),
    ]
    rows = [
        {"connector": connector, "seed": seed, "reward": reward, "claimed": 30, "claimed_falsely": false}
        | {"both_scenarios": {"offline_true": [10, 40], "online_true": [after, 40]}}
        for connector, seed, reward, after, false in cases
    ]
    truth = [{**rows[0], "reward": "ground-truth", "claimed_falsely": 0}]
    assert redteam_table({"known": {"rows": rows}, "drawn": {"rows": truth}}).splitlines()[2:] == [
        "| 2 known | without attacks | 30/120 | 42/120 |  | 7 of 90 | 1 |",
        f"| 3 known | and attacks | 40/160 | 90/160 | {signed_ranks([5, 2, 1]):.4f} | 1 of 120 | 1 |",
        "| 1 drawn | ground truth (diagnostic) | 10/40 | 12/40 |  | 0 of 30 | 0 |",
    ]


def test_candidates_are_shown_by_what_is_compared() -> None:
    """A false claim counts twice; the interval is Clopper and Pearson's: none of 59 ends at 1 - .025^(1/59)."""
    rows = [("collected", 60, 4, 50), ("round-1", 59, 0, 55)]
    fields = ("name", "claimed", "claimed_falsely", "true")
    candidates = [dict(zip(fields, row)) | {"trials": 100} for row in rows]
    table = candidates_table({"attacks": {"candidates": candidates, "chosen": "round-1"}}).splitlines()[2:]
    assert table[0].startswith("| collected | 100 | 50 | 60 | 4 | ") and table[0].endswith(" | 52 |  |")
    assert table[1] == f"| round-1 | 100 | 55 | 59 | 0 | {1 - 0.025 ** (1 / 59):.1%} | 59 | yes |"


def test_every_table_has_something_to_say_before_anything_was_measured(tmp_path: Path) -> None:
    """A page may ask for a table before its results are there."""
    for name, table in TABLES.items():
        assert table(tmp_path).strip(), name


def test_guards_are_compared_over_connectors_and_seeds() -> None:
    """Sums by mode in the order of the rows; where the alarm paused, after how many trials."""
    ends = {
        "I": {"trials": 20, "true_before": 3, "true_after": 5},
        "II": {"trials": 20, "true_before": 1, "true_after": 0},
    }
    counts = {"claimed": 9, "claimed_falsely": 4, "paid_falsely": 2, "refuted_wrongly": 1, "evaluation": ends}
    rows = [
        {"guard": mode, "paused": mode == "alarm" and trials < 200, "trials": trials, **counts}
        for trials in (12, 200)
        for mode in ("off", "alarm")
    ]
    assert guard_table({"rows": rows}).splitlines()[2:] == [
        "| off | 2 |  | 212 | 18 | 8 | 4 | 2 | 8/80 | 10/80 |",
        "| alarm | 2 | 12 | 212 | 18 | 8 | 4 | 2 | 8/80 | 10/80 |",
    ]


def test_the_checks_rule_is_compared_by_what_it_did_to_the_other() -> None:
    """Sums over connectors: looser is a lower threshold for as many frames, anything else that differs is stricter;
    where the answer is not "go", it warns."""
    own = {"same": (0.7, 3), "looser": (0.2, 3), "stricter": (0.9, 2), "stricter too": (0.5, 4), "warned": (0.95, 2)}

    def row(rule: tuple[float, int], missed: int) -> dict[str, Any]:
        rules = {"rule": rule, "chosen": (0.7, 3)}
        check = {name: {"threshold": threshold, "frames": frames} for name, (threshold, frames) in rules.items()}
        check["go"] = rule != (0.95, 2)  # type: ignore[assignment]
        counts = {"trials": 40, "true": 30}
        return {
            "check": check,
            "chosen": {**counts, "missed": missed, "false": 1},
            "checked": {**counts, "missed": 1, "false": 2},
        }

    rows = [row(rule, missed) for missed, rule in enumerate(own.values())]
    assert check_table({"rows": rows}).splitlines()[2:] == [
        "| leaves the rule | 1 | 40 | 30 | 0 | 1 | 1 | 2 |",
        "| makes it looser | 1 | 40 | 30 | 1 | 1 | 1 | 2 |",
        "| makes it stricter | 2 | 80 | 60 | 5 | 2 | 2 | 4 |",
        "| warns | 1 | 40 | 30 | 4 | 1 | 1 | 2 |",
        "| all | 5 | 200 | 150 | 10 | 5 | 5 | 10 |",
    ]


def test_cells_are_compared_by_what_they_sense() -> None:
    """Sums over connectors and seeds, kinds in the order of the rows."""
    names = ["claimed", "claimed_falsely", "paid_falsely", "refuted_wrongly"]
    names += ["lost", "lost_and_claimed", "lost_and_claimed_falsely"]
    ends = {"offline_true": [3, 40], "online_true": [5, 40]}
    rows = [
        {"arm": arm, "both_scenarios": ends} | {name: base + place for place, name in enumerate(names)}
        for base, arm in ((10, "off"), (20, "gate"), (30, "off"))
    ]
    assert senses_table({"rows": rows}).splitlines()[2:] == [
        "| off | 2 | 6/80 | 10/80 | 40 | 42 | 44 | 46 | 48 | 50 | 52 |",
        "| gate | 1 | 3/40 | 5/40 | 20 | 21 | 22 | 23 | 24 | 25 | 26 |",
    ]


def test_errors_are_told_with_intervals_and_draw_by_draw() -> None:
    """Missed is one less those found; a share beyond 2 mm is of the frames beyond 2 mm; draws in order."""
    results = [a_result("erm", seed, hits) for seed, hits in ((1, 6), (0, 8))]
    results[0]["connectors"][0]["expert"] = json.loads(json.dumps(results[0]["connectors"][0]["expert"]))
    results[0]["connectors"][0]["expert"]["operating"]["by_distance"][3]["false_positives"] = 2
    head, _, row = (line.strip("| \n").split(" | ") for line in errors_table(results).splitlines())
    told = dict(zip(head, row))
    interval = mean_over_draws([0.4, 0.2])
    assert told["missed"] == f"30.0% (0.0-{100 * min(1.0, interval.high):.1f}%)"
    assert told["false, > 2 mm"].startswith("20.0% (") and told["false, > 2 mm, by draw"] == "10.0, 30.0%"
    assert told["false, 0-1 mm"] == "0.0% (0.0-0.0%)"


def test_the_table_is_ordered_and_stands_in_the_page(tmp_path: Path) -> None:
    """Rendering writes the table between its marks and finds it fresh; a changed result makes it stale."""
    folder = tmp_path / "results" / "reward" / "table-iv"
    folder.mkdir(parents=True)
    for method, hits in (("erm", 6), ("daib", 9)):
        for seed in range(3):
            (folder / f"{method}-s{seed}.json").write_text(json.dumps(a_result(method, seed, hits - seed % 2)))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table table-iv -->\nstale\n<!-- end -->\nafter\n")
    assert stale_tables(tmp_path / "results", tmp_path, write=False) == ["page.md: table-iv"]
    assert "stale" in page.read_text()
    assert stale_tables(tmp_path / "results", tmp_path, write=True) == ["page.md: table-iv"]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert text.index("| DAIB |") < text.index("| ERM |")
    assert stale_tables(tmp_path / "results", tmp_path, write=False) == []
    (folder / "daib-s0.json").write_text(json.dumps(a_result("daib", 0, 1)))
    assert stale_tables(tmp_path / "results", tmp_path, write=False) == ["page.md: table-iv"]
    page.write_text("<!-- table table-v -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="table-v"):
        stale_tables(tmp_path / "results", tmp_path, write=False)


def test_the_docs_say_what_the_results_say() -> None:
    """Every generated table of the documentation is what the committed results give."""
    root = Path(__file__).parent.parent
    assert stale_tables(root / "results", root / "docs", write=False) == []
    assert set(TABLES) >= {"table-iv", "table-iv-tests"}


def test_a_case_is_trained_scored_and_reused(tmp_path: Path) -> None:
    """One small network from collection to result file: raw counts of each held-out connector, provenance, the draw;
    a limit on trajectories is obeyed; repeated, nothing is trained again."""
    from lotj.collect import CollectConfig, collect

    names = ("usb-a", "rj45", "bnc", "din-5", "schuko")
    store = tmp_path / "t.sqlite"
    collect(CollectConfig(names, trajectories=6, image_size=32), store, workers=1)
    config = RewardTableConfig(
        methods=("daib",),
        seeds=(0,),
        train=3,
        validation=1,
        held_out=1,
        stage=replace(with_cameras(PRESETS["debug"], 1).reward, steps=4),
    )
    (case,) = config.cases()
    case = replace(case, draw=draw_connectors(0, 3, 1, 1, names), trajectories=3)
    outcome = run_case(case, store, tmp_path / "runs", tmp_path / "results")
    written = json.loads((tmp_path / "results" / f"{case.name}.json").read_text())
    assert written["connectors"] == outcome["connectors"] and written["command"] and "git" in written
    (row,) = written["connectors"]
    assert row["name"] == case.draw.held_out[0] and row["all"]["positives"] > 0
    assert set(written["cuts"]) == {"half", "balanced", "operating"}
    assert [row["step"] for row in written["training"]] == [4] and written["training"][0]["kl"] > 0
    stamp = (tmp_path / "runs" / case.name / "done.json").stat().st_mtime_ns
    assert run_case(case, store, tmp_path / "runs", tmp_path / "results")["connectors"] == outcome["connectors"]
    assert (tmp_path / "runs" / case.name / "done.json").stat().st_mtime_ns == stamp
    assert "| DAIB |" in table_iv([written]) and "draws" in paired_tests([written], "daib", "auroc")


def test_a_cropped_store_shows_the_middle(tmp_path: Path) -> None:
    """Images lose their edges and nothing else changes; a copy that was cut short is completed, not begun again."""
    from lotj.collect import CollectConfig, collect

    whole, cropped = tmp_path / "whole.sqlite", tmp_path / "cropped.sqlite"
    collect(CollectConfig(("usb-a",), trajectories=3, image_size=48), whole, workers=1)
    with TrajectoryStore(whole) as store, TrajectoryStore(cropped, mode="a") as begun:
        first = store.read(0)
        begun.append(replace(first, image=np.ascontiguousarray(first.image[:, 8:40, 8:40])))
    for _ in range(2):
        derive_store(whole, cropped, View(48, 32, 1, 0))
    with TrajectoryStore(whole) as store, TrajectoryStore(cropped) as small:
        assert len(small) == len(store) and small.metadata["collect"] == store.metadata["collect"]
        for index in range(len(store)):
            source, one = store.read(index), small.read(index)
            np.testing.assert_array_equal(one.image, source.image[:, 8:40, 8:40])
            np.testing.assert_array_equal(one.action, source.action)
            np.testing.assert_array_equal(one.privileged["tip_in_socket"], source.privileged["tip_in_socket"])


def collected(path: Path, trajectory: Trajectory, of: int = 0) -> None:
    """A store of one trajectory that says what it is a collection of."""
    with TrajectoryStore(path, mode="a") as store:
        for key in ("connectors", "action_scale", "provenance", "collect"):
            store.set_metadata(key, {"of": of})
        store.append(trajectory)


def test_every_cameras_picture_is_cropped(tmp_path: Path) -> None:
    """Each of two that stand side by side loses its own edges."""
    whole, cropped = tmp_path / "whole.sqlite", tmp_path / "cropped.sqlite"
    one = make_trajectory(0)
    collected(whole, replace(one, image=np.concatenate([one.image, 255 - one.image], axis=2)))
    derive_store(whole, cropped, View(8, 4, 2, 0))
    middle = one.image[:, 2:6, 2:6]
    with TrajectoryStore(cropped) as store:
        np.testing.assert_array_equal(store.read(0).image, np.concatenate([middle, 255 - middle], axis=2))


def test_the_frame_before_stands_beside_each(tmp_path: Path) -> None:
    """Two frames: on the right of every picture is the one before it, of the first itself."""
    whole, paired = tmp_path / "whole.sqlite", tmp_path / "paired.sqlite"
    one = make_trajectory(0)
    collected(whole, one)
    derive_store(whole, paired, View(8, 8, 1, 1))
    with TrajectoryStore(paired) as store:
        left, right = np.split(store.read(0).image, 2, axis=2)
    np.testing.assert_array_equal(left, one.image)
    np.testing.assert_array_equal(right, np.concatenate([one.image[:1], one.image[:-1]]))


def test_a_copy_of_another_collection_is_refused(tmp_path: Path) -> None:
    """What was cut from a store that has been made anew since, or cut twice, is not taken for the new store's."""
    whole, cropped = tmp_path / "whole.sqlite", tmp_path / "cropped.sqlite"
    collected(whole, make_trajectory(0), of=0)
    derive_store(whole, cropped, View(8, 4, 1, 0))
    whole.unlink()
    collected(whole, make_trajectory(1), of=1)
    with pytest.raises(ValueError, match=r"cropped.sqlite was made of another whole.sqlite.*delete it"):
        derive_store(whole, cropped, View(8, 4, 1, 0))
    cropped.unlink()
    derive_store(whole, cropped, View(8, 4, 1, 0))
    with TrajectoryStore(cropped, mode="a") as store:
        store.append(store.read(0))
    with pytest.raises(ValueError, match="made of another"):
        derive_store(whole, cropped, View(8, 4, 1, 0))


def test_a_case_says_what_it_cannot_be() -> None:
    """No networks, or more frames than pictures, have no answer."""
    case = RewardLeversConfig(levers=("two-frames",), seeds=(0,), stage=REWARD_LEVERS.stage).cases()[0]
    with pytest.raises(ValueError, match="two-frames-s0: expected members of at least 1"):
        replace(case, members=0)
    with pytest.raises(ValueError, match="before 2 and 2 pictures"):
        replace(case, before=2)


def test_several_networks_answer_by_their_mean(tmp_path: Path) -> None:
    """Members differ by their seeds; one of a case's members is the case's answer only where all agree."""
    from lotj.collect import CollectConfig, collect
    from lotj.offline import load_reward

    names, store = ("usb-a", "rj45", "bnc", "din-5", "schuko"), tmp_path / "t.sqlite"
    collect(CollectConfig(names, trajectories=4, image_size=32), store, workers=1)
    stage = replace(with_cameras(PRESETS["debug"], 1).reward, steps=4)
    (case,) = RewardTableConfig(methods=("daib",), seeds=(0,), train=3, validation=1, held_out=1, stage=stage).cases()
    case = replace(case, draw=draw_connectors(0, 3, 1, 1, names), members=2)
    outcome = run_case(case, store, tmp_path / "runs", tmp_path / "results")
    assert (
        outcome["case"]["members"] == len(outcome["training"]) == 2 and outcome["connectors"][0]["all"]["positives"] > 0
    )
    models = [load_reward(tmp_path / "runs" / case.name / member)[0] for member in "01"]
    images = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8)
    answers = [model.logit(images) / model.logit_temperature for model in models]
    assert not np.allclose(*answers)
    np.testing.assert_allclose(Ensemble(models).logit(images), (answers[0] + answers[1]) / 2)
    with TrajectoryStore(store) as trajectories:
        _, rule, evaluation = calibrate(Ensemble(models), trajectories, case.draw.validation, stage.false_fire_limit)
        cuts = {"half": 0.5, "balanced": evaluation["balanced_threshold"], "operating": rule.threshold}
        assert outcome["cuts"] == cuts
        expected = score(
            calibrate(Ensemble(models), trajectories, case.draw.validation, 1.0)[0],
            trajectories,
            case.draw.held_out[0],
            cuts,
        )
    assert outcome["connectors"] == [expected]


def test_the_papers_tables_see_by_one_camera() -> None:
    """Whatever `desk` sees by; two are a lever."""
    for config in (REWARD_TABLE, REWARD_LEVERS, REWARD_CONNECTORS):
        assert config.stage.model.encoder.cameras == 1
    assert with_cameras(PRESETS["paper"], 1) == PRESETS["paper"]
