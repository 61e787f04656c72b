"""Practice as tables, from result files: counts pooled over seeds, how soon the robot could do it, what it believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import median
from typing import Any, NamedTuple, get_args

from lotj.experiments.cases import in_order
from lotj.experiments.practice_cases import Rule, Unattended, practice_words
from lotj.experiments.practised import CONTROL_SECONDS, LEVELS, RESET_SECONDS, WINDOW
from lotj.experiments.reward_table import markdown
from lotj.practice import RewardSource
from lotj.recipe import Recipe
from lotj.stats import barnard, mcnemar
from lotj.tables import count
from lotj.types import Trials

Result = Mapping[str, Any]
Count = tuple[int, int]
"""(Successes, trials)."""


class Column(NamedTuple):
    """A way of practising (``PracticeCase``)."""

    recipe: str
    reward: str
    guard: str = "off"
    settings: tuple[str, ...] = ()
    """That are otherwise."""
    rule: str = "chosen"


SIGNIFICANCE = 0.05
NOTE = """
True success, pooled over seeds with start states of their own; in brackets the 95% Clopper-Pearson interval. ↑ and ↓:
better or worse than the offline policy on the same start states (two-sided p < .05, not corrected for the number of
tests: McNemar's exact test on the pairs, Barnard's where results of before name none). The trials of one practice share
its networks, and all seeds one offline run, so the interval says nothing of what another offline training would come
to. *gate*: successes that the robot claims and a tug at the plug refutes are not paid, which the paper has not; where
it refuted nothing, the practice is the one without it. *checked*: trials are ended and paid by the rule that the check
before practice answered with, else by the one that validation chose. *diagnostic*: practised with ground truth as the
reward, no result of the method.
"""
"""Printed under the table of successes."""
PAPER_NOTE = """
*paper*: Tables I and II of Nair et al. 2022, *LOTJ, full*, offline → online: a real robot, one camera,
50 known connectors. The two are not a contest.
"""
STRETCHES = ((1, 20), (31, 50), (181, 200))
"""Trials of practice, counted from 1 and both included, in which successes are counted: the first, those before the
goal's fiftieth, the last."""
SOON_NOTE = f"""
True successes of practice itself, exploration included, pooled over seeds; and the first trial at which {WINDOW} trials
in a row have {" or ".join(LEVELS)} true success, with the robot's minutes till then ({CONTROL_SECONDS:g} s a step,
{RESET_SECONDS:g} s a reset): median over seeds, "never" where the median seed did not get there. {WINDOW} is the
earliest possible. It is the best of many overlapping stretches: whoever succeeds 3 times in 4 throughout gets to 95%
somewhere in 200 trials more often than not (.58; at 4 in 5 .88).
"""
"""Printed under the table of how soon."""
BELIEF_NOTE = """
*asked before*: how many blind presses, which are failures all, the reward's rule took for a success before practice; it
was practised all the same. *false*: claims at which the plug was not in. *missed*: trials of practice in
which it was in and the robot never said so. *lost*: plugs that turned or slid in the fingers. *after*: true successes
of the evaluation, both scenarios, seed by seed. *judged, true*: of these trials, how many the robot itself would have
ended as successes, and how many were.
"""
"""Printed under the table of what the robot believed."""
PAPER = {
    "deutsch-dt-12": {"I": (7, 19), "II": (5, 18)},
    "mega-block-1x1": {"I": (5, 16), "II": (0, 20)},
    "nema-5-15": {"I": (11, 15), "II": (6, 17)},
    "europlug": {"I": (10, 15), "II": (2, 15)},
}
"""Of 20, offline and online: Tables I and II of the paper."""


@dataclass
class Line:
    """A connector in a scenario."""

    before: dict[int, Count] = field(default_factory=dict)
    """By seed; shared by all that start from the same offline policy, so counted once."""
    after: dict[Column, dict[int, Count]] = field(default_factory=dict)
    """Then by seed."""
    results: dict[Column, list[Result]] = field(default_factory=dict)
    pairs: dict[Column, list[tuple[int, int] | None]] = field(default_factory=dict)
    """Start states gained and lost, of each seed; None where a result does not say."""

    def p_value(self, column: Column) -> float:
        """Whether practice changed anything."""
        after = self.after[column]
        return p_value_of(pooled({seed: self.before[seed] for seed in after}), pooled(after), self.pairs[column])


def practice_table(results: Sequence[Result]) -> str:
    """Three tables as markdown: the successes of each connector and scenario, with a column for each recipe, reward and
    guard; then, with a line for each, how soon the robot had learned a connector, and what it believed.

    Raises:
        ValueError: results of a seed disagree about the offline policy.
    """
    lines = pool(results)
    columns = _columns(lines)
    paper = ["paper, of 20"] if any(connector in PAPER for connector, _ in lines) else []
    counts = [["connector", "scenario", *paper, "offline", *(title(column) for column in columns), "seeds"]]
    for (connector, scenario), line in lines.items():
        theirs = PAPER.get(connector, {}).get(scenario)
        cells = [f"{theirs[0]} → {theirs[1]}" if theirs else "" for _ in paper]
        cells += [show(pooled(line.before)), *(online(line, column) for column in columns)]
        counts.append([connector, scenario, *cells, str(len(line.before))])
    stretches = [f"trials {first}-{last}" for first, last in STRETCHES]
    soon = [["connector", "practised with", *stretches, *(f"till {level}" for level in LEVELS)]]
    soon += [[*who, *map(stretch_of(own), STRETCHES), *till(own)] for who, own in practised(lines)]
    belief = [["connector", "practised with", *BELIEFS]]
    belief += [[*who, *believed(own)] for who, own in practised(lines)]
    texts = [ruled(counts) + NOTE + (PAPER_NOTE if paper else ""), ruled(soon) + SOON_NOTE]
    return "\n".join([*texts, ruled(belief) + BELIEF_NOTE])


def ruled(rows: list[list[str]]) -> str:
    """Markdown of a head and its rows."""
    return markdown([rows[0], ["---"] * len(rows[0]), *rows[1:]])


def _columns(lines: Mapping[tuple[str, str], Line]) -> list[Column]:
    present = {key for line in lines.values() for key in line.after}
    settings = sorted({column.settings for column in present})
    every = product(get_args(Recipe), get_args(RewardSource), get_args(Unattended), settings, get_args(Rule))
    return [Column(*column) for column in every if column in present]


def practised(lines: Mapping[tuple[str, str], Line]) -> list[tuple[tuple[str, str], list[Result]]]:
    """(Connector, title) and results, seed by seed, of all that was practised."""
    columns, found = _columns(lines), []
    for connector in dict.fromkeys(connector for connector, _ in lines):
        own = next(line for (name, _), line in lines.items() if name == connector)
        found += [((connector, title(column)), own.results[column]) for column in columns if column in own.results]
    return found


def practice_rows(results: Sequence[Result]) -> list[Trials]:
    """The table's counts, pooled over seeds, for `lotj.tables`: the offline policy's and those after practice."""
    rows = []
    for (connector, scenario), line in pool(results).items():
        rows.append(Trials("offline", "", connector, scenario, *pooled(line.before)))
        for column, counts in line.after.items():
            rows.append(Trials(title(column), "", connector, scenario, *pooled(counts)))
    return rows


def pool(results: Sequence[Result], one_length: bool = True) -> dict[tuple[str, str], Line]:
    """Counts by (connector, scenario), connectors in the paper's order.

    Args:
        results: all that are pooled.
        one_length: they must be of practices of as many trials.

    Raises:
        ValueError: they are not, or come from several offline runs, or those of a seed disagree about the offline
        policy.
    """
    for result in results:
        _refuse_mixture(results[0], result, one_length)
    named: dict[str, list[Result]] = {}
    for result in results:
        named.setdefault(label(result), []).append(result)
    lines: dict[tuple[str, str], Line] = {}
    for connector in in_order(named):
        for result in named[connector]:
            case, key = result["case"], column_of(result)
            seed = case["seed"]
            for scenario, counts in result["scenarios"].items():
                line = lines.setdefault((connector, scenario), Line())
                before = counted(counts["offline_true"])
                if line.before.setdefault(seed, before) != before:
                    raise ValueError(
                        f"{case['name']}: the offline policy has {before} (successes, trials) in scenario {scenario}, "
                        f"another result of seed {seed} says {line.before[seed]}; they come from different offline "
                        "runs or machines, so delete one and repeat it"
                    )
                line.after.setdefault(key, {})[seed] = counted(counts["online_true"])
                line.results.setdefault(key, []).append(result)
                line.pairs.setdefault(key, []).append(pair_of(counts))
    return lines


def _refuse_mixture(first: Result, other: Result, one_length: bool) -> None:
    """Rows of a table are pooled, so all results in a folder must be alike in what the rows do not say."""
    differences = [
        ("another offline run", "offline", "stages"),
        ("another number of evaluation trials", "case", "evaluation_trials"),
    ]
    if one_length:
        differences.append(("another number of trials", "case", "trials"))
    for what, where, key in differences:
        if first.get(where, {}).get(key) != other.get(where, {}).get(key):
            raise ValueError(
                f"{other['case']['name']} has {what} than {first['case']['name']}; a table pools what one offline run "
                "came to in practices of one length, so keep the others in another folder (--results)"
            )


def column_of(result: Result) -> Column:
    """How a result was practised."""
    case = result["case"]
    return Column(
        case["recipe"],
        case["reward"],
        case.get("guard", "off"),
        tuple(case.get("settings", ())),
        case.get("rule", "chosen"),
    )


def online(line: Line, column: Column) -> str:
    """``57/60 (86-99%) ↑``: clearly better than the offline policy of the same seeds."""
    after = line.after.get(column)
    if not after:
        return ""
    new, old = pooled(after), pooled({seed: line.before[seed] for seed in after})
    sign = "" if line.p_value(column) >= SIGNIFICANCE else " ↑" if new[0] * old[1] > old[0] * new[1] else " ↓"
    return show(new, intervals=True) + sign


def p_value_of(before: Count, after: Count, pairs: Sequence[Count | None]) -> float:
    """McNemar's exact test on start states gained and lost, or Barnard's where a result names none."""
    known = [pair for pair in pairs if pair is not None]
    if len(known) == len(pairs):
        return mcnemar(*(sum(side) for side in zip(*known)))
    return barnard(*before, *after)


def pair_of(counts: Mapping[str, Any]) -> Count | None:
    """Start states gained and lost, where a result says so."""
    gained, lost = counts.get("gained"), counts.get("lost")
    return None if gained is None or lost is None else (gained, lost)


def stretch_of(results: Sequence[Result]) -> Callable[[tuple[int, int]], str]:
    """``54/60``: true successes of a stretch of practice, pooled over seeds; empty where none got that far."""

    def stretch(limits: tuple[int, int]) -> str:
        truth = [bool(row["true_success"]) for result in results for row in result["curve"][limits[0] - 1 : limits[1]]]
        return show((sum(truth), len(truth))) if truth else ""

    return stretch


def till(results: Sequence[Result]) -> list[str]:
    """``48 (21 min)`` or ``never``: the median over seeds of each of ``LEVELS``."""
    cells = []
    for level in LEVELS:
        found = [result["milestones"][level] for result in results]
        trial, minutes = (
            median(math.inf if one is None else one[unit] for one in found) for unit in ("trial", "minutes")
        )
        cells.append("never" if math.isinf(trial) else f"{trial:g} ({minutes:.0f} min)")
    return cells


BELIEFS = ("asked before", "false, of claims", "missed, of true", "lost, of trials", "after, by seed", "judged, true")


def believed(results: Sequence[Result]) -> list[str]:
    """What the robot believed in practice and after it: the cells of ``BELIEFS``, pooled over seeds."""
    curve = [row for result in results for row in result["curve"]]
    claims = [row["true_at_success"] for row in curve if row["success"]]
    true = [row for row in curve if row["true_success"]]
    answers = [result["preflight"] for result in results if result.get("preflight")]
    pressed = [sum(answer[key] for answer in answers) for key in ("chosen_fires", "presses")]
    scenarios = [list(result["scenarios"].values()) for result in results]
    seeds = [sum(counts["online_true"][0] for counts in each) for each in scenarios]
    judged = [counts["online_judged"] for each in scenarios for counts in each]
    return [
        f"{pressed[0]} of {pressed[1]}" if answers else "",
        f"{claims.count(False)} of {len(claims)}",
        f"{sum(not row['success'] for row in true)} of {len(true)}",
        f"{sum(result['practice']['summary']['dislodged'] for result in results)} of {len(curve)}",
        ", ".join(map(str, seeds)),
        "" if None in judged else f"{sum(judged)}, {sum(seeds)}",
    ]


def title(column: Column) -> str:
    """``ensemble, learned, gate, discount=0.8``, with what must be said wherever ground truth was the reward."""
    mark = " (diagnostic)" if column.reward == "ground-truth" else ""
    return ", ".join(practice_words(*column)) + mark


def label(result: Result) -> str:
    """The connector's name, marked where it served validation."""
    name: str = result["connector"]
    return f"{name} (validation)" if result["validation"] else name


def pooled(counts: Mapping[int, Count]) -> Count:
    """The sum over seeds."""
    return sum(successes for successes, _ in counts.values()), sum(trials for _, trials in counts.values())


def show(counts: Count, intervals: bool = False) -> str:
    """``7/20``, or with its interval."""
    return count(Trials("", "", "", "", *counts), intervals)


def counted(pair: Sequence[int]) -> Count:
    """[successes, trials] as a result file has them."""
    successes, trials = pair
    return successes, trials
