"""Solids of a plug and of its socket, generated from one description.

Plugs are convex prisms that taper at the tip. Sockets are a block minus its cavities, split into boxes: an upright grid
of boxes round the rectangles that bound the cavities; boxes turned about z that fill those rectangles up to a cavity's
slanted sides; and tilted boxes that form a funnel at the rim where a part is too thin to carry the whole lead-in on its
tip. All in the plug's or the socket's frame, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lotj.sim import profiles
from lotj.sim.connector import SOCKET_BASE, TIP_GAP, Connector
from lotj.sim.fit import POST_PLAY
from lotj.sim.parts import COLOURS, Part
from lotj.sim.profiles import Polygon
from lotj.sim.solids import Solid, cover, make_solid, quaternion, slab, upright

TAPER_LIMIT = 0.4
"""Of its half width may a part lose at the tip, on each side."""
MIN_RIM = 0.00032
"""m; a narrower funnel is not worth its boxes."""
KEY_SETBACK = 0.002
"""m that a key without a length of its own starts above the tip: the part that carries it is centred first."""
POST_DROP = 0.0006
"""m that a post stays below the rim's funnel: the shell is centred before it meets the post."""
FACE_STEP = 0.00002
"""m that what fills corners stays below the face beside it: two faces in one plane flicker."""
HOLE_COLOUR = (0.03, 0.03, 0.035, 1.0)


class Cavity(NamedTuple):
    """One hole of a closed socket, in the socket frame."""

    part: Part
    hole: Polygon
    """Its outline below the rim."""
    rim: Polygon
    """Its outline at the mouth; the same number of edges."""
    run: NDArray[np.float64]
    """(N,) m that each edge recedes from hole to rim."""
    centre: tuple[float, float]
    """m, of this copy."""


def plug_solids(connector: Connector) -> list[Solid]:
    """The plug: the body that the gripper holds, then its parts, tapered at the tip."""
    if connector.mesh is not None:
        return _mesh_solids(connector.pieces().plug, connector.body_colour, "plug")
    depth = connector.insertion_depth
    solids = [_body(connector)]
    for part in connector.parts:
        whole = depth - KEY_SETBACK if part.kind == "key" else depth
        low = depth - (whole if part.length is None else part.length)
        if part.in_plug:
            for centre in part.centres():
                outlines = _shell_sections(connector, part) if part.kind == "shell" else _pin_sections(connector, part)
                for tip, full in outlines:
                    solids.append(_prism(connector, part, tip, full, centre, low, depth))
    return solids


def socket_solids(connector: Connector) -> list[Solid]:
    """The socket: colliding boxes, and drawn-only plates, contacts and studs."""
    if connector.mesh is not None:
        return _mesh_solids(connector.pieces().socket, connector.socket_colour, "socket")
    return _open_socket(connector) if connector.open_socket else _closed_socket(connector)


def _mesh_solids(pieces: Sequence[NDArray[np.float64]], colour: str, name: str) -> list[Solid]:
    rgba = (*COLOURS[colour], 1.0)
    return [make_solid("mesh", (0, 0, 0), [], rgba, name, vertices=piece) for piece in pieces]


def taper(connector: Connector, part: Part) -> tuple[float, float]:
    """How far (m) the tip of a part recedes on each side along its own x and y; the rest of ``lead_in`` falls to the
    rim."""
    half = np.array([part.wall, part.wall] if part.kind == "shell" else np.max(part.envelope(), axis=0))
    x, y = np.minimum(connector.lead_in, TAPER_LIMIT * half)
    return float(x), float(y)


def cavities(connector: Connector) -> list[Cavity]:
    """The holes of a closed socket, with the funnels at their rims."""
    keyed = any(part.kind == "key" for part in connector.parts)
    found = []
    for part in connector.parts:
        if not part.has_cavity:
            continue
        hole = profiles.offset(part.envelope(), connector.clearance)
        along = np.hypot(*(profiles.normals(hole) * taper(connector, part)).T)
        run = np.maximum(connector.lead_in - along, 0.0)
        # A funnel's boxes would bar the slot of a key; keyed noses are wide enough to carry the lead-in themselves.
        run[(run < MIN_RIM) | keyed] = 0.0
        rim = profiles.offset(hole, run)
        for centre in part.centres():
            placed = [profiles.place(outline, centre, part.angle) for outline in (hole, rim)]
            found.append(Cavity(part, placed[0], placed[1], run, centre))
    return found


# ---- plug ------------------------------------------------------------------------------------------------------------


def _body(connector: Connector) -> Solid:
    x, y = connector.body_size
    half = connector.body_height / 2
    cylinder = connector.body_shape == "cylinder"
    return make_solid(
        "cylinder" if cylinder else "box",
        (0, 0, connector.insertion_depth + half),
        [x / 2, half] if cylinder else [x / 2, y / 2, half],
        (*COLOURS[connector.body_colour], 1.0),
        "body",
    )


def _pin_sections(connector: Connector, part: Part) -> list[tuple[Polygon, Polygon]]:
    """(tip, full) outlines of a part's convex pieces, in the part's frame."""
    x, y = taper(connector, part)
    if part.profile in ("cross", "torx"):
        shrink = np.array([1 - x / (part.size[0] / 2)] * 2)
    else:
        shrink = 1 - np.array([x, y]) / np.max(part.envelope(), axis=0)
    return [(piece * shrink, piece) for piece in part.pieces()]


def _shell_sections(connector: Connector, part: Part) -> list[tuple[Polygon, Polygon]]:
    """(tip, full) outlines of a shell's walls, one for each edge, in the part's frame."""
    outer = part.envelope()
    recede, _ = taper(connector, part)
    rings = [
        (profiles.offset(outer, -recede), profiles.offset(outer, recede - part.wall)),
        (outer, profiles.offset(outer, -part.wall)),
    ]
    walls = []
    for i in range(len(outer)):
        j = (i + 1) % len(outer)
        tip, full = (np.array([outside[i], outside[j], inside[j], inside[i]]) for outside, inside in rings)
        walls.append((tip, full))
    return walls


def _prism(
    connector: Connector, part: Part, tip: Polygon, full: Polygon, centre: tuple[float, float], low: float, top: float
) -> Solid:
    """A mesh through three cross-sections: the tip, the end of the taper, and the root at the body."""
    slope = min(connector.lead_in_length, 0.5 * (top - low))
    sections = ((tip, low), (full, low + slope), (full, top))
    vertices = [np.column_stack([profiles.place(p, centre, part.angle), np.full(len(p), z)]) for p, z in sections]
    colour = (*COLOURS[part.colour], 1.0)
    return make_solid(
        "mesh", (0, 0, 0), [], colour, part.name, vertices=np.concatenate(vertices), collides=part.collides
    )


# ---- socket ----------------------------------------------------------------------------------------------------------


def _closed_socket(connector: Connector) -> list[Solid]:
    holes = cavities(connector)
    mouth = connector.insertion_depth
    slope = max(float(cavity.run.max()) for cavity in holes)
    # The funnel is as steep as the plug's own taper.
    rim_depth = slope * connector.lead_in_length / connector.lead_in if slope > 0 else 0.0
    neck = mouth - rim_depth
    half = np.array(connector.socket_size[:2]) / 2
    colour = (*COLOURS[connector.socket_colour], 1.0)
    solids = [slab(-half, half, -TIP_GAP - SOCKET_BASE, -TIP_GAP, colour, "base")]
    solids += _layer(half, [cavity.hole for cavity in holes], -TIP_GAP, neck, colour, "block")
    if rim_depth:
        solids += _layer(half, [cavity.rim for cavity in holes], neck, mouth, colour, "face")
    for cavity in holes:
        for i in np.flatnonzero(cavity.run):
            solids.append(_ramp(cavity.hole, int(i), 1.0, float(cavity.run[i]), neck, mouth, colour, "rim"))
        post_top = neck - POST_DROP
        if cavity.part.kind == "shell":
            solids += _post(connector, cavity, -TIP_GAP, post_top, colour)
        low, high = profiles.bounds([cavity.hole])
        edge = post_top if cavity.part.kind == "shell" else neck if cavity.run.any() else mouth
        dark = max(edge - max(0.0006, 0.35 * float(np.min(high - low))), -TIP_GAP + 0.0002)
        solids.append(slab(low, high, dark - 0.0001, dark, HOLE_COLOUR, "hole", collides=False))
    return solids + _contacts(connector)


def _open_socket(connector: Connector) -> list[Solid]:
    half = np.array(connector.socket_size[:2]) / 2
    colour = (*COLOURS[connector.socket_colour], 1.0)
    solids = [slab(-half, half, -SOCKET_BASE, 0.0, colour, "plate")]
    walls = [taper(connector, part)[0] for part in connector.parts if part.kind == "shell"]
    run = max(connector.lead_in - min(walls), MIN_RIM)
    top = connector.insertion_depth - TIP_GAP
    neck = top - run * connector.lead_in_length / max(connector.lead_in, run)
    for part in connector.parts:
        for centre in part.centres() if part.kind == "stud" else ():
            outline = profiles.offset(part.envelope(), -connector.clearance)
            for box in _cross_boxes(outline):
                solids.append(upright(box, centre, 0.0, 0.0, neck, colour, "stud"))
            for i in range(0, len(outline), 2):
                solids.append(_ramp(profiles.place(outline, centre), i, -1.0, run, neck, top, colour, "stud-top"))
            radius = float(np.max(outline @ [1.0, 0.0]))
            for r, low, high in ((radius, 0.0, neck), (radius - run, neck, top - FACE_STEP)):
                middle = (*centre, (low + high) / 2)
                solids.append(
                    make_solid("cylinder", middle, [r, (high - low) / 2], colour, "stud-drawn", collides=False)
                )
    return solids


def _layer(
    half: NDArray[np.float64],
    outlines: Sequence[Polygon],
    low: float,
    high: float,
    colour: tuple[float, ...],
    name: str,
) -> list[Solid]:
    """The block between two heights minus the outlines: boxes round their bounding rectangles, and fillers at slanted
    edges."""
    rectangles = [np.concatenate(profiles.bounds([outline])) for outline in outlines]
    solids = [slab(a, b, low, high, colour, name) for a, b in cover(half, rectangles)]
    for box in (filler for outline in outlines for filler in profiles.fillers(outline)):
        x, y = box.mean(axis=0)
        along, across = box[1] - box[0], box[2] - box[1]
        half_box = np.array([np.linalg.norm(along), np.linalg.norm(across)]) / 2
        turn = float(np.degrees(np.arctan2(along[1], along[0])))
        solids.append(upright(half_box, (float(x), float(y)), turn, low, high - FACE_STEP, colour, f"{name}-side"))
    return solids


def _ramp(
    outline: Polygon, edge: int, side: float, run: float, low: float, high: float, colour: tuple[float, ...], name: str
) -> Solid:
    """A tilted box whose face rises from an outline's edge at ``low`` and recedes by ``run`` up to ``high``.

    ``side`` +1: the solid lies outside the outline (a cavity's rim); -1: inside (a stud's top).
    """
    start, end = outline[edge], outline[(edge + 1) % len(outline)]
    inward = np.append(side * profiles.normals(outline)[edge], 0.0)
    slope = run * inward + np.array([0.0, 0.0, high - low])
    length = float(np.linalg.norm(slope))
    up = slope / length
    into = ((high - low) * inward - np.array([0.0, 0.0, run])) / length
    thick = max(run, 0.0008)
    # At a cavity, slopes that meet in a corner may run on into each other: together they are the funnel's wall.
    width = float(np.linalg.norm(end - start)) + (2 * run if side > 0 else 0.0)
    centre = np.append((start + end) / 2, low) + slope / 2 + into * thick / 2
    axes = np.stack([np.cross(up, into), up, into], axis=1)
    return make_solid("box", centre, [width / 2, length / 2, thick / 2], colour, name, quaternion=quaternion(axes))


def _post(connector: Connector, cavity: Cavity, low: float, high: float, colour: tuple[float, ...]) -> list[Solid]:
    """What stands inside a shell: the socket's tongue or insert."""
    part = cavity.part
    inner = profiles.offset(part.envelope(), -part.wall - connector.clearance - POST_PLAY)
    boxes = [
        upright(box, cavity.centre, part.angle, low, high - i * FACE_STEP, colour, "post")
        for i, box in enumerate(_cross_boxes(inner))
    ]
    if part.profile == "circle":
        high -= 2 * FACE_STEP
        position = (*cavity.centre, (low + high) / 2)
        boxes.append(
            make_solid(
                "cylinder", position, [float(inner[:, 0].max()), (high - low) / 2], colour, "post-drawn", collides=False
            )
        )
    return boxes


def _cross_boxes(outline: Polygon) -> list[NDArray[np.float64]]:
    """Half extents (2,) of upright boxes within a centred outline that reach its flat sides: one for a rectangle, else
    up to two."""
    reach = outline.max(axis=0)
    found: list[NDArray[np.float64]] = []
    for axis in (0, 1):
        flats = [outline[np.isclose(outline[:, axis], side * reach[axis], atol=1e-7), 1 - axis] for side in (-1, 1)]
        across = min(min(flat.max(), -flat.min()) for flat in flats)
        box = np.array([reach[0], across] if axis == 0 else [across, reach[1]])
        if across > 1e-5 and not any(np.allclose(box, other) for other in found):
            found.append(box)
    return found


def _contacts(connector: Connector) -> list[Solid]:
    """The socket's own pins, drawn in the cavity."""
    solids = []
    for part in connector.parts:
        high = connector.insertion_depth - 0.002
        low = -TIP_GAP if part.length is None else high - part.length
        for centre in part.centres() if part.kind == "contact" else ():
            half, colour = np.array(part.size) / 2, (*COLOURS[part.colour], 1.0)
            solids.append(upright(half, centre, part.angle, low, high, colour, part.name, collides=False))
    return solids
