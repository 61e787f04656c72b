"""The subcommands `lotj tables practice|ablation|export`: practice over connectors and seeds, and its results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lotj.console import bar, console, each, say
from lotj.distributed import workers_for
from lotj.experiments.ablation_cases import AblationCase, AblationConfig, AblationJob
from lotj.experiments.practice_cases import PracticeJob, PracticeTableConfig
from lotj.presets import PRESETS, load_preset, with_cameras


def practice(
    run: Path = Path("runs/desk"),
    out: Path = Path("runs/tables/practice"),
    results: Path = Path("results/practice"),
    workers: int = 2,
    ray: str | None = None,
    validation: bool = False,
    config: Annotated[PracticeTableConfig, tyro.conf.arg(name="")] = PracticeTableConfig(),
) -> None:
    """Practice on several connectors, recipes, rewards and seeds, from one finished offline run.

    One result file a practice; stop it at any time, the same command continues. Rewards of ground-truth are a
    diagnostic and marked so. Example: ``lotj tables practice --run runs/desk --recipes ensemble --rewards learned``

    Other settings of a recipe are tried on connectors drawn at random, which nobody has seen, in a folder apart:
    ``lotj tables practice --recipes ensemble --connectors gen-1-34 --settings ensemble.discount=0.8 --results my/try``

    Args:
        run: a run folder with trained networks; only its cache of frozen features is added to.
        out: folder of the practices.
        results: result files.
        workers: practices at once, one thread each.
        ray: work on Ray instead: local, auto or the address of a cluster, whose nodes share the folders (docs/ray.md).
        validation: practise validation connectors on purpose, for choosing recipes; marked in every output.
        config: the protocol.
    """
    from lotj.experiments.practice_runs import prepare
    from lotj.experiments.practice_table import practice_table
    from lotj.experiments.reward_table import read_results

    job, cases = PracticeJob(run, out, results, validation), config.cases()
    todo = prepare(cases, job, bar)
    shared = (run, out, results)
    each("practise", _practise, [(case, job) for case in todo], len(cases), workers_for(workers, ray), shared)
    console.print(practice_table(read_results(results)), markup=False, soft_wrap=True)
    if "ground-truth" in config.rewards:
        console.print("[yellow]Diagnostic: columns of ground-truth practised with ground truth as the reward.[/]")
    say("Next: lotj tables render")


def ablation(
    out: Path = Path("runs/tables/ablation"),
    results: Path = Path("results/ablation"),
    run: Path | None = None,
    workers: int = 2,
    ray: str | None = None,
    preset: Literal["debug", "desk", "paper"] = "desk",
    cameras: int | None = None,
    validation: bool = False,
    config: Annotated[AblationConfig, tyro.conf.arg(name="")] = AblationConfig(),
) -> None:
    """Table III: practice without DAIB, with DAIB on the reward, and on reward and policy, in scenario II.

    Collects once, trains each network once, practises; stop it at any time, the same command continues.
    Example: ``lotj tables ablation --run runs/desk --seeds 0``

    Args:
        out: data, networks and practices.
        results: result files.
        run: a run folder whose data and finished networks are used where they are the same; never written to.
        workers: trainings or practices at once, one thread each.
        ray: work on Ray instead: local, auto or the address of a cluster, whose nodes share the folders (docs/ray.md).
        preset: size of everything.
        cameras: wrist cameras that the robot sees by; those of ``run`` or else of the preset by default.
        validation: practise validation connectors on purpose, for choosing recipes; marked in every output.
        config: the protocol.
    """
    from lotj.experiments.ablation_nets import ablation_store
    from lotj.experiments.ablation_runs import unencoded, unfinished_cases, untrained
    from lotj.experiments.ablation_table import ablation_table
    from lotj.experiments.reward_table import read_results
    from lotj.stages import collect_stage, roll_out_stage, store_path

    if cameras is None and run is not None and (run / "preset.json").exists():
        cameras = load_preset(run).cameras
    chosen = PRESETS[preset] if cameras is None else with_cameras(PRESETS[preset], cameras)
    job, cases = AblationJob(chosen, out, results, run, validation), config.cases()
    todo = unfinished_cases(cases, job)
    places, shared = workers_for(workers, ray), (out, results, *([] if run is None else [run]))
    if todo:
        if ablation_store(job) == store_path(out):
            collect_stage(job.preset, out, places, bar)
            roll_out_stage(job.preset, out, job.preset.split(), places, bar)
        _tell_lent(todo, job)
        # A policy needs its critic.
        for kinds in (("critic", "reward"), ("policy",)):
            networks = untrained(todo, job, *kinds)
            each(
                f"train {' and '.join(kinds)}", _train, [(net, job) for net in networks], len(networks), places, shared
            )
        frames = unencoded(todo, job)
        each("encode offline frames", _encode, [(case, job) for case in frames], len(frames), places, shared)
    each("practise", _ablate, [(case, job) for case in todo], len(cases), places, shared)
    console.print(ablation_table(read_results(results)), markup=False, soft_wrap=True)
    say("Next: lotj tables render")


def export(
    folder: tyro.conf.Positional[Path],
    to: Literal["csv", "latex", "markdown"] = "latex",
    out: Path | None = None,
    intervals: bool = True,
) -> None:
    """Write result files of `lotj tables practice` or `lotj tables ablation` as a table for a paper or a spreadsheet.

    The best of a line is bold (a column ``best`` in CSV), and so is what Barnard's exact test does not tell from it.
    Example: ``lotj tables export results/practice --to csv --out practice.csv``

    Args:
        folder: folder of result files.
        to: csv, latex (a ``tabular``, needs booktabs) or markdown.
        out: file to write; printed by default.
        intervals: 95% Clopper-Pearson intervals in latex and markdown; csv always has them.
    """
    from lotj.experiments.ablation_table import ablation_rows
    from lotj.experiments.practice_table import practice_rows
    from lotj.experiments.reward_table import read_results
    from lotj.files import write_text
    from lotj.tables import to_csv, to_latex, to_markdown

    results = read_results(folder)
    if not results or any("scenarios" not in result for result in results):
        what = "no result files" if not results else "result files of another experiment"
        raise ValueError(f"{folder} holds {what}; name one of `lotj tables practice` or `lotj tables ablation`")
    if out is not None and out.is_dir():
        raise ValueError(f"--out {out} is a folder, expected a file")
    rows = ablation_rows(results) if "arm" in results[0]["case"] else practice_rows(results)
    text = to_csv(rows) if to == "csv" else (to_latex if to == "latex" else to_markdown)(rows, intervals)
    if out is None:
        sys.stdout.write(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    say(f"Written: {out}")


def _tell_lent(cases: Sequence[AblationCase], job: AblationJob) -> None:
    """What is used of the donor."""
    from lotj.experiments.ablation_nets import ablation_store
    from lotj.experiments.ablation_runs import lent
    from lotj.stages import store_path

    if job.donor is None:
        return
    if ablation_store(job) != store_path(job.donor):
        say(f"{job.donor} has other data than preset {job.preset.name!r}: everything is collected and trained anew")
        return
    names = ", ".join(f"{network.name} (seed {network.seed})" for network in lent(cases, job))
    say(f"From {job.donor}: its data; networks: {names or 'none, their settings or seeds differ'}")


def _practise(task: tuple[Any, PracticeJob]) -> str:
    from lotj.experiments.practice_runs import run_case

    return str(run_case(*task)["case"]["name"])


def _train(task: tuple[Any, AblationJob]) -> str:
    from lotj.experiments.ablation_nets import train_network

    network, job = task
    train_network(network, job)
    return f"{network.name}, seed {network.seed}"


def _encode(task: tuple[Any, AblationJob]) -> str:
    from lotj.experiments.ablation_runs import encode

    encode(*task)
    return str(task[0].name)


def _ablate(task: tuple[Any, AblationJob]) -> str:
    from lotj.experiments.ablation_runs import run_case

    return str(run_case(*task)["case"]["name"])
