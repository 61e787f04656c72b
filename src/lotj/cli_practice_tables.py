"""The subcommands `lotj tables practice`: practice over connectors and seeds, to be stopped and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from lotj.console import bar, console, each, say
from lotj.experiments.practice_cases import PracticeJob, PracticeTableConfig


def practice(
    run: Path = Path("runs/desk"),
    out: Path = Path("runs/tables/practice"),
    results: Path = Path("results/practice"),
    workers: int = 2,
    validation: bool = False,
    config: Annotated[PracticeTableConfig, tyro.conf.arg(name="")] = PracticeTableConfig(),
) -> None:
    """Practice on several connectors, recipes, rewards and seeds, from one finished offline run.

    One result file a practice; stop it at any time, the same command continues. Rewards of ground-truth are a
    diagnostic and marked so. Example: ``lotj tables practice --run runs/desk --recipes ensemble --rewards learned``

    Args:
        run: a run folder with trained networks; only its cache of frozen features is added to.
        out: folder of the practices.
        results: result files.
        workers: practices at once, one thread each.
        validation: practise validation connectors on purpose, for choosing recipes; marked in every output.
        config: the protocol.
    """
    from lotj.experiments.practice_runs import prepare
    from lotj.experiments.practice_table import practice_table
    from lotj.experiments.reward_table import read_results

    job, cases = PracticeJob(run, out, results, validation), config.cases()
    todo = prepare(cases, job, bar)
    each("practise", _practise, [(case, job) for case in todo], len(cases), workers)
    console.print(practice_table(read_results(results)), markup=False, soft_wrap=True)
    if "ground-truth" in config.rewards:
        console.print("[yellow]Diagnostic: columns of ground-truth practised with ground truth as the reward.[/]")
    say("Next: lotj tables render")


def _practise(task: tuple[Any, PracticeJob]) -> str:
    from lotj.experiments.practice_runs import run_case

    return str(run_case(*task)["case"]["name"])
