"""The connector catalogue: plugs described by their parts, in metres, each figure with its source.

One description yields the plug and the socket (`geometry`). `docs/connectors.md` documents the TOML files field by
field.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lotj.sim import profiles
from lotj.sim.fit import check_parts, placed_envelopes
from lotj.sim.mesh import MeshFrame, MeshPair, Pieces, digest, pieces
from lotj.sim.parts import (
    COLOURS,
    ConnectorError,
    Part,
    check_choice,
    check_fields,
    check_range,
    check_text,
    did_you_mean,
)

TEST_CONNECTORS = ("deutsch-dt-12", "mega-block-1x1", "nema-5-15", "europlug")
"""The four connectors that the paper tests on (Sec. VI)."""
SOCKET_MARGIN = 0.008
"""m of block round the outermost cavity."""
TIP_GAP = 0.00075
"""m between the tip and the cavity's floor at full insertion: the plug's body rests on the mouth, never the tip on the
floor."""
DEEPEST = 0.02
"""m, the largest insertion depth: the floor of the robot's workspace bounds how far the plug goes down."""
GENERATED = re.compile(r"gen-(?P<seed>0|[1-9]\d*)-(?P<number>0|[1-9]\d*)")
"""Names of connectors that ``lotj.sim.generate`` draws; a name is all that is needed to draw one again."""
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


@lru_cache(maxsize=1)
def load_catalogue() -> Mapping[str, Connector]:
    """All connectors that come with the package, by name; read once.

    Raises:
        ConnectorError: a packaged file is wrong, or two connectors share a name.
    """
    catalogue: dict[str, Connector] = {}
    folder = resources.files("lotj.sim") / "catalogue"
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml"):
            continue
        for connector in parse_connectors(file.read_text(encoding="utf-8"), file.name):
            if connector.name in catalogue:
                raise ConnectorError(
                    f"{file.name}, connector '{connector.name}': field 'name': already used; choose another"
                )
            catalogue[connector.name] = connector
    return catalogue


def load_connector(path: str | Path) -> Connector:
    """A user's own connector: a TOML file of the catalogue's fields with exactly one ``[[connector]]``.

    Raises:
        ConnectorError: the file cannot be read or is wrong; the message names file, connector, field, value and remedy.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectorError(f"{path}: cannot be read ({error}); give the path of a UTF-8 TOML file") from error
    found = parse_connectors(text, str(path), Path(path).parent)
    if len(found) != 1:
        raise ConnectorError(
            f"{path}: holds {len(found)} connectors, expected exactly one [[connector]]; split the file"
        )
    return found[0]


def get_connector(name_or_path: str | Path) -> Connector:
    """A connector by its catalogue name, drawn at random by its name ``gen-<seed>-<i>``, or from a TOML file.

    Raises:
        ConnectorError: no such name ("did you mean" the nearest), nothing can be drawn, or the file is wrong.
    """
    catalogue = load_catalogue()
    name = str(name_or_path)
    if name in catalogue:
        return catalogue[name]
    if name.endswith(".toml"):
        return load_connector(name)
    if generated := GENERATED.fullmatch(name):
        return _generated(int(generated["seed"]), int(generated["number"]))
    raise ConnectorError(
        f"unknown connector '{name}'{did_you_mean(name, catalogue)}; `lotj connectors` lists all "
        f"{len(catalogue)}, or give a .toml file, or gen-<seed>-<i> for one that is drawn at random"
    )


@cache
def _generated(seed: int, number: int) -> Connector:
    from lotj.sim.generate import generate_connector  # which draws from this module's catalogue

    return generate_connector(seed, number)


def variants_of(name_or_path: str | Path) -> tuple[str, ...]:
    """Names of the connectors in the same group, itself included, sorted: what must be left out of training with it."""
    connector = get_connector(name_or_path)
    alike = {other.name for other in load_catalogue().values() if other.group == connector.group}
    return tuple(sorted(alike | {connector.name}))


def to_json(connector: Connector) -> dict[str, Any]:
    """A connector as plain data: every field (lengths in metres), what derives from them, its variants and all
    sources."""
    data = asdict(connector)
    meshes = {} if connector.mesh is None else {"mesh": data["mesh"]}
    alike = {other.name for other in load_catalogue().values() if other.group == connector.group}
    dimensions = (
        "insertion_depth",
        "clearance",
        "lead_in",
        "lead_in_length",
        "body_size",
        "body_height",
        "plug_height",
        "socket_size",
    )
    return {
        "name": connector.name,
        "title": connector.title,
        "family": connector.family,
        "group": connector.group,
        "variants": sorted(alike | {connector.name}),
        "dimensions": {key: getattr(connector, key) for key in dimensions if not meshes or key not in MESHES_SAY}
        | {"parts": data["parts"]}
        | meshes,
        "sources": dict(connector.sources) | {f"parts.{part.name}": part.source for part in connector.parts},
    }


def parse_connectors(text: str, file: str, folder: Path | None = None) -> list[Connector]:
    """Read the text of one family's TOML file; ``file`` is what errors call it, meshes lie relative to ``folder``.

    Raises:
        ConnectorError: naming file, connector, field, value and remedy.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConnectorError(f"{file}: not valid TOML ({error}); correct the file") from error
    try:
        check_fields(data, {"family", "defaults", "connector"}, required={"family", "connector"})
        defaults = data.get("defaults", {})
        entries = _tables("connector", data["connector"], "[[connector]]")
        if not isinstance(defaults, dict):
            raise ConnectorError(f"field 'defaults': got {defaults!r}, expected a [defaults] table; write one")
    except ConnectorError as error:
        raise ConnectorError(f"{file}: {error}") from error
    found: list[Connector] = []
    raw: dict[str, dict[str, Any]] = {}
    for i, entry in enumerate(entries):
        label = str(entry.get("name", f"number {i + 1}"))
        try:
            merged = _merge(defaults, entry, raw)
            raw[label] = merged
            found.append(_build(merged | {"family": data["family"]}, folder or Path()))
        except ConnectorError as error:
            raise ConnectorError(f"{file}, connector '{label}': {error}") from error
    return found


def _merge(defaults: dict[str, Any], entry: dict[str, Any], earlier: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """An entry on top of the file's defaults, or on top of the connector it is ``like``; parts of one name are merged
    too."""
    entry = dict(entry)
    like = entry.pop("like", None)
    if like is not None and (not isinstance(like, str) or like not in earlier):
        raise ConnectorError(
            f"field 'like': got {like!r}, no earlier connector of this file{did_you_mean(str(like), earlier)}"
        )
    base = earlier[like] if like is not None else defaults
    parts = {_part_name(part): part for part in _part_tables(base)}
    for part in _part_tables(entry):
        name = _part_name(part)
        parts[name] = parts.get(name, {}) | part
    sources: dict[str, Any] = {}
    for table in (base.get("sources", {}), entry.get("sources", {})):
        if not isinstance(table, dict):
            raise ConnectorError(f"field 'sources': got {table!r}, expected a table; name the source of each figure")
        sources |= table
    return base | entry | {"part": list(parts.values()), "sources": sources}


def _tables(name: str, value: Any, header: str) -> list[dict[str, Any]]:
    """A list of tables; else ConnectorError."""
    if isinstance(value, dict):
        raise ConnectorError(f"field '{name}': got one table, expected {header} tables; double the brackets")
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ConnectorError(f"field '{name}': got {value!r}, expected {header} tables; write each as a table")
    return value


def _part_tables(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return _tables("part", entry.get("part", []), "[[connector.part]]")


def _part_name(part: dict[str, Any]) -> str:
    """The name by which parts are merged."""
    if "name" not in part:
        raise ConnectorError("field 'part.name': missing; name each part, also those of [defaults]")
    name = part["name"]
    check_text("part.name", name)
    return str(name)


def _build(entry: dict[str, Any], folder: Path) -> Connector:
    parts: list[Part] = []
    for raw in entry.pop("part"):
        label = raw.get("name", f"number {len(parts) + 1}")
        try:
            parts.append(Part(**_typed(Part, raw)))
        except ConnectorError as error:
            raise ConnectorError(f"part '{label}': {error}") from error
    meshed: dict[str, Any] = {"mesh": _meshes(entry.pop("mesh"), folder)} if "mesh" in entry else {}
    if not parts and not meshed:
        raise ConnectorError("field 'part': missing; add at least one [[connector.part]]")
    return Connector(parts=tuple(parts), **meshed, **_typed(Connector, entry, skip={"parts", "mesh"}))


def _meshes(raw: Any, folder: Path) -> MeshPair:
    """The table of meshes, its paths and content followed up."""
    if not isinstance(raw, dict):
        raise ConnectorError(f"field 'mesh': got {raw!r}, expected a [connector.mesh] table; write one")
    try:
        values = _typed(MeshPair, raw, skip={"digest"})
    except ConnectorError as error:
        raise ConnectorError(f"table 'mesh': {error}") from error
    paths = {side: folder / values[side] for side in ("plug", "socket")}
    pair = MeshPair(**values | {side: str(path) for side, path in paths.items()})
    return replace(pair, digest=digest(paths["plug"], paths["socket"]))


def _typed(
    cls: type[Part] | type[Connector] | type[MeshPair],
    raw: dict[str, Any],
    skip: frozenset[str] | set[str] = frozenset(),
) -> dict[str, Any]:
    """The raw table's values with the types of the dataclass's fields."""
    known = {f.name: f for f in fields(cls) if f.name not in skip}
    required = {name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    check_fields(raw, set(known), required)
    return {name: _convert(name, str(known[name].type), value) for name, value in raw.items()}


def _convert(name: str, kind: str, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind.startswith("float") and number:
        return float(value)
    kind = "tuple[float, float, float]" if kind == "Vector" else kind
    if kind.startswith("tuple[") and isinstance(value, list) and len(value) == kind.count(",") + 1:
        whole = kind.startswith("tuple[int")
        if all(isinstance(v, int if whole else int | float) and not isinstance(v, bool) for v in value):
            return tuple(int(v) if whole else float(v) for v in value)
    matches = {"str": isinstance(value, str), "bool": isinstance(value, bool), "int": number and isinstance(value, int)}
    if matches.get(kind, kind.startswith("Mapping") and isinstance(value, dict)):
        return value
    expected = {
        "float": "a number",
        "tuple[float, float]": "two numbers",
        "tuple[float, float, float]": "three numbers",
        "tuple[int, int]": "two whole numbers",
        "str": "a text",
    }
    raise ConnectorError(f"field '{name}': got {value!r}, expected {expected.get(kind, kind)}")
