"""The subcommands `lotj tables ...`: the paper's tables as experiments that can be stopped and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from lotj.console import bar, console, say
from lotj.experiments.reward_runs import RewardCase, RewardTableConfig
from lotj.presets import PRESETS

REWARD_TABLE = RewardTableConfig(stage=PRESETS["desk"].reward)


def reward(
    out: Path = Path("runs/tables/reward"),
    results: Path = Path("results/reward/table-iv"),
    workers: int = 2,
    trajectories: int = 80,
    config: Annotated[RewardTableConfig, tyro.conf.arg(name="")] = REWARD_TABLE,
) -> None:
    """Table IV: reward classification on connectors that training never saw, for five methods.

    One result file a network; stop it at any time, the same command continues.
    Example: ``lotj tables reward --seeds 0 1 --methods erm daib``

    Args:
        out: data and training runs.
        results: result files.
        workers: networks trained at once, one thread each.
        trajectories: collected of each connector.
        config: the protocol.
    """
    from lotj.collect import CollectConfig, collect
    from lotj.experiments.reward_runs import drawable_connectors
    from lotj.parallel import in_processes

    cases = config.cases()
    store = out / "trajectories.sqlite"
    names = tuple(drawable_connectors())
    size = config.stage.model.encoder.image_size
    with bar("collect") as tick:
        collected = CollectConfig(names, trajectories, slow=0.15, wrong_place=0.15, image_size=size)
        collect(collected, store, workers=workers, progress=tick)
    todo = [case for case in cases if not (results / f"{case.name}.json").exists()]
    with bar("train and score") as tick:
        done = len(cases) - len(todo)
        tick(done, len(cases))
        for name in in_processes(_run, [(case, store, out / "runs", results) for case in todo], workers):
            done += 1
            tick(done, len(cases), name)
    _print_table(results)
    say("Next: lotj tables render")


def render(results: Path = Path("results"), docs: Path = Path("docs"), check: bool = False) -> None:
    """Write the tables in the documentation anew from the result files.

    Example: ``lotj tables render --check``

    Args:
        results: folder of result files.
        docs: folder of the documentation; tables stand between ``<!-- table NAME -->`` and ``<!-- end -->``.
        check: change nothing; fail if a table is not what the results say.
    """
    from lotj.experiments.render import stale_tables

    stale = stale_tables(results, docs, write=not check)
    for place in stale:
        say(f"{'differs' if check else 'written'}: {place}")
    if check and stale:
        raise ValueError(f"{len(stale)} tables differ from the results; run `lotj tables render` and commit")
    if not stale:
        say("All tables say what the results say.")


def _run(task: tuple[RewardCase, Path, Path, Path]) -> str:
    """One case in a process of its own."""
    import torch

    from lotj.experiments.reward_runs import run_case

    torch.set_num_threads(1)
    case, store, runs, results = task
    run_case(case, store, runs, results)
    return case.name


def _print_table(results: Path) -> None:
    from lotj.experiments.reward_table import read_results, table_iv

    rows: list[dict[str, Any]] = read_results(results)
    console.print(table_iv(rows), markup=False, soft_wrap=True)
