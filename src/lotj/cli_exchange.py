"""The subcommands that bring data in and out: `lotj data import`, `lotj data export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape

from lotj.console import bar, console, say
from lotj.data.export import Target
from lotj.data.foreign import ReadConfig
from lotj.data.sources import Format

Reading = Annotated[ReadConfig, tyro.conf.arg(name="")]
"""How foreign data is read, as options without a prefix."""
READING = ReadConfig()


def import_data(
    source: tyro.conf.Positional[Path],
    into: Path,
    format: Format | None = None,
    allow_pickle: bool = False,
    reading: Reading = READING,
) -> None:
    """Append a data set to a store: LeRobot v3, Minari, robomimic HDF5, SERL pickles, or another store.

    Killed and repeated it goes on; repeated when done it does nothing.
    Example: ``lotj data import FOLDER --into mine.sqlite --connector usb-a``

    Args:
        source: file or folder to read.
        into: the store; created if it is missing.
        format: what the source is, if that shall not be detected.
        allow_pickle: read SERL pickles, though a pickle is a program: only arrays and plain containers are admitted,
            but defects of the reader and lack of memory remain a risk.
        reading: how to read it.
    """
    from lotj.data.importing import import_into
    from lotj.data.sources import open_source

    opened = open_source(source, reading, format, allow_pickle=allow_pickle)
    say(f"{source}: {opened.format}, {opened.count} episodes")
    into.parent.mkdir(parents=True, exist_ok=True)
    with bar("import") as tick:
        done = import_into(opened, into, reading, tick)
    if done.already:
        say(f"{into} holds this data already: {done.imported} trajectories; nothing was imported")
    elif done.resumed:
        say(f"Went on after {done.resumed} trajectories of an import that was stopped")
    for kind, count in done.skipped.items():
        reason = escape(done.reasons.get(kind, ""))
        console.print(f"[yellow]skipped {count}[/] [red]{kind}[/] {reason}", soft_wrap=True, highlight=False)
    if done.lost_successes:
        say(
            f"{done.lost_successes} successes belong to a last observation that was not recorded, and are gone: "
            "import with --final repeat into a new store to keep them"
        )
    say(f"{done.imported} of {done.episodes} episodes are in {into}")
    if not done.imported:
        raise ValueError(f"nothing of {source} could be imported; the reasons are above: lotj data validate {source}")
    say(f"Next: lotj data validate {shlex.quote(str(into))}")


def export_data(store: tyro.conf.Positional[Path], to: Target, out: Path, fps: int = 10) -> None:
    """Write a store as a LeRobot v3 or Minari data set; nothing is lost.

    Example: ``lotj data export runs/desk/data/trajectories.sqlite --to lerobot --out desk-lerobot``

    Args:
        store: the store's file.
        to: the format.
        out: the folder to create.
        fps: steps a second of the cell, for LeRobot's time stamps.
    """
    from lotj.data.export import export

    with bar(f"export to {to}") as tick:
        rows = export(store, to, out, fps=fps, tick=tick)
    say(f"{rows} observations: {out}")
    say(f"Next: lotj data validate {shlex.quote(str(out))}")
