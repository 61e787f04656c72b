"""Connectors from TOML: a family's file, an entry on top of its defaults or of another; `docs/connectors.md` documents
the fields."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from lotj.sim.connector import Connector
from lotj.sim.mesh import MeshPair, digest
from lotj.sim.parts import ConnectorError, Part, check_fields, check_text, did_you_mean


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


def _fits(number: float) -> bool:
    """TOML has integers that no float holds."""
    return isinstance(number, float) or abs(number) < 1e300


def _convert(name: str, kind: str, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and _fits(value)
    if kind.startswith("float") and number:
        return float(value)
    kind = "tuple[float, float, float]" if kind == "Vector" else kind
    if kind.startswith("tuple[") and isinstance(value, list) and len(value) == kind.count(",") + 1:
        whole = kind.startswith("tuple[int")
        numbers = all(isinstance(v, int if whole else int | float) and not isinstance(v, bool) for v in value)
        if numbers and all(map(_fits, value)):
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
