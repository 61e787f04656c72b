"""What was learned, in a robot's hands: a practised policy or the offline one, with the reward that judges it; and the
job that all of it is for, a connector inserted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from lotj.algos.policy import ImagePolicy
from lotj.algos.training import config_from
from lotj.cells.safety import SafeCell
from lotj.checkpoint import load_state
from lotj.judge import Judge, SuccessRule
from lotj.offline import Known
from lotj.pipeline import Offline, RecipeConfig, make_learner
from lotj.presets import load_preset
from lotj.redteam import is_red_teamed
from lotj.rollout import policy_rng, rollout
from lotj.stages import load_offline
from lotj.types import Policy, Trajectory

OFFLINE: Mapping[str, Any] = {
    "practised": None,
    "recipe": "offline",
    "reward": None,
    "diagnostic": False,
    "guard": "off",
    "validation": False,
}
"""Whose policy it is, where nothing was practised."""


class Learned(NamedTuple):
    """A policy and what it came from."""

    policy: Policy
    """Acts on ``{"image": (H, W, 3) uint8}``, several cameras' squares side by side; deterministic unless exploring."""
    offline: Offline
    """The networks, with the reward model and the rule that it practised with."""
    about: Mapping[str, Any]
    """Whose policy it is, as outputs record it."""
    name: str
    """The same for a file's name."""
    red_teamed: bool
    """Whether that reward model had learned from attacks."""

    def judge(self) -> Judge:
        """A new judge, as in practice."""
        return Judge(self.offline.reward, self.offline.rule)


def load_learned(run_root: Path, practised: Path | None = None, known: Known | None = None) -> Learned:
    """Load what a practice left, or the offline policy of a run.

    Args:
        run_root: a run folder with trained networks.
        practised: the folder of a finished practice of this run (``practice/<connector>/<name>``); None: offline.
        known: the split, if it was made already.

    Raises:
        FileNotFoundError: a stage is missing, or the practice is not finished.
    """
    settings = None if practised is None else _practice_of(practised)
    # Who practised is judged as it was then: by that reward model and that rule.
    red_teamed = is_red_teamed(run_root) if settings is None else settings["config"].get("red_teamed", False)
    offline = load_offline(run_root, known or load_preset(run_root).split(), red_teamed)
    if practised is None or settings is None:
        return Learned(ImagePolicy(offline.policy), offline, OFFLINE, "offline", red_teamed)
    offline = replace(offline, rule=SuccessRule(**settings["config"]["rule"]))
    recipe = config_from(RecipeConfig, settings["config"]["recipe"])
    learner = make_learner(recipe, offline, settings["seed"])
    learner.load_state_dict(load_state(practised / "checkpoint.safetensors")["learner"])
    connector = practised.resolve().parent.name
    about = about_practice(connector, recipe, settings["config"].get("validation", False))
    return Learned(learner, offline, about, f"{connector}-{practised.resolve().name}", red_teamed)


def about_practice(connector: str, recipe: RecipeConfig, validation: bool) -> dict[str, Any]:
    """Whose policy it is: what it practised, by which recipe, for which reward."""
    reward, diagnostic = recipe.practice.reward, recipe.practice.reward == "ground-truth"
    who = {"practised": connector, "recipe": recipe.recipe, "reward": reward, "guard": recipe.practice.guard.mode}
    return {**who, "diagnostic": diagnostic, "validation": validation}


def practice_of(run_root: Path, connector: str) -> Path | None:
    """The only finished practice of a connector with the robot's own reward; None where there is none.

    Args:
        run_root: a run folder.
        connector: its name.

    Raises:
        ValueError: there are several.
    """
    done = sorted(path.parent for path in (run_root / "practice" / connector).glob("*/done.json"))
    own = [path for path in done if _practice_of(path)["config"]["recipe"]["practice"]["reward"] == "learned"]
    if len(own) > 1:
        raise ValueError(
            f"{connector} was practised {len(own)} times: say which, --practised {' or '.join(map(str, own))}"
        )
    return own[0] if own else None


class Attempt(NamedTuple):
    """One trial at the job."""

    trajectory: Trajectory
    inserted: bool
    """By the robot's own judgement, and the plug is still there."""
    probability: float
    """The highest that the reward model gave an image."""


def insert(
    env: gymnasium.Env[Any, Any],
    learned: Learned,
    attempts: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    told: Callable[[Attempt], None] = lambda attempt: None,
) -> list[Attempt]:
    """Try to insert what is in the gripper, without exploring, until the robot's own judge says that it is in.

    A cell of one's own (`lotj.cells`) is left where it is then, with the plug in the socket; else it goes up.

    Args:
        env: the cell; it must not end trials by itself. For how to open one see ``lotj.cells.opening.open_cell``.
        learned: who acts and judges.
        attempts: at most, each from the cell's start.
        seed: of the starts, in a cell that draws them.
        options: handed to ``env.reset``.
        told: called after each attempt.

    Returns:
        All attempts; the last one says whether the plug is in.

    Raises:
        ValueError: ``attempts`` is less than 1.
        StoppedError: the cell stopped for a person to look.
    """
    if attempts < 1:
        raise ValueError(f"attempts: expected at least 1, got {attempts}")
    made: list[Attempt] = []
    for number in range(attempts):
        judge = learned.judge()
        start = int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)
        trajectory = rollout(
            env, learned.policy, policy_rng(start), seed=start, judge=judge, options=options, source="insertion"
        )
        # Where the safety layer has backed off meanwhile, the plug is no longer where the picture saw it.
        stays = trajectory.terminated and (not isinstance(env, SafeCell) or env.stay())
        made.append(Attempt(trajectory, stays, max(judgement.probability for judgement in judge.history)))
        told(made[-1])
        if stays:
            break
    return made


def _practice_of(practised: Path) -> dict[str, Any]:
    """The ``config.json`` of a finished practice."""
    if not (practised / "done.json").exists():
        raise FileNotFoundError(f"{practised} is not the folder of a finished practice; `lotj practice` makes one")
    settings: dict[str, Any] = json.loads((practised / "config.json").read_text(encoding="utf-8"))
    return settings
