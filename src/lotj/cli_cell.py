"""`lotj cell`: a robot of one's own, described, checked, calibrated; and `lotj collect --cell`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.prompt import Confirm, Prompt

from lotj.console import bar, console, say
from lotj.presets import Preset, with_cameras


def ask(question: str) -> bool:
    """Ask the person at the terminal.

    Raises:
        ValueError: nobody is there.
    """
    try:
        return bool(Confirm.ask(question, console=console))
    except EOFError as error:
        raise ValueError(f"nobody answered {question!r}: this needs a terminal, or y or n on its input") from error


def new(out: Path, env: str | None = None) -> None:
    """Write a cell's file to fill in, every field explained.

    Example: ``lotj cell new --out bench.toml --env lotj:lotj/SerlInsertion-v0``

    Args:
        out: the file, which must not exist yet.
        env: ``module:Id`` of anything that ``gymnasium.make`` can make: what it tells about itself is filled in.
    """
    from lotj.cells.template import TEMPLATE, filled

    if out.exists():
        raise ValueError(f"{out} exists; name another file, or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    text, notes = (TEMPLATE, []) if env is None else filled(env)
    out.write_text(text, encoding="utf-8")
    for note in notes:
        say(f"  {note}")
    say(f"Written: {out}; fill it in (docs/cells.md explains each field)")
    say(f"Next: lotj cell check --cell {shlex.quote(str(out))} --connector NAME")


def tell_other(practised: Path, name: str) -> None:
    """Say where a practice is of another connector than the one that is asked for."""
    other = practised.resolve().parent.name
    if other != name:
        console.print(
            f"[yellow]{escape(str(practised))} practised {escape(other)}, not {escape(name)}[/]", soft_wrap=True
        )


def check(cell: Path, connector: str = "unknown", image_size: int = 64, steps: int = 20) -> None:
    """Look whether a cell keeps what its file promises. The robot moves, a few millimetres at a time, in free space.

    Example: ``lotj cell check --cell examples/rehearsal.toml --connector usb-a``

    Args:
        cell: the cell's TOML file.
        connector: name of what is in the clamp; simulated cells need it.
        image_size: height and width of what policies will see, in px.
        steps: number of test motions.
    """
    from lotj.cells.adapter import left_in
    from lotj.cells.check import Finding, check_cell
    from lotj.cells.spec import load_cell

    def told(finding: Finding) -> None:
        mark = {True: "[green]good[/]", False: "[red]bad [/]", None: "[yellow]none[/]"}[finding.good]
        console.print(f"{mark} {finding.name}: {escape(finding.message)}", soft_wrap=True)

    spec = load_cell(cell)
    findings = check_cell(spec, connector, image_size, steps, told, left_in=left_in(cell))
    bad = sum(finding.good is False for finding in findings)
    if bad:
        hint = (
            "; name what is in the clamp: --connector NAME"
            if connector == "unknown" and spec.connector_argument
            else ""
        )
        say(f"{bad} of {len(findings)} findings are bad; correct {cell} or the cell, and check again{hint}")
        raise SystemExit(1)
    say(f"Fit. Next: lotj practice --run RUN --cell {shlex.quote(str(cell))} --connector {shlex.quote(str(connector))}")


def calibrate(cell: Path, connector: str, depth: float) -> None:
    """Capture where a connector is fully inserted, for collection. Practice on a novel connector needs none.

    Jog the plug in by typing an axis and millimetres (``x 1.5``, ``z -2``), an empty line to look, ``done`` at the end;
    a person may as well move the robot by its own means between the lines.

    Example: ``lotj cell calibrate --cell bench.toml --connector usb-a --depth 0.0118``

    Args:
        cell: the cell's TOML file.
        connector: the connector's name.
        depth: m from the socket's mouth to full insertion.
    """
    from lotj.cells.adapter import CellEnv, cell_folder, left_in
    from lotj.cells.calibration import save_calibration
    from lotj.cells.collecting import calibrate as capture
    from lotj.cells.safety import SafeCell
    from lotj.cells.spec import load_cell

    with SafeCell(CellEnv(load_cell(cell), connector, image_size=64), left_in=left_in(cell)) as safe:
        found = capture(safe, connector, depth, _typed(safe), ask)
    path = save_calibration(cell_folder(cell), found)
    x, y, z = (1e3 * value for value in found.position)
    say(f"Captured ({x:.1f}, {y:.1f}, {z:.1f}) mm, steady within {1e3 * found.spread:.2f} mm: {path}")
    say(f"Next: lotj collect --run RUN --cell {shlex.quote(str(cell))} --connector {shlex.quote(str(connector))} ...")


def _typed(safe: Any) -> Iterator[tuple[float, float, float]]:
    """Displacements (m) that a person types, until they say done."""
    axes = {"x": 0, "y": 1, "z": 2}
    while True:
        x, y, z = (1e3 * value for value in safe.reading.position)
        try:
            line = Prompt.ask(f"({x:.1f}, {y:.1f}, {z:.1f}) mm, jog", default="", show_default=False, console=console)
        except EOFError as error:
            raise ValueError("nobody jogs: calibration needs a terminal, or its lines on the input") from error
        words = line.split()
        if words == ["done"]:
            return
        displacement = [0.0, 0.0, 0.0]
        if words:
            try:
                (axis, millimetres) = words
                displacement[axes[axis]] = float(millimetres) * 1e-3
            except (ValueError, KeyError):
                say(f"{line!r} is not an axis and millimetres, as in: z -2")
                continue
        yield displacement[0], displacement[1], displacement[2]


def collect(run: Path, cell: Path, connectors: tuple[str, ...], preset: Preset, confirm: bool) -> None:
    """`lotj collect --cell`."""
    from lotj.cells.collecting import CellCollectConfig, collect_on_cell
    from lotj.stages import store_path

    config = CellCollectConfig(
        connectors,
        preset.trajectories,
        wrong_place=preset.wrong_place,
        slow=preset.slow,
        image_size=preset.image_size,
        cameras=preset.cameras,
        seed=preset.seed,
    )
    with bar("collect") as tick:
        found = collect_on_cell(
            config,
            cell,
            store_path(run),
            ask=ask if confirm else None,
            ready=(lambda name: _wait(name)) if confirm else (lambda name: None),
            progress=tick,
            stop_file=run / "STOP",
        )
    say(f"{found.trajectories} trajectories, {found.successes} successes; {found.discarded} discarded")
    say(f"Next: lotj data validate {shlex.quote(str(store_path(run)))}   or   lotj train --run {shlex.quote(str(run))}")


def with_the_cells_cameras(preset: Preset, cell: Path, asked: bool) -> Preset:
    """The preset for the cameras that a cell has, where it has fewer and nobody asked for more."""
    from lotj.cells.spec import load_cell

    there = len(load_cell(cell).images)
    if there >= preset.cameras:
        return preset
    if asked:
        raise ValueError(
            f"--cameras {preset.cameras}, but {cell} names {there}: name as many under [observation] image, or ask for "
            f"--cameras {there}"
        )
    say(f"{cell} names {there} camera(s), {preset.name} takes {preset.cameras}: this run sees by {there}")
    return with_cameras(preset, there)


def imported(preset: Preset, names: tuple[str, ...]) -> Preset:
    """The preset of a run whose connectors come from elsewhere, all of them or beside the drawn ones."""
    known = (*preset.imported, *(name for name in names if name not in preset.imported))
    validation = max(1, min(preset.validation, len(known) - 2))
    return replace(preset, connectors=0, imported=known, validation=validation)


def _wait(connector: str) -> None:
    if not ask(f"Put {connector} into the clamp and the gripper. Ready?"):
        raise ValueError(f"{connector} is not ready; repeat the command when it is")
