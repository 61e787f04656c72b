"""A connector's file to fill in: every field with its meaning, its unit and its range beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from lotj.sim.connector import Connector
from lotj.sim.mesh import MeshPair
from lotj.sim.parts import COLOURS, KINDS, PROFILES, ConnectorError, Part
from lotj.sim.toml import toml_value

CONNECTOR_NOTES = {
    "name": "lower case letters, digits, dashes",
    "title": "for people",
    "group": "close variants share it: holding one out of training holds out all",
    "insertion_depth": "m, 0.003 to 0.020, tip plane to mouth when fully inserted",
    "body_size": "m, two of 0.004 to 0.07: footprint x, y of what the gripper holds; must cover every part",
    "body_height": "m, 0.01 to 0.03, of the body above the mouth",
    "body_shape": "box or cylinder (then both figures of body_size are the diameter)",
    "body_colour": "a colour's name, see above",
    "socket_colour": "likewise",
    "clearance": "m, 0.0002 to 0.001: play on each side, instead of the give of real contacts",
    "lead_in": "m, 0 to 0.0015: inward slope on each side, shared by the plug's tip and the socket's rim",
    "lead_in_length": "m, from 0.0005 to half the depth: length of that slope along the axis",
    "open_socket": "true: studs on a plate instead of cavities in a block (bricks)",
}
"""What is written beside a connector's fields."""
PART_NOTES = {
    "name": "unique in the connector; a remark about a part names it",
    "kind": f"{', '.join(KINDS)}: solid · hollow tube · rib on another part · on an open socket · drawn in the cavity",
    "profile": f"{', '.join(PROFILES)}",
    "size": "m, full extents x, y; across flats; cross and torx: span, arm",
    "source": "where size, position and length come from",
    "position": "m, centre x, y of all copies together; the plug's axis is (0, 0)",
    "angle": "degrees about z",
    "length": "m from the mouth plane towards the tip; left out, it reaches the tip (a key: 2 mm less)",
    "wall": "m, thickness of a shell's wall; of a shell only",
    "sides": "4, 6 or 8, of a polygon",
    "narrow": "m, a trapezoid's shorter side (at -y); of a trapezoid only",
    "corner": "m, cut off the corners of a rectangle (four) or of bevelled (two, at +y)",
    "repeat": "copies along x, y",
    "pitch": "m between the copies along x, y",
    "colour": "a colour's name",
    "collides": "false: only drawn, has no cavity",
}
"""What is written beside a part's fields."""
MESH_NOTES = {
    "plug": "STL, OBJ, PLY or GLB file, relative to this one; tip at z = 0, +z towards the hand",
    "socket": "likewise, as it lies when the plug is fully inserted: mouth at z = insertion_depth",
    "units": "of the files: mm, m or inch",
    "plug_rotation": "degrees about x, then y, then z: turns the file into the plug frame",
    "plug_translation": "m, after the rotation",
    "socket_rotation": "degrees",
    "socket_translation": "m",
    "detail": "concavity that a convex piece may keep; less keeps narrow holes open, and takes longer",
}
"""What is written beside the fields of meshes."""
ELSEWHERE = {"family", "parts", "sources", "mesh", "digest"}
"""Fields that stand outside the connector's table, or in no file."""
FILL_IN = "to fill in: data sheet, standard or calliper"


def example(name: str) -> Connector:
    """A plain connector to start from: one nose with a rib, such as many housings have.

    Raises:
        ConnectorError: the name is not one of lower case letters, digits and dashes.
    """
    nose = Part("nose", "pin", "rectangle", (0.020, 0.008), FILL_IN, corner=0.001, colour="charcoal")
    rib = Part("rib", "key", "rectangle", (0.003, 0.0024), FILL_IN, position=(0.005, 0.0044), colour="charcoal")
    figures = ("insertion_depth", "body_size", "clearance", "lead_in")
    sources = dict.fromkeys(figures[:2], FILL_IN) | dict.fromkeys(figures[2:], "modelling choice")
    return Connector(name, name, "mine", name, 0.012, (0.026, 0.014), (nose, rib), sources)


def based_on(name: str, like: Connector) -> Connector:
    """Another connector under a name and in a group of its own, its figures marked as taken over.

    Raises:
        ConnectorError: the name is not one of lower case letters, digits and dashes, or ``like`` has meshes.
    """
    if like.mesh is not None:
        raise ConnectorError(f"connector '{like.name}' has meshes; copy its TOML file and the meshes instead")
    parts = tuple(replace(part, source=f"as {like.name}: {part.source}") for part in like.parts)
    sources = {key: f"as {like.name}: {text}" for key, text in like.sources.items()}
    return replace(like, name=name, title=name, group=name, family="mine", parts=parts, sources=sources)


def commented_toml(connector: Connector) -> str:
    """The file's text; it loads as it stands and is then equal to ``connector``.

    Fields at their default stand there as comments, with the default.
    """
    lines = [
        "# Your own connector. All lengths are in metres (0.012 is 12 mm), angles in degrees.",
        "# Plug frame: origin on the plug's axis at the tip plane (its lowest point), +z towards the hand.",
        "# The socket follows from the plug: each cavity is a part's outline plus `clearance`.",
        "# Lines that begin with '#' and name a field show its default; remove the '#' to change it.",
        f"# Colours: {', '.join(COLOURS)}.",
        f"# Then: lotj connectors check {connector.name}.toml",
        "",
        f"family = {toml_value(connector.family)}  # connectors that look alike",
        "",
        "[[connector]]",
        *_lines(connector, CONNECTOR_NOTES),
        "",
        '[connector.sources]  # of each figure: a standard, a data sheet, a calliper, or "modelling choice"',
        *(f"{key} = {toml_value(text)}" for key, text in connector.sources.items()),
    ]
    for i, part in enumerate(connector.parts):
        header = "one such table for each feature of the plug's face" if i == 0 else "fields as in the first"
        lines += ["", f"[[connector.part]]  # {header}", *_lines(part, PART_NOTES, explain=i == 0)]
    lines += [
        "",
        "# Or meshes instead of parts (pip install -e '.[mesh]'): remove the parts, every line from body_height to",
        "# open_socket, and the sources of clearance and lead_in; then remove the '#' here.",
        "# [connector.mesh]",
        *(f"# {line.removeprefix('# ')}" for line in _lines(MeshPair("plug.stl", "socket.stl"), MESH_NOTES)),
    ]
    return "\n".join(lines) + "\n"


def _lines(described: Connector | Part | MeshPair, notes: Mapping[str, str], explain: bool = True) -> list[str]:
    """A line for each field; without ``explain``, only for those that differ from their default."""
    rows = []
    for field in fields(described):
        value = getattr(described, field.name)
        if field.name in ELSEWHERE or (value == field.default and not explain):
            continue
        row = f"{field.name} = {'...' if value is None else toml_value(value)}"
        commented = "# " if value == field.default else ""
        rows.append(f"{commented}{row}  # {notes[field.name]}" if explain else row)
    return rows
