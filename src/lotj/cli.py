"""The command line: the only place that prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lotj.presets import PRESETS, Preset, estimate
from lotj.sim import GraphicsError

DESCRIPTION = """A robot that knows many connectors learns a new one on the job: it practises and rewards itself.

    lotj demo          the whole job, at a size for two CPU cores
    lotj demo debug    the same in a minute, to see that everything works"""

# Where nobody watches, for example in a log, tables need no narrow screen.
console = Console(width=None if sys.stdout.isatty() else 120)
PresetChoice = Annotated[  # type: ignore[valid-type]
    tyro.extras.subcommand_type_from_defaults(
        PRESETS,
        descriptions={
            "debug": "The whole chain in under a minute; learns nothing.",
            "desk": "Two CPU cores, half an hour.",
            "paper": "Full ResNet-18, 70,000 trajectories; wants a GPU.",
        },
        prefix_names=False,
    ),
    tyro.conf.arg(name=""),
]


def demo(
    out: Path | None = None,
    workers: int = 2,
    result: Path | None = None,
    diagnostic: bool = True,
    preset: PresetChoice = PRESETS["desk"],  # type: ignore[valid-type]
) -> None:
    """Do the whole job: collect, train, practise a novel connector, evaluate before and after, report.

    Stages that are done are reused; interrupt it and repeat the command to continue. Example: ``lotj demo debug``

    Args:
        out: run folder; runs/<preset> by default.
        workers: processes that collect.
        result: also write stages, seconds and counts to this JSON file.
        diagnostic: practise once more with ground truth as the reward, to see what the recipe could do.
        preset: size of the job, with every setting.
    """
    from lotj import demo as job

    chosen: Preset = preset
    run_root = _claim(out or Path("runs") / chosen.name, chosen)
    _print_estimate(chosen)
    clock = job.Clock()
    known = job.collect_stage(chosen, run_root, workers, _bar)
    clock.lap("collect")
    for stage in ("reward", "critic", "policy"):
        job.train_stage(chosen, run_root, known, _bar, (stage,))
        clock.lap(stage)
    folders = []
    for connector in chosen.practise_on:
        for reward in ("learned", "ground-truth")[: 2 if diagnostic else 1]:
            folders.append(job.practice_stage(chosen, run_root, known, connector, reward, _bar))  # type: ignore[arg-type]
            clock.lap(f"practise {connector} {reward}")
    job.report_stage(chosen, run_root, known, folders)
    clock.lap("report")
    outcome = job.result(chosen, run_root, folders, clock.seconds, ["lotj", *sys.argv[1:]])
    if result is not None:
        from lotj.run import write_json

        result.parent.mkdir(parents=True, exist_ok=True)
        write_json(result, outcome)
    _print_outcome(outcome)
    _say(f"\nReport: {run_root / 'report.html'}   (open it in a browser)")
    _say(f"Next:   lotj practice --run {run_root} --connector europlug")


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
        _say(f"Contact sheet: {sheet}")
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

    with _bar("draw connectors") as tick:
        drawn = generate_connectors(count, seed, tick)
    for connector in drawn:
        save_connector(connector, out)
    _say(f"{len(drawn)} connectors of {len({connector.family for connector in drawn})} families: {out}")
    if sheet is not None:
        from lotj.sim.sheet import contact_sheet

        contact_sheet(drawn, sheet)
        _say(f"Contact sheet: {sheet}")
    _say(f"Next: lotj collect --run runs/generated desk --known {out}/gen-{seed}-*.toml")


def collect(
    run: Path | None = None,
    workers: int = 2,
    preset: PresetChoice = PRESETS["desk"],  # type: ignore[valid-type]
) -> None:
    """Collect trajectories of known connectors with the scripted expert.

    Example: ``lotj collect --run runs/mine debug``

    Args:
        run: run folder; runs/<preset> by default.
        workers: processes.
        preset: size of the job, with every setting.
    """
    from lotj import demo as job

    chosen: Preset = preset
    run_root = _claim(run or Path("runs") / chosen.name, chosen)
    _print_estimate(chosen)
    job.collect_stage(chosen, run_root, workers, _bar)
    _say(f"Next: lotj data validate {job.store_path(run_root)}   or   lotj train --run {run_root}")


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
        title=f"{report.trajectories} trajectories, {report.frames} frames",
    )
    for name, count in report.connector.items():
        positive, negative = report.balance.get(name, (0, 0))
        table.add_row(name, str(count), f"{positive} of {positive + negative}")
    console.print(table)
    for defect in report.defects:
        console.print(
            f"[red]{defect.kind}[/]: {escape(defect.message)} [dim]{escape(defect.remedy)}[/]", soft_wrap=True
        )
    if gallery is not None:
        draw(path, gallery)
        _say(f"Gallery: {gallery}")
    console.print("[green]sound[/]" if report.sound else f"[red]{len(report.defects)} defects[/]")
    if not report.sound:
        raise SystemExit(1)


def train(run: Path, stage: Literal["all", "reward", "critic", "policy"] = "all") -> None:
    """Train reward model, critic and policy on what a run has collected.

    Example: ``lotj train --run runs/desk``

    Args:
        run: run folder.
        stage: one of them, or all that are not done.
    """
    from lotj import demo as job

    preset = _preset_of(run)
    known = preset.split()
    stages = ("reward", "critic", "policy") if stage == "all" else (stage,)
    job.train_stage(preset, run, known, _bar, stages)
    _say(f"Next: lotj practice --run {run} --connector {preset.practise_on[0]}")


def practice(
    run: Path,
    connector: str,
    reward: Literal["learned", "ground-truth"] = "learned",
    recipe: Literal["ensemble", "iql"] | None = None,
    trials: int | None = None,
    scenario: Literal["I", "II", "mixed"] | None = None,
    seed: int | None = None,
) -> None:
    """Practise a connector that offline training never saw.

    Example: ``lotj practice --run runs/desk --connector europlug``

    Args:
        run: run folder with trained networks.
        connector: a name of the catalogue or a TOML file.
        reward: learned (the robot rewards itself), or ground-truth: a diagnostic, marked so in every output.
        recipe: iql is the paper's, ensemble is ours; the preset's by default.
        trials: number of trials; the preset's by default.
        scenario: where trials start; the preset's by default.
        seed: of the practice; the preset's by default.
    """
    from dataclasses import replace

    from lotj import demo as job

    preset = _preset_of(run)
    known = preset.split()
    config = preset.practice
    changes = {k: v for k, v in {"trials": trials, "scenario": scenario}.items() if v is not None}
    inner = replace(config.practice, **changes)  # type: ignore[arg-type]
    if recipe is not None and recipe != config.recipe:
        # Each recipe has its own share of online data: the paper's 25%, ours 50%.
        inner = replace(inner, online_fraction=0.25 if recipe == "iql" else 0.5)
    config = replace(config, practice=inner, recipe=recipe or config.recipe)
    if reward == "ground-truth":
        console.print("[yellow]Diagnostic: practising with ground truth as the reward.[/]")
    out = job.practice_stage(preset, run, known, connector, reward, _bar, config, seed)
    outcome = job.result(preset, run, [out], {}, ["lotj", *sys.argv[1:]])
    _print_outcome(outcome)
    _say(f"Next: lotj report --run {run}")


def evaluate(run: Path, connector: str, trials: int = 20, seed: int = 1, practised: Path | None = None) -> None:
    """Evaluate the offline policy, or a practised one, by ground truth.

    Example: ``lotj evaluate --run runs/desk --connector rj45``

    Args:
        run: run folder with trained networks.
        connector: a name of the catalogue or a TOML file.
        trials: in each scenario.
        seed: of the start states.
        practised: folder of a finished practice of this run, to evaluate what it learned.
    """
    from dataclasses import replace

    from lotj import demo as job

    preset = _preset_of(run)
    counted = job.evaluate_stage(
        replace(preset, evaluate=replace(preset.evaluate, trials=trials, seed=seed)),
        run,
        preset.split(),
        connector,
        practised,
        _bar,
    )
    if counted["policy"]["diagnostic"]:
        console.print("[yellow]Diagnostic: this policy practised with ground truth as the reward.[/]")
    who = "offline policy" if practised is None else practised.name
    title = f"{connector}, {who}, {trials} trials each"
    table = Table("scenario", "rewarded", "judged", "true", "95% interval of true", title=title)
    for name, row in counted["summary"].items():
        low, high = row["true_interval"]
        cells = [f"{row[column]}/{row['trials']}" for column in ("rewarded", "judged", "true")]
        table.add_row(name, *cells, f"{low:.0%} - {high:.0%}")
    console.print(table)


def report(run: Path) -> None:
    """Write one HTML page about all practices of a run.

    Example: ``lotj report --run runs/desk``

    Args:
        run: run folder.
    """
    from lotj import demo as job

    preset = _preset_of(run)
    folders = sorted(path.parent for path in (run / "practice").glob("*/*/config.json"))
    job.report_stage(preset, run, preset.split(), folders)
    _say(f"Report: {run / 'report.html'}   (open it in a browser)")


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "connectors": connectors,
    "connectors generate": generate,
    "collect": collect,
    "data validate": validate,
    "train": train,
    "practice": practice,
    "evaluate": evaluate,
    "report": report,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors that a user can mend come without a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    if " ".join(given[:2]) in COMMANDS:
        given = ["-".join(given[:2]), *given[2:]]
    commands = {name.replace(" ", "-"): function for name, function in COMMANDS.items()}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="lotj", description=DESCRIPTION, args=given)
    except (ValueError, FileNotFoundError, GraphicsError) as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        Console(stderr=True).print("\nInterrupted; repeat the same command to continue.")
        raise SystemExit(130) from error


def _say(text: str) -> None:
    """Print a line as it is: paths are neither broken nor read as markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _bar(title: str) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, note="")

        def tick(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield tick


def _claim(run_root: Path, preset: Preset) -> Path:
    """Mark a run folder as this preset's, or refuse one of another."""
    from lotj.run import RunMismatchError, to_json, write_json

    path = run_root / "preset.json"
    wanted = to_json(preset)
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        # What is practised does not change what was trained: a run may go on to further connectors.
        differing = [key for key in wanted if key != "practise_on" and held.get(key) != wanted[key]]
        if differing:
            raise RunMismatchError(
                f"{run_root} was begun with another {', '.join(differing)} (preset {held.get('name')!r}); "
                "name that preset and its settings, or choose another folder"
            )
    run_root.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)
    return run_root


def _preset_of(run_root: Path) -> Preset:
    from lotj.algos.training import config_from

    path = run_root / "preset.json"
    if not path.exists():
        raise FileNotFoundError(f"{run_root} is not a run folder (no preset.json); make one with `lotj collect`")
    return config_from(Preset, json.loads(path.read_text(encoding="utf-8")))


def _print_estimate(preset: Preset) -> None:
    expected = estimate(preset)
    minutes = expected.total_minutes
    time = "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"
    stages = ", ".join(f"{stage} {minutes:.1f}" for stage, minutes in expected.minutes.items())
    _say(
        f"{preset.name}: the whole job takes {time} ({stages}), "
        f"{expected.memory_gb:.1f} GB of memory, {expected.disk_gb:.1f} GB of disk"
    )


def _print_outcome(outcome: dict[str, Any]) -> None:
    table = Table(
        "connector", "recipe", "reward", "scenario", "before", "after", "p", "judged after", title="True success"
    )
    for row in outcome["practices"]:
        marked = f"{row['reward']} (diagnostic)" if row["diagnostic"] else row["reward"]
        for scenario, counts in row["scenarios"].items():
            before, after = ("{}/{}".format(*counts[side]) for side in ("offline_true", "online_true"))
            judged = f"{counts['online_judged']}/{counts['online_true'][1]}"
            p_value = f"{counts['p_value']:.4f}"
            table.add_row(row["connector"], row["recipe"], marked, scenario, before, after, p_value, judged)
    console.print(table)


if __name__ == "__main__":
    main()
