"""Practice over connectors, recipes, rewards and seeds: the curve, the counts, what is shared and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from lotj import cli, pipeline
from lotj.evaluate import trial_seed
from lotj.experiments import practice_runs
from lotj.experiments.cases import evaluation, unfinished, write_result
from lotj.experiments.practice_cases import PracticeTableConfig, changed, short
from lotj.experiments.practice_summary import arms_table, summary_table, trials_table
from lotj.experiments.practice_table import (
    Column,
    believed,
    online,
    pool,
    pooled,
    practice_table,
    stretch_of,
    till,
)
from lotj.experiments.practised import CURVE, WINDOW, milestone, read_practice, robot_minutes
from lotj.files import to_json
from lotj.judge import SuccessRule
from lotj.pipeline import check_reward
from lotj.preflight import Preflight, PreflightConfig
from lotj.presets import PRESETS
from lotj.recipe import AUGMENT, Recipe, RecipeConfig
from lotj.sim.template import commented_toml, example
from lotj.stats import barnard, mcnemar, show_p, signed_ranks
from lotj.tables import count
from lotj.types import Trials

CONNECTOR = "europlug"


def curve(truth: str, steps: int = 6) -> list[dict[str, Any]]:
    """Trials of equal length from a string of successes (1) and failures (0)."""
    return [{"trial": place, "true_success": one == "1", "steps": steps} for place, one in enumerate(truth, start=1)]


@pytest.mark.parametrize(
    ("truth", "three_quarters", "nearly_all"),
    [
        ("1" * 19, None, None),
        ("1" * 20, 20, 20),
        ("0" * 5 + "1" * 15, 20, None),
        ("0" * 6 + "1" * 14 + "0" + "1" * 20, 22, 26),
        ("0" * 20 + "1" * 19, 35, 39),
        ("1" * 14 + "0" * 6 + "01" * 40, None, None),
        ("0" * 30 + "1" * 20 + "0" * 30, 45, 49),
    ],
)
def test_the_milestone_is_the_first_full_window(truth: str, three_quarters: int | None, nearly_all: int | None) -> None:
    """15 of the trailing 20 trials are 75%, 19 are 95%; less than 20 trials say nothing; what is lost later counts."""
    for level, wanted in ((0.75, three_quarters), (0.95, nearly_all)):
        found = milestone(curve(truth), level)
        assert (found and found.trial) == wanted
        brute = [end for end in range(WINDOW, len(truth) + 1) if truth[end - WINDOW : end].count("1") >= level * WINDOW]
        assert wanted == (brute[0] if brute else None)


def test_the_robots_minutes_by_hand() -> None:
    """A step is 0.1 s, a reset 10 s: 20 trials of 20 steps are 240 s; later trials do not count."""
    assert robot_minutes([20] * 20) == pytest.approx(4.0)
    found = milestone(curve("1" * 60, steps=20), 0.95)
    assert found is not None and found.minutes == pytest.approx(4.0)


def test_a_trial_without_ground_truth_is_refused() -> None:
    """No curve of true success from trials that do not have it."""
    rows = curve("1" * 20)
    rows[6]["true_success"] = None
    with pytest.raises(ValueError, match="trial 7 has no true_success"):
        milestone(rows, 0.75)


def a_result(
    recipe: str, reward: str, seed: int, before: int, after: int, reached: int | None = None, **changes: Any
) -> dict[str, Any]:
    """A result of ``before`` and ``after`` successes in 20, in scenario I as in II."""
    scenario = {"offline_true": [before, 20], "online_true": [after, 20]}
    found = None if reached is None else {"trial": reached, "minutes": reached / 4}
    scenario |= {"online_judged": after - 1}
    return {
        "case": {"name": f"{recipe}-{reward}-s{seed}", "recipe": recipe, "reward": reward, "seed": seed},
        "connector": CONNECTOR,
        "diagnostic": reward == "ground-truth",
        "validation": False,
        "scenarios": {"I": scenario, "II": scenario},
        "milestones": {"75%": found, "95%": None},
        "curve": [],
        "practice": {"summary": {"dislodged": 0}},
    } | changes


@pytest.mark.parametrize(
    ("differs", "told"),
    [
        ({"offline": {"stages": {"policy": "another"}}}, "another offline run"),
        ({"case": {"trials": 50}}, "another number of trials"),
        ({"case": {"evaluation_trials": 10}}, "another number of evaluation trials"),
    ],
)
def test_unlike_practices_are_not_pooled(differs: dict[str, Any], told: str) -> None:
    """Of another length, or from another offline run: the table's rows do not say so."""
    one, other = a_result("iql", "learned", 0, 5, 6), a_result("iql", "learned", 1, 5, 6)
    other = other | {key: other.get(key, {}) | value for key, value in differs.items()}
    assert pool([one, one | {"connector": "nema-5-15"}])
    with pytest.raises(ValueError, match=f"iql-learned-s1 has {told} than iql-learned-s0"):
        pool([one, other])


def test_offline_is_counted_once_and_online_pooled() -> None:
    """Four practices a seed share the offline policy's trials: 3 seeds are 60 offline trials, not 240. Online counts
    are sums over seeds, p is Barnard's of the sums."""
    results = [
        a_result(recipe, reward, seed, before=2 + seed, after=10 + seed)
        for seed in range(3)
        for recipe in ("ensemble", "iql")
        for reward in ("learned", "ground-truth")
    ]
    lines = pool(results)
    assert list(lines) == [(CONNECTOR, "I"), (CONNECTOR, "II")]
    line = lines[(CONNECTOR, "II")]
    assert pooled(line.before) == (2 + 3 + 4, 60)
    assert [pooled(counts) for counts in line.after.values()] == [(10 + 11 + 12, 60)] * 4
    cell = online(line, Column("iql", "learned"))
    assert cell == f"{count(Trials('', '', '', '', 33, 60), True)} ↑"
    table = practice_table(results)
    assert table.count("| 9/60 |") == 2 and "| 3 |\n" in table
    assert table.count("(diagnostic)") == 2 * 3 and "| iql, learned |" in table
    assert table.count("| 10 → 15 |") == 1 and table.count("| 2 → 15 |") == 1


@pytest.mark.parametrize("to", ["csv", "latex", "markdown"])
def test_results_are_exported_for_papers_and_spreadsheets(
    tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The counts of the table, pooled over seeds, in a file or on the screen; other results are refused by name."""
    folder, out = tmp_path / "results", tmp_path / "deep" / "table"
    folder.mkdir()
    for seed in range(2):
        result = a_result("ensemble", "learned", seed, before=2, after=15)
        (folder / f"{seed}.json").write_text(json.dumps(result))
    cli.main(["tables", "export", str(folder), "--to", to, "--out", str(out), "--no-intervals"])
    text = out.read_text()
    capsys.readouterr()
    cli.main(["tables", "export", str(folder), "--to", to, "--no-intervals"])
    assert capsys.readouterr().out == text
    if to == "csv":
        read = list(csv.DictReader(text.splitlines()))
        assert [(row["method"], row["successes"], row["trials"], row["best"]) for row in read[:2]] == [
            ("offline", "4", "40", "0"),
            ("ensemble, learned", "30", "40", "1"),
        ]
    else:
        assert "4/40" in text and ("**30/40**" if to == "markdown" else r"\textbf{30/40}") in text
    (folder / "0.json").write_text("{}")
    with pytest.raises(SystemExit):
        cli.main(["tables", "export", str(folder)])
    assert "another experiment" in capsys.readouterr().err


def test_p_compares_the_same_seeds() -> None:
    """A recipe with one seed so far is compared with the offline trials of that seed alone: 5 of 20 are not told from
    2 of that seed, and are worse than the 42 of 60 of all three."""
    first = [a_result("ensemble", "learned", seed, before, 15) for seed, before in enumerate((20, 2, 20))]
    line = pool([*first, a_result("iql", "learned", 1, 2, 5)])[(CONNECTOR, "I")]
    assert pooled(line.before) == (42, 60) and barnard(42, 60, 5, 20) < 0.05
    assert online(line, Column("iql", "learned")) == count(Trials("", "", "", "", 5, 20), True)


@pytest.mark.parametrize(("before", "after", "sign"), [(2, 15, "↑"), (15, 2, "↓"), (10, 12, ")"), (12, 10, ")")])
def test_an_arrow_says_what_barnards_test_tells(before: int, after: int, sign: str) -> None:
    line = pool([a_result("iql", "learned", 0, before, after)])[(CONNECTOR, "I")]
    assert (barnard(before, 20, after, 20) < 0.05) is (sign != ")")
    assert online(line, Column("iql", "learned")).endswith(sign)


def test_results_that_disagree_about_the_offline_policy_are_refused() -> None:
    """The same seed has the same offline policy on the same start states; else results of two runs are mixed."""
    results = [a_result("ensemble", "learned", 0, 2, 9), a_result("iql", "learned", 0, 3, 9)]
    with pytest.raises(ValueError, match=r"iql-learned-s0.*different offline"):
        pool(results)


def test_a_seed_that_never_gets_there_is_later_than_all_others() -> None:
    """The median over 3 seeds survives one that never did, not two."""
    once, twice = (
        [a_result("ensemble", "learned", seed, 2, 9, reached) for seed, reached in enumerate(trials)]
        for trials in ((40, None, 60), (40, None, None))
    )
    assert till(once) == ["60 (15 min)", "never"]
    assert till(twice) == ["never", "never"]


def a_trial(claimed: bool, true: bool, true_when_claimed: bool) -> dict[str, Any]:
    """A row of a curve."""
    return {"success": claimed, "true_success": true, "true_at_success": true_when_claimed if claimed else None}


def test_what_the_robot_believed_is_counted_trial_by_trial() -> None:
    """False claims are those at which the plug was not in, also where it had been before; missed are trials in which it
    was and nothing was claimed; stretches count trials from 1, both ends included, over seeds."""
    kinds = [(True, True, True)] * 30 + [(True, True, False)] * 2 + [(True, False, False)] + [(False, True, False)] * 4
    curve = [a_trial(*kind) for kind in kinds]
    answer = {"chosen_fires": 1, "presses": 20}
    results = [
        a_result("ensemble", "learned", seed, 2, 9 + seed, curve=curve, preflight=answer)
        | {"practice": {"summary": {"dislodged": 3}}}
        for seed in range(2)
    ]
    asked, *beliefs = believed(results)
    assert asked == "2 of 40"
    assert beliefs == ["6 of 66", "8 of 72", "6 of 74", "18, 20", "34, 38"]
    assert stretch_of(results)((1, 20)) == "40/40" and stretch_of(results)((31, 50)) == "12/14"
    assert stretch_of(results)((181, 200)) == ""
    assert believed([a_result("ensemble", "learned", 0, 2, 9)])[0] == ""
    table = practice_table(results)
    assert "| europlug | ensemble, learned | 40/40 | 12/14 |  |" in table
    assert f"| europlug | ensemble, learned | {' | '.join([asked, *beliefs])} |" in table


def test_the_summary_adds_up_over_connectors() -> None:
    """A line for each connector with both scenarios, whose pairs are tested together, and one for all, tested by
    connector: trials of one practice are no units of their own."""
    results = [
        a_result("ensemble", "learned", 0, before, after, connector=name, curve=[a_trial(True, True, False)])
        for name, before, after in ((CONNECTOR, 4, 10), ("gen-7-0", 10, 12))
    ]
    for result, won in zip(results, ((7, 1), (2, 0))):
        for counts in result["scenarios"].values():
            counts |= {"gained": won[0], "lost": won[1]}
    rows = summary_table(results).splitlines()[2:]
    assert [row.split(" | ")[4:] for row in rows] == [
        ["8/40", "20/40", show_p(mcnemar(14, 2)), "1 of 1 |"],
        ["20/40", "24/40", show_p(mcnemar(4, 0)), "1 of 1 |"],
        ["28/80", "44/80", show_p(signed_ranks([12, 4])), "2 of 2 |"],
    ]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| europlug", "mains-europe"],
        ["| gen-7-0", "bricks"],
        ["| all 2", ""],
    ]


def test_practices_of_several_lengths_stand_side_by_side() -> None:
    """Each with its own interval and arrow, against the same offline policy, of what all lengths have; anything else is
    left out, and a result of another length is refused."""

    def of(trials: int, seed: int, before: int, after: int, recipe: str = "ensemble") -> dict[str, Any]:
        result = a_result(recipe, "learned", seed, before, after)
        result["case"]["trials"] = trials
        return result

    short = [of(50, 0, 4, 10), of(50, 1, 6, 6), {**of(50, 0, 4, 9), "connector": "nema-5-15"}]
    whole = [of(200, 0, 4, 18), of(200, 2, 7, 20), of(200, 0, 4, 5, "iql")]
    cells = " | ".join(count(Trials("", "", "", "", successes, 20), True) for successes in (10, 18))
    assert trials_table({50: short, 200: whole}).splitlines()[2:] == [
        f"| {CONNECTOR} | {scenario} | ensemble, learned | 4/20 | {cells} ↑ |" for scenario in ("I", "II")
    ]
    with pytest.raises(ValueError, match="offline policy"):
        trials_table({50: short, 200: [of(200, 0, 5, 18)]})
    with pytest.raises(ValueError, match="200 trials, among results of 50"):
        trials_table({50: whole, 200: whole})


def test_arms_are_compared_practice_by_practice() -> None:
    """A way with other settings is held against the same recipe, reward and guard without them, on the connectors and
    seeds that both have, and against nothing where they share none."""
    truth = [a_trial(True, True, True)] * 3 + [a_trial(True, False, False)]
    heads = ("ensemble.heads=1",)
    arms: tuple[tuple[str, str, tuple[str, ...], int, int], ...] = (
        ("ensemble", "ground-truth", (), 0, 19),
        ("ensemble", "learned", (), 0, 10),
        ("ensemble", "learned", (), 1, 12),
        ("ensemble", "learned", (), 2, 20),
        ("ensemble", "learned", heads, 0, 9),
        ("ensemble", "learned", heads, 1, 5),
        ("iql", "learned", heads, 0, 5),
    )
    results = []
    for recipe, reward, settings, seed, after in reversed(arms):
        result = a_result(recipe, reward, seed, 4, after, curve=truth)
        result["case"]["settings"] = list(settings)
        results.append(result)
    table = arms_table(results).split("\n\n")[0].splitlines()[2:]
    assert [row.split(" | ") for row in table if row.startswith("|")] == [
        ["| ensemble, learned", "3", "24/120", "84/120", "", "", "9/12", "3 of 12", "0 of 9", "0 of 12 |"],
        ["| ensemble, learned, heads=1", "2", "16/80", "28/80", "-16", show_p(signed_ranks([-2, -14])), "6/8"]
        + ["2 of 8", "0 of 6", "0 of 8 |"],
        ["| ensemble, ground-truth (diagnostic)", "1", "8/40", "38/40", "", "", "3/4", "1 of 4", "0 of 3", "0 of 4 |"],
        ["| iql, learned, heads=1", "1", "8/40", "10/40", "", "", "3/4", "1 of 4", "0 of 3", "0 of 4 |"],
    ]


def test_where_all_arms_have_settings_those_with_the_fewest_are_the_measure() -> None:
    """Of the same rule; where the same settings were practised by the rule that validation chose, that."""
    few, more = ["preflight.attempts=20"], ["preflight.attempts=20", "iql.learning_rate=1e-4"]
    results = []
    for rule, settings, after in (("checked", few, 5), ("checked", more, 9), ("chosen", more, 6)):
        result = a_result("iql", "learned", 0, 4, after, curve=[a_trial(True, True, True)])
        result["case"] |= {"rule": rule, "settings": settings}
        results.append(result)
    changes = {row.split(" | ")[0]: row.split(" | ")[4] for row in arms_table(results[:2]).splitlines()[2:4]}
    name = "| iql, learned, checked, attempts=20"
    assert changes == {name: "", f"{name}, learning_rate=1e-4": "+8"}
    changes = {row.split(" | ")[0]: row.split(" | ")[4] for row in arms_table(results).splitlines()[2:5]}
    assert changes == {
        "| iql, learned, attempts=20, learning_rate=1e-4": "",
        name: "",
        f"{name}, learning_rate=1e-4": "+6",
    }


def test_where_two_ways_have_as_few_settings_nothing_is_the_measure() -> None:
    """In whichever order the results come."""
    one, other = ["practice.batch_size=32"], ["features.views=2"]
    results = []
    for settings, after in ((one, 2), (other, 12), ([*one, *other], 9)):
        result = a_result("iql", "learned", 0, 4, after, curve=[a_trial(True, True, True)])
        result["case"] |= {"settings": settings}
        results.append(result)
    for order in (results, results[::-1]):
        assert {row.split(" | ")[4] for row in arms_table(order).splitlines()[2:5]} == {""}
    three = arms_table([results[0], results[2]]).splitlines()[2:4]
    assert [row.split(" | ")[4] for row in three] == ["", "+14"]


def test_settings_of_the_same_name_are_told_apart() -> None:
    """Of online frames and of offline ones."""
    assert short("features.augment.pad=2") == "pad=2" and short("practice.augment.pad=2") == "practice.augment.pad=2"


@pytest.mark.parametrize(("gained", "lost", "sign"), [(6, 0, "↑"), (0, 6, "↓"), (5, 0, ")"), (9, 6, ")")])
def test_pairs_are_tested_where_results_name_them(gained: int, lost: int, sign: str) -> None:
    """Six start states won and none lost is p = 1/32 by McNemar's exact test, where Barnard's, which knows no pairs,
    has p > .05 for 40 and 46 of 60."""
    result = a_result("ensemble", "learned", 0, 40, 40 + gained - lost)
    for counts in result["scenarios"].values():
        counts |= {"offline_true": [40, 60], "online_true": [40 + gained - lost, 60], "gained": gained, "lost": lost}
    line = pool([result])[(CONNECTOR, "I")]
    column = Column("ensemble", "learned")
    assert line.p_value(column) == mcnemar(gained, lost) and barnard(40, 60, 46, 60) > 0.05
    assert online(line, column).endswith(sign)


def test_validation_connectors_are_marked_and_the_papers_come_first() -> None:
    """Lines: the paper's four in its order, then the others; a validation connector says that it is one."""
    names = {"usb-b": True, "nema-5-15": False, "deutsch-dt-12": False}
    results = [a_result("iql", "learned", 0, 2, 9, connector=name, validation=mark) for name, mark in names.items()]
    assert [name for name, scenario in pool(results) if scenario == "I"] == [
        "deutsch-dt-12",
        "nema-5-15",
        "usb-b (validation)",
    ]


def test_seeds_have_start_states_of_their_own() -> None:
    """Three seeds are 60 distinct evaluation trials in each scenario, 120 in both."""
    configs = [evaluation(seed, 20, ("I", "II"), 0.2) for seed in range(3)]
    seeds = {trial_seed(config, name, index) for config in configs for name in ("I", "II") for index in range(20)}
    assert len(seeds) == 120


def test_every_combination_is_a_case() -> None:
    """Connectors x recipes x rewards x seeds, each with a name of its own; seed by seed."""
    cases = PracticeTableConfig().cases()
    assert len({case.name for case in cases}) == len(cases) == 4 * 2 * 2 * 3
    assert [case.seed for case in cases] == sorted(case.seed for case in cases)


def test_a_guard_is_a_column_of_its_own() -> None:
    """Practice behind the gate: for the learned reward alone, named and practised so, beside practice without it."""
    cases = PracticeTableConfig((CONNECTOR,), ("ensemble",), guards=("off", "gate"), seeds=(0,)).cases()
    assert [case.name.removeprefix(f"{CONNECTOR}-ensemble-") for case in cases] == [
        "learned-s0",
        "learned-gate-s0",
        "ground-truth-s0",
    ]
    modes = [practice_runs.recipe_of(case, PRESETS["debug"]).practice.guard.mode for case in cases]
    assert modes == ["off", "gate", "off"]
    behind = a_result("ensemble", "learned", 0, 2, 15)
    behind["case"]["guard"] = "gate"
    table = practice_table([a_result("ensemble", "learned", 0, 2, 9), behind])
    head, _, first = table.splitlines()[:3]
    cells = dict(zip(head.split(" | "), first.split(" | ")))
    assert cells["ensemble, learned"].startswith("9/20") and cells["ensemble, learned, gate"].startswith("15/20")


def test_the_rule_of_the_check_is_a_column_of_its_own() -> None:
    """For the learned reward alone, named so, held against practice by the rule that validation chose; a case of that
    rule is written as before there was another."""
    cases = PracticeTableConfig((CONNECTOR,), ("ensemble",), rules=("chosen", "checked"), seeds=(0,)).cases()
    assert [case.name.removeprefix(f"{CONNECTOR}-ensemble-") for case in cases] == [
        "learned-s0",
        "learned-checked-s0",
        "ground-truth-s0",
    ]
    assert ["rule" in to_json(case) for case in cases] == [False, True, False]
    checked = a_result("ensemble", "learned", 0, 2, 15)
    checked["case"]["rule"] = "checked"
    results = [checked, a_result("ensemble", "learned", 0, 2, 9)]
    head, _, first = practice_table(results).splitlines()[:3]
    cells = dict(zip(head.split(" | "), first.split(" | ")))
    assert cells["ensemble, learned"].startswith("9/20") and cells["ensemble, learned, checked"].startswith("15/20")
    chosen, other = (row.split(" | ") for row in arms_table(results).splitlines()[2:4])
    assert (chosen[0], chosen[4], other[0], other[4]) == (
        "| ensemble, learned",
        "",
        "| ensemble, learned, checked",
        "+12",
    )


def test_a_setting_is_a_column_of_its_own() -> None:
    """Practice with other settings than the run's: they reach the recipe, the file's name and the table's head; what
    is not named stays, and a case without any is written as before there were settings."""
    settings = ("ensemble.discount=0.8", "ensemble.critic_hidden=[64, 32]", "practice.online_views=2")
    (case,) = PracticeTableConfig((CONNECTOR,), ("ensemble",), ("learned",), seeds=(0,), settings=settings).cases()
    assert case.name == f"{CONNECTOR}-ensemble-learned-discount=0.8-critic_hidden=64,32-online_views=2-s0"
    preset = PRESETS["debug"]
    own, other = practice_runs.recipe_of(replace(case, settings=()), preset), practice_runs.recipe_of(case, preset)
    assert (other.ensemble.discount, other.ensemble.critic_hidden, other.online_views) == (0.8, (64, 32), 2)
    assert other == replace(
        own,
        ensemble=replace(own.ensemble, discount=0.8, critic_hidden=(64, 32)),
        practice=replace(own.practice, online_views=2),
    )
    assert "settings" not in to_json(replace(case, settings=()))
    tried = a_result("ensemble", "learned", 0, 2, 15)
    tried["case"]["settings"] = ["ensemble.discount=0.8"]
    head, _, first = practice_table([a_result("ensemble", "learned", 0, 2, 9), tried]).splitlines()[:3]
    cells = dict(zip(head.split(" | "), first.split(" | ")))
    assert cells["ensemble, learned"].startswith("9/20") and cells["ensemble, learned, discount=0.8"].startswith("15/")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"settings": ("ensemble.discuont=0.8",)}, r"EnsembleConfig has no 'discuont' \(did you mean 'discount'"),
        ({"settings": ("ensemble.discount=2",)}, r"'ensemble.discount=2' is no setting.*discount in \[0, 1\]"),
        ({"settings": ("ensemble.discount",)}, "'ensemble.discount' is no setting"),
        ({"settings": ("ensemble.heads=2.5",)}, "EnsembleConfig.heads is now 5, got 2.5"),
        ({"settings": ("ensemble=1",)}, "RecipeConfig.ensemble is several"),
        ({"settings": ("ensemble.heads.low=1",)}, "EnsembleConfig.heads is one value"),
        ({"settings": ("ensemble.heads=3", "ensemble.heads=4")}, "each may be named once"),
        ({"settings": ("ensemble.heads=1", "ensemble.layer_norm=false")}, "must not exceed heads=1, got 2"),
        ({"settings": ("practice.trials=3",)}, "'practice.trials' is an option of its own"),
        ({"settings": ("iql.learning_rate=1e-3",)}, "a setting of iql, and ensemble is practised too.*--recipes iql"),
        ({"settings": ("practice.guard.mode=1",)}, "'practice.guard.mode' is an option of its own"),
        ({"guards": ("alarm",)}, "guards: unknown 'alarm'"),
        ({"recipes": ("ensembel",)}, r"recipes: unknown 'ensembel' \(did you mean 'ensemble'"),
        ({"rewards": ()}, "rewards must be distinct values, at least one"),
        ({"seeds": (1, 1)}, "seeds must be distinct"),
        ({"seeds": (-1,)}, r"seeds must not be negative, got \(-1,\)"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"evaluation_trials": 0}, "evaluation_trials must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], named: str) -> None:
    """The error names the field, what was expected and what came."""
    with pytest.raises(ValueError, match=named):
        PracticeTableConfig(**fields)


def test_settings_that_need_each_other_may_come_in_any_order() -> None:
    """One critic whose minimum is the target: neither setting can stand beside the other's default."""
    both = ("ensemble.heads=1", "ensemble.target_heads=1")
    for settings in (both, both[::-1]):
        config = changed(RecipeConfig(), settings).ensemble
        assert (config.heads, config.target_heads) == (1, 1)


def test_one_part_of_what_the_recipe_leaves_open_is_set_beside_the_recipes_own() -> None:
    """Of ``iql``'s own augmentation all stays but what is named; None alone could not be replaced in part."""
    for recipe in get_args(Recipe):
        config = changed(RecipeConfig(recipe), ["features.augment.pad=7", "features.views=3"])
        assert config.frozen.augment == replace(AUGMENT[recipe], pad=7) and config.frozen.views == 3
    assert changed(RecipeConfig("iql"), ["features.views=3"]).features.augment is None


def test_an_evaluation_of_other_settings_is_not_counted(tmp_path: Path) -> None:
    """A folder begun with other start states or fewer trials is refused; the error gives both and says what to do."""
    wanted = evaluation(0, 20, ("I", "II"), 0.2)
    for other in (
        evaluation(1, 20, ("I", "II"), 0.2),
        evaluation(0, 10, ("I", "II"), 0.2),
        evaluation(0, 20, ("II",), 0.2),
        evaluation(0, 20, ("I", "II"), 0.0),
    ):
        held = to_json(other) | {"connector": CONNECTOR}
        (tmp_path / "evaluation-before.json").write_text(json.dumps({"config": held}))
        with pytest.raises(ValueError, match=r"delete .* to practise anew") as refused:
            read_practice(tmp_path, wanted)
        assert str(other.seed) in str(refused.value) and str(wanted.seed) in str(refused.value)


def command(run: Path, tmp_path: Path, *options: str) -> None:
    """A small ``lotj tables practice`` in this process."""
    small = ["--trials", "2", "--evaluation-trials", "1", "--workers", "1"]
    where = ["--run", str(run), "--out", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    cli.main(["tables", "practice", *where, *small, *options])


def result_of(tmp_path: Path, name: str) -> dict[str, Any]:
    """A result file."""
    values: dict[str, Any] = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    return values


def start_states(tmp_path: Path, folder: str, side: str) -> list[Any]:
    """Where an evaluation's trials began."""
    path = tmp_path / "runs" / CONNECTOR / folder / f"evaluation-{side}.json"
    return [(trial["scenario"], trial["start"]) for trial in json.loads(path.read_text())["trials"]]


def test_cases_are_practised_once_and_repeated_from_their_files(
    tiny_run: Path,
    tmp_path: Path,
    files_of: Callable[[Path], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Result files say case, origin, counts and curve; start states are shared within a seed and differ between seeds;
    the offline run stays as it was; repeated, nothing is practised, and a lost result comes from the folder."""
    before = files_of(tiny_run)
    options = ["--connectors", CONNECTOR, "--rewards", "learned", "ground-truth", "--seeds", "0", "1"]
    command(tiny_run, tmp_path, *options, "--recipes", "ensemble")
    assert files_of(tiny_run) == before
    told = capsys.readouterr().out
    assert "| europlug | I | " in told and "Diagnostic" in told
    results = {path.stem: result_of(tmp_path, path.stem) for path in (tmp_path / "results").glob("*.json")}
    rewards = ("learned", "ground-truth")
    assert set(results) == {f"{CONNECTOR}-ensemble-{reward}-s{seed}" for reward in rewards for seed in (0, 1)}
    for result in results.values():
        case = result["case"]
        assert result["diagnostic"] is (case["reward"] == "ground-truth") and result["validation"] is False
        assert result["command"] and "git" in result and result["milestones"] == {"75%": None, "95%": None}
        assert result["offline"]["preset"]["known"] == ["usb-a", "rj45", "bnc"]
        assert result["offline"]["stages"]["critic"] == json.loads((tiny_run / "critic/done.json").read_text())
        assert [set(row) for row in result["curve"]] == [set(CURVE)] * 2
        assert (result["preflight"] is None) is (case["reward"] == "ground-truth")
        assert all((row["true_at_success"] is not None) == row["success"] for row in result["curve"])
        for scenario in ("I", "II"):
            counts = result["scenarios"][scenario]
            assert counts["offline_true"][1] == counts["online_true"][1] == 1 and 0 <= counts["p_value"] <= 1
            assert None not in (counts["offline_judged"], counts["online_judged"], counts["online_rewarded"])
            assert counts["gained"] - counts["lost"] == counts["online_true"][0] - counts["offline_true"][0]
            assert sum(counts["online_confusion"].values()) == 1
    states = {(r, s): start_states(tmp_path, f"ensemble-{r}-s{s}", "before") for r in rewards for s in (0, 1)}
    assert start_states(tmp_path, "ensemble-learned-s0", "after") == states["learned", 0] == states["ground-truth", 0]
    assert states["learned", 1] == states["ground-truth", 1]
    assert not {str(state) for state in states["learned", 0]} & {str(state) for state in states["learned", 1]}

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("practised again")

    monkeypatch.setattr(pipeline, "practise_in_rounds", fail)
    lost = f"{CONNECTOR}-ensemble-learned-s1"
    (tmp_path / "results" / f"{lost}.json").unlink()
    command(tiny_run, tmp_path, *options, "--recipes", "ensemble")
    again = result_of(tmp_path, lost)
    assert {key: again[key] for key in ("scenarios", "curve", "practice")} == {
        key: results[lost][key] for key in ("scenarios", "curve", "practice")
    }
    monkeypatch.setattr(practice_runs, "practise_in", fail)
    command(tiny_run, tmp_path, *options, "--recipes", "ensemble")


def test_a_checked_practice_goes_by_the_rule_of_the_answer(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And any other by the one that validation chose, whatever the answer; both have the same answer on record."""
    rule = SuccessRule(0.123, 2)
    asked: list[PreflightConfig] = []

    def answered(connector: str, robot: str, config: PreflightConfig, *rest: Any) -> Preflight:
        asked.append(config)
        return check_reward(connector, robot, config, *rest)._replace(rule=rule)

    monkeypatch.setattr(practice_runs, "check_reward", answered)
    options = ["--connectors", CONNECTOR, "--recipes", "ensemble", "--rewards", "learned", "--seeds", "0"]
    command(tiny_run, tmp_path, *options, "--rules", "chosen", "checked", "--settings", "preflight.attempts=2")
    chosen = json.loads((tiny_run / "reward/evaluation.json").read_text())["rule"]
    expected = {
        "": {key: chosen[key] for key in ("threshold", "frames")},
        "-checked": {"threshold": 0.123, "frames": 2},
    }
    for name, own in expected.items():
        practised = f"ensemble-learned{name}-attempts=2-s0"
        config = json.loads((tmp_path / "runs" / CONNECTOR / practised / "config.json").read_text())
        assert config["config"]["rule"] == own
        answer = result_of(tmp_path, f"{CONNECTOR}-{practised}")["preflight"]
        assert answer["rule"] == {"threshold": 0.123, "frames": 2} and answer["attempts"] == 2
    assert [config.attempts for config in asked] == [2, 2]


def refusal(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What a command says that must be refused before anything is done."""
    with pytest.raises(SystemExit) as ended:
        command(run, tmp_path, *options)
    assert ended.value.code == 2
    assert not list((tmp_path / "runs").glob("*/*"))
    return capsys.readouterr().err


def test_what_cannot_be_practised_is_refused_before_any_work(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known connectors, validation connectors without ``--validation``, misspelt ones, unfinished runs, no run at all,
    results of other settings, practices of another offline run."""
    assert "'usb-a' is not novel" in refusal(tiny_run, tmp_path, capsys, "--connectors", CONNECTOR, "usb-a")
    assert "--validation" in refusal(tiny_run, tmp_path, capsys, "--connectors", "bnc")
    assert "europlug" in refusal(tiny_run, tmp_path, capsys, "--connectors", "europlgu")
    assert "not a run folder" in refusal(tmp_path / "none", tmp_path, capsys)
    nothing = ["preflight.presses=0", "preflight.attempts=0"]
    unasked = refusal(tiny_run, tmp_path, capsys, "--rules", "checked", "--settings", *nothing)
    assert "nothing is asked" in unasked and "--rules chosen" in unasked
    unfinished = shutil.copytree(tiny_run, tmp_path / "unfinished")
    (unfinished / "policy" / "done.json").unlink()
    assert "no policy/done.json" in refusal(unfinished, tmp_path, capsys)
    (tmp_path / "results").mkdir()
    (case,) = PracticeTableConfig((CONNECTOR,), ("iql",), ("learned",), seeds=(0,), trials=3).cases()
    held = {"case": vars(case), "offline": practice_runs.offline_identity(tiny_run)}
    (tmp_path / "results" / f"{case.name}.json").write_text(json.dumps(held))
    options = ("--connectors", CONNECTOR, "--recipes", "iql", "--rewards", "learned", "--seeds", "0")
    told = refusal(tiny_run, tmp_path, capsys, *options)
    assert "another case.trials, case.evaluation_trials" in told and "--results" in told
    assert not (tmp_path / "runs").exists()
    (tmp_path / "results" / f"{case.name}.json").unlink()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "offline.json").write_text("{}")
    assert "another offline run" in refusal(tiny_run, tmp_path, capsys, *options)


def test_a_name_that_no_file_can_have_is_refused_before_any_practice() -> None:
    """The result file would be refused after minutes of practice."""
    settings = tuple(f"ensemble.{name}=1" for name in ("heads", "target_heads", "action_repeats", "prepare_updates"))
    settings += ("practice.updates_per_step=1", "practice.warmup_trials=1", "practice.batch_size=1", "features.views=1")
    settings += ("practice.checkpoint_every_trials=1", "preflight.presses=100", "preflight.attempts=100")
    settings += tuple(f"features.augment.{name}=0.1" for name in ("brightness", "contrast", "saturation", "recolour"))
    assert PracticeTableConfig((CONNECTOR,), ("ensemble",), settings=settings[:8]).cases()
    with pytest.raises(ValueError, match=r"too long a name for a file, \d+ characters of 230"):
        PracticeTableConfig((CONNECTOR,), ("ensemble",), settings=settings).cases()


def test_an_edited_connector_is_another(tmp_path: Path) -> None:
    """A result of what a file described does not pass for one of what it describes now."""
    path = tmp_path / "plug.toml"
    path.write_text(commented_toml(example("plug")))
    (case,) = PracticeTableConfig((str(path),), ("iql",), ("learned",), seeds=(0,)).cases()
    write_result(case, tmp_path / "results", {}, {})
    assert unfinished([case], tmp_path / "results") == []
    path.write_text(commented_toml(replace(example("plug"), clearance=0.0004)))
    with pytest.raises(ValueError, match=r"another described\.clearance"):
        unfinished([case], tmp_path / "results")
    held = json.loads((tmp_path / "results" / f"{case.name}.json").read_text())
    del held["described"]  # as results of before had it
    (tmp_path / "results" / f"{case.name}.json").write_text(json.dumps(held))
    assert unfinished([case], tmp_path / "results") == []


def test_a_validation_connector_is_practised_on_purpose(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``--validation`` it is practised, and marked in result and table."""
    options = ["--connectors", "bnc", "--recipes", "iql", "--rewards", "learned", "--seeds", "0", "--validation"]
    command(tiny_run, tmp_path, *options)
    assert result_of(tmp_path, "bnc-iql-learned-s0")["validation"] is True
    assert "bnc (validation)" in capsys.readouterr().out
