"""The same tasks on Ray: two nodes of one CPU each on this machine, results as from a local run, killed or not."""

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import ray
import torch
from ray._common.usage import usage_lib
from ray.cluster_utils import Cluster
from ray_tasks import (
    Named,
    always_die,
    cwd,
    die_once,
    dying,
    fail,
    fail_pickily,
    hold,
    hold_all_but_first,
    square,
    where,
)

from lotj import cli, distributed, fleet
from lotj import collect as collecting
from lotj.checkpoint import load_state
from lotj.collect import CollectConfig, collect
from lotj.data.store import TrajectoryStore
from lotj.demo import Places, practise_in
from lotj.distributed import (
    ClusterError,
    NotSharedError,
    OtherVersionError,
    RayCluster,
    TaskKilledError,
    in_workers,
    workers_for,
)
from lotj.fleet import Cells
from lotj.judge import SuccessRule
from lotj.presets import load_preset
from lotj.run import read_metrics
from lotj.stages import load_offline, silent_bars, store_path


class Nodes(NamedTuple):
    cluster: Any
    workers: RayCluster


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head of one CPU and a node of one, and this process connected to them."""
    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Workers import the functions of this file.
    patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    cluster = Cluster(initialize_head=True, head_node_args=small)
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    workers = RayCluster(cluster.address)
    distributed.connect(workers)
    try:
        yield Nodes(cluster, workers)
    finally:
        ray.shutdown()
        cluster.shutdown()
        patch.undo()


def content(path: Path) -> list[Any]:
    """All that a store holds, in order."""
    with TrajectoryStore(path) as store:
        return [store.read(i) for i in range(len(store))]


def assert_same_store(first: Path, second: Path) -> None:
    """What they are collections of, and what they hold."""
    with TrajectoryStore(first) as one, TrajectoryStore(second) as two:
        assert one.metadata["collect"] == two.metadata["collect"] and one.counts == two.counts
    assert_same_content(first, second)


def assert_same_content(first: Path, second: Path) -> None:
    left, right = content(first), content(second)
    assert len(left) == len(right) > 0
    for a, b in zip(left, right):
        for name in a.__dataclass_fields__:
            one, two = getattr(a, name), getattr(b, name)
            if isinstance(one, dict):
                assert one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)
            else:
                assert np.array_equal(one, two), name


def test_results_come_in_order_from_both_nodes(nodes: Nodes, tmp_path: Path) -> None:
    """The result is that of map, and the work is on all nodes."""
    assert list(in_workers(square, range(9), nodes.workers)) == [number**2 for number in range(9)]
    assert len(set(in_workers(where, [str(tmp_path)] * 2, nodes.workers))) == 2
    assert list(in_workers(square, [], nodes.workers)) == []


def test_collection_is_that_of_one_process(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array of every trajectory, and their order."""
    config = CollectConfig(("usb-a", "rj45"), trajectories=4, slow=0.3, wrong_place=0.3, image_size=32)
    monkeypatch.setattr(collecting, "CHUNK", 1)
    collect(config, tmp_path / "local.sqlite", workers=1)
    collect(config, tmp_path / "ray.sqlite", workers=nodes.workers)
    assert_same_store(tmp_path / "local.sqlite", tmp_path / "ray.sqlite")


def test_a_killed_worker_costs_its_task_only(nodes: Nodes, tmp_path: Path) -> None:
    """The task is run again, the others are not touched."""
    tasks = [Named(name, str(tmp_path)) for name in "abcd"]
    assert list(in_workers(die_once, tasks, nodes.workers)) == list("abcd")
    assert (tmp_path / "b-died").exists()


def test_a_task_that_always_kills_is_named(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is run again so many times and not for ever; the error names it and what to do."""
    monkeypatch.setattr(distributed, "RETRIES", 1)
    with pytest.raises(TaskKilledError, match=r"always_die of the-big-one: 2 workers.*repeat the same command"):
        list(in_workers(always_die, [Named("the-big-one", str(tmp_path))], nodes.workers))
    assert (tmp_path / "deaths").read_text() == "xx"


def test_an_error_of_a_task_is_raised_here_by_name(nodes: Nodes, tmp_path: Path) -> None:
    """With its type and words and the task's name, after one call."""
    with pytest.raises(KeyError, match="no such connector in usb-a") as raised:
        list(in_workers(fail, [Named("usb-a", str(tmp_path))], nodes.workers))
    assert raised.value.__notes__[0].startswith("raised by fail of usb-a, on Ray node ")
    assert (tmp_path / "calls").read_text() == "x"
    with pytest.raises(RuntimeError, match="PickyError: 3 frames are missing"):
        list(in_workers(fail_pickily, [3], nodes.workers))


def test_the_command_line_tells_the_name_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Notes of an error are printed with it."""

    def failing(*_: Any, **__: Any) -> None:
        error = ValueError("too few frames")
        error.add_note("raised by run_case of erm-s0, on Ray node 10.0.0.7")
        raise error

    monkeypatch.setattr("lotj.stages.collect_stage", failing)
    monkeypatch.setattr(cli, "_print_estimate", lambda *_: None)
    with pytest.raises(SystemExit):
        cli.main(["collect", "--run", str(tmp_path / "run"), "--ray", "local", "debug"])
    told = capsys.readouterr().err
    assert "too few frames\nraised by run_case of erm-s0, on Ray node 10.0.0.7" in told


def test_the_documented_collection_runs(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/ray.md's command on debug, on the cluster that this process is connected to, and again: nothing is left."""
    text = (Path(__file__).parent.parent / "docs/ray.md").read_text()
    (command,) = [
        line.split()[1:] for line in text.splitlines() if line.startswith("lotj") and "--ray local debug" in line
    ]
    monkeypatch.setattr(cli, "_print_estimate", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    small = ["--known", "usb-a", "rj45", "--trajectories", "2"]
    cli.main([*command, *small])
    cli.main([*command, *small])
    with TrajectoryStore(tmp_path / "runs/debug/data/trajectories.sqlite") as store:
        assert len(store) == 4


def test_other_versions_are_refused(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node with other code does nothing; the error names what differs, both versions and the remedy."""
    held = distributed.fingerprint()
    code = held["lotj"]
    monkeypatch.setattr(distributed, "fingerprint", lambda: {**held, "lotj": "9.9.9 (code 0)", "torch": "1.0"})
    with pytest.raises(OtherVersionError) as refused:
        list(in_workers(fail, [Named("a", str(tmp_path))], nodes.workers))
    told = str(refused.value)
    assert f"lotj is {code} there and 9.9.9 (code 0) here" in told and "torch is" in told and "numpy" not in told
    assert "Install the same" in told and not (tmp_path / "calls").exists()


def test_a_folder_that_is_not_shared_is_refused(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that sees another folder under that name would leave results where nobody looks for them."""
    assert list(in_workers(square, [3], nodes.workers, shared=[tmp_path / "new"])) == [9]
    assert list((tmp_path / "new").iterdir()) == []  # nothing is left behind
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda self: None if ".seen" in self.name else touch(self))
    with pytest.raises(NotSharedError, match=rf"does not see {tmp_path / 'new'}.*that all nodes share"):
        list(in_workers(square, [3], nodes.workers, shared=[tmp_path / "new"]))


def test_relative_paths_are_those_of_the_asking_process(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker stands where the asking process stands now, wherever it was started."""
    monkeypatch.chdir(tmp_path)
    assert list(in_workers(cwd, [0], nodes.workers)) == [str(tmp_path)]


def test_closing_ends_the_work(nodes: Nodes, tmp_path: Path) -> None:
    """Tasks that nobody waits for are ended, and the cluster is free for others."""
    results = in_workers(hold_all_but_first, [Named(name, str(tmp_path)) for name in "abcd"], nodes.workers)
    assert next(results) == "a"
    results.close()
    started = time.monotonic()
    assert list(in_workers(square, [1, 2], nodes.workers)) == [1, 4]
    assert time.monotonic() - started < 10


CELLS = ("sawyer-a", "sawyer-b")


def practised(run: Path, preset: Any, out: Path, cells: Cells) -> Path:
    """Practise what the tiny run never saw, in a folder of the test's own."""
    out.mkdir()
    preset = replace(preset, evaluate=replace(preset.evaluate, trials=1, scenarios=("I",)))
    recipe = preset.practice
    recipe = replace(recipe, practice=replace(recipe.practice, trials=5, warmup_trials=1)).resolved("learned")
    offline = replace(load_offline(run, preset.split()), rule=SuccessRule(0.3, 1))
    places = Places(store_path(run), out.parent / "features.safetensors", out)
    practise_in(places, preset, offline, "nema-5-15", recipe, 0, silent_bars, cells=cells)
    return out


def assert_same_practice(one: Path, two: Path) -> None:
    """Trials, stored frames, metrics but for the time, weights, optimizer and evaluation are the same bits."""
    for name in ("trials.jsonl", "evaluation-after.json"):
        assert (one / name).read_text() == (two / name).read_text(), name
    rows = [[{**row, "seconds": 0} for row in read_metrics(folder)] for folder in (one, two)]
    assert rows[0] == rows[1] and len(rows[0]) == 6
    assert_same_content(one / "online.sqlite", two / "online.sqlite")
    left, right = (load_state(folder / "checkpoint.safetensors") for folder in (one, two))
    assert same(left, right)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else bool(one == two)


def test_two_cells_feed_one_learner_the_same_way_anywhere(
    nodes: Nodes, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn in this process, or each in its own on Ray with one of them killed in the middle: the same bits; and
    trials alternate between the robots."""
    preset = load_preset(tiny_run)
    local = practised(tiny_run, preset, tmp_path / "local", Cells(CELLS))
    monkeypatch.setattr(fleet, "RayFleet", functools.partial(DyingFleet, marker=tmp_path / "died"))
    monkeypatch.setattr("lotj.open_fleet.RayFleet", fleet.RayFleet)
    there = practised(tiny_run, preset, tmp_path / "ray", Cells(CELLS, nodes.workers))
    assert (tmp_path / "died").exists()
    assert_same_practice(local, there)
    with TrajectoryStore(local / "online.sqlite") as store:
        assert store.index.robot.tolist() == [*CELLS, *CELLS, CELLS[0]]
    config = json.loads((there / "config.json").read_text())["config"]
    assert config["cells"] == list(CELLS) and config["robot"] == preset.robot


class DyingFleet(fleet.RayFleet):
    """Its last cell's process is ended in its first trial."""

    def __init__(self, builders: Any, names: Any, cluster: Any, marker: Path) -> None:
        super().__init__([*builders[:-1], functools.partial(dying, builders[-1], marker)], names, cluster)


def test_more_cells_than_cpus_are_refused(nodes: Nodes) -> None:
    """They would wait for ever; the error names them and what there is."""
    with pytest.raises(ClusterError, match=r"a, b, c want a CPU each, the Ray cluster has 2"):
        fleet.RayFleet([dict] * 3, ["a", "b", "c"], nodes.workers)  # type: ignore[list-item]


def test_an_error_in_a_cell_names_it(nodes: Nodes) -> None:
    """With its type and words, whether it comes from building the cell or from a trial."""
    with fleet.RayFleet([functools.partial(fail, Named("b", "/nowhere"))], ["sawyer-b"], nodes.workers) as cells:
        with pytest.raises(FileNotFoundError, match="/nowhere") as raised:
            cells.roll(Weightless(), [None])  # type: ignore[arg-type, list-item]
        assert raised.value.__notes__[0].startswith("raised by roll_with of sawyer-b, on Ray node ")


class Weightless:
    def state_dict(self) -> dict[str, Any]:
        return {}


def test_a_killed_node_costs_its_tasks_only(nodes: Nodes, tmp_path: Path) -> None:
    """The node with a task in the middle dies: the task is run again on the other. Runs last: a node is gone."""
    outcome: list[str] = []
    tasks = [Named(name, str(tmp_path)) for name in "abcd"]
    thread = threading.Thread(target=lambda: outcome.extend(in_workers(hold, tasks, nodes.workers)))
    thread.start()
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("?-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = {path.name.partition("-")[2]: path for path in tmp_path.glob("?-*")}
    lost = next(node for node in nodes.cluster.list_all_nodes() if node is not nodes.cluster.head_node)
    assert len(begun) == 2 and lost.node_id in begun  # a task on each node
    killed, pid = begun[lost.node_id].name[0], int(begun[lost.node_id].read_text())
    nodes.cluster.remove_node(lost, allow_graceful=False)
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)  # the worker goes with its node; until then it might still finish
    (tmp_path / "go").touch()
    thread.join(60)
    assert outcome == list("abcd")
    assert len(list(tmp_path.glob(f"{killed}-*"))) == 2  # begun on both nodes
    assert all(len(list(tmp_path.glob(f"{name}-*"))) == 1 for name in set("abcd") - {killed})


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that mends it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install -e '.\[ray\]'"):
        list(in_workers(square, [1], RayCluster()))


def test_the_flag_chooses_where() -> None:
    """Without --ray, processes; with it a cluster, whose local one has as many CPUs as --workers says."""
    assert workers_for(3, None) == 3
    assert workers_for(3, "local") == RayCluster("local", 3)
    assert list(in_workers(square, [1, 2], workers_for(1, None))) == [1, 4]
    with pytest.raises(ValueError, match="address is empty"):
        workers_for(1, "")


def test_no_cluster_is_told(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that does not answer, and what to do."""

    def refuse(**_: Any) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ClusterError, match=r"'10.0.0.1:6379' \(nobody there\).*ray start --head"):
        distributed.connect(RayCluster("10.0.0.1:6379"))


def test_usage_statistics_are_off(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told to anybody outside the cluster, unless somebody has said so."""
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    distributed.connect(nodes.workers)
    assert not usage_lib.usage_stats_enabled()
