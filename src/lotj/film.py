"""A film of the first trials of an evaluation, seen by somebody who stands beside the simulated cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.wrappers import RenderCollection
from PIL import Image

from lotj.evaluate import EvaluateConfig, as_evaluated, trial_seed
from lotj.learned import Learned
from lotj.report.video import compose, encode
from lotj.rollout import policy_rng, rollout
from lotj.sim.env import InsertionEnv, Scenario
from lotj.types import Trajectory

CROP = (180, 170, 460, 450)
"""px of the cell's picture (640 x 480) that are shown: left, top, right, bottom."""
TILE = 224
"""px, height and width of a trial in the film."""


def film(
    connector: str,
    robot: str,
    acting: Mapping[str, Learned],
    config: EvaluateConfig,
    scenario: Scenario,
    trials: int,
    image_size: int,
    cameras: int,
    path: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Repeat the first trials of an evaluation as a film: a row for each who acts, a column for each start.

    A blue frame marks true success, and stays where the plug does; the bar is what the reward model thinks.

    Args:
        connector: a name of the catalogue or a TOML file.
        robot: of the simulator.
        acting: who acts, by caption, from top to bottom.
        config: of the evaluation; its seeds and its noise are the film's.
        scenario: where the trials start.
        trials: how many.
        image_size: what the policies see, px.
        cameras: how many they see by.
        path: ``.mp4`` or ``.webp``.
        progress: told (trials done, trials in all).
    """
    rows = []
    for number, (caption, learned) in enumerate(acting.items()):
        seen, probability, policy = [], [], as_evaluated(learned.policy, config)
        env = InsertionEnv(connector, robot, scenario, image_size=image_size, cameras=cameras, render_mode="rgb_array")
        with RenderCollection(env) as watched:
            for index in range(trials):
                seed = trial_seed(config, scenario, index)
                trial = rollout(watched, policy, policy_rng(seed), seed=seed, source="evaluation")
                probability.append(learned.offline.reward.probability(trial.image))
                seen.append(_from_outside(trial, watched.render()))
                progress(number * trials + index + 1, len(acting) * trials)
        captions = [f"{caption}, start {index + 1}" for index in range(trials)]
        rows.append(compose(seen, probability, captions, learned.offline.rule.threshold))
    longest = max(len(row) for row in rows)
    held = [np.concatenate([row, row[-1:].repeat(longest - len(row), axis=0)]) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(np.concatenate(held, axis=1), path.suffix))


def _from_outside(trial: Trajectory, pictures: Any) -> Trajectory:
    """The trial with what the bystander saw, ``pictures`` (T + 1, 480, 640, 3), in place of what the robot saw."""
    small = [Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.BOX, CROP) for picture in pictures]
    return replace(trial, image=np.stack([np.asarray(picture) for picture in small]))
