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
from lotj.stats import barnard, show_p
from lotj.tables import count
from lotj.types import Trials

Result = Mapping[str, Any]
Count = tuple[int, int]
"""(Successes, trials)."""
Column = tuple[str, str, str, tuple[str, ...]]
"""(Recipe, reward, guard, settings that are otherwise)."""

NOTE = f"""
True success, pooled over seeds with start states of their own; in brackets the 95% Clopper-Pearson interval. p:
Barnard's exact test, two-sided, against the offline policy on the same start states. Till {" / ".join(LEVELS)}: the
first trial of practice at which {WINDOW} trials in a row have that true success, and the robot's minutes till then
({CONTROL_SECONDS:g} s a step, {RESET_SECONDS:g} s a reset); median over seeds, "never" where the median seed did not
get there. It is the best of many overlapping stretches: whoever succeeds 3 times in 4 throughout gets to 95% somewhere
in 200 trials more often than not (.58; at 4 in 5 .88). The trials of one practice share its networks, and all seeds one
offline run. *gate*: successes that the robot claims and a tug at the plug refutes are
not paid, which the paper has not. *diagnostic*: practised with ground truth as the reward, no result of the method.
"""
"""Printed under the table."""


@dataclass
class Line:
    """A connector in a scenario."""

    before: dict[int, Count] = field(default_factory=dict)
    """By seed; shared by all that start from the same offline policy, so counted once."""
    after: dict[Column, dict[int, Count]] = field(default_factory=dict)
    """Then by seed."""
    results: dict[Column, list[Result]] = field(default_factory=dict)


def practice_table(results: Sequence[Result]) -> str:
    """A line for each connector and scenario, as markdown: offline, then two columns for each recipe, reward and guard.

    Raises:
        ValueError: results of a seed disagree about the offline policy.
    """
    lines = pool(results)
    present = {key for line in lines.values() for key in line.after}
    settings = sorted({column[3] for column in present})
    every = product(get_args(Recipe), get_args(RewardSource), get_args(Unattended), settings)
    columns = [column for column in every if column in present]
    head = ["connector", "scenario", "offline"]
    for column in columns:
        head += [title(*column), f"till {' / '.join(LEVELS)}"]
    table = [[*head, "seeds"], ["---"] * (len(head) + 1)]
    for (connector, scenario), line in lines.items():
        cells = [connector, scenario, show(pooled(line.before))]
        for column in columns:
            cells += [online(line, column), till(line.results.get(column, []))]
        table.append([*cells, str(len(line.before))])
    return markdown(table) + NOTE


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
    """``57/60 (86-99%), p 0.0012``: p against the offline policy of the same seeds."""
    after = line.after.get(column)
    if not after:
        return ""
    new, old = pooled(after), pooled({seed: line.before[seed] for seed in after})
    return f"{show(new, intervals=True)}, p {show_p(barnard(*old, *new))}"


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
