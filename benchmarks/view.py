"""Can the last millimetre of depth and the last half millimetre of offset be seen? -> results/view.json.

For several connectors and both cells, the picture at full insertion is compared with the picture 1 mm short, and the
picture with the tip at the mouth with that 0.5 mm beside, everything else the same; for several resolutions and crops.
A pixel counts as changed from 8 levels of 255 on, which is more than the image noise of such a camera in good light.

    python benchmarks/view.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lotj.files import write_json
from lotj.provenance import provenance
from lotj.sim.env import InsertionEnv
from lotj.sim.randomize import CELLS
from lotj.sim.scene import FOCAL_LENGTH

CONNECTORS = ("usb-a", "rj45", "schuko", "bnc", "din-5", "deutsch-dt-6", "hex-5", "key-euro", "trs-6-35", "iec-c13")
"""None of them is a test connector."""
SIZES = (48, 64, 96, 128)
CROPS = (120, 168, 240)
LEVELS = 8


def changed(env: InsertionEnv, one: tuple[float, float, float], other: tuple[float, float, float]) -> int:
    """Pixels that change between two offsets (m, from the socket's mouth) of the tip in the same trial."""
    pictures = []
    for offset in (one, other):
        observation, _ = env.reset(seed=0, options={"offset": offset})
        pictures.append(observation["image"].astype(np.int16))
    return int((np.abs(pictures[0] - pictures[1]).max(axis=2) >= LEVELS).sum())


def measure(robot: str, size: int, crop: int) -> dict[str, Any]:
    """Changed pixels, worst and median over the connectors, of one cell with another crop and resolution."""
    cell = CELLS[robot]
    cropped = replace(cell, cameras=(replace(cell.cameras[0], crop=crop), cell.cameras[1]))
    depth, offset = [], []
    for name in CONNECTORS:
        env = InsertionEnv(name, cropped, image_size=size)
        try:
            full = -env.connector.insertion_depth
            depth.append(changed(env, (0, 0, full), (0, 0, full + 0.001)))
            offset.append(changed(env, (0, 0, 0.001), (0.0005, 0, 0.001)))
        finally:
            env.close()
    span = cell.cameras[0].distance * crop / FOCAL_LENGTH * 1e3
    return {
        "robot": robot,
        "size_px": size,
        "crop_px": crop,
        "field_mm": round(span, 1),
        "mm_per_px": round(span / size, 3),
        "depth_1mm": {"least": min(depth), "median": float(np.median(depth))},
        "offset_0.5mm": {"least": min(offset), "median": float(np.median(offset))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/view.json"))
    arguments = parser.parse_args()
    rows = []
    for robot in CELLS:
        for crop in CROPS:
            for size in SIZES:
                rows.append(measure(robot, size, crop))
                print(rows[-1], flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, {**provenance(), "connectors": CONNECTORS, "levels": LEVELS, "rows": rows})


if __name__ == "__main__":
    main()
