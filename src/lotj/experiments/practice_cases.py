"""Practice over connectors, recipes, rewards and seeds, from one finished offline run (our side of Tables I and II).

A *case* is one practice: scenarios I and II mixed, evaluated before and after in each of them. A seed draws
exploration, batches, the starts of practice and the start states of evaluation; the offline run is the same for all.
Each case leaves one result file. Practice with ground truth as the reward is a diagnostic and marked so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from lotj.experiments.cases import require_choice, require_counts
from lotj.pipeline import Recipe
from lotj.practice import RewardSource
from lotj.sim.connectors import TEST_CONNECTORS, get_connector

Unattended = Literal["off", "gate"]
"""Guards (``lotj.guard.Mode``) under which practice goes on by itself."""


@dataclass(frozen=True)
class PracticeCase:
    """One practice."""

    name: str
    """Of its result file."""
    connector: str
    """A name of the catalogue or a TOML file."""
    recipe: Recipe
    """``iql`` is the paper's, ``ensemble`` ours."""
    reward: RewardSource
    """``ground-truth`` is a diagnostic."""
    guard: Unattended
    """Whether a tug refutes what the robot claims (``lotj.guard``)."""
    seed: int
    """Of practice and evaluation."""
    trials: int
    """Of practice."""
    evaluation_trials: int
    """In each scenario, before and after."""


@dataclass(frozen=True)
class PracticeTableConfig:
    """What is practised: every recipe with every reward, on every connector, for every seed."""

    connectors: tuple[str, ...] = TEST_CONNECTORS
    """Names of the catalogue or TOML files; offline training must not have known them."""
    recipes: tuple[Recipe, ...] = ("ensemble", "iql")
    """``iql`` is the paper's, ``ensemble`` ours, a deviation."""
    rewards: tuple[RewardSource, ...] = ("learned", "ground-truth")
    """``ground-truth`` is a diagnostic and marks every output."""
    guards: tuple[Unattended, ...] = ("off",)
    """``gate``: a success that a tug refutes is not paid; it needs a wrist that feels force, so it is not the paper's.
    Ground truth has no guard."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each with start states of its own."""
    trials: int = 200
    """Of each practice, as in the paper."""
    evaluation_trials: int = 20
    """In each scenario, before and after, as in the paper."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_choice(f"{name}.connectors", self.connectors)
        require_choice(f"{name}.recipes", self.recipes, get_args(Recipe))
        require_choice(f"{name}.rewards", self.rewards, get_args(RewardSource))
        require_choice(f"{name}.guards", self.guards, get_args(Unattended))
        require_counts(name, self.seeds, trials=self.trials, evaluation_trials=self.evaluation_trials)

    def cases(self) -> list[PracticeCase]:
        """All of them; seed by seed, so that a part of the table compares recipes already."""
        return [
            PracticeCase(
                f"{get_connector(connector).name}-{practice_name(recipe, reward, guard)}-s{seed}",
                connector,
                recipe,
                reward,
                guard,
                seed,
                self.trials,
                self.evaluation_trials,
            )
            for seed in self.seeds
            for connector in self.connectors
            for recipe in self.recipes
            for reward in self.rewards
            for guard in self.guards
            if guard == "off" or reward == "learned"
        ]


def practice_name(recipe: str, reward: str, guard: str) -> str:
    """``ensemble-learned``, with the guard where there is one."""
    return f"{recipe}-{reward}" + ("" if guard == "off" else f"-{guard}")


class PracticeJob(NamedTuple):
    """Where cases read and write."""

    run: Path
    """A finished offline run; only its cache of frozen features is added to."""
    out: Path
    """Folder of the practices."""
    results: Path
    """Folder of the result files."""
    allow_validation: bool = False
    """As in ``lotj.split.refuse_known``."""
