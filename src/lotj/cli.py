"""The command line: the only place that prints."""

from __future__ import annotations

import errno
import os
import shlex
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from lotj import (
    __version__,
    cli_cell,
    cli_cell_mock,
    cli_connectors,
    cli_data,
    cli_evaluate,
    cli_exchange,
    cli_insert,
    cli_practice,
    cli_practice_tables,
    cli_tables,
)
from lotj.cli_help import dressed, overview, understood
from lotj.cli_practice import print_outcome, print_preflight
from lotj.console import bar, say
from lotj.distributed import workers_for
from lotj.parallel import WorkerKilledError
from lotj.presets import PRESETS, Preset, load_preset, read_preset, with_cameras
from lotj.sim import GraphicsError
from lotj.sim.scene import WRIST
from lotj.types import StoppedError

DESCRIPTION = """A robot that knows many connectors learns a new one on the job: it practises and rewards itself.

    lotj demo          the whole job, at a size for two CPU cores
    lotj demo debug    the same in a minute, to see that everything works"""

CORES = os.cpu_count() or 1

PresetChoice = Annotated[  # type: ignore[valid-type]
    tyro.extras.subcommand_type_from_defaults(
        PRESETS,
        descriptions={
            "debug": "The whole chain in about a minute; learns nothing.",
            "desk": "Two CPU cores, 30 to 60 minutes.",
            "paper": "Full ResNet-18, 70,000 trajectories; wants a GPU.",
        },
        prefix_names=False,
    ),
    tyro.conf.arg(name=""),
]


def demo(
    out: Path | None = None,
    workers: int = CORES,
    result: Path | None = None,
    diagnostic: bool = True,
    cameras: int | None = None,
    preset: PresetChoice = PRESETS["desk"],  # type: ignore[valid-type]
) -> None:
    """Do the whole job: collect, roll out, train, practise a novel connector, evaluate before and after, report.

    Stages that are done are reused; interrupt it and repeat the command to continue. Example: ``lotj demo debug``

    Args:
        out: run folder; runs/<preset> by default.
        workers: processes that collect; as many as there are cores by default.
        result: also write stages, seconds and counts to this JSON file.
        diagnostic: practise once more with ground truth as the reward, to see what the recipe could do.
        cameras: wrist cameras that the robot sees by, instead of the preset's: 1, as in the paper, or 2.
        preset: size of the job, with every setting.
    """
    from lotj import demo as job
    from lotj import stages
    from lotj.film import film_practices
    from lotj.outcome import Clock
    from lotj.outcome import result as outcome_of

    if result is not None and result.is_dir():
        raise ValueError(f"--result {result} is a folder; name a JSON file in it")
    places = workers_for(workers, None)
    chosen = _seen_by(preset, cameras, len(WRIST))
    run_root = _claim(out or Path("runs") / chosen.name, chosen)
    _print_estimate(chosen, workers)
    clock = Clock(run_root / "seconds.json")
    known = chosen.split()
    stages.collect_stage(chosen, run_root, places, bar)
    clock.lap("collect")
    stages.roll_out_stage(chosen, run_root, known, places, bar)
    clock.lap("roll out")
    stages.train_all(chosen, run_root, known, bar)
    clock.lap("train")
    folders = []
    for connector in chosen.practise_on:
        if diagnostic:
            folders += job.practise_both(chosen, run_root, known, connector, bar, print_preflight)
        else:
            out_dir = job.practice_stage(
                chosen, run_root, known, connector, "learned", bar, force=True, answered=print_preflight
            )
            folders.append(out_dir)
        clock.lap(f"practise {connector}")
    for line in film_practices(chosen, run_root, folders, bar):
        say(line)
    stages.report_stage(chosen, run_root, known, folders)
    clock.lap("report")
    outcome = outcome_of(chosen, run_root, folders, clock.seconds)
    if result is not None:
        from lotj.files import write_json

        result.parent.mkdir(parents=True, exist_ok=True)
        write_json(result, outcome)
    print_outcome(outcome)
    say(f"\nReport: {run_root / 'report.html'}   (open it in a browser)")
    say(f"Next:   lotj practice --run {shlex.quote(str(run_root))} --connector europlug")


def collect(
    run: Path | None = None,
    workers: int = CORES,
    ray: str | None = None,
    cell: Path | None = None,
    connector: tuple[str, ...] = (),
    confirm: bool = True,
    cameras: int | None = None,
    preset: PresetChoice = PRESETS["desk"],  # type: ignore[valid-type]
) -> None:
    """Collect trajectories of known connectors: the scripted expert's, then those of a first policy trained on them.

    Any set of connectors will do; training needs several. ``--dagger.trials 0`` rolls no policy out. Example:
    ``lotj collect --run runs/mine debug --known usb-a``

    Args:
        run: run folder; runs/<preset> by default.
        workers: processes; as many as there are cores by default.
        ray: collect on Ray instead: local, auto or the address of a cluster (docs/ray.md). The data are the same.
        cell: collect on this cell of your own (``lotj cell new``) instead of in the simulator.
        connector: with --cell, names of what is put into its clamp, one after the other; any will do.
        confirm: with --cell, a person confirms that a connector is in place, and discards trials in which it slipped.
        cameras: wrist cameras that the robot sees by, instead of the preset's.
        preset: size of the job, with every setting.
    """
    from lotj import stages
    from lotj.sim.connectors import get_connector

    places = workers_for(workers, ray)
    chosen = _seen_by(preset, cameras, len(WRIST) if cell is None else None)
    if cell is None and connector:
        raise ValueError(
            "--connector names what is put into an own cell's clamp (--cell); here, name them after --known"
        )
    if cell is not None:
        if not connector:
            raise ValueError("--connector is missing: name what is put into the clamp, as in --connector usb-a rj45")
        chosen = cli_cell.imported(replace(chosen, robot=str(cell)), connector)
        chosen = cli_cell.with_the_cells_cameras(chosen, cell, asked=cameras is not None)
    run_root = _claim(run or Path("runs") / chosen.name, chosen)
    if cell is not None:
        cli_cell.collect(run_root, cell, connector, chosen, confirm)
        return
    # Told before anything is collected where there are enough for a split and it is no good.
    few = bool(chosen.known) and len({get_connector(name).group for name in chosen.known}) < 3
    known = None if few else chosen.split()
    _print_estimate(chosen, workers)
    stages.collect_stage(chosen, run_root, places, bar)
    if known is None:
        say("Too few connectors to train a policy, so none is rolled out.")
    else:
        stages.roll_out_stage(chosen, run_root, known, places, bar)
    collected = stages.collected_stage(run_root)
    lost = ", ".join(f"{name} {count}" for name, count in sorted(collected.dislodged.items())) or "none"
    say(
        f"{collected.trajectories} trajectories, {collected.frames} frames, {collected.successes} successes; "
        f"dislodged and discarded: {lost}"
    )
    store, folder = shlex.quote(str(stages.store_path(run_root))), shlex.quote(str(run_root))
    say(f"Next: lotj data validate {store}   or   lotj train --run {folder}")


def train(run: Path, stage: Literal["all", "reward", "critic", "policy"] = "all") -> None:
    """Train reward model, critic and policy on what a run has collected.

    Example: ``lotj train --run runs/desk``

    Args:
        run: run folder.
        stage: one of them, or all that are not done.
    """
    from lotj import stages

    preset = load_preset(run)
    known = preset.split()
    if stage == "all":
        stages.train_all(preset, run, known, bar)
    else:
        stages.train_stage(preset, run, known, bar, (stage,))
    say(f"Next: lotj practice --run {shlex.quote(str(run))} --connector {shlex.quote(str(preset.practise_on[0]))}")


def report(run: Path) -> None:
    """Write one HTML page about all practices of a run.

    Example: ``lotj report --run runs/desk``

    Args:
        run: run folder.
    """
    from lotj import stages
    from lotj.film import film_practices

    preset = load_preset(run)
    found = (path.parent for path in (run / "practice").glob("*/*/config.json"))
    # What the robot paid itself first, then the diagnostic beside it.
    folders = sorted(found, key=lambda path: (path.parent.name, "ground-truth" in path.name, path.name))
    for line in film_practices(preset, run, folders, bar):
        say(line)
    stages.report_stage(preset, run, preset.split(), folders)
    say(f"Report: {run / 'report.html'}   (open it in a browser)")


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "collect": collect,
    "train": train,
    "redteam": cli_practice.redteam,
    "practice": cli_practice.practice,
    "evaluate": cli_evaluate.evaluate,
    "insert": cli_insert.insert,
    "report": report,
    "connectors": cli_connectors.connectors,
    "connectors show": cli_connectors.show,
    "connectors new": cli_connectors.new,
    "connectors check": cli_connectors.check,
    "connectors generate": cli_connectors.generate,
    "cell new": cli_cell.new,
    "cell check": cli_cell.check,
    "cell calibrate": cli_cell.calibrate,
    "cell mock-server": cli_cell_mock.mock_server,
    "data validate": cli_data.validate,
    "data import": cli_exchange.import_data,
    "data export": cli_exchange.export_data,
    "tables reward": cli_tables.reward,
    "tables levers": cli_tables.levers,
    "tables connectors": cli_tables.connectors,
    "tables practice": cli_practice_tables.practice,
    "tables ablation": cli_practice_tables.ablation,
    "tables export": cli_practice_tables.export,
    "tables render": cli_tables.render,
}
"""By what is typed: one word or two; the steps of the job first, then what goes with them."""


MENDABLE = (ValueError, OSError, sqlite3.Error, FloatingPointError, GraphicsError, WorkerKilledError)
"""Errors that tell a user what to do; all others are defects of lotj and come with their traceback."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors that a user can mend come without a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if given == ["--version"]:
            say(f"lotj {__version__}")
            return
        name, rest = understood(given, COMMANDS)
        if name:
            tyro.cli(dressed(COMMANDS[name]), prog=f"lotj {name}", args=rest)
        else:
            overview(COMMANDS, DESCRIPTION, *rest)
    except MENDABLE as error:
        told = "\n".join([str(error), *getattr(error, "__notes__", ()), *_full(error)])
        Console(stderr=True).print(f"[red]error:[/] {escape(told)}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from error
    except StoppedError as error:
        Console(stderr=True).print(f"[yellow]Stopped:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(3) from error
    except KeyboardInterrupt as error:
        Console(stderr=True).print("\nInterrupted; repeat the same command to continue.")
        raise SystemExit(130) from error


def _full(error: Exception) -> list[str]:
    """What to do where a disk is full, as the system or SQLite says it."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    full |= isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error)
    return ["Free some space, then repeat the same command: it goes on from what is finished"] if full else []


def _seen_by(preset: Preset, cameras: int | None, there: int | None) -> Preset:
    """The preset for as many cameras as were asked for, refused before a folder is made."""
    chosen = preset if cameras is None else with_cameras(preset, cameras)
    if there is not None and chosen.cameras > there:
        raise ValueError(f"--cameras {chosen.cameras}: the simulated wrist has {there}")
    return chosen


def _claim(run_root: Path, preset: Preset) -> Path:
    """Mark a run folder as this preset's, or refuse one in which another's work has begun."""
    from lotj.files import to_json, write_json
    from lotj.run import RunMismatchError, differences
    from lotj.sim.connectors import get_connector

    names = [get_connector(name).name for name in preset.known]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"--known names {', '.join(twice)} more than once; name each connector once, and give each file a name of "
            "its own: data are kept by name"
        )
    if not preset.practise_on:
        raise ValueError("--practise-on names no connector; name at least one, as in --practise-on europlug")
    if preset.trajectories < 1:
        raise ValueError(f"--trajectories {preset.trajectories}: expected at least 1 of each connector")
    path = run_root / "preset.json"
    wanted = to_json(preset)
    if path.exists() and any(other != path for other in run_root.iterdir()):
        held = read_preset(run_root)
        # What is practised does not change what was trained, and trajectories may be imported into any run.
        later = ("practise_on", "imported")
        kept = {key: held.get(key) for key in wanted if key not in later}
        differing = list(differences(kept, {key: wanted[key] for key in kept}))
        if differing:
            shown = "; ".join(f"{name} was {old!r} and is {new!r} now" for name, old, new in differing[:3])
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            begun = held["reward"]["model"]["encoder"].get("cameras", 1)
            hint = f"; it sees by {begun} camera(s): --cameras {begun}" if begun != preset.cameras else ""
            raise RunMismatchError(
                f"{run_root} was begun with other settings (preset {held.get('name')!r}): {shown}{more}{hint}; "
                "name that preset and its settings, or choose another folder"
            )
        wanted["imported"] = list(dict.fromkeys([*held.get("imported", []), *wanted["imported"]]))
    run_root.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)
    return run_root


def _print_estimate(preset: Preset, workers: int) -> None:
    from lotj.speed import estimate, measure

    expected = estimate(preset, measure(preset), workers)
    minutes = expected.total_minutes
    time = "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"
    if minutes > 300:
        time = f"about {minutes / 60:.0f} hours"
    stages = ", ".join(f"{stage} {minutes:.1f}" for stage, minutes in expected.minutes.items())
    say(
        f"{preset.name}: on this machine the whole job takes {time} (minutes: {stages}), "
        f"{expected.memory_gb:.1f} GB of memory, {expected.disk_gb:.1f} GB of disk"
    )


if __name__ == "__main__":
    main()
