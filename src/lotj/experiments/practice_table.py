"""Practice as a table, from result files: counts pooled over seeds, and how soon the robot could do it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import median
from typing import Any, get_args

from lotj.experiments.cases import in_order
from lotj.experiments.practice_cases import Unattended, short
from lotj.experiments.practised import CONTROL_SECONDS, LEVELS, RESET_SECONDS, WINDOW
from lotj.experiments.reward_table import markdown
from lotj.practice import RewardSource
from lotj.recipe import Recipe
from lotj.stats import barnard
from lotj.tables import count
from lotj.types import Trials

Result = Mapping[str, Any]
Count = tuple[int, int]
"""(Successes, trials)."""
Column = tuple[str, str, str, tuple[str, ...]]
"""(Recipe, reward, guard, settings that are otherwise)."""

SIGNIFICANCE = 0.05
NOTE = """
True success, pooled over seeds with start states of their own; in brackets the 95% Clopper-Pearson interval. ↑ and ↓:
better or worse than the offline policy on the same start states (Barnard's exact test, two-sided, p < .05).
The trials of one practice share its networks, and all seeds one offline run. *gate*: successes that the robot claims
and a tug at the plug refutes are not paid, which the paper has not. *diagnostic*: practised with ground truth as the
reward, no result of the method.
"""
"""Printed under the table of successes."""
PAPER_NOTE = """
*paper*: Tables I and II of Nair et al. 2022, *LOTJ, full*, offline → online: a real robot, one camera,
50 known connectors. The two are not a contest.
"""
TILL_NOTE = f"""
The first trial of practice at which {WINDOW} trials in a row have {" or ".join(LEVELS)} true success, and the robot's
minutes till then ({CONTROL_SECONDS:g} s a step, {RESET_SECONDS:g} s a reset); median over seeds, "never" where the
median seed did not get there. It is the best of many overlapping stretches: whoever succeeds 3 times in 4 throughout
gets to 95% somewhere in 200 trials more often than not (.58; at 4 in 5 .88).
"""
"""Printed under the table of how soon."""
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


def practice_table(results: Sequence[Result]) -> str:
    """Two tables as markdown, with a column for each recipe, reward and guard: the successes of each connector and
    scenario, and how soon the robot had learned each connector.

    Raises:
        ValueError: results of a seed disagree about the offline policy.
    """
    lines = pool(results)
    present = {key for line in lines.values() for key in line.after}
    settings = sorted({column[3] for column in present})
    every = product(get_args(Recipe), get_args(RewardSource), get_args(Unattended), settings)
    columns = [column for column in every if column in present]
    named = [title(*column) for column in columns]
    paper = ["paper, of 20"] if any(connector in PAPER for connector, _ in lines) else []
    counts = [["connector", "scenario", *paper, "offline", *named, "seeds"]]
    soon = {"connector": [f"till {' / '.join(LEVELS)}", *named]}
    for (connector, scenario), line in lines.items():
        theirs = PAPER.get(connector, {}).get(scenario)
        cells = [f"{theirs[0]} → {theirs[1]}" if theirs else "" for _ in paper]
        cells += [show(pooled(line.before)), *(online(line, column) for column in columns)]
        counts.append([connector, scenario, *cells, str(len(line.before))])
        soon[connector] = [connector, *(till(line.results.get(column, [])) for column in columns)]
    tables = [[head, ["---"] * len(head), *rows] for head, *rows in (counts, list(soon.values()))]
    return markdown(tables[0]) + NOTE + (PAPER_NOTE if paper else "") + "\n" + markdown(tables[1]) + TILL_NOTE


def practice_rows(results: Sequence[Result]) -> list[Trials]:
    """The table's counts, pooled over seeds, for `lotj.tables`: the offline policy's and those after practice."""
    rows = []
    for (connector, scenario), line in pool(results).items():
        rows.append(Trials("offline", "", connector, scenario, *pooled(line.before)))
        for column, counts in line.after.items():
            rows.append(Trials(title(*column), "", connector, scenario, *pooled(counts)))
    return rows


def pool(results: Sequence[Result]) -> dict[tuple[str, str], Line]:
    """Counts by (connector, scenario), connectors in the paper's order.

    Raises:
        ValueError: results of a seed disagree about the offline policy.
    """
    named: dict[str, list[Result]] = {}
    for result in results:
        named.setdefault(label(result), []).append(result)
    lines: dict[tuple[str, str], Line] = {}
    for connector in in_order(named):
        for result in named[connector]:
            case = result["case"]
            key = (case["recipe"], case["reward"], case.get("guard", "off"), tuple(case.get("settings", ())))
            seed = case["seed"]
            for scenario, counts in result["scenarios"].items():
                line = lines.setdefault((connector, scenario), Line())
                before = _count(counts["offline_true"])
                if line.before.setdefault(seed, before) != before:
                    raise ValueError(
                        f"{case['name']}: the offline policy has {before} (successes, trials) in scenario {scenario}, "
                        f"another result of seed {seed} says {line.before[seed]}; they come from different offline "
                        "runs or machines, so delete one and repeat it"
                    )
                line.after.setdefault(key, {})[seed] = _count(counts["online_true"])
                line.results.setdefault(key, []).append(result)
    return lines


def online(line: Line, column: Column) -> str:
    """``57/60 (86-99%) ↑``: clearly better than the offline policy of the same seeds."""
    after = line.after.get(column)
    if not after:
        return ""
    new, old = pooled(after), pooled({seed: line.before[seed] for seed in after})
    sign = "" if barnard(*old, *new) >= SIGNIFICANCE else " ↑" if new[0] * old[1] > old[0] * new[1] else " ↓"
    return show(new, intervals=True) + sign


def till(results: Sequence[Result]) -> str:
    """``48 (21 min) / never``: the median over seeds of each of ``LEVELS``."""
    if not results:
        return ""
    cells = []
    for level in LEVELS:
        found = [result["milestones"][level] for result in results]
        trial, minutes = (
            median(math.inf if one is None else one[unit] for one in found) for unit in ("trial", "minutes")
        )
        cells.append("never" if math.isinf(trial) else f"{trial:g} ({minutes:.0f} min)")
    return " / ".join(cells)


def title(recipe: str, reward: str, guard: str, settings: Sequence[str]) -> str:
    """``ensemble, learned, gate, discount=0.8``, with what must be said wherever ground truth was the reward."""
    mark = " (diagnostic)" if reward == "ground-truth" else ""
    return ", ".join([recipe, reward, *([] if guard == "off" else [guard]), *map(short, settings)]) + mark


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


def _count(pair: Sequence[int]) -> Count:
    successes, trials = pair
    return successes, trials
