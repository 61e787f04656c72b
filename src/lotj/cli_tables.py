"""The subcommands `lotj tables reward|levers|render`: experiments on the reward, to be stopped and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lotj.console import bar, console, each, say
from lotj.distributed import Workers, workers_for
from lotj.experiments.reward_connectors import RewardConnectorsConfig
from lotj.experiments.reward_levers import RewardLeversConfig
from lotj.experiments.reward_runs import RewardCase, RewardTableConfig
from lotj.presets import PRESETS, with_cameras

if TYPE_CHECKING:
    from lotj.collect import CollectConfig
    from lotj.experiments.reward_variants import View

STORED_BYTES = 1.07
"""Of a store for each byte of its images (`results/data.json`)."""

STAGE = with_cameras(PRESETS["desk"], 1).reward
"""The paper's one camera."""
REWARD_TABLE = RewardTableConfig(stage=STAGE)
REWARD_LEVERS = RewardLeversConfig(stage=STAGE)
REWARD_CONNECTORS = RewardConnectorsConfig(stage=STAGE)


def reward(
    out: Path = Path("runs/tables/reward"),
    results: Path = Path("results/reward/table-iv"),
    workers: int = 2,
    ray: str | None = None,
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
        ray: work on Ray instead: local, auto or the address of a cluster, whose nodes share the folders (docs/ray.md).
        trajectories: collected of each connector.
        config: the protocol.
    """
    from lotj.experiments.reward_table import read_results, table_iv

    _run_all(config.cases(), out, results, workers_for(workers, ray), trajectories)
    console.print(table_iv(read_results(results)), markup=False, soft_wrap=True)
    say("Next: lotj tables render")


def levers(
    out: Path = Path("runs/tables/reward"),
    results: Path = Path("results/reward/levers"),
    workers: int = 2,
    ray: str | None = None,
    trajectories: int = 80,
    config: Annotated[RewardLeversConfig, tyro.conf.arg(name="")] = REWARD_LEVERS,
) -> None:
    """What makes the reward hold on unseen connectors: one change at a time, on the draws of Table IV.

    Shares its data with ``lotj tables reward``. Example: ``lotj tables levers --levers base shift-8 --seeds 0``

    Args:
        out: data and training runs.
        results: result files.
        workers: networks trained at once, one thread each.
        ray: work on Ray instead: local, auto or the address of a cluster, whose nodes share the folders (docs/ray.md).
        trajectories: collected of each connector.
        config: which changes, on which draws.
    """
    from lotj.experiments.reward_levers import levers_table
    from lotj.experiments.reward_table import read_results

    _run_all(config.cases(), out, results, workers_for(workers, ray), trajectories)
    console.print(levers_table(read_results(results)), markup=False, soft_wrap=True)
    say("Next: lotj tables render")


def connectors(
    out: Path = Path("runs/tables/reward"),
    results: Path = Path("results/reward/connectors"),
    workers: int = 2,
    ray: str | None = None,
    trajectories: int = 80,
    config: Annotated[RewardConnectorsConfig, tyro.conf.arg(name="")] = REWARD_CONNECTORS,
) -> None:
    """How the reward's accuracy on unseen connectors depends on how many it trained on, at a fixed amount of data.

    Scores the connectors of Table IV's draws, on the data of ``lotj tables reward``; trains on data of its own, for the
    sizes and seeds that are asked for (others need another folder). One result file a network; stop it at any time, the
    same command continues. Example: ``lotj tables connectors --sizes 10 25 50 --seeds 0``

    Args:
        out: data and training runs.
        results: result files.
        workers: networks trained at once, one thread each.
        ray: work on Ray instead: local, auto or the address of a cluster, whose nodes share the folders (docs/ray.md).
        trajectories: collected of each validation and held-out connector.
        config: how many training connectors, on which draws.
    """
    from lotj.collect import CollectConfig
    from lotj.experiments.reward_connectors import demand
    from lotj.experiments.reward_curve import connectors_table
    from lotj.experiments.reward_table import read_results
    from lotj.speed import FRAMES_PER_TRAJECTORY

    say("Generating connectors that the catalogue lacks: a minute for some hundreds")
    cases = config.cases()
    needed, encoder = demand(cases, config.spare), config.stage.model.encoder
    size = encoder.image_size
    gigabytes = sum(needed.values()) * FRAMES_PER_TRAJECTORY * STORED_BYTES * size**2 * 3 * encoder.cameras / 1e9
    say(f"To train on: {sum(needed.values())} trajectories of {len(needed)} connectors, {gigabytes:.1f} GB of disk")
    training = CollectConfig(
        tuple(needed),
        counts=tuple(needed.values()),
        slow=0.15,
        wrong_place=0.15,
        image_size=size,
        cameras=encoder.cameras,
    )
    _run_all(cases, out, results, workers_for(workers, ray), trajectories, training)
    console.print(connectors_table(read_results(results)), markup=False, soft_wrap=True)
    say("Next: lotj tables render")


def render(results: Path = Path("results"), docs: Path = Path("docs"), check: bool = False) -> None:
    """Write the tables and pictures in the documentation anew from the result files.

    Example: ``lotj tables render --check``

    Args:
        results: folder of result files.
        docs: folder of the documentation; tables stand between ``<!-- table NAME -->`` and ``<!-- end -->``.
        check: change nothing; fail if a table is not what the results say. Pictures are not compared.
    """
    from lotj.experiments.render import draw_pictures, stale_tables

    for place in [] if check else draw_pictures(results, docs):
        say(f"drawn: {place}")
    stale = stale_tables(results, docs, write=not check)
    for place in stale:
        say(f"{'differs' if check else 'written'}: {place}")
    if check and stale:
        raise ValueError(f"{len(stale)} tables differ from the results; run `lotj tables render` and commit")
    if not stale:
        say("All tables say what the results say.")


def _run_all(
    cases: list[RewardCase],
    out: Path,
    results: Path,
    workers: Workers,
    trajectories: int,
    training: CollectConfig | None = None,
) -> None:
    """Collect what all draws need, then train and score the cases that have no result yet.

    ``training`` is a collection of the training connectors, where they need one of their own.
    """
    from lotj.collect import collect
    from lotj.experiments.cases import unfinished

    todo, own = unfinished(cases, results), out / f"{results.name}.sqlite"
    stores = {view: _collect(view, out, workers, trajectories) for view in {c.view for c in todo}}
    if training is not None and todo:
        with bar("collect to train on") as tick:
            collect(training, own, workers=workers, progress=tick)
    runs = out / results.name
    tasks = [(case, stores[case.view], runs, results, own if training else None) for case in todo]
    each("train and score", _run, tasks, len(cases), workers, (out, results))


def _collect(view: View, out: Path, workers: Workers, trajectories: int) -> Path:
    """The trajectories of all connectors that can be drawn, as a view shows them."""
    from lotj.collect import CollectConfig, collect
    from lotj.experiments.reward_runs import drawable_connectors
    from lotj.experiments.reward_variants import derive_store

    pixels, cameras, two = view.collected_px, view.cameras, "-two" * (view.cameras > 1)
    usual = (pixels, cameras) == (PRESETS["desk"].image_size, 1)
    store = out / ("trajectories.sqlite" if usual else f"trajectories-{pixels}{two}.sqlite")
    names = tuple(drawable_connectors())
    config = CollectConfig(names, trajectories, slow=0.15, wrong_place=0.15, image_size=pixels, cameras=cameras)
    with bar("collect" if usual else f"collect at {pixels} px, {cameras} camera(s)") as tick:
        collect(config, store, workers=workers, progress=tick)
    if view.is_as_collected:
        return store
    derived = out / f"trajectories-{pixels}-{view.px}{two}{'-before' * view.before}.sqlite"
    with bar("cut and pair pictures") as tick:
        derive_store(store, derived, view, tick)
    return derived


def _run(task: tuple[RewardCase, Path, Path, Path, Path | None]) -> str:
    """One case in a process of its own."""
    import torch

    from lotj.experiments.reward_runs import run_case

    torch.set_num_threads(1)
    case, store, runs, results, training = task
    run_case(case, store, runs, results, training_path=training)
    return case.name
