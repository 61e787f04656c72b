"""Practice over connectors, recipes, rewards and seeds, from one finished offline run (our side of Tables I and II).

A *case* is one practice: scenarios I and II mixed, evaluated before and after in each of them. A seed draws
exploration, batches, the starts of practice and the start states of evaluation; the offline run is the same for all.
Each case leaves one result file. Practice with ground truth as the reward is a diagnostic and marked so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lotj.experiments.cases import require_choice, require_counts
from lotj.practice import RewardSource
from lotj.recipe import Recipe, RecipeConfig
from lotj.sim.connectors import TEST_CONNECTORS, get_connector
from lotj.sim.parts import did_you_mean
from lotj.types import later

Unattended = Literal["off", "gate"]
"""Guards (``lotj.guard.Mode``) under which practice goes on by itself."""
OWN_OPTIONS = ("recipe", "practice.trials", "practice.scenario", "practice.reward", "practice.guard")
"""What a case says by itself, so no setting changes it."""
LONGEST_NAME = 230
"""Characters of a case's name: file systems take 255, of which some are for its file's ending and that of a copy."""
Rule = Literal["chosen", "checked"]
"""What ends a trial and pays: the rule that validation chose, or the one that the check before practice answered with
(``lotj.preflight``), as `lotj practice` takes it, whether the answer was go or not."""


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
    settings: tuple[str, ...] = later(())
    """What is otherwise than in the offline run's preset (``changed``)."""
    rule: Literal["chosen", "checked"] = later("chosen")
    """What ends a trial and pays."""


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
    settings: tuple[str, ...] = ()
    """Settings of the recipe (``RecipeConfig``) to try in place of the run's, such as ``ensemble.discount=0.8``; they
    are a column of their own beside practices of the same folder without them."""
    rules: tuple[Rule, ...] = ("chosen",)
    """``checked``: trials are judged by the rule that the check before practice answers with, go or no-go; ``chosen``
    by the one that validation chose. Ground truth needs neither."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_choice(f"{name}.connectors", self.connectors)
        require_choice(f"{name}.recipes", self.recipes, get_args(Recipe))
        require_choice(f"{name}.rewards", self.rewards, get_args(RewardSource))
        require_choice(f"{name}.guards", self.guards, get_args(Unattended))
        require_choice(f"{name}.rules", self.rules, get_args(Rule))
        require_counts(name, self.seeds, trials=self.trials, evaluation_trials=self.evaluation_trials)
        changed(RecipeConfig(), self.settings)
        for recipe, setting in product(self.recipes, self.settings):
            other = setting.partition(".")[0]
            if other in get_args(Recipe) and other != recipe:
                raise ValueError(
                    f"{setting!r} is a setting of {other}, and {recipe} is practised too, which knows nothing of it: "
                    f"say --recipes {other}"
                )

    def cases(self) -> list[PracticeCase]:
        """All of them; seed by seed, so that a part of the table compares recipes already.

        Raises:
            ValueError: settings make a name that is too long for a file.
        """
        cases = [
            PracticeCase(
                f"{get_connector(connector).name}-{practice_name(recipe, reward, guard, self.settings, rule)}-s{seed}",
                connector,
                recipe,
                reward,
                guard,
                seed,
                self.trials,
                self.evaluation_trials,
                self.settings,
                rule,
            )
            for seed in self.seeds
            for connector in self.connectors
            for recipe in self.recipes
            for reward in self.rewards
            for guard in self.guards
            for rule in self.rules
            if (guard == "off" and rule == "chosen") or reward == "learned"
        ]
        longest = max((case.name for case in cases), key=len)
        if len(longest) > LONGEST_NAME:
            raise ValueError(
                f"{longest!r} is too long a name for a file, {len(longest)} characters of {LONGEST_NAME}; leave out "
                "settings that are the run's own already, or write them shorter (1e-3 for 0.001)"
            )
        return cases


def practice_name(
    recipe: str, reward: str, guard: str = "off", settings: Sequence[str] = (), rule: str = "chosen"
) -> str:
    """``ensemble-learned``, with guard and rule where they are not the usual, and what is otherwise:
    ``-gate-checked-discount=0.8``."""
    return "-".join(practice_words(recipe, reward, guard, settings, rule))


def practice_words(
    recipe: str, reward: str, guard: str = "off", settings: Sequence[str] = (), rule: str = "chosen"
) -> list[str]:
    """The same in words."""
    usual = {"off", "chosen"}
    return [recipe, reward, *(word for word in (guard, rule) if word not in usual), *map(short, settings)]


def short(setting: str) -> str:
    """``discount=0.8`` of ``ensemble.discount=0.8``; fit for a file's name. How online frames are augmented keeps its
    whole path: offline ones are augmented by settings of the same names."""
    path, _, value = setting.partition("=")
    name = path if path.startswith("practice.augment.") else path.rpartition(".")[2]
    return re.sub(r"[^\w.,=+-]", "", f"{name}={value}")


def changed(config: RecipeConfig, settings: Sequence[str]) -> RecipeConfig:
    """A recipe with some of its settings replaced; one of a part that the recipe leaves open, of the recipe's own.

    Args:
        config: the recipe.
        settings: ``ensemble.discount=0.8``: where it is in the recipe, and a value as JSON.

    Raises:
        ValueError: one is no setting of a recipe, is named twice, is an option of its own, or cannot have that value.
    """
    paths = [setting.partition("=")[0] for setting in settings]
    if len(set(paths)) < len(paths):
        raise ValueError(f"settings: each may be named once, got {', '.join(settings)}")
    if any(path.startswith("features.augment.") for path in paths):
        config = replace(config, features=config.frozen)
    changes: dict[str, Any] = {}
    for path, setting in zip(paths, settings):
        if any(f"{path}.".startswith(f"{own}.") for own in OWN_OPTIONS):
            raise ValueError(f"setting {path!r} is an option of its own: see lotj tables practice --help")
        *outer, name = path.split(".")
        try:
            value = json.loads(setting.partition("=")[2])
            value = tuple(value) if isinstance(value, list) else value
            _check(config, path.split("."), value)
        except ValueError as error:
            raise _no_setting(setting, error) from error
        inner = changes
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[name] = value
    try:
        return _replaced(config, changes)
    except (ValueError, TypeError) as error:
        raise _no_setting(", ".join(settings), error) from error


def _no_setting(setting: str, error: Exception) -> ValueError:
    return ValueError(
        f"{setting!r} is no setting of a recipe: {error}. Expected something like ensemble.discount=0.8, the "
        "value as in JSON; the fields are those of lotj.recipe.RecipeConfig"
    )


def _check(config: Any, path: Sequence[str], value: Any) -> None:
    """That a (nested) config has such a field, with a value of the same kind."""
    names = [field.name for field in fields(config)]
    if path[0] not in names:
        raise ValueError(f"{type(config).__name__} has no {path[0]!r}{did_you_mean(path[0], names)}")
    held = getattr(config, path[0])
    if is_dataclass(held) != (len(path) > 1):
        raise ValueError(f"{type(config).__name__}.{path[0]} is {'several' if is_dataclass(held) else 'one value'}")
    if len(path) > 1:
        _check(held, path[1:], value)
    elif held is not None and not _alike(held, value):
        raise ValueError(f"{type(config).__name__}.{path[0]} is now {held!r}, got {value!r}")


def _replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    """A (nested) config with some fields replaced, all at once: what must fit together is looked at together."""
    new = {
        name: _replaced(getattr(config, name), value) if is_dataclass(getattr(config, name)) else value
        for name, value in changes.items()
    }
    return replace(config, **new)


def _alike(held: Any, value: Any) -> bool:
    if isinstance(held, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(held) is type(value)


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
