"""A contact sheet: every connector as the wrist camera sees it, above its socket and inserted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lotj.sim.connector import Connector
from lotj.sim.env import InsertionEnv


def views(connector: Connector, size: int = 128, robot: str = "sawyer-a") -> NDArray[np.uint8]:
    """Two views (size, 2 size, 3): 6 mm above the socket and 3 mm beside its axis, then fully inserted."""
    env = InsertionEnv(connector, robot, image_size=size)
    try:
        offsets = ((0.003, -0.003, 0.006), (0.0, 0.0, -connector.insertion_depth + 0.0002))
        seen = [env.reset(seed=3, options={"offset": offset})[0]["image"] for offset in offsets]
    finally:
        env.close()
    return np.concatenate(seen, axis=1)


def contact_sheet(connectors: Sequence[Connector], out: Path, columns: int = 6, size: int = 96) -> None:
    """Draw the sheet, families together, as a PNG or JPEG by the file's name."""
    ordered = sorted(connectors, key=lambda c: c.family)
    caption, gap = 16, 6
    rows = -(-len(ordered) // columns)
    width, height = 2 * size + gap, size + caption + gap
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for i, connector in enumerate(ordered):
        x, y = gap + (i % columns) * width, gap + (i // columns) * height
        sheet.paste(Image.fromarray(views(connector, size)), (x, y))
        draw.text((x + 1, y + size + 2), f"{connector.name}  ({connector.family})", fill="black", font=font)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=82)
