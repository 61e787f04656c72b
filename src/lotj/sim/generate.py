"""Connectors drawn at random from the catalogue's families, never close to a test connector.

A draw takes a template of the catalogue, varies its mating face (`faces`), sets it into a body after another template,
and paints it. It is drawn again where the catalogue's own checks refuse it, where it is too large or has too many
pieces, and where its face is `CLOSE` to that of a test connector or a variant of one (`distance`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from lotj.sim import faces, profiles
from lotj.sim.connector import Connector
from lotj.sim.connectors import get_connector, load_catalogue
from lotj.sim.distance import distance, distance_to_test, protected
from lotj.sim.geometry import Cavity, cavities, plug_solids, socket_solids
from lotj.sim.parts import ConnectorError, Part
from lotj.sim.robot import TOOL_TO_TIP

CLOSE = 0.003
"""m: nearer to a test connector, or to a variant of one, nothing is generated. The grouping rule of docs/connectors.md
asks for 1 mm in each size and along each axis of place, which comes to some 2.1 mm of `distance`."""
TRIES = 500
"""Draws for one connector."""
SEARCHED = 50
"""Generated connectors that are looked at for each one that is wanted away from others, before the search ends."""
FACE_SIDE = 0.042
"""m, the longest side of a face: little more than the wrist camera sees."""
SOCKET_SIDE = 0.09
"""m, the longest side of a socket, as in the catalogue."""
PLUG_PIECES, SOCKET_BOXES = 20, 64
"""What plug and socket may consist of: the simulator's time."""
RAMP = 0.0008
"""m that the wall of a funnel is thick at least: another cavity must lie beyond."""


def generate_connectors(
    count: int, seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Connector]:
    """Draw connectors; a longer list begins with a shorter one.

    Args:
        count: how many.
        seed: of all draws; connector ``i`` depends on ``(seed, i)`` alone.
        progress: called with (connectors done, connectors in all).

    Returns:
        Connectors ``gen-<seed>-<i>``, families in turn, each in a group of its own.

    Raises:
        ValueError: count or seed is negative.
        ConnectorError: no draw for one of them was accepted.
    """
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed cannot be negative, got {count} and {seed}")
    drawn = []
    for number in range(count):
        drawn.append(generate_connector(seed, number))
        progress(number + 1, count)
    return drawn


def generate_connector(seed: int, number: int) -> Connector:
    """Draw connector ``number`` of a seed; see `generate_connectors`."""
    rng = np.random.default_rng([seed, number])
    # In turn: whatever their number, the connectors drawn know all families about equally well.
    family = families()[number % len(families())]
    for _ in range(TRIES):
        try:
            drawn = _draw(rng, family, seed, number)
        except ConnectorError:
            continue
        if _sound(drawn) and distance_to_test(drawn) >= CLOSE:
            return drawn
    raise ConnectorError(
        f"seed {seed}, number {number}: none of {TRIES} draws from family {family!r} was accepted; try another seed"
    )


def generated_apart_from(
    others: Iterable[Connector], wanted: int, seed: int, family: str | None = None, beyond: Collection[str] = ()
) -> tuple[str, ...]:
    """The first generated connectors whose faces are not `CLOSE` to any of some others.

    The generator varies the catalogue's connectors, those to be scored included, and keeps away from the four test
    connectors alone: about every second face it draws is nearly that of one of 25 connectors.

    Args:
        others: connectors to keep away from.
        wanted: how many; fewer are the first of more.
        seed: of the generator.
        family: of this one alone; default: families in turn.
        beyond: names to pass over, found before.

    Raises:
        ValueError: so many cannot be found, or there is no such family.
    """
    others = list(others)
    names = families()
    if family is not None and family not in names:
        raise ValueError(f"there is no family {family!r} to generate connectors of; known: {', '.join(names)}")
    start, step = (0, 1) if family is None else (names.index(family), len(names))
    found: list[str] = []
    fresh = (name for number in itertools.count(start, step) if (name := f"gen-{seed}-{number}") not in beyond)
    for name in itertools.islice(fresh, SEARCHED * wanted):
        if len(found) == wanted:
            break
        if all(distance(get_connector(name), other) >= CLOSE for other in others):
            found.append(name)
    if len(found) < wanted:
        of = "connectors" if family is None else f"connectors of family {family!r}"
        raise ValueError(
            f"of {SEARCHED * wanted} {of} generated with seed {seed}, {len(found)} are {CLOSE * 1e3:g} mm away "
            f"from {len(others)} others, {wanted} were asked for; ask for fewer, or give another generator seed"
        )
    return tuple(found)


@cache
def families() -> tuple[str, ...]:
    """What connectors are generated of, in turn."""
    return tuple(sorted({template.family for template in templates()}))


@cache
def templates() -> tuple[Connector, ...]:
    """What is drawn from: the catalogue without the test connectors and their variants."""
    return tuple(connector for connector in load_catalogue().values() if connector not in protected())


def _draw(rng: np.random.Generator, family: str, seed: int, number: int) -> Connector:
    """One draw, which may be unfit.

    Raises:
        ConnectorError: it is too wide, or the checks of `Part` or `Connector` refuse it.
    """
    template = _choose(rng, [other for other in templates() if other.family == family])
    alike = [other for other in templates() if other.open_socket == template.open_socket]
    depth = round(float(np.clip(template.insertion_depth * faces.factor(rng, 0.7, 1.4), 0.0035, 0.019)), 5)
    sources = [template]
    face = _face(rng, template, depth)
    if not template.open_socket and rng.random() < 0.3:
        sources.append(_choose(rng, alike))
        face = faces.beside(rng, face, _face(rng, sources[1], depth))
    if np.max(np.ptp(faces.bounds(face), axis=0)) > FACE_SIDE:
        raise ConnectorError("field 'part': the face is too wide")
    body_colour, socket_colour = faces.any_colour(rng), faces.any_colour(rng)
    face = faces.paint(rng, _centred(rng, face), body_colour, socket_colour)
    face += _keys(rng, face, any(part.kind == "key" for part in template.parts))
    origin = f"drawn at random (seed {seed}, number {number}) from {' and '.join(other.name for other in sources)}"
    name = f"gen-{seed}-{number}"
    return Connector(
        name=name,
        title=origin[0].upper() + origin[1:],
        family=family,
        group=name,
        insertion_depth=depth,
        parts=tuple(replace(part, source=origin) for part in face),
        sources=dict.fromkeys(("insertion_depth", "body_size", "clearance", "lead_in"), origin),
        body_colour=body_colour,
        socket_colour=socket_colour,
        clearance=round(rng.uniform(0.0004, 0.0006), 5),
        lead_in=round(rng.uniform(0.0009, 0.0012), 5),
        lead_in_length=round(min(rng.uniform(0.0010, 0.0015), 0.5 * depth), 5),
        open_socket=template.open_socket,
        **_body(rng, face, _choose(rng, alike), depth),
    )


def _face(rng: np.random.Generator, template: Connector, depth: float) -> list[Part]:
    """A variation of the template's face; parts that end above the tip keep their share of the depth."""
    vary = faces.vary_brick if template.open_socket else faces.vary_plug
    shares = [(part, part.length and part.length / template.insertion_depth) for part in vary(rng, template.parts)]
    return [replace(part, length=round(share * depth, 5) if share else None) for part, share in shares]


def _centred(rng: np.random.Generator, face: Sequence[Part]) -> list[Part]:
    """The face with its middle on the axis, or now and then a little beside it."""
    low, high = faces.bounds(face)
    offset = rng.uniform(-0.0015, 0.0015, 2) if rng.random() < 0.2 else np.zeros(2)
    return faces.moved(face, offset - (low + high) / 2)


def _keys(rng: np.random.Generator, face: Sequence[Part], keyed: bool) -> list[Part]:
    """Up to two keys on a blunt pin, often where the template has one. Among thin parts there are none: a connector
    with keys has no funnels to catch them."""
    pins = [part for part in face if part.has_cavity]
    hosts = [part for part in pins if part.repeat == (1, 1)]
    blunt = all(part.kind == "pin" and min(part.size) >= faces.BLUNT for part in pins)
    if not hosts or not blunt or rng.random() > (0.8 if keyed else 0.25):
        return []
    host = hosts[int(rng.integers(len(hosts)))]
    return [faces.draw_key(rng, host, f"key-{i + 1}") for i in range(rng.choice([1, 1, 1, 2]))]


def _body(rng: np.random.Generator, face: Sequence[Part], dress: Connector, depth: float) -> dict[str, Any]:
    """A body round the face that has the shape of another connector's and about its margins."""
    points = np.concatenate(faces.outlines(face))
    low, high = faces.bounds(dress.parts)
    margin = np.clip((dress.body_size - (high - low)) / 2, 0, 0.008) * [faces.factor(rng, 0.6, 1.6) for _ in "xy"]
    size = np.maximum(2 * (np.abs(points).max(axis=0) + margin), 0.007)
    shape = dress.body_shape if size.max() < 1.6 * size.min() else "box"
    if shape == "cylinder":
        size = np.repeat(max(2 * np.linalg.norm(points, axis=1).max() + 0.0005, size.mean()), 2)
    height = rng.uniform(0.010, min(0.026, TOOL_TO_TIP - depth))
    return {"body_size": faces.metres(size), "body_shape": shape, "body_height": round(height, 5)}


def _sound(connector: Connector) -> bool:
    """Of few pieces and not too large, and what surrounds one cavity leaves the others free."""
    if max(connector.socket_size) > SOCKET_SIDE:
        return False
    if sum(solid.collides for solid in plug_solids(connector)) > PLUG_PIECES:
        return False
    if sum(solid.collides for solid in socket_solids(connector)) > SOCKET_BOXES:
        return False
    holes = [] if connector.open_socket else cavities(connector)
    return not any(_bars(a, b) for a, b in itertools.permutations(holes, 2))


def _bars(a: Cavity, b: Cavity) -> bool:
    """Whether what stands round the mouth of cavity ``a`` reaches into the mouth of ``b``: the walls of its funnel, and
    the boxes that fill its slanted sides there."""
    solids = [box[::-1] for box in profiles.fillers(a.rim)]
    if a.run.any():
        solids.append(profiles.offset(a.rim, max(RAMP, float(a.run.max()))))
    return any(profiles.gap(solid, b.rim) < -1e-6 for solid in solids)


def _choose(rng: np.random.Generator, connectors: Sequence[Connector]) -> Connector:
    return connectors[int(rng.integers(len(connectors)))]
