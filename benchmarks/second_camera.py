"""Where should the second wrist camera look from? -> results/second_camera.json, and the picture of docs/lab.md.

A brick that is seated hides all studs of its socket. One that rests on top of them, a few millimetres beside the axis,
should show some; where it hides them from every camera, no reward can tell it from a seated one. So for displacements
in all directions the studs' pixels are counted in the picture of each camera, for second cameras at several angles
about the vertical from the first.

    python benchmarks/second_camera.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import lotj  # noqa: F401  # isort: skip (before mujoco, whose way to draw it chooses)
import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lotj.files import write_json
from lotj.provenance import provenance
from lotj.sim.env import InsertionEnv
from lotj.sim.graphics import make_renderer
from lotj.sim.randomize import CELLS, Cell, Randomization
from lotj.sim.scene import WRIST

BRICKS = ("gen-1-17", "gen-1-34", "gen-1-119", "gen-2-68", "gen-3-0")
"""Drawn at random; no test connector."""
ANGLES = (0, 45, 90, 135, 180, 225, 270, 315)
"""degrees from the first camera to the second; 0 adds none."""
DISPLACEMENTS = tuple(round(0.001 * step, 3) for step in range(2, 9))
"""m beside the axis; those at which the hull is clear of all studs are left out."""
DIRECTIONS = 16
SIZE = 64
"""px, of `desk`."""
FEW = 10
"""Fewer pixels of studs than this, of 4096 in a picture, are called hidden."""
SHOWN = ("gen-1-17", np.array([0.0012, 0.0035]))
"""Brick and displacement (m) of the picture: where practice with a quarter turn between the cameras ended falsely."""


def studs(env: InsertionEnv) -> tuple[NDArray[np.intp], float]:
    """The studs' geoms, and how high (m) above the socket's face they are."""
    geoms = np.array([i for i in range(env.model.ngeom) if "stud" in env.model.geom(i).name], dtype=np.intp)
    sizes, kinds = env.model.geom_size[geoms], env.model.geom_type[geoms]
    half = np.where(kinds == mujoco.mjtGeom.mjGEOM_CYLINDER, sizes[:, 1], sizes[:, 2])
    return geoms, float((env.model.geom_pos[geoms, 2] + half).max())


def rests(env: InsertionEnv, geoms: NDArray[np.intp], beside: NDArray[np.float64]) -> bool:
    """Whether the studs keep the hull from sinking there: half-way down it would be in one of them."""
    env.reset(seed=0, options={"offset": (*beside, -env.connector.insertion_depth / 2)})
    mujoco.mj_forward(env.model, env.data)
    contact = env.data.contact
    return bool((np.isin(contact.geom, geoms).any(axis=1) & (contact.dist < -1e-4)).any())


def seen(
    env: InsertionEnv, renderer: mujoco.Renderer, geoms: NDArray[np.intp], offset: NDArray[np.float64]
) -> list[int]:
    """Pixels of studs in each camera's picture, the tip at an offset (3,) m from the mouth."""
    env.reset(seed=0, options={"offset": tuple(offset)})
    counts = []
    for camera in WRIST[: len(env.cameras)]:
        renderer.update_scene(env.data, camera)
        identity, kind = np.moveaxis(renderer.render(), -1, 0)
        counts.append(int((np.isin(identity, geoms) & (kind == mujoco.mjtObj.mjOBJ_GEOM)).sum()))
    return counts


def measure(robot: str, brick: str, angle: int) -> dict[str, Any]:
    """Pixels of studs in the better of both pictures, over displacements and directions."""
    env = InsertionEnv(brick, turned(robot, angle), image_size=SIZE, cameras=2, randomization=still())
    renderer = make_renderer(env.model, SIZE, SIZE)
    renderer.enable_segmentation_rendering()
    try:
        geoms, height = studs(env)
        full = -env.connector.insertion_depth
        seated = max(seen(env, renderer, geoms, np.array([0.0, 0.0, full])))
        best = []
        for displacement in DISPLACEMENTS:
            for heading in 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS:
                beside = displacement * np.array([np.cos(heading), np.sin(heading)])
                if rests(env, geoms, beside):
                    best.append(max(seen(env, renderer, geoms, np.array([*beside, full + height]))))
    finally:
        renderer.close()
        env.close()
    return {
        "robot": robot,
        "brick": brick,
        "angle": angle,
        "seated": seated,
        "least": min(best),
        "median": float(np.median(best)),
        "hidden": sum(count < FEW for count in best),
        "of": len(best),
    }


def turned(robot: str, angle: int) -> Cell:
    """A cell whose second camera stands at that angle (degrees) from the first."""
    first = CELLS[robot].cameras[0]
    return replace(CELLS[robot], cameras=(first, replace(first, azimuth=first.azimuth + angle)))


def still() -> Randomization:
    """Everything in its place."""
    return Randomization(**dict.fromkeys(vars(Randomization()), 0.0))


def picture(out: Path, scale: int = 4) -> None:
    """Seated above, resting beside the axis below; from the first camera, a quarter turn aside and the other side."""
    brick, beside = SHOWN
    rows: list[list[NDArray[np.uint8]]] = [[], []]
    for angle in (0, 90, 180):
        env = InsertionEnv(brick, turned("sawyer-a", angle), image_size=SIZE, cameras=2, randomization=still())
        full, height = -env.connector.insertion_depth, studs(env)[1]
        for row, offset in zip(rows, ((0.0, 0.0, full), (*beside, full + height))):
            observation, _ = env.reset(seed=3, options={"offset": offset})
            row.append(observation["image"][:, SIZE:])
        env.close()
    side, margin = scale * SIZE, 22
    sheet = Image.new("RGB", (3 * side, 2 * side + margin), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            large = Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(large, (x * side, margin + y * side))
    draw = ImageDraw.Draw(sheet)
    for x, title in enumerate(("first camera", "a quarter turn aside", "the other side")):
        draw.text((x * side + 6, 4), title, fill="black", font_size=14)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(out, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/second_camera.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/img/second-camera.png"))
    arguments = parser.parse_args()
    rows = [measure(robot, brick, angle) for robot in CELLS for angle in ANGLES for brick in BRICKS]
    for robot, angle in dict.fromkeys((row["robot"], row["angle"]) for row in rows):
        mine = [row for row in rows if (row["robot"], row["angle"]) == (robot, angle)]
        hidden, of = sum(row["hidden"] for row in mine), sum(row["of"] for row in mine)
        print(f"{robot} {angle:3d} degrees: studs hidden in {hidden} of {of}, least {min(r['least'] for r in mine)} px")
    settings = {"displacements": DISPLACEMENTS, "directions": DIRECTIONS, "size_px": SIZE, "few_px": FEW}
    write_json(arguments.out, {**provenance(), **settings, "rows": rows})
    picture(arguments.picture)


if __name__ == "__main__":
    main()
