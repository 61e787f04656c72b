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
from lotj.cells.opening import is_own_cell
from lotj.cells.safety import SafeCell
from lotj.checkpoint import load_state
from lotj.guard import TugConfig, tug_test
from lotj.judge import Judge, SuccessRule
from lotj.offline import Known
from lotj.presets import load_preset
from lotj.recipe import Offline, RecipeConfig, make_learner
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
    tug: TugConfig | None
    """How its claims were felt for in practice; None where there was no guard."""

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
        ValueError: the practice is of another run, whose networks are others.
    """
    settings = None if practised is None else practice_settings(run_root, practised)
    # Who practised is judged as it was then: by that reward model and that rule.
    red_teamed = is_red_teamed(run_root) if settings is None else settings["config"].get("red_teamed", False)
    offline = load_offline(run_root, known or load_preset(run_root).split(), red_teamed)
    if practised is None or settings is None:
        return Learned(ImagePolicy(offline.policy), offline, OFFLINE, "offline", red_teamed, None)
    if settings["config"].get("networks", networks := offline.networks) != networks:
        raise ValueError(
            f"{practised} began with other networks than {run_root} holds now: it was trained anew. Practise again in "
            "another folder, or put the networks back"
        )
    offline = replace(offline, rule=SuccessRule(**settings["config"]["rule"]))
    recipe = recipe_of(settings)
    learner = make_learner(recipe, offline, settings["seed"])
    learner.load_state_dict(load_state(practised / "checkpoint.safetensors")["learner"])
    connector, guard = practised.resolve().parent.name, recipe.practice.guard
    about = about_practice(connector, recipe, settings["config"].get("validation", False))
    tug = None if guard.mode == "off" else guard.tug
    return Learned(learner, offline, about, f"{connector}-{practised.resolve().name}", red_teamed, tug)


def practice_settings(run_root: Path, practised: Path) -> dict[str, Any]:
    """The ``config.json`` of a finished practice of a run.

    Raises:
        FileNotFoundError: it is none, or not finished.
        ValueError: it is of another run, whose networks are others.
    """
    if not (practised / "done.json").exists():
        there = sorted(str(path.parent) for path in (run_root / "practice").glob("*/*/done.json"))
        hint = f"there are {', '.join(there)}" if there else "`lotj practice` makes one"
        raise FileNotFoundError(f"{practised} is not the folder of a finished practice; {hint}")
    if not practised.resolve().is_relative_to((run_root / "practice").resolve()):
        raise ValueError(
            f"{practised} is not under {run_root / 'practice'}: expected a practice of this run's networks"
        )
    return _settings(practised)


def recipe_of(settings: Mapping[str, Any]) -> RecipeConfig:
    """The recipe of a practice, from its ``config.json``. Where critics were not asked for consent yet, nobody is."""
    recipe = settings["config"]["recipe"]
    return config_from(RecipeConfig, {**recipe, "ensemble": {"consent": "none", **recipe["ensemble"]}})


def about_practice(connector: str, recipe: RecipeConfig, validation: bool) -> dict[str, Any]:
    """Whose policy it is: what it practised, by which recipe, for which reward."""
    reward, diagnostic = recipe.practice.reward, recipe.practice.reward == "ground-truth"
    who = {"practised": connector, "recipe": recipe.recipe, "reward": reward, "guard": recipe.practice.guard.mode}
    return {**who, "diagnostic": diagnostic, "validation": validation}


def practice_of(run_root: Path, connector: str, robot: str) -> Path | None:
    """The only practice of a connector in a cell with the robot's own reward; None where there is none.

    Args:
        run_root: a run folder.
        connector: its name.
        robot: the cell.

    Raises:
        ValueError: there are several, or it is not finished.
    """
    own: list[Path] = []
    waiting: list[Path] = []
    for path in sorted(path.parent for path in (run_root / "practice" / connector).glob("*/config.json")):
        config = _settings(path)["config"]
        where = config.get("cells") or [config["robot"]]
        if config["recipe"]["practice"]["reward"] == "learned" and any(_same_cell(robot, one) for one in where):
            (own if (path / "done.json").exists() else waiting).append(path)
    if len(own) > 1:
        told = " or ".join(map(str, own))
        raise ValueError(f"{connector} was practised {len(own)} times in this cell: say which, --practised {told}")
    if waiting and not own:
        raise ValueError(
            f"{waiting[0]} is not finished: repeat its `lotj practice` command, or insert with what offline training "
            "left, --offline"
        )
    return own[0] if own else None


class Attempt(NamedTuple):
    """One trial at the job."""

    trajectory: Trajectory
    inserted: bool
    """By the robot's own judgement, the guard's if there is one, and an own cell's word if it gives one."""
    probability: float
    """The highest that the reward model gave an image."""
    why: str
    """Why the plug does not count as inserted; empty where it does."""


def insert(
    env: gymnasium.Env[Any, Any],
    learned: Learned,
    attempts: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    tug: TugConfig | None = None,
    told: Callable[[Attempt], None] = lambda attempt: None,
) -> list[Attempt]:
    """Try to insert what is in the gripper, without exploring, until the robot's own judge says that it is in.

    A cell of one's own (`lotj.cells`) is left where it is then, with the plug in the socket (``SafeCell.stay``); else
    the plug is pulled out and the robot goes up. A plug that has slipped in the fingers ends the job: it must be
    gripped anew.

    Args:
        env: the cell; it must not end trials by itself. For how to open one see ``lotj.cells.opening.open_cell``.
        learned: who acts and judges.
        attempts: at most, each from the cell's start.
        seed: of the starts, in a cell that draws them.
        options: handed to ``env.reset``.
        tug: feel whether what the judge claims is held, and press it home again.
        told: called after each attempt.

    Returns:
        All attempts; the last one says whether the plug is in.

    Raises:
        ValueError: ``attempts`` is less than 1, or the tug has no wrist force to feel.
        StoppedError: the cell stopped for a person to look, or the plug could not be pulled out.
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
        probability = max(judgement.probability for judgement in judge.history)
        why = _why_not(env, trajectory, judge, tug)
        made.append(Attempt(trajectory, not why, probability, why))
        told(made[-1])
        if not why or has_slipped(trajectory):
            break
    if isinstance(env, SafeCell) and not made[-1].inserted and env.config.retract:
        env.extract()
    return made


PRESS, PRESS_STEPS = 0.4, 3
"""Downward action, and how often, after a tug has lifted the plug by as much."""


def _why_not(env: gymnasium.Env[Any, Any], trajectory: Trajectory, judge: Judge, tug: TugConfig | None) -> str:
    """Why the plug does not count as inserted; where it does, an own cell stays where it is."""
    if has_slipped(trajectory):
        return "it slipped in the fingers"
    own = env if isinstance(env, SafeCell) else None
    if own and own.cut_off:
        return own.cut_off
    if not trajectory.terminated:
        return "by the robot's own reward"
    if own and not trajectory.privileged.get("success", np.array([True]))[-1]:
        return "the reward says so, the cell itself says that it is not"
    if tug is not None:
        felt = tug_test(env, tug)
        if felt is None or not felt.held:
            return (own.cut_off if own else "") or "the reward says so, a tug that it is not held"
        for _ in range(PRESS_STEPS):
            if own and own.cut_off:
                return own.cut_off
            action = np.zeros(env.action_space.shape or (3,), np.float32)
            action[2] = -PRESS
            observation = env.step(action)[0]
        if not judge.observe(observation["image"]).above:
            return "it was, until a tug"
    if own and not own.stay():
        return own.cut_off or "the robot is above a limit"
    return ""


def has_slipped(trajectory: Trajectory) -> bool:
    """Whether the plug was dislodged in the fingers."""
    return bool(np.any(trajectory.privileged.get("dislodged", False)))


def _settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return settings


def _same_cell(one: str, other: str) -> bool:
    """Whether two cells are the same, however the path to an own one is written."""
    if is_own_cell(one) and is_own_cell(other):
        return Path(one).resolve() == Path(other).resolve()
    return one == other
