"""Evaluations in a run's folder: of the offline policy, or of one that a practice left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lotj.algos.policy import ImagePolicy
from lotj.algos.training import config_from
from lotj.cells.adapter import Ask
from lotj.cells.opening import (
    OWN_STARTS,
    described,
    honours_scenarios,
    identify,
    is_own_cell,
    robot_name,
    tells_success,
)
from lotj.checkpoint import load_state
from lotj.judge import SuccessRule
from lotj.offline import Known
from lotj.pipeline import Offline, RecipeConfig, evaluate_policy, make_learner
from lotj.presets import Preset
from lotj.redteam import is_red_teamed
from lotj.stages import Bars, load_offline

OFFLINE: Mapping[str, Any] = {
    "practised": None,
    "recipe": "offline",
    "reward": None,
    "diagnostic": False,
    "guard": "off",
    "validation": False,
}
"""Whose policy an evaluation is about, where nothing was practised."""


def evaluate_stage(
    preset: Preset,
    run_root: Path,
    known: Known,
    connector: str,
    practised: Path | None,
    bars: Bars,
    ask: Ask | None = None,
) -> dict[str, Any]:
    """Evaluate the offline policy, or the one that a practice in ``practised`` left. Returns the evaluation as JSON."""
    torch.set_num_threads(preset.threads)
    settings = None if practised is None else _practice_of(practised)
    # Who practised is judged as it was then: by that reward model and that rule.
    red_teamed = is_red_teamed(run_root) if settings is None else settings["config"].get("red_teamed", False)
    offline = load_offline(run_root, known, red_teamed)
    policy: Any = ImagePolicy(offline.policy)
    who, about = "offline", OFFLINE
    if practised is not None and settings is not None:
        offline = replace(offline, rule=SuccessRule(**settings["config"]["rule"]))
        recipe = config_from(RecipeConfig, settings["config"]["recipe"])
        policy = make_learner(recipe, offline, settings["seed"])
        policy.load_state_dict(load_state(practised / "checkpoint.safetensors")["learner"])
        who, about = (
            f"{practised.parent.name}-{practised.name}",
            about_practice(practised.parent.name, recipe, settings["config"].get("validation", False)),
        )
    name = identify(connector, preset.robot).name
    who += f"-{robot_name(preset.robot)}" if is_own_cell(preset.robot) else ""
    size = f"s{preset.evaluate.seed}-n{preset.evaluate.trials}" + ("-redteam" if red_teamed else "")
    out = run_root / "evaluations" / name / f"{who}-{size}.json"
    if not tells_success(preset.robot):
        raise ValueError(
            f"cell {preset.robot} does not say how success is known, so nothing can be evaluated: add [success] from "
            'to its file; "ask" asks a person'
        )
    evaluate_in(preset, connector, policy, offline, out, bars, name, about, ask)
    return dict(json.loads(out.read_text(encoding="utf-8")))


def _practice_of(practised: Path) -> dict[str, Any]:
    """The ``config.json`` of a finished practice."""
    if not (practised / "done.json").exists():
        raise FileNotFoundError(f"{practised} is not the folder of a finished practice; `lotj practice` makes one")
    settings: dict[str, Any] = json.loads((practised / "config.json").read_text(encoding="utf-8"))
    return settings


def about_practice(connector: str, recipe: RecipeConfig, validation: bool) -> dict[str, Any]:
    """Whose policy is evaluated: what it practised, by which recipe, for which reward."""
    reward, diagnostic = recipe.practice.reward, recipe.practice.reward == "ground-truth"
    who = {"practised": connector, "recipe": recipe.recipe, "reward": reward, "guard": recipe.practice.guard.mode}
    return {**who, "diagnostic": diagnostic, "validation": validation}


def evaluate_in(
    preset: Preset,
    connector: str,
    policy: Any,
    offline: Offline,
    out: Path,
    bars: Bars,
    title: str,
    about: Mapping[str, Any],
    ask: Ask | None = None,
) -> None:
    """Evaluate a policy into the file ``out``, unless it is there, or the cell has no way to know success."""
    if not tells_success(preset.robot):
        return
    about = {**about, **described(connector)}
    if out.exists():
        held = json.loads(out.read_text(encoding="utf-8"))["policy"]
        if held.get("described") != about.get("described"):
            raise ValueError(f"{out} is of {connector} as it was before it was edited; delete it to evaluate again")
        return
    config = preset.evaluate
    if not honours_scenarios(preset.robot):
        config = replace(config, scenarios=(OWN_STARTS,))
    total = config.trials * len(config.scenarios)
    with bars(f"evaluate {title}") as tick:
        seen: list[bool] = []

        def told(trial: Any, trajectory: Any) -> None:
            seen.append(trial.true)
            tick(len(seen), total, f"true success {sum(seen)}/{len(seen)}")

        evaluate_policy(
            connector,
            preset.robot,
            policy,
            offline,
            config,
            preset.image_size,
            preset.cameras,
            out,
            told,
            about,
            ask,
        )
