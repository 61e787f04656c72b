"""Draw the README's picture: the cell, and what the policy sees while the scripted expert inserts a plug.

python scripts/readme_picture.py docs/img/cell.jpg
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lotj.rollout import rollout
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig

SHOWN = (("nema-5-15", "sawyer-a", 3), ("deutsch-dt-12", "sawyer-b", 5), ("europlug", "sawyer-a", 2))
"""Connector, robot, seed: a row of pictures of each of the wrist's two cameras."""
COLUMNS, SIDE, GAP = 10, 78, 6
"""Pictures in a row, px of one, px between insertions."""


def wrist_row(connector: str, robot: str, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One insertion: (COLUMNS, 128, 64, 3) wrist pictures from start to end, the first camera's above the second's, and
    the cell (480, 640, 3) at the start."""
    env = InsertionEnv(connector, robot, cameras=2, ground_truth=True, render_mode="rgb_array")
    cell = []
    trajectory = rollout(
        env,
        Expert(env, ExpertConfig(noise_probability=0.0)),
        np.random.default_rng(seed),
        seed=seed,
        on_step=lambda step, observation, action: cell.append(env.render()) if step == 0 else None,
    )
    env.close()
    steps = np.linspace(0, len(trajectory), COLUMNS).round().astype(int)
    return np.concatenate(np.split(trajectory.image[steps], 2, axis=2), axis=1), cell[0]


def picture() -> Image.Image:
    """The cell on the left, the rows on the right."""
    rows = [wrist_row(*shown) for shown in SHOWN]
    height = len(rows) * 2 * SIDE + (len(rows) - 1) * GAP
    overview = Image.fromarray(rows[0][1])
    overview = overview.resize((overview.width * height // overview.height, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (overview.width + GAP + COLUMNS * SIDE, height), "white")
    canvas.paste(overview, (0, 0))
    for row, (images, _) in enumerate(rows):
        for column, image in enumerate(images):
            tile = Image.fromarray(image).resize((SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
            canvas.paste(tile, (overview.width + GAP + column * SIDE, row * (2 * SIDE + GAP)))
    return canvas


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    picture().save(out, quality=88)
