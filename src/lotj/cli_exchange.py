"""The subcommands that bring data in and out: `lotj data import`, `lotj data export`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape

from lotj.console import bar, console, say
from lotj.data.export import Target
from lotj.data.foreign import ReadConfig
from lotj.data.sources import Format
from lotj.data.store import TrajectoryStore
from lotj.files import to_json, write_json
from lotj.presets import PRESETS, Preset, load_preset, with_cameras
from lotj.stages import store_path

Reading = Annotated[ReadConfig, tyro.conf.arg(name="")]
"""How foreign data is read, as options without a prefix."""
READING = ReadConfig()


def import_data(
    source: tyro.conf.Positional[Path],
    into: Path | None = None,
    run: Path | None = None,
    preset: str = "desk",
    format: Format | None = None,
    allow_pickle: bool = False,
    reading: Reading = READING,
) -> None:
    """Append a data set to a store or a run: LeRobot v3, Minari, robomimic HDF5, SERL pickles, or another store.

    Killed and repeated it goes on; repeated when done it does nothing. A run that was imported into trains on the
    imported connectors; the last of them are kept for validation, or those of its own where it was collected for.
    Example: ``lotj data import FOLDER --run runs/mine --connector usb-a``

    Args:
        source: file or folder to read.
        into: the store; created if it is missing.
        run: instead, a run folder, begun where there is none; import before its networks are trained.
        preset: where --run begins a new run, its preset: debug, desk or paper.
        format: what the source is, if that shall not be detected.
        allow_pickle: read SERL pickles, though a pickle is a program: only arrays and plain containers are admitted,
            but defects of the reader and lack of memory remain a risk.
        reading: how to read it.
    """
    from lotj.data.importing import import_into
    from lotj.data.sources import open_source

    if (into is None) == (run is None):
        raise ValueError(
            "say where to: --into STORE, or --run RUN"
            if run is None
            else f"--into {into} and --run {run}: leave one of them out"
        )
    if run is not None:
        chosen = _preset(run, preset)
        into = store_path(run)
        reading = replace(reading, image_size=reading.image_size or chosen.image_size)
    assert into is not None
    if into.is_dir():
        raise ValueError(f"--into {into} is a folder, expected a store's file, such as {into / 'merged.sqlite'}")
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
    if run is None:
        say(f"Next: lotj data validate {shlex.quote(str(into))}")
        return
    _claim(run, chosen, into)
    say(f"Next: lotj data validate {shlex.quote(str(into))}   or   lotj train --run {shlex.quote(str(run))}")


def _preset(run: Path, name: str) -> Preset:
    """Of a run folder, or of one that is begun."""
    if (run / "preset.json").exists():
        return load_preset(run)
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return replace(with_cameras(PRESETS[name], 1), connectors=0)


def _claim(run: Path, preset: Preset, store: Path) -> None:
    """Note in the run folder which connectors are known by imported trajectories: those that a robot labelled for
    itself first, since the last ones are kept for validation, which must be true."""
    with TrajectoryStore(store) as held:
        names = dict.fromkeys(held.index.connector.tolist())
        seen = set(held.index.connector[held.index.successes > 0].tolist())
        told = set(held.index.connector[held.index.source != "practice"].tolist())
        if not (run / "preset.json").exists():
            preset = with_cameras(preset, held.shape.cameras)
        if held.shape.cameras != preset.cameras:
            raise ValueError(
                f"{run} sees by {preset.cameras} camera(s), its store {store} holds images of {held.shape.cameras}: "
                "import into another run"
            )
    own = () if not preset.known and not preset.connectors else preset.collect().connectors
    for name in names:
        if name not in seen:
            say(f"{name} has no success in any trajectory: it stays in the store, and is not trained on")
    added = [name for name in names if name not in own and name in seen]
    known = (*(name for name in added if name not in told), *(name for name in added if name in told))
    preset = replace(preset, imported=known)
    if not own:
        truly = sum(name in told for name in known)
        preset = replace(preset, validation=max(1, min(preset.validation, truly, len(known) - 2)))
    write_json(run / "preset.json", to_json(preset))


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
