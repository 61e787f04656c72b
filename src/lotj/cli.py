"""The command line: the only place that prints."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lotj import cli_data, cli_exchange, cli_practice_tables, cli_tables
from lotj.console import bar, console, say
from lotj.parallel import WorkerKilledError
from lotj.presets import PRESETS, Preset, estimate, load_preset
from lotj.sim import GraphicsError

DESCRIPTION = """A robot that knows many connectors learns a new one on the job: it practises and rewards itself.

    lotj demo          the whole job, at a size for two CPU cores
    lotj demo debug    the same in a minute, to see that everything works"""

CORES = os.cpu_count() or 1

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
    workers: int = CORES,
    result: Path | None = None,
    diagnostic: bool = True,
    preset: PresetChoice = PRESETS["desk"],  # type: ignore[valid-type]
) -> None:
    """Do the whole job: collect, train, practise a novel connector, evaluate before and after, report.

    Stages that are done are reused; interrupt it and repeat the command to continue. Example: ``lotj demo debug``

    Args:
        out: run folder; runs/<preset> by default.
        workers: processes that collect; as many as there are cores by default.
        result: also write stages, seconds and counts to this JSON file.
        diagnostic: practise once more with ground truth as the reward, to see what the recipe could do.
        preset: size of the job, with every setting.
    """
    from lotj import demo as job
    from lotj.outcome import Clock
    from lotj.outcome import result as outcome_of

    chosen: Preset = preset
    run_root = _claim(out or Path("runs") / chosen.name, chosen)
    _print_estimate(chosen, workers)
    clock = Clock(run_root / "seconds.json")
    known = chosen.split()
    job.collect_stage(chosen, run_root, workers, bar)
    clock.lap("collect")
    job.train_all(chosen, run_root, known, bar)
    clock.lap("train")
    folders = []
    for connector in chosen.practise_on:
        if diagnostic:
            folders += job.practise_both(chosen, run_root, known, connector, bar, _print_preflight)
        else:
            out_dir = job.practice_stage(
                chosen, run_root, known, connector, "learned", bar, force=True, answered=_print_preflight
            )
            folders.append(out_dir)
        clock.lap(f"practise {connector}")
    job.report_stage(chosen, run_root, known, folders)
    clock.lap("report")
    outcome = outcome_of(chosen, run_root, folders, clock.seconds)
    if result is not None:
        from lotj.files import write_json

        result.parent.mkdir(parents=True, exist_ok=True)
        write_json(result, outcome)
    _print_outcome(outcome)
    say(f"\nReport: {run_root / 'report.html'}   (open it in a browser)")
    say(f"Next:   lotj practice --run {run_root} --connector europlug")


def collect(
    run: Path | None = None,
    workers: int = CORES,
    preset: PresetChoice = PRESETS["desk"],  # type: ignore[valid-type]
) -> None:
    """Collect trajectories of known connectors with the scripted expert.

    Any set of connectors will do; training needs several. Example: ``lotj collect --run runs/mine debug --known usb-a``

    Args:
        run: run folder; runs/<preset> by default.
        workers: processes; as many as there are cores by default.
        preset: size of the job, with every setting.
    """
    from lotj import demo as job

    chosen: Preset = preset
    run_root = _claim(run or Path("runs") / chosen.name, chosen)
    _print_estimate(chosen, workers)
    collected = job.collect_stage(chosen, run_root, workers, bar)
    lost = ", ".join(f"{name} {count}" for name, count in sorted(collected.dislodged.items())) or "none"
    say(
        f"{collected.trajectories} trajectories, {collected.frames} frames, {collected.successes} successes; "
        f"dislodged and discarded: {lost}"
    )
    say(f"Next: lotj data validate {job.store_path(run_root)}   or   lotj train --run {run_root}")


def train(run: Path, stage: Literal["all", "reward", "critic", "policy"] = "all") -> None:
    """Train reward model, critic and policy on what a run has collected.

    Example: ``lotj train --run runs/desk``

    Args:
        run: run folder.
        stage: one of them, or all that are not done.
    """
    from lotj import demo as job

    preset = load_preset(run)
    known = preset.split()
    if stage == "all":
        job.train_all(preset, run, known, bar)
    else:
        job.train_stage(preset, run, known, bar, (stage,))
    say(f"Next: lotj practice --run {run} --connector {preset.practise_on[0]}")


def practice(
    run: Path,
    connector: str,
    reward: Literal["learned", "ground-truth"] = "learned",
    recipe: Literal["ensemble", "iql"] | None = None,
    trials: int | None = None,
    scenario: Literal["I", "II", "mixed"] | None = None,
    seed: int | None = None,
    validation: bool = False,
    guard: Literal["off", "alarm", "gate"] | None = None,
    audit: bool = False,
    force: bool = False,
) -> None:
    """Practise a connector that offline training never saw.

    Example: ``lotj practice --run runs/desk --connector europlug --guard alarm``

    Args:
        run: run folder with trained networks.
        connector: a name of the catalogue or a TOML file.
        reward: learned (the robot rewards itself), or ground-truth: a diagnostic, marked so in every output.
        recipe: iql is the paper's, ensemble is ours; the preset's by default.
        trials: number of trials; the preset's by default.
        scenario: where trials start; the preset's by default.
        seed: of the practice; the preset's by default.
        validation: practise a validation connector on purpose, for choosing recipes; marked in every output.
        guard: after each success that the robot claims, tug at the plug. alarm quarantines what the tug refutes and
            pauses when it becomes much; gate does not pay it and goes on; off is the paper's method.
        audit: label the trials that a paused practice quarantined: shows their frames, takes y or n.
        force: practise although the reward took blind presses beside the socket for successes.
    """
    from dataclasses import replace

    from lotj import cli_guard
    from lotj import demo as job
    from lotj.outcome import result as outcome_of
    from lotj.practice import PracticePaused
    from lotj.preflight import NotTrustedError

    preset = load_preset(run)
    known = preset.split()
    config = preset.practice
    changes = {k: v for k, v in {"trials": trials, "scenario": scenario}.items() if v is not None}
    inner = replace(config.practice, **changes)  # type: ignore[arg-type]
    if guard is not None:
        inner = replace(inner, guard=replace(inner.guard, mode=guard))
    config = replace(config, practice=inner, recipe=recipe or config.recipe)
    again = cli_guard.command(run, connector, guard, recipe, trials, scenario, seed, validation)
    chosen_seed = preset.seed if seed is None else seed
    if audit:
        cli_guard.audit(job.practice_dir(run, connector, config.recipe, reward, chosen_seed, inner.guard.mode))
        say(f"Next: {again}")
        return
    if reward == "ground-truth":
        console.print("[yellow]Diagnostic: practising with ground truth as the reward.[/]")
    try:
        out = job.practice_stage(
            preset, run, known, connector, reward, bar, config, seed, validation, force, _print_preflight
        )
    except NotTrustedError as refused:
        console.print(f"[yellow]No-go: {escape(str(refused))}[/]", soft_wrap=True)
        say(f"Next: {again} --force   (better with --guard alarm), or train on connectors that look more like it")
        raise SystemExit(3) from refused
    except PracticePaused as paused:
        console.print(f"[yellow]{escape(str(paused))}[/]", soft_wrap=True)
        say(f"Next: {again} --audit")
        raise SystemExit(3) from paused
    outcome = outcome_of(preset, run, [out], {})
    _print_outcome(outcome)
    say(f"Next: lotj report --run {run}")


def redteam(run: Path, trials: int = 40, seed: int = 0, workers: int = CORES) -> None:
    """Attack the reward on training connectors, and train it anew on what the attacks found.

    Rewards of two halves of the training connectors are each practised against on the other half. Practice uses the
    new reward from then on. Takes about as long as the rest of the run again.

    Example: ``lotj redteam --run runs/desk``

    Args:
        run: run folder with trained networks.
        trials: of each training connector.
        seed: of the halves and the attacks.
        workers: processes.
    """
    from contextlib import ExitStack

    from lotj import demo as job
    from lotj.redteam import RedTeamConfig, red_team

    preset = load_preset(run)
    known = preset.split()
    job.features_stage(preset, run, known, preset.practice, bar)
    with ExitStack() as bars:
        open_bars: dict[str, Any] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in open_bars:  # one bar at a time
                bars.close()
                open_bars.clear()
                open_bars[stage] = bars.enter_context(bar(stage))
            open_bars[stage](done, total)

        attacks = red_team(RedTeamConfig(trials, seed), preset, run, known, job.store_path(run), workers, told)
    claimed, false = sum(a.claimed for a in attacks), sum(a.claimed_falsely for a in attacks)
    say(
        f"{len(attacks)} connectors attacked: {claimed} successes claimed, {false} of them false; all are learned from."
    )
    say(f"Next: lotj practice --run {run} --connector {preset.practise_on[0]}")


def evaluate(run: Path, connector: str, trials: int = 20, seed: int = 1, practised: Path | None = None) -> None:
    """Evaluate the offline policy, or a practised one against it on the same start states, by ground truth.

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
    from lotj.evaluate import Evaluation, compare

    preset = load_preset(run)
    asked, known = replace(preset, evaluate=replace(preset.evaluate, trials=trials, seed=seed)), preset.split()
    before = job.evaluate_stage(asked, run, known, connector, None, bar)
    _print_evaluation(before, f"{connector}, offline policy, {trials} trials each")
    if practised is None:
        return
    after = job.evaluate_stage(asked, run, known, connector, practised, bar)
    marks = _marks(after["policy"])
    _print_evaluation(after, f"{connector}, {practised.name}{marks}, {trials} trials each")
    table = Table(
        "scenario", "before", "95% interval", "after", "95% interval", "p (Barnard)", title=f"True success{marks}"
    )
    for row in compare(Evaluation.from_json(before), Evaluation.from_json(after)):
        cells: list[str] = []
        for side, interval in ((row.before, row.before_interval), (row.after, row.after_interval)):
            cells += [f"{side.successes}/{side.trials}", f"{interval.low:.0%} - {interval.high:.0%}"]
        table.add_row(row.scenario, *cells, f"{row.p_value:.4f}")
    console.print(table)
    if after["policy"]["diagnostic"]:
        console.print("[yellow]Diagnostic: this policy practised with ground truth as the reward.[/]")


def report(run: Path) -> None:
    """Write one HTML page about all practices of a run.

    Example: ``lotj report --run runs/desk``

    Args:
        run: run folder.
    """
    from lotj import demo as job

    preset = load_preset(run)
    folders = sorted(path.parent for path in (run / "practice").glob("*/*/config.json"))
    job.report_stage(preset, run, preset.split(), folders)
    say(f"Report: {run / 'report.html'}   (open it in a browser)")


COMMANDS: dict[str, Any] = {
    "demo": demo,
    "connectors": cli_data.connectors,
    "connectors generate": cli_data.generate,
    "collect": collect,
    "data validate": cli_data.validate,
    "data import": cli_exchange.import_data,
    "data export": cli_exchange.export_data,
    "train": train,
    "redteam": redteam,
    "practice": practice,
    "evaluate": evaluate,
    "report": report,
    "tables reward": cli_tables.reward,
    "tables levers": cli_tables.levers,
    "tables connectors": cli_tables.connectors,
    "tables practice": cli_practice_tables.practice,
    "tables ablation": cli_practice_tables.ablation,
    "tables render": cli_tables.render,
}
"""By what is typed: one word or two."""


MENDABLE = (ValueError, OSError, sqlite3.Error, FloatingPointError, GraphicsError, WorkerKilledError)
"""Errors that tell a user what to do; all others are defects of lotj and come with their traceback."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors that a user can mend come without a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    if " ".join(given[:2]) in COMMANDS:
        given = ["-".join(given[:2]), *given[2:]]
    commands = {name.replace(" ", "-"): function for name, function in COMMANDS.items()}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="lotj", description=DESCRIPTION, args=given)
    except MENDABLE as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        Console(stderr=True).print("\nInterrupted; repeat the same command to continue.")
        raise SystemExit(130) from error


def _claim(run_root: Path, preset: Preset) -> Path:
    """Mark a run folder as this preset's, or refuse one of another."""
    from lotj.files import to_json, write_json
    from lotj.run import RunMismatchError

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


def _print_estimate(preset: Preset, workers: int) -> None:
    from lotj.speed import measure

    expected = estimate(preset, measure(preset), workers)
    minutes = expected.total_minutes
    time = "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"
    if minutes > 300:
        time = f"about {minutes / 60:.0f} hours"
    stages = ", ".join(f"{stage} {minutes:.1f}" for stage, minutes in expected.minutes.items())
    say(
        f"{preset.name}: on this machine the whole job takes {time} ({stages}), "
        f"{expected.memory_gb:.1f} GB of memory, {expected.disk_gb:.1f} GB of disk"
    )


def _print_preflight(answer: Mapping[str, Any]) -> None:
    """Go or no-go, why, and what the connector looks like."""
    if not answer["presses"]:
        return
    low, high = answer["interval"]
    colour, word = ("green", "Go") if answer["go"] else ("yellow", "No-go")
    console.print(f"[{colour}]{word}:[/] {escape(answer['reason'])}", soft_wrap=True)
    recall = f", recall on validation connectors {answer['recall']:.0%}" if answer["recall"] is not None else ""
    say(f"  false successes on such states: {low:.0%} - {high:.0%} (95%){recall}")
    alike = ", ".join(f"{row['connector']} ({row['family']}, {row['distance']:.2f})" for row in answer["nearest"])
    say(f"  looks most like: {alike}")


def _print_outcome(outcome: dict[str, Any]) -> None:
    table = Table(
        "connector", "recipe", "reward", "scenario", "before", "after", "p", "judged after", title="True success"
    )
    for row in outcome["practices"]:
        marked, name = row["reward"] + _marks(row, "diagnostic"), row["connector"] + _marks(row, "validation")
        marked += ", red-teamed" if row["red_teamed"] else ""
        marked += f", guard {row['guard']}" if row["guard"] != "off" else ""
        for scenario, counts in row["scenarios"].items():
            before, after = ("{}/{}".format(*counts[side]) for side in ("offline_true", "online_true"))
            judged = f"{counts['online_judged']}/{counts['online_true'][1]}"
            p_value = f"{counts['p_value']:.4f}"
            table.add_row(name, row["recipe"], marked, scenario, before, after, p_value, judged)
    console.print(table)


def _print_evaluation(evaluation: dict[str, Any], title: str) -> None:
    table = Table("scenario", "rewarded", "judged", "true", "95% interval of true", title=title)
    for name, row in evaluation["summary"].items():
        low, high = row["true_interval"]
        cells = [f"{row[column]}/{row['trials']}" for column in ("rewarded", "judged", "true")]
        table.add_row(name, *cells, f"{low:.0%} - {high:.0%}")
    console.print(table)


def _marks(row: dict[str, Any], *kinds: str) -> str:
    """What must be said wherever a practice is named."""
    return "".join(f" ({kind})" for kind in kinds or ("diagnostic", "validation") if row.get(kind))


if __name__ == "__main__":
    main()
