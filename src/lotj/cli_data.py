"""The subcommands about what is known: `lotj connectors`, `lotj data validate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from rich.table import Table

from lotj.cli_exchange import READING, Reading
from lotj.console import bar, console, say
from lotj.data.sources import Format


def connectors(
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
    family: str | None = None,
    sheet: Path | None = None,
) -> None:
    """List the catalogue of connectors; ``lotj connectors generate`` draws more.

    Example: ``lotj connectors --family usb``

    Args:
        json_output: print a list of objects with name, family, variants, dimensions and sources.
        family: only this one.
        sheet: write a picture of them all there.
    """
    from lotj.sim.connectors import load_catalogue, to_json, variants_of

    chosen = [c for c in load_catalogue().values() if family in (None, c.family)]
    if not chosen:
        families = ", ".join(sorted({c.family for c in load_catalogue().values()}))
        raise ValueError(f"no family {family!r}; the catalogue has {families}")
    if json_output:
        sys.stdout.write(json.dumps([to_json(connector) for connector in chosen], indent=1) + "\n")
        return
    if sheet is not None:
        from lotj.sim.sheet import contact_sheet

        contact_sheet(chosen, sheet)
        say(f"Contact sheet: {sheet}")
        return
    table = Table("name", "title", "family", "depth", "close variants", title=f"{len(chosen)} connectors")
    for c in chosen:
        others = ", ".join(name for name in variants_of(c.name) if name != c.name)
        table.add_row(c.name, c.title, c.family, f"{c.insertion_depth * 1e3:.1f} mm", others)
    console.print(table)
    console.print("Next: lotj collect")


def generate(out: Path, count: int = 300, seed: int = 0, sheet: Path | None = None) -> None:
    """Draw connectors at random from the catalogue's families, none close to a test connector; a file for each.

    Example: ``lotj connectors generate --count 300 --seed 0 --out generated``

    Args:
        out: folder of the TOML files.
        count: how many; a longer list begins with a shorter one.
        seed: of all draws.
        sheet: write a picture of them all there.
    """
    from lotj.sim.generate import generate_connectors
    from lotj.sim.toml import save_connector

    with bar("draw connectors") as tick:
        drawn = generate_connectors(count, seed, tick)
    for connector in drawn:
        save_connector(connector, out)
    say(f"{len(drawn)} connectors of {len({connector.family for connector in drawn})} families: {out}")
    if sheet is not None:
        from lotj.sim.sheet import contact_sheet

        contact_sheet(drawn, sheet)
        say(f"Contact sheet: {sheet}")
    say(f"Next: lotj collect --run runs/generated desk --known {out}/gen-{seed}-*.toml")


def validate(
    path: tyro.conf.Positional[Path],
    gallery: Path | None = None,
    horizon: int = 20,
    robots: int = 2,
    format: Format | None = None,
    allow_pickle: bool = False,
    reading: Reading = READING,
) -> None:
    """Check a store or a foreign data set: counts, label balance, every defect found.

    Example: ``lotj data validate runs/desk/data/trajectories.sqlite``

    Args:
        path: the store, or a foreign data set as for ``lotj data import``.
        gallery: write a picture of positives and negatives by connector there; of a store alone.
        horizon: the longest trajectory allowed, transitions.
        robots: how many robots the data of a store should come from.
        format: what the data is, if that shall not be detected.
        allow_pickle: read SERL pickles; see ``lotj data import --help`` for the risk.
        reading: how foreign data is to be read.
    """
    from lotj.data.foreign_check import validate_foreign
    from lotj.data.sources import detect, open_source
    from lotj.data.validate import gallery as draw
    from lotj.data.validate import validate as check

    ours = (format or (detect(path) if path.exists() else "lotj")) == "lotj"
    if ours:
        report = check(path, horizon=horizon, robots=robots)
    elif gallery is not None:
        raise ValueError(f"{path}: a gallery is drawn of a store; import the data first: lotj data import {path}")
    else:
        with bar("read") as tick:
            opened = open_source(path, reading, format, allow_pickle=allow_pickle)
            report = validate_foreign(opened, reading, horizon=horizon, tick=tick)
    table = Table(
        "connector",
        "trajectories",
        "success frames",
        "dislodged",
        title=f"{report.trajectories} trajectories, {report.frames} frames",
    )
    for name in sorted({*report.connector, *report.dislodged}):
        positive, negative = report.balance.get(name, (0, 0))
        lost = str(report.dislodged.get(name, 0))
        table.add_row(name, str(report.connector.get(name, 0)), f"{positive} of {positive + negative}", lost)
    console.print(table)
    for defect in report.defects:
        console.print(
            f"[red]{defect.kind}[/]: {escape(defect.message)} [dim]{escape(defect.remedy)}[/]", soft_wrap=True
        )
    if gallery is not None:
        draw(path, gallery)
        say(f"Gallery: {gallery}")
    console.print("[green]sound[/]" if report.sound else f"[red]{len(report.defects)} defects[/]")
    if not report.sound:
        raise SystemExit(1)
