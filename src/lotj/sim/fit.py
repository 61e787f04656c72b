"""Whether the parts of a connector fit: with its body, with each other, and with the boxes that its socket is made
of."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from lotj.sim import profiles
from lotj.sim.parts import ConnectorError, Part
from lotj.sim.profiles import Polygon

if TYPE_CHECKING:
    from lotj.sim.connector import Connector

POST_PLAY = 0.0001
"""m more clearance round a shell's post than outside the shell, so that the outer side guides."""


def placed_envelopes(connector: Connector, distance: float = 0.0) -> list[tuple[Part, Polygon]]:
    """Every copy of every colliding part with its outline in the plug frame, moved outwards by ``distance`` (m)."""
    return [
        (part, profiles.place(profiles.offset(part.envelope(), distance), centre, part.angle))
        for part in connector.parts
        if part.collides and part.kind != "contact"
        for centre in part.centres()
    ]


def check_parts(connector: Connector) -> None:
    """Check names, fit with the body, and room between cavities.

    Raises:
        ConnectorError: naming the part, the field, the value and the remedy.
    """
    names = [part.name for part in connector.parts]
    for name in names:
        if names.count(name) > 1:
            raise ConnectorError(f"part '{name}': field 'name': used twice; choose another")
    if not any(part.has_cavity for part in connector.parts):
        raise ConnectorError("field 'part': no part collides; at least one pin or shell must")
    for part in connector.parts:
        if part.length is not None and part.length > connector.insertion_depth + 1e-9:
            raise ConnectorError(
                f"part '{part.name}': field 'length': got {part.length:g}, longer than "
                f"insertion_depth {connector.insertion_depth:g}; "
                "deepen the insertion or shorten the part"
            )
        if (part.kind == "stud") != connector.open_socket and part.kind not in ("shell", "contact"):
            raise ConnectorError(
                f"part '{part.name}': field 'kind': got {part.kind!r}, but open_socket is "
                f"{str(connector.open_socket).lower()}; "
                "studs stand on an open socket, pins and keys enter a closed one"
            )
        hollow = min(part.size) / 2 - part.wall - connector.clearance - POST_PLAY
        if part.kind == "shell" and not connector.open_socket and hollow < 0.0002:
            raise ConnectorError(
                f"part '{part.name}': field 'wall': got {part.wall:g}, no room is left for the "
                "socket's post inside the shell; "
                'thin the wall, or make the part a "pin"'
            )
        inset = part.wall if connector.open_socket else part.wall + connector.clearance + POST_PLAY
        if part.kind == "shell" and not profiles.keeps_its_sides(part.envelope(), -inset):
            raise ConnectorError(
                f"part '{part.name}': field 'wall': got {part.wall:g}, inside it no room is left for the outline's "
                "shortest side; thin the wall, or lengthen that side ('corner', 'narrow')"
            )
        _check_inside_body(connector, part)
    if connector.open_socket:
        _check_studs(connector)
    else:
        _check_room(connector)


def _check_inside_body(connector: Connector, part: Part) -> None:
    half = np.array(connector.body_size) / 2
    for centre in part.centres():
        outline = profiles.place(part.envelope(), centre, part.angle)
        if np.any(np.abs(outline) > half + 1e-6):
            x, y = connector.body_size
            raise ConnectorError(
                f"part '{part.name}': field 'position': a copy at ({centre[0]:g}, {centre[1]:g}) "
                "sticks out of the body and the socket "
                f"block made for it ({x:g} x {y:g} m); move or shrink the part, or enlarge 'body_size'"
            )


def _check_room(connector: Connector) -> None:
    placed = placed_envelopes(connector)
    for (a, first), (b, second) in itertools.combinations(placed, 2):
        room = profiles.gap(first, second)
        if "key" in (a.kind, b.kind):
            continue
        if room < -1e-9:
            raise ConnectorError(
                f"part '{b.name}': field 'position': overlaps part '{a.name}' by {-room:g} m; move "
                "one, check 'pitch', or make it a key"
            )
        if room < 2 * connector.clearance + 0.0002:
            raise ConnectorError(
                f"part '{b.name}': field 'clearance': got {connector.clearance:g}, but only {room:g} "
                f"m lie between '{a.name}' and "
                f"'{b.name}' and their cavities would merge; lower 'clearance' or widen 'pitch'"
            )
    _check_fillers(connector)
    for part, outline in placed:
        touched = any(other.kind != "key" and profiles.gap(outline, body) < 0 for other, body in placed)
        if part.kind == "key" and not touched:
            raise ConnectorError(
                f"part '{part.name}': field 'position': a key must overlap another part; move it, or make it a pin"
            )


def _check_studs(connector: Connector) -> None:
    placed = placed_envelopes(connector)
    hollows = [(part, profiles.offset(outline, -part.wall)) for part, outline in placed if part.kind == "shell"]
    studs = [(part, outline) for part, outline in placed if part.kind == "stud"]
    if not studs:
        raise ConnectorError(
            "field 'part': an open socket needs at least one part of kind 'stud'; add it or drop 'open_socket'"
        )
    for part, outline in studs:
        if not any(profiles.contains(hollow, outline, 1e-5) for _, hollow in hollows):
            raise ConnectorError(
                f"part '{part.name}': field 'size': the stud does not fit into a shell; shrink or move it"
            )


def _check_fillers(connector: Connector) -> None:
    """The boxes behind a cavity's slanted sides must not bar another cavity."""
    holes = placed_envelopes(connector, connector.clearance)
    for (a, first), (b, second) in itertools.permutations(holes, 2):
        if any(profiles.gap(box[::-1], second) < -1e-6 for box in profiles.fillers(first)):
            raise ConnectorError(
                f"part '{b.name}': field 'position': its cavity meets a slanted side of part '{a.name}'; "
                "a key belongs on a flat side and clear of its ends: move or narrow it"
            )
