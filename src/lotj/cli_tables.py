"""The subcommands `lotj tables reward|levers|render`: experiments on the reward, to be stopped and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from lotj.console import bar, console, each, say
from lotj.experiments.reward_levers import RewardLeversConfig
from lotj.experiments.reward_runs import RewardCase, RewardTableConfig
from lotj.presets import PRESETS

REWARD_TABLE = RewardTableConfig(stage=PRESETS["desk"].reward)
REWARD_LEVERS = RewardLeversConfig(stage=PRESETS["desk"].reward)


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
    from lotj.experiments.reward_table import read_results, table_iv

    _run_all(config.cases(), out, results, workers, trajectories)
    console.print(table_iv(read_results(results)), markup=False, soft_wrap=True)
    say("Next: lotj tables render")


def levers(
    out: Path = Path("runs/tables/reward"),
    results: Path = Path("results/reward/levers"),
    workers: int = 2,
    trajectories: int = 80,
    config: Annotated[RewardLeversConfig, tyro.conf.arg(name="")] = REWARD_LEVERS,
) -> None:
    """What makes the reward hold on unseen connectors: one change at a time, on the draws of Table IV.

    Shares its data with ``lotj tables reward``. Example: ``lotj tables levers --levers base shift-8 --seeds 0``

    Args:
        out: data and training runs.
        results: result files.
        workers: networks trained at once, one thread each.
        trajectories: collected of each connector.
        config: which changes, on which draws.
    """
    from lotj.experiments.reward_levers import levers_table
    from lotj.experiments.reward_table import read_results

    _run_all(config.cases(), out, results, workers, trajectories)
    console.print(levers_table(read_results(results)), markup=False, soft_wrap=True)
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


def _run_all(cases: list[RewardCase], out: Path, results: Path, workers: int, trajectories: int) -> None:
    """Collect what all draws need, then train and score the cases that have no result yet."""
    from lotj.collect import CollectConfig, collect
    from lotj.experiments.reward_runs import drawable_connectors

    store = out / "trajectories.sqlite"
    size = cases[0].stage.model.encoder.image_size
    everything = CollectConfig(tuple(drawable_connectors()), trajectories, slow=0.15, wrong_place=0.15, image_size=size)
    with bar("collect") as tick:
        collect(everything, store, workers=workers, progress=tick)
    todo = [case for case in cases if not (results / f"{case.name}.json").exists()]
    runs = out / results.name
    each("train and score", _run, [(case, store, runs, results) for case in todo], len(cases), workers)


def _run(task: tuple[RewardCase, Path, Path, Path]) -> str:
    """One case in a process of its own."""
    import torch

    from lotj.experiments.reward_runs import run_case

    torch.set_num_threads(1)
    case, store, runs, results = task
    run_case(case, store, runs, results)
    return case.name
