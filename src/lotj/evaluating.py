"""Evaluations in a run's folder: of the offline policy, or of one that a practice left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lotj.cells.adapter import Ask
from lotj.cells.opening import (
    OWN_STARTS,
    action_scale,
    cell_described,
    described,
    honours_scenarios,
    identify,
    is_own_cell,
    robot_name,
    tells_success,
)
from lotj.data.store import TrajectoryStore
from lotj.learned import load_learned
from lotj.offline import Known
from lotj.pipeline import evaluate_policy, evaluated_weights, refuse_other_scale
from lotj.presets import Preset, load_preset
from lotj.recipe import Offline
from lotj.stages import Bars, store_path


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
    learned = load_learned(run_root, practised, known)
    with TrajectoryStore(store_path(run_root)) as store:
        refuse_other_scale(store, action_scale(preset.robot))
    name = identify(connector, preset.robot).name
    other = is_own_cell(preset.robot) or preset.robot != load_preset(run_root).robot
    who = learned.name + (f"-{robot_name(preset.robot)}" if other else "")
    size = f"s{preset.evaluate.seed}-n{preset.evaluate.trials}" + ("-redteam" if learned.red_teamed else "")
    out = run_root / "evaluations" / name / f"{who}-{size}.json"
    if not tells_success(preset.robot, connector):
        raise ValueError(
            f"cell {preset.robot} does not tell when {name} is inserted, so nothing can be evaluated: add [success] "
            f'from to its file ("ask" asks a person); or, where that is "pose", run `lotj cell calibrate --cell '
            f"{preset.robot} --connector {name}`"
        )
    stop = run_root / "STOP"
    evaluate_in(preset, connector, learned.policy, learned.offline, out, bars, name, learned.about, ask, stop)
    return dict(json.loads(out.read_text(encoding="utf-8")))


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
    stop_file: Path | None = None,
) -> None:
    """Evaluate a policy into the file ``out``, unless it is there, or the cell has no way to know success. An own cell
    stops as soon as ``stop_file`` exists."""
    if not tells_success(preset.robot, connector):
        return
    about = {**about, **described(connector), **cell_described(preset.robot, connector, judged=True)}
    if out.exists():
        held = json.loads(out.read_text(encoding="utf-8"))
        if held["policy"].get("described") != about.get("described"):
            raise ValueError(f"{out} is of {connector} as it was before it was edited; delete it to evaluate again")
        if held["policy"].get("cell", about.get("cell")) != about.get("cell"):  # those of before do not say
            raise ValueError(
                f"{out} is of cell {preset.robot} as it was before its file or calibration was edited, or of another "
                "cell of that name; delete it to evaluate again"
            )
        if held.get("weights", weights := evaluated_weights(policy, offline)) != weights:
            raise ValueError(f"{out} is of other networks, trained before these; delete it to evaluate again")
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
            stop_file,
        )
