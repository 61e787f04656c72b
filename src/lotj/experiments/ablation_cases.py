"""Table III: what the bottleneck (DAIB) on the reward and on the policy is worth to practice, scenario II.

A *case* is one practice with the learned reward, from the networks of an arm. A seed trains networks of its own and
draws practice and the start states of evaluation. Arms of a seed share networks: each is trained once. Each case leaves
one result file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from lotj.experiments.cases import require_choice, require_counts
from lotj.practice import Scenario
from lotj.presets import Preset
from lotj.recipe import Recipe
from lotj.sim.connectors import TEST_CONNECTORS, get_connector

Kind = Literal["reward", "critic", "policy"]


class Network(NamedTuple):
    """A network to be trained."""

    kind: Kind
    method: str
    """One of ``lotj.nets.bottleneck.METHODS``; empty for a critic, which has no bottleneck."""
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.kind}-{self.method}" if self.method else self.kind


class AblationJob(NamedTuple):
    """Where the ablation reads and writes."""

    preset: Preset
    """Sizes of everything; its seed is the collection's."""
    out: Path
    """Folder of collection, networks and practices."""
    results: Path
    """Folder of the result files."""
    donor: Path | None = None
    """A run folder whose finished stages are used where they are the same; never written to."""
    allow_validation: bool = False
    """As in ``lotj.split.refuse_known``."""


EVALUATED = ("II",)


class Arm(NamedTuple):
    """What an arm's networks are."""

    title: str
    reward: str
    """The reward model's method."""
    policy: str
    """The policy's method."""


ARMS: Mapping[str, Arm] = {
    "none": Arm("no DAIB", "erm", "erm"),
    "reward": Arm("DAIB reward", "daib", "erm"),
    "full": Arm("DAIB on both", "daib", "daib"),
}
"""Table III's columns."""


@dataclass(frozen=True)
class AblationCase:
    """One practice."""

    name: str
    """Of its result file."""
    connector: str
    """A name of the catalogue or a TOML file."""
    arm: str
    """One of ``ARMS``."""
    recipe: Recipe
    """``iql`` is the paper's, ``ensemble`` ours."""
    seed: int
    """Of networks, practice and evaluation."""
    scenario: Scenario
    """Where practice starts."""
    trials: int
    """Of practice."""
    evaluation_trials: int
    """In scenario II, before and after."""

    @property
    def networks(self) -> tuple[Network, Network, Network]:
        """Its reward model, critic and policy."""
        arm = ARMS[self.arm]
        return (
            Network("reward", arm.reward, self.seed),
            Network("critic", "", self.seed),
            Network("policy", arm.policy, self.seed),
        )


@dataclass(frozen=True)
class AblationConfig:
    """Table III's protocol: every arm with every recipe, on every connector, for every seed."""

    connectors: tuple[str, ...] = TEST_CONNECTORS
    """Names of the catalogue or TOML files; offline training must not know them."""
    arms: tuple[str, ...] = tuple(ARMS)
    """none: no DAIB. reward: on the reward alone. full: on reward and policy."""
    recipes: tuple[Recipe, ...] = ("ensemble",)
    """``iql`` is the paper's, ``ensemble`` ours, a deviation."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One offline training each."""
    scenario: Scenario = "II"
    """Where practice starts. Evaluation is in scenario II whatever this is, as in the paper's table."""
    trials: int = 200
    """Of each practice, as in the paper."""
    evaluation_trials: int = 20
    """Before and after, as in the paper."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_choice(f"{name}.connectors", self.connectors)
        require_choice(f"{name}.arms", self.arms, ARMS)
        require_choice(f"{name}.recipes", self.recipes, get_args(Recipe))
        require_choice(f"{name}.scenario", (self.scenario,), get_args(Scenario))
        require_counts(name, self.seeds, trials=self.trials, evaluation_trials=self.evaluation_trials)

    def cases(self) -> list[AblationCase]:
        """All of them; seed by seed, so that a part of the table compares arms already."""
        return [
            AblationCase(
                f"{get_connector(connector).name}-{arm}-{recipe}-s{seed}",
                connector,
                arm,
                recipe,
                seed,
                self.scenario,
                self.trials,
                self.evaluation_trials,
            )
            for seed in self.seeds
            for connector in self.connectors
            for recipe in self.recipes
            for arm in self.arms
        ]
