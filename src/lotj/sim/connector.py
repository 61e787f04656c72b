"""`Connector`: a plug and its socket described by their parts, in metres, each figure with its source.

One description yields the plug and the socket (`geometry`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from lotj.sim import profiles
from lotj.sim.fit import check_parts, placed_envelopes
from lotj.sim.mesh import MeshFrame, MeshPair, Pieces, pieces
from lotj.sim.parts import (
    COLOURS,
    ConnectorError,
    Part,
    check_choice,
    check_range,
    check_text,
    did_you_mean,
)

SOCKET_MARGIN = 0.008
"""m of block round the outermost cavity."""
TIP_GAP = 0.00075
"""m between the tip and the cavity's floor at full insertion: the plug's body rests on the mouth, never the tip on the
floor."""
DEEPEST = 0.02
"""m, the largest insertion depth: the floor of the robot's workspace bounds how far the plug goes down."""
MESHES_SAY = ("body_height", "body_shape", "clearance", "lead_in", "lead_in_length", "open_socket")
"""Fields of a connector that have no meaning where it has meshes."""
SOCKET_BASE = 0.01
"""m of block below the cavities' floor."""


@dataclass(frozen=True)
class Connector:
    """A plug and the socket that takes it. Lengths in metres; frames as in docs/architecture.md."""

    name: str
    """Lower case, digits and dashes."""
    title: str
    """For people."""
    family: str
    """The catalogue file it stands in."""
    group: str
    """Close variants share it: holding one out holds out all."""
    insertion_depth: float
    """From the tip plane to the mouth at full insertion."""
    body_size: tuple[float, float]
    """Footprint x, y of the plug's body, which the gripper holds and which rests on the mouth."""
    parts: tuple[Part, ...]
    """Features of the mating face."""
    sources: Mapping[str, str]
    """Source of ``insertion_depth``, ``body_size``, ``clearance`` and ``lead_in``; the parts carry their own."""
    body_height: float = 0.02
    """Of the body above the mouth plane."""
    body_shape: str = "box"
    """``box`` or ``cylinder``."""
    body_colour: str = "black"
    """A name of ``COLOURS``."""
    socket_colour: str = "light-grey"
    """A name of ``COLOURS``."""
    clearance: float = 0.0005
    """Effective play on each side between part and cavity: real contacts are springs, this rigid model has play
    instead."""
    lead_in: float = 0.001
    """Inward slope on each side, shared by the plug's tip (up to 40% of its half width) and the cavity's rim (the
    rest)."""
    lead_in_length: float = 0.0012
    """Length of that slope along the axis."""
    open_socket: bool = False
    """True: studs on a plate instead of cavities in a block (bricks)."""
    mesh: MeshPair | None = None
    """Plug and socket as meshes, in place of parts."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ConnectorError(
                f"field 'name': got {self.name!r}, expected lower case letters, digits and single dashes"
            )
        for text in ("title", "family", "group"):
            check_text(text, getattr(self, text))
        check_range("insertion_depth", self.insertion_depth, 0.003, DEEPEST)
        for value in self.body_size:
            check_range("body_size", value, 0.004, 0.07)
        check_range("body_height", self.body_height, 0.01, 0.03)
        check_choice("body_shape", self.body_shape, ("box", "cylinder"))
        check_choice("body_colour", self.body_colour, tuple(COLOURS))
        check_choice("socket_colour", self.socket_colour, tuple(COLOURS))
        check_range("clearance", self.clearance, 0.0002, 0.001)
        check_range("lead_in", self.lead_in, 0.0, 0.0015)
        check_range("lead_in_length", self.lead_in_length, 0.0005, 0.5 * self.insertion_depth)
        if self.body_shape == "cylinder" and self.body_size[0] != self.body_size[1]:
            raise ConnectorError(
                f"field 'body_size': got {self.body_size}, a cylinder needs two equal figures; repeat the diameter"
            )
        wanted = (
            {"insertion_depth", "body_size"} if self.mesh else {"insertion_depth", "body_size", "clearance", "lead_in"}
        )
        for key in sorted(wanted - set(self.sources)):
            raise ConnectorError(
                f"field 'sources.{key}': missing; name the standard or data sheet, or write \"modelling choice\""
            )
        for key in sorted(set(self.sources) - wanted):
            raise ConnectorError(
                f"field 'sources.{key}': unknown{did_you_mean(key, wanted)}; expected {', '.join(sorted(wanted))}"
            )
        for key, text in self.sources.items():
            check_text(f"sources.{key}", text)
        if self.mesh is None:
            check_parts(self)
        else:
            self._check_meshed()

    def _check_meshed(self) -> None:
        """Meshes leave nothing for the fields that describe parts."""
        for name in ("parts", *MESHES_SAY):
            default = () if name == "parts" else next(f.default for f in fields(Connector) if f.name == name)
            if getattr(self, name) != default:
                field = "part" if name == "parts" else name
                raise ConnectorError(f"field '{field}': the meshes already say it; remove it, or remove 'mesh'")

    def pieces(self) -> Pieces:
        """The convex pieces of a connector that has meshes; the first time takes seconds.

        Raises:
            ConnectorError: the meshes cannot be used.
        """
        assert self.mesh is not None
        return pieces(self.mesh, MeshFrame(self.insertion_depth, self.body_size))

    @property
    def plug_height(self) -> float:
        """m, top of the plug above its tip plane."""
        if self.mesh is not None:
            return float(max(piece[:, 2].max() for piece in self.pieces().plug))
        return self.insertion_depth + self.body_height

    @property
    def socket_size(self) -> tuple[float, float, float]:
        """m, extents x, y, z of the socket's block (with its studs), centred on the axis; its mouth is at z =
        insertion_depth."""
        if self.mesh is not None:
            corners = np.concatenate(self.pieces().socket)
            x, y = 2 * np.abs(corners[:, :2]).max(axis=0)
            return float(x), float(y), self.insertion_depth - float(corners[:, 2].min())
        placed = [(part, outline) for part, outline in placed_envelopes(self, self.clearance) if part.in_plug]
        low, high = profiles.bounds([outline for _, outline in placed])
        reach = np.maximum(-low, high)
        half = np.maximum(reach + SOCKET_MARGIN, np.array(self.body_size) / 2 + 0.002)
        # With one pin in its neighbour's hole, the other must land on the block and not beside it.
        for (a, first), (b, second) in itertools.combinations(placed, 2):
            if a.kind != "key" and b.kind != "key" and np.allclose(a.size, b.size, atol=0.001):
                step = np.abs(first.mean(axis=0) - second.mean(axis=0))
                half = np.maximum(half, np.where(step > 0.0005, reach + step + 0.001, 0.0))
        base = SOCKET_BASE if self.open_socket else SOCKET_BASE + TIP_GAP
        return float(2 * half[0]), float(2 * half[1]), self.insertion_depth + base
