"""`lotj data validate`."""

from __future__ import annotations

from pathlib import Path

import tyro
from rich.markup import escape
from rich.table import Table

from lotj.cli_exchange import READING, Reading
from lotj.console import bar, check_picture, console, say
from lotj.data.sources import Format


def validate(
    path: tyro.conf.Positional[Path],
    picture: Path | None = None,
    horizon: int | None = None,
    robots: int | None = None,
    format: Format | None = None,
    allow_pickle: bool = False,
    reading: Reading = READING,
) -> None:
    """Check a store or a foreign data set: counts, label balance, every defect found.

    Example: ``lotj data validate runs/desk/data/trajectories.sqlite``

    Args:
        path: the store, or a foreign data set as for ``lotj data import``.
        picture: write one of positives and negatives by connector there, .png or .jpg; of a store alone.
        horizon: the longest trajectory allowed, transitions; an own cell's store knows it, else 20.
        robots: how many robots the data of a store should come from; one for an own cell's store, else 2.
        format: what the data is, if that shall not be detected.
        allow_pickle: read SERL pickles; see ``lotj data import --help`` for the risk.
        reading: how foreign data is to be read.
    """
    from lotj.data.foreign_check import validate_foreign
    from lotj.data.sources import detect, open_source
    from lotj.data.validate import gallery
    from lotj.data.validate import validate as check

    check_picture(picture)
    ours = (format or (detect(path) if path.exists() else "lotj")) == "lotj"
    if ours:
        report = check(path, horizon=horizon, robots=robots)
    elif picture is not None:
        raise ValueError(f"{path}: --picture is of a store; import the data first: lotj data import {path}")
    else:
        with bar("read") as tick:
            opened = open_source(path, reading, format, allow_pickle=allow_pickle)
            report = validate_foreign(opened, reading, horizon=20 if horizon is None else horizon, tick=tick)
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
        table.add_row(escape(name), str(report.connector.get(name, 0)), f"{positive} of {positive + negative}", lost)
    console.print(table)
    for defect in report.defects:
        console.print(
            f"[red]{defect.kind}[/]: {escape(defect.message)} [dim]{escape(defect.remedy)}[/]", soft_wrap=True
        )
    console.print("[green]sound[/]" if report.sound else f"[red]{len(report.defects)} defects[/]")
    if picture is not None:
        gallery(path, picture)
        say(f"Picture: {picture}")
    if not report.sound:
        raise SystemExit(1)
