"""The parts of a plug: pins, blades, shells, keys and studs, each a convex profile with a size and a source."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lotj.sim import profiles
from lotj.sim.profiles import Polygon

COLOURS: dict[str, tuple[float, float, float]] = {
    "black": (0.10, 0.10, 0.11),
    "charcoal": (0.22, 0.23, 0.25),
    "grey": (0.52, 0.53, 0.55),
    "light-grey": (0.72, 0.73, 0.74),
    "white": (0.90, 0.90, 0.88),
    "ivory": (0.85, 0.81, 0.70),
    "blue": (0.20, 0.33, 0.58),
    "green": (0.25, 0.48, 0.32),
    "red": (0.62, 0.22, 0.20),
    "orange": (0.76, 0.45, 0.18),
    "yellow": (0.80, 0.68, 0.25),
    "brown": (0.42, 0.29, 0.20),
    "steel": (0.60, 0.61, 0.63),
    "nickel": (0.76, 0.75, 0.71),
    "brass": (0.76, 0.62, 0.32),
    "gold": (0.85, 0.68, 0.25),
    "copper": (0.72, 0.45, 0.30),
}
KINDS = ("pin", "shell", "key", "stud", "contact")
PROFILES = ("rectangle", "bevelled", "circle", "polygon", "trapezoid", "cross", "torx")


class ConnectorError(ValueError):
    """A connector's description is wrong; the message names file, connector, field, value and remedy."""


@dataclass(frozen=True)
class Part:
    """One feature of the mating face; the plug's solid and the socket's cavity both follow from it."""

    name: str
    """Unique within the connector."""
    kind: str
    """``pin``: solid, enters a cavity. ``shell``: hollow tube, the socket has a post inside. ``key``: rib on another
    part. ``stud``: stands on an open socket and enters a shell. ``contact``: drawn inside the socket's cavity, touches
    nothing."""
    profile: str
    """``rectangle``, ``bevelled`` (a rectangle whose two +y corners are cut), ``circle``, ``polygon``, ``trapezoid``,
    ``cross`` (two crossed blades) or ``torx`` (three)."""
    size: tuple[float, float]
    """m, full extents along x and y; cross and torx: span and thickness of an arm."""
    source: str
    """Where size, position and length come from: a standard, a data sheet, or "modelling choice"."""
    position: tuple[float, float] = (0.0, 0.0)
    """m, centre (of all copies) in the plug frame."""
    angle: float = 0.0
    """degrees about z."""
    length: float | None = None
    """m from the mouth plane towards the tip; None reaches the tip plane."""
    wall: float = 0.0
    """m, thickness of a shell's wall."""
    sides: int = 6
    """Of a polygon; even, 4 to 8."""
    narrow: float = 0.0
    """m, the shorter of a trapezoid's parallel sides (at -y)."""
    corner: float = 0.0
    """m, cut off a rectangle's four corners, or off the two of ``bevelled``."""
    repeat: tuple[int, int] = (1, 1)
    """Copies along x and y, centred on ``position``."""
    pitch: tuple[float, float] = (0.0, 0.0)
    """m between copies along x and y."""
    colour: str = "nickel"
    """A name of ``COLOURS``."""
    collides: bool = True
    """False: drawn on the plug only, no cavity (its neighbours do the contact)."""

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("profile", self.profile, PROFILES)
        check_choice("colour", self.colour, tuple(COLOURS))
        check_text("name", self.name)
        check_text("source", self.source, 'name the standard or data sheet, or write "modelling choice"')
        for value in self.size:
            check_range("size", value, 0.0002, 0.08)
        for value in self.position:
            check_range("position", value, -0.04, 0.04)
        if self.length is not None:
            check_range("length", self.length, 0.0005, 0.025)
        check_range("angle", self.angle, -360, 360, "degrees")
        if self.kind == "shell":
            check_range("wall", self.wall, 0.0001, 0.45 * min(self.size))
        elif self.wall:
            raise ConnectorError(
                f"field 'wall': got {self.wall}, only a shell has a wall; remove it or set kind = \"shell\""
            )
        if self.profile == "polygon" and (self.sides % 2 or not 4 <= self.sides <= 8):
            raise ConnectorError(
                f"field 'sides': got {self.sides}, expected an even number from 4 to 8; use 8 for more"
            )
        if self.profile == "trapezoid":
            check_range("narrow", self.narrow, 0.3 * self.size[0], self.size[0])
        elif self.narrow:
            raise ConnectorError(f"field 'narrow': got {self.narrow}, only a trapezoid has it; remove it")
        if self.profile in ("circle", "polygon") and self.size[0] != self.size[1]:
            raise ConnectorError(
                f"field 'size': got {self.size}, a {self.profile} needs two equal figures; repeat the diameter"
            )
        if self.profile in ("cross", "torx") and self.size[0] <= self.size[1]:
            raise ConnectorError(f"field 'size': got {self.size}, the span must exceed the arm's thickness; swap them")
        check_range(
            "corner", self.corner, 0.0, 0.49 * min(self.size) if self.profile in ("rectangle", "bevelled") else 0.0
        )
        if self.kind == "key" and (self.profile != "rectangle" or self.angle or self.corner):
            raise ConnectorError("field 'profile': a key is an upright rectangle; drop 'angle' and 'corner'")
        if self.kind == "stud" and self.profile != "circle":
            raise ConnectorError(f"field 'profile': got {self.profile!r} for a stud, expected 'circle'")
        for axis, (count, step) in enumerate(zip(self.repeat, self.pitch)):
            if not 1 <= count <= 40:
                raise ConnectorError(f"field 'repeat': got {self.repeat}, expected counts from 1 to 40")
            if count > 1 and not 0.0003 <= step <= 0.08:
                raise ConnectorError(
                    f"field 'pitch': got {self.pitch}, expected 0.0003..0.08 m along {'xy'[axis]}; give the spacing"
                )

    @property
    def in_plug(self) -> bool:
        """Whether the plug carries it."""
        return self.kind in ("pin", "shell", "key")

    @property
    def has_cavity(self) -> bool:
        """Whether a closed socket has a cavity for it."""
        return self.in_plug and self.collides

    def centres(self) -> list[tuple[float, float]]:
        """Centres (m) of all copies in the plug frame."""
        steps = [(np.arange(count) - (count - 1) / 2) * step for count, step in zip(self.repeat, self.pitch)]
        return [(self.position[0] + float(x), self.position[1] + float(y)) for x, y in itertools.product(*steps)]

    def pieces(self) -> list[Polygon]:
        """Convex outlines of the plug's solid, about the part's own origin, not yet turned by ``angle``."""
        x, y = self.size
        if self.profile == "circle":
            return [profiles.circle(x) if self.kind == "pin" else profiles.regular(x, 8)]
        if self.profile in ("cross", "torx"):
            arms = 2 if self.profile == "cross" else 3
            return [profiles.place(profiles.rectangle(x, y), degrees=180 / arms * i) for i in range(arms)]
        return [self.envelope()]

    def envelope(self) -> Polygon:
        """The one convex outline that the socket's cavity follows (a circle becomes an octagon round it), not yet
        turned."""
        x, y = self.size
        if self.profile == "polygon":
            return profiles.regular(x, self.sides)
        if self.profile == "trapezoid":
            return profiles.trapezoid(x, self.narrow, y)
        if self.profile == "bevelled":
            return profiles.bevelled(x, y, self.corner)
        if self.profile == "rectangle":
            return profiles.rectangle(x, y, self.corner)
        return profiles.regular(x, 6 if self.profile == "torx" else 8)


def check_fields(raw: Mapping[str, Any], known: set[str], required: set[str]) -> None:
    """Every field known, every required one there; else ConnectorError."""
    for name in raw:
        if name not in known:
            raise ConnectorError(
                f"field '{name}': unknown{did_you_mean(name, known)}; known fields: {', '.join(sorted(known))}"
            )
    for name in sorted(required - set(raw)):
        raise ConnectorError(f"field '{name}': missing; add it (docs/connectors.md describes every field)")


def check_text(name: str, value: str, remedy: str = "give a text") -> None:
    """A text that is not blank; else ConnectorError."""
    if not isinstance(value, str) or not value.strip():
        raise ConnectorError(f"field '{name}': got {value!r}, expected a text; {remedy}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """One of the choices; else ConnectorError."""
    if value not in choices:
        raise ConnectorError(
            f"field '{name}': got {value!r}{did_you_mean(str(value), choices)}; expected one of {', '.join(choices)}"
        )


def check_range(name: str, value: float, low: float, high: float, unit: str = "m") -> None:
    """A figure between ``low`` and ``high``; else ConnectorError."""
    if not low - 1e-12 <= value <= high + 1e-12:
        hint = "; lengths are in metres, not millimetres" if unit == "m" and abs(value) > 0.2 else ""
        raise ConnectorError(
            f"field '{name}': got {value:g}, expected {low:g} to {high:g} {unit}{hint}; correct the figure"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean '..'?)`` with the nearest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
