"""A connector as the text of a TOML file that `load_connector` reads back exactly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lotj.sim.connector import Connector
from lotj.sim.parts import ConnectorError, Part


def to_toml(connector: Connector) -> str:
    """The file's text: every field that differs from its default, then a table for each part.

    Raises:
        ConnectorError: it has meshes, whose paths are relative to the file that it was read from.
    """
    if connector.mesh is not None:
        raise ConnectorError(
            f"field 'mesh': connector '{connector.name}' has meshes and cannot be written elsewhere; copy its TOML "
            "file and the meshes instead"
        )
    head = _fields(connector, skip={"family", "parts"})
    lines = [f"family = {toml_value(connector.family)}", "", "[[connector]]", *head]
    for part in connector.parts:
        lines += ["", "[[connector.part]]", *_fields(part)]
    return "\n".join(lines) + "\n"


def save_connector(connector: Connector, folder: Path) -> Path:
    """Write ``<folder>/<name>.toml``, making the folder where it does not exist. Returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{connector.name}.toml"
    path.write_text(to_toml(connector), encoding="utf-8")
    return path


def _fields(described: Connector | Part, skip: Iterable[str] = ()) -> list[str]:
    values = {f.name: getattr(described, f.name) for f in fields(described) if f.name not in skip}
    defaults = {f.name: f.default for f in fields(described)}
    return [f"{name} = {toml_value(value)}" for name, value in values.items() if value != defaults[name]]


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(float(value))
    # JSON's texts, truth values and whole numbers are TOML's, except that TOML wants DEL escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
