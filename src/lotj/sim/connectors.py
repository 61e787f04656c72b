"""The connector catalogue, and connectors by name: of the catalogue, drawn at random, or from a file of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from lotj.sim.connector import MESHES_SAY, Connector
from lotj.sim.connector_files import parse_connectors
from lotj.sim.parts import ConnectorError, did_you_mean

TEST_CONNECTORS = ("deutsch-dt-12", "mega-block-1x1", "nema-5-15", "europlug")
"""The four connectors that the paper tests on (Sec. VI)."""
GENERATED = re.compile(r"gen-(?P<seed>0|[1-9]\d*)-(?P<number>0|[1-9]\d*)")
"""Names of connectors that ``lotj.sim.generate`` draws; a name is all that is needed to draw one again."""


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
    hint = f" (did you mean '{name}.toml'?)" if Path(f"{name}.toml").is_file() else did_you_mean(name, catalogue)
    raise ConnectorError(
        f"unknown connector '{name}'{hint}; `lotj connectors` lists all "
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


def described(connector: str) -> dict[str, Any]:
    """Every field of a connector that a TOML file describes, as JSON under ``described``: the same path may later hold
    another. Empty for all others, whose name says all."""
    if not connector.endswith(".toml"):
        return {}
    fields: dict[str, Any] = json.loads(json.dumps(asdict(get_connector(connector))))
    return {"described": fields}
