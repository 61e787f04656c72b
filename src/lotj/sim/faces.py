"""Random variations of a mating face: its parts scaled, reshaped, multiplied, turned and moved. Lengths in metres.

What is drawn here need not fit: the checks of `Part` and `Connector` refuse it then, and the caller draws again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lotj.sim import profiles
from lotj.sim.parts import COLOURS, Part

SCALE = (0.75, 1.35)
"""Range of the factor on each axis of a face."""
GAP = (0.0028, 0.0075)
"""m from one part to the next."""
THINNEST = 0.0008
"""m, of a part that collides."""
SMALL = 0.009
"""m: parts up to this size may be repeated or turned by any angle."""
BLUNT = 0.005
"""m: a part of at least this size carries the lead-in on its tip, so it needs no funnel and may have a key."""
ROUND = ("circle", "polygon", "cross", "torx")
"""Profiles as wide as they are high."""


def vary_plug(rng: np.random.Generator, parts: Sequence[Part]) -> list[Part]:
    """A face of pins and shells like the given one, without its keys: `draw_key` sets new ones."""
    scale = np.array([factor(rng, *SCALE), factor(rng, *SCALE)])
    face = [_scaled(part, scale) for part in parts if part.kind != "key"]
    several = sum(part.has_cavity for part in face) > 1
    face = [_varied(rng, part, several) if part.has_cavity else part for part in face]
    if rng.random() < 0.5:
        face = [_mirrored(part) for part in face]
    if rng.random() < 0.4:
        face = [_quarter_turned(part) for part in face]
    return face


def vary_brick(rng: np.random.Generator, parts: Sequence[Part]) -> list[Part]:
    """Another brick: count, pitch and size of the studs, wall and shape of the hull, whose walls touch the studs."""
    hull = next(part for part in parts if part.kind == "shell")
    stud = next(part for part in parts if part.kind == "stud")
    diameter = max(stud.size[0] * factor(rng, *SCALE), 0.0042)
    wall = hull.wall * factor(rng, *SCALE)
    count = np.clip(np.array(stud.repeat) + rng.integers(-1, 2, 2), 1, 3)
    pitch = np.where(count > 1, np.round(diameter + rng.uniform(0.0024, 0.0064, 2), 5), 0.0)
    size = (count - 1) * pitch + diameter + 2 * wall
    profile = str(rng.choice(["rectangle", "circle", "polygon"])) if count.max() == 1 else "rectangle"
    return [
        replace(hull, profile=profile, sides=8, size=metres(size), wall=metres((wall, 0))[0]),
        replace(stud, size=metres((diameter, diameter)), repeat=(int(count[0]), int(count[1])), pitch=metres(pitch)),
    ]


def beside(rng: np.random.Generator, face: Sequence[Part], other: Sequence[Part]) -> list[Part]:
    """Both faces in one: the other's parts at +x or +y of the first, a gap between."""
    (low, high), (other_low, other_high) = bounds(face), bounds(other)
    shift = (low + high - other_low - other_high) / 2
    axis = int(rng.integers(2))
    shift[axis] = high[axis] - other_low[axis] + rng.uniform(*GAP)
    return [*face, *(replace(part, name=f"{part.name}-beside") for part in moved(other, shift))]


def draw_key(rng: np.random.Generator, host: Part, name: str) -> Part:
    """A rib of the host's colour on one of its flat sides, somewhere along it."""
    outline = outlines([host])[0]
    axis, side = int(rng.integers(2)), int(rng.choice([-1, 1]))
    edge = side * float(np.max(side * outline[:, axis]))
    flat = outline[np.isclose(outline[:, axis], edge, atol=1e-6), 1 - axis]
    rib, root = rng.uniform(0.0010, 0.0030), rng.uniform(0.0008, 0.0020)
    width = rng.uniform(0.15, 0.45) * float(np.ptp(flat))
    place = np.array([edge + side * (rib - root) / 2, rng.uniform(flat.min() + width / 2, flat.max() - width / 2)])
    size = np.array([rib + root, width])
    if axis == 1:
        place, size = place[::-1], size[::-1]
    return Part(name, "key", "rectangle", metres(size), host.source, metres(place), colour=host.colour)


def paint(rng: np.random.Generator, parts: Sequence[Part], body_colour: str, socket_colour: str) -> list[Part]:
    """Blunt parts in the body's colour or another, thin ones in any, studs in the socket's."""
    painted = []
    for part in parts:
        own = any_colour(rng)
        if part.kind == "stud":
            own = socket_colour
        elif min(part.size) >= BLUNT and rng.random() < 0.5:
            own = body_colour
        painted.append(replace(part, colour=own))
    return painted


def factor(rng: np.random.Generator, low: float, high: float) -> float:
    """A factor with a uniform logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def any_colour(rng: np.random.Generator) -> str:
    """The name of a colour."""
    return str(rng.choice(list(COLOURS)))


def metres(pair: ArrayLike) -> tuple[float, float]:
    """Two lengths (m), rounded to a hundredth of a millimetre."""
    x, y = np.round(np.asarray(pair, dtype=np.float64), 5).tolist()
    return x, y


def outlines(parts: Sequence[Part]) -> list[profiles.Polygon]:
    """The outline of every copy of every part in the plug frame."""
    return [profiles.place(part.envelope(), centre, part.angle) for part in parts for centre in part.centres()]


def bounds(parts: Sequence[Part]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper corner (2,), (2,) m of the rectangle round all parts."""
    return profiles.bounds(outlines(parts))


def moved(parts: Sequence[Part], shift: NDArray[np.float64]) -> list[Part]:
    """The parts, moved by (2,) m."""
    return [replace(part, position=metres(part.position + shift)) for part in parts]


# ---- one part --------------------------------------------------------------------------------------------------------


def _scaled(part: Part, scale: NDArray[np.float64]) -> Part:
    """Scaled along the face's x and y; round profiles by the mean of both factors."""
    own = scale[::-1] if part.angle % 180 == 90 else scale
    if part.profile in ROUND:
        own = np.repeat(np.sqrt(scale.prod()), 2)
    narrow, wall = metres((part.narrow * own[0], part.wall * own.min()))
    return replace(
        part,
        size=metres(np.maximum(part.size * own, THINNEST if part.collides else 0.0)),
        position=metres(part.position * scale),
        pitch=metres(part.pitch * scale),
        corner=metres((part.corner * own.min(), 0))[0],
        narrow=narrow,
        wall=wall,
    )


def _varied(rng: np.random.Generator, part: Part, several: bool) -> Part:
    """One part that collides, changed in each of five ways or left as it is."""
    if part.kind == "shell":
        part = replace(part, wall=metres((part.wall * factor(rng, 0.7, 1.8), 0))[0])
    if rng.random() < 0.4:
        part = _reshaped(rng, part)
    if rng.random() < 0.35 and max(part.size) <= SMALL:
        part = _multiplied(rng, part)
    if rng.random() < 0.25 and max(part.size) <= SMALL:
        part = replace(part, angle=float(rng.integers(-6, 7) * 15))
    if several and rng.random() < 0.4:
        part = moved([part], rng.normal(0, 0.0015, 2))[0]
    return part


def _reshaped(rng: np.random.Generator, part: Part) -> Part:
    """Another profile in about the same place."""
    x, y = part.size
    if part.profile in ("cross", "torx"):
        y = x
    choices = ["rectangle", "rounded", "bevelled", "trapezoid"] if min(x, y) > 0.002 else ["rectangle", "rounded"]
    if x / y == np.clip(x / y, 0.65, 1.5):
        choices += ["circle", "polygon"]
    profile = str(rng.choice(choices))
    size = metres(np.repeat(np.sqrt(x * y), 2) if profile in ROUND else (x * factor(rng, 0.75, 1.2), y))
    plain = replace(part, profile="rectangle", size=size, corner=0.0, narrow=0.0, sides=6)
    cut, narrow = metres((rng.uniform(0.1, 0.3) * min(size), rng.uniform(0.55, 0.92) * size[0]))
    if profile == "rounded":
        return replace(plain, corner=cut)
    if profile == "bevelled":
        return replace(plain, profile=profile, corner=cut)
    if profile == "trapezoid":
        return replace(plain, profile=profile, narrow=narrow)
    return replace(plain, profile=profile, sides=int(rng.choice([4, 6, 8])))


def _multiplied(rng: np.random.Generator, part: Part) -> Part:
    """One copy more or less along x or y, at a new pitch."""
    axis = int(rng.integers(2))
    repeat, pitch = list(part.repeat), list(part.pitch)
    repeat[axis] = max(1, repeat[axis] + int(rng.choice([-1, -1, 1, 2])))
    low, high = profiles.bounds([profiles.place(part.envelope(), degrees=part.angle)])
    pitch[axis] = float(high[axis] - low[axis] + rng.uniform(*GAP)) if repeat[axis] > 1 else 0.0
    return replace(part, repeat=(repeat[0], repeat[1]), pitch=metres(pitch))


def _mirrored(part: Part) -> Part:
    """Left and right exchanged."""
    x, y = part.position
    return replace(part, position=(-x, y), angle=-part.angle)


def _quarter_turned(part: Part) -> Part:
    """Turned about the plug's axis by a quarter."""
    x, y = part.position
    return replace(
        part, position=(-y, x), angle=(part.angle + 90) % 360, repeat=part.repeat[::-1], pitch=part.pitch[::-1]
    )
