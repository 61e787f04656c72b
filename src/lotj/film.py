"""Films of the first trials of an evaluation, seen by somebody who stands beside the simulated cell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.wrappers import RenderCollection

from lotj.cells.opening import described, is_own_cell
from lotj.evaluate import EvaluateConfig, Evaluation, as_evaluated, trial_seed
from lotj.files import write_atomic
from lotj.learned import Learned, load_learned
from lotj.presets import Preset
from lotj.report.records import film_of
from lotj.report.video import can_encode, compose, encode
from lotj.rollout import policy_rng, rollout
from lotj.sim import GraphicsError
from lotj.sim.env import InsertionEnv
from lotj.stages import Bars

LEFT, TOP, SIDE = 180, 170, 280
"""px, the square of the cell's picture (640 x 480) that is shown."""


SHOWN = 5
"""Trials of a film at most."""
Progress = Callable[[int, int], None]


def film_practices(preset: Preset, run_root: Path, folders: Sequence[Path], bars: Bars) -> list[str]:
    """Film finished practices in the simulated cell, before and after, beside their evaluations (``film.mp4``, or
    ``.webp`` where nothing encodes H.264). Films that are there stay; what cannot be filmed any more is passed over,
    and what failed is returned, a line for each practice: a report does without its film."""
    failed = []
    for folder in folders:
        try:
            _film_practice(preset, run_root, folder, bars)
        except (ValueError, OSError, GraphicsError) as error:
            failed.append(f"{folder} is not filmed: {error}")
    return failed


def _film_practice(preset: Preset, run_root: Path, folder: Path, bars: Bars) -> None:
    evaluated = folder / "evaluation-before.json"
    if not (folder / "done.json").exists() or not evaluated.exists() or film_of(folder) is not None:
        return
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    held = json.loads(evaluated.read_text(encoding="utf-8"))
    connector, robot = config["connector"], config["robot"]
    gone = connector.endswith(".toml") and not Path(connector).exists()
    if is_own_cell(robot) or gone or held["policy"].get("described") != described(connector).get("described"):
        return
    path = folder / f"film{'.mp4' if can_encode('.mp4') else '.webp'}"
    known = preset.split()
    after = load_learned(run_root, folder, known)
    acting = {"before practice": load_learned(run_root, known=known), caption(after.about): after}
    with bars(f"film {folder.parent.name}") as tick:
        shown = first_trials(Evaluation.from_json(held).config)
        film(connector, robot, acting, shown, preset.image_size, preset.cameras, path, tick)


def caption(about: Mapping[str, Any]) -> str:
    """What stands under the trials of a practised policy: what must be said of it, if anything."""
    return ", ".join(kind for kind in ("diagnostic", "validation") if about[kind]) or "after practice"


def first_trials(config: EvaluateConfig) -> EvaluateConfig:
    """The first ``SHOWN`` trials of the last scenario."""
    return replace(config, trials=min(config.trials, SHOWN), scenarios=config.scenarios[-1:])


def film(
    connector: str,
    robot: str,
    acting: Mapping[str, Learned],
    config: EvaluateConfig,
    image_size: int,
    cameras: int,
    path: Path,
    progress: Progress = lambda done, total: None,
) -> None:
    """Repeat trials of an evaluation as a film: a row for each who acts, a column for each trial.

    A trial's frame is blue while the plug is fully inserted; the bar is what the reward model thinks.

    Args:
        connector: a name of the catalogue or a TOML file.
        robot: of the simulator.
        acting: who acts, by caption, from top to bottom.
        config: of the evaluation, with the trials and the one scenario that are shown.
        image_size: what the policies see, px.
        cameras: how many they see by.
        path: ``.mp4`` or ``.webp``; its folder is made.
        progress: told (trials done, trials in all).

    Raises:
        ValueError: unknown suffix, or no encoder for it here.
    """
    (scenario,) = config.scenarios
    rows = []
    for number, (who, learned) in enumerate(acting.items()):
        seen, probability, policy = [], [], as_evaluated(learned.policy, config)
        env = InsertionEnv(
            connector, robot, scenario, image_size=image_size, cameras=cameras, render_mode="rgb_array"  # type: ignore[arg-type]
        )  # fmt: skip
        with RenderCollection(env) as watched:
            for index in range(config.trials):
                seed = trial_seed(config, scenario, index)
                trial = rollout(watched, policy, policy_rng(seed), seed=seed, source="evaluation")
                beside = np.stack(watched.render())[:, TOP : TOP + SIDE, LEFT : LEFT + SIDE]  # type: ignore[arg-type]
                probability.append(learned.offline.reward.probability(trial.image))
                seen.append(replace(trial, image=beside))
                progress(number * config.trials + index + 1, len(acting) * config.trials)
        captions = [f"{who}, start {index + 1}" for index in range(config.trials)]
        rows.append(compose(seen, probability, captions, learned.offline.rule.threshold))
    longest = max(len(row) for row in rows)
    held = [np.concatenate([row, row[-1:].repeat(longest - len(row), axis=0)]) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encode(np.concatenate(held, axis=1), path.suffix))
