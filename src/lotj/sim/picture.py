"""The picture of one connector: plug over socket, the plug's face from below, and two measured sections at full
insertion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lotj.sim.connector import Connector
from lotj.sim.geometry import Solid, plug_solids, socket_solids
from lotj.sim.graphics import make_renderer
from lotj.sim.scene import add_solids, look_quaternion
from lotj.sim.sections import corners, cut

PANEL = (440, 330)
"""px, width and height of each of the four panels."""
CAPTION = 18
"""px."""
LIFT = 0.012
"""m that the plug hovers above the socket's mouth."""
GLANCE = 0.00002
"""m beside the axis: a plane in which faces lie cuts nothing well."""


def draw_connector(connector: Connector, out: Path) -> None:
    """Write the picture, 880 x 696 px, as a PNG or JPEG by the file's name.

    Raises:
        GraphicsError: there is no OpenGL to draw with.
        ConnectorError: its meshes cannot be used.
    """
    plug, socket = plug_solids(connector), socket_solids(connector)
    views = _views(connector, plug, socket)
    depth = connector.insertion_depth
    titles = (
        "plug over socket",
        "the plug's face, from below",
        f"cut across, {depth * 500:.1f} mm below the mouth (x right, y up)",
        "cut along the axis (x right, z up)",
    )
    panels = [
        *(Image.fromarray(view) for view in views),
        _section(plug, socket, 2, depth / 2 + GLANCE, depth),
        _section(plug, socket, 1, _plane(connector) + GLANCE, depth),
    ]
    width, height = PANEL
    sheet = Image.new("RGB", (2 * width, 2 * (height + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (panel, title) in enumerate(zip(panels, titles)):
        x, y = (i % 2) * width, (i // 2) * (height + CAPTION)
        sheet.paste(panel, (x, y + CAPTION))
        draw.text((x + 4, y + 3), title, fill="black", font=ImageFont.load_default(11))
    out.parent.mkdir(parents=True, exist_ok=True)
    # As a PNG 128 colours are enough for flat faces, and a third of the size.
    fewer = sheet.quantize(128, dither=Image.Dither.NONE) if out.suffix.lower() == ".png" else sheet
    fewer.save(out, optimize=True)


def _plane(connector: Connector) -> float:
    """m along y where the cut along the axis goes through a pin rather than between two."""
    places = [y for part in connector.parts if part.has_cavity for _, y in part.centres()]
    return min(places, key=abs) if places else 0.0


def _views(connector: Connector, plug: list[Solid], socket: list[Solid]) -> list[NDArray[np.uint8]]:
    spec = mujoco.MjSpec()
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 2 * PANEL[0], 2 * PANEL[1]
    spec.visual.map.znear = 0.005
    spec.stat.extent = 0.5
    spec.visual.headlight.ambient = (0.45, 0.45, 0.45)
    spec.visual.headlight.diffuse = (0.45, 0.45, 0.45)
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    flat, sky, pale = mujoco.mjtBuiltin.mjBUILTIN_FLAT, mujoco.mjtTexture.mjTEXTURE_SKYBOX, (0.97, 0.97, 0.97)
    spec.add_texture(name="paper", type=sky, builtin=flat, rgb1=pale, rgb2=pale, width=8, height=48)
    light = spec.worldbody.add_light(pos=(0.2, -0.3, 0.5), dir=(-0.4, 0.6, -0.8), castshadow=False)
    light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    light.diffuse, light.specular = (0.4, 0.4, 0.4), (0.1, 0.1, 0.1)
    lift = connector.insertion_depth + LIFT
    body = spec.worldbody.add_body(name="plug", pos=(0, 0, lift))
    add_solids(spec, body, plug, "plug", mass=0.1)
    add_solids(spec, spec.worldbody.add_body(name="socket"), socket, "socket", mass=0.0)
    held = np.concatenate([corners(solid) for solid in plug])
    points = np.concatenate([held + (0, 0, lift), *(corners(solid) for solid in socket)])
    for name, seen, direction in (("both", points, (0.35, -0.8, 0.62)), ("face", held + (0, 0, lift), (0.3, -0.5, -1))):
        outward = np.array(direction) / np.linalg.norm(direction)
        middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
        reach = float(np.linalg.norm(seen - middle, axis=1).max())
        place = middle + outward * reach / np.sin(np.radians(13))
        spec.worldbody.add_camera(name=name, pos=place, quat=look_quaternion(outward), fovy=26)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = make_renderer(model, 2 * PANEL[1], 2 * PANEL[0])
    try:
        shots = []
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_HAZE] = 0
        for name in ("both", "face"):
            if name == "face":  # the socket would stand in the way
                model.geom_rgba[[i for i in range(model.ngeom) if model.geom(i).name.startswith("socket/")], 3] = 0
            renderer.update_scene(data, name)
            shot = renderer.render().astype(np.float32).reshape(PANEL[1], 2, PANEL[0], 2, 3).mean(axis=(1, 3))
            shots.append(shot.astype(np.uint8))
    finally:
        renderer.close()
    return shots


def _section(plug: Sequence[Solid], socket: Sequence[Solid], axis: int, at: float, mouth: float) -> Image.Image:
    """Both, cut at full insertion, to scale; a bar shows 5 mm."""
    across = [i for i in range(3) if i != axis]
    points = np.concatenate([corners(solid) for solid in (*plug, *socket) if solid.collides])[:, across]
    low, high = points.min(axis=0), points.max(axis=0)
    if axis == 1:
        high[1] = min(high[1], mouth + 0.012)  # the body goes on as it begins
    width, height = PANEL
    scale = 0.9 * min(width / (high[0] - low[0]), (height - 20) / (high[1] - low[1]))
    middle = (low + high) / 2
    image = Image.new("RGB", (2 * width, 2 * height), "white")
    draw = ImageDraw.Draw(image)

    def place(outline: NDArray[np.float64]) -> list[tuple[float, float]]:
        flat = (outline - middle) * scale * 2
        return [(width + x, height - 12 - y) for x, y in flat]

    for solids, fill in ((socket, (205, 208, 214)), (plug, (214, 130, 80))):
        for found in cut([solid for solid in solids if solid.collides], axis, at):
            draw.polygon(place(found.outline), fill=fill)
    shared = image.resize((width, height), Image.Resampling.BOX)
    draw = ImageDraw.Draw(shared)
    bar = 0.005 * scale
    draw.line([(10, height - 12), (10 + bar, height - 12)], fill="black", width=2)
    draw.text((14 + bar, height - 19), "5 mm", fill="black", font=ImageFont.load_default(11))
    return shared
