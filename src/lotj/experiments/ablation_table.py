"""Table III from result files: true success in scenario II before and after practice, pooled over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from lotj.experiments.ablation_cases import ARMS, EVALUATED
from lotj.experiments.cases import in_order
from lotj.experiments.practice_table import label
from lotj.recipe import Recipe
from lotj.tables import to_markdown
from lotj.types import Trials

NOTE = (
    "Pooled over {seeds} offline trainings; the trials of one share its networks, and the offline counts of arms with "
    "the same policy are the same trials. Practised with the learned reward.\n"
)
"""Printed under the table of each recipe."""


def ablation_table(results: Sequence[Mapping[str, Any]]) -> str:
    """A table for each recipe as markdown: a line a connector, a column for each arm before and after practice."""
    tables = []
    for recipe in get_args(Recipe):
        own = [result for result in results if result["case"]["recipe"] == recipe]
        if own:
            seeds = len({result["case"]["seed"] for result in own})
            tables.append(f"Recipe `{recipe}`:\n\n{to_markdown(pooled_rows(own))}\n{NOTE.format(seeds=seeds)}")
    return "\n".join(tables)


def ablation_rows(results: Sequence[Mapping[str, Any]]) -> list[Trials]:
    """The counts of all recipes, which their rows name."""
    recipes = [name for name in get_args(Recipe) if any(result["case"]["recipe"] == name for result in results)]
    return [
        row._replace(method=f"{recipe}, {row.method}")
        for recipe in recipes
        for row in pooled_rows([result for result in results if result["case"]["recipe"] == recipe])
    ]


def pooled_rows(results: Sequence[Mapping[str, Any]]) -> list[Trials]:
    """Counts of one recipe, summed over seeds: connectors in the paper's order, arms in that of ``ARMS``."""
    rows = []
    for connector in in_order(label(result) for result in results):
        for arm in ARMS:
            own = [result for result in results if (label(result), result["case"]["arm"]) == (connector, arm)]
            for phase in ("offline", "online") if own else ():
                pairs = [result["scenarios"][EVALUATED[0]][f"{phase}_true"] for result in own]
                successes, trials = (sum(column) for column in zip(*pairs))
                rows.append(Trials(ARMS[arm].title, phase, connector, EVALUATED[0], successes, trials))
    return rows
