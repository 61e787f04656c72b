"""The subcommands about data: `lotj data validate`."""

from __future__ import annotations

from pathlib import Path

import tyro
from rich.markup import escape
from rich.table import Table

from lotj.console import console, say


def validate(path: tyro.conf.Positional[Path], gallery: Path | None = None) -> None:
    """Check a store: counts, label balance, every defect found.

    Example: ``lotj data validate runs/desk/data/trajectories.sqlite``

    Args:
        path: the store.
        gallery: write a picture of positives and negatives by connector there.
    """
    from lotj.data.validate import gallery as draw
    from lotj.data.validate import validate as check

    report = check(path)
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
