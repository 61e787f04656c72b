"""``docs/ray.md``: its commands run, small, as far as one machine allows, and its tables are those of a local run.

``--ray local`` is what the page says. ``auto`` and an address are a cluster of two nodes on this machine. What the page
types to start one, ``ray start``, is left out: it wants machines of their own, and ``ray stop`` would end every Ray of
this one. ``lotj collect --ray local debug`` runs in ``test_distributed.py``.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from test_docs import ROOT, commands

from lotj import cli
from lotj.data.store import TrajectoryStore
from lotj.experiments import reward_runs
from lotj.presets import PRESETS, load_preset

PAGE = commands(ROOT / "docs/ray.md")
REWARD = ["--seeds", "0", "--methods", "erm", "daib", "--train", "3", "--validation", "1", "--held-out", "1"]
REWARD += ["--trajectories", "4", "--stage.steps", "3", "--stage.model.decay-steps", "3", "--stage.model.encoder.width"]
REWARD += ["4", "--stage.model.encoder.image-size", "32"]
ONE = ["--connectors", "europlug", "--seeds", "0", "--trials", "2", "--evaluation-trials", "1"]
SMALL = {
    "collect": ["--known", "usb-a", "rj45", "bnc", "--trajectories", "2"],
    "tables reward": REWARD,
    "tables practice": [*ONE, "--recipes", "ensemble", "--rewards", "learned"],
    "tables ablation": [*ONE, "--preset", "debug", "--run", "runs/desk", "--arms", "none"],
    "practice": ["--trials", "2", "--force"],
}
"""What is added to the page's commands."""


def documented(place: str | None, *begins: str) -> list[str]:
    """The page's one command that begins so, ``--ray`` at this place, made small."""
    (found,) = [
        arguments
        for arguments in PAGE
        if arguments[: len(begins)] == list(begins)
        and "debug" not in arguments
        and (arguments[arguments.index("--ray") + 1] if "--ray" in arguments else None) == place
    ]
    return [*found, *SMALL[" ".join(begins)]]


@pytest.fixture(autouse=True)
def ray_ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process keeps to its first cluster: each test has its own."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(cli, "_print_estimate", lambda *_: None)
    yield
    ray.shutdown()


def untimed(folder: Path) -> dict[str, Any]:
    """Result files by name, without when and by which command they were made."""
    results = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: {k: v for k, v in r.items() if k not in ("command", "started")} for name, r in results.items()}


def test_the_table_of_rewards_is_that_of_a_local_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``lotj tables reward --ray local``: collected, trained and scored on Ray, the result files are those of this
    process but for command and time: draws, thresholds, and counts over the frames of the held-out connectors."""
    monkeypatch.setattr(reward_runs, "drawable_connectors", lambda: ["usb-a", "rj45", "bnc", "din-5", "schuko"])
    there = documented("local", "tables", "reward")
    place = there.index("--ray")
    here = [*there[:place], *there[place + 2 :], "--workers", "1"]
    for name, arguments in (("there", there), ("here", here)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        cli.main(arguments)
    results = [untimed(tmp_path / name / "results/reward/table-iv") for name in ("there", "here")]
    assert set(results[0]) == {"erm-s0.json", "daib-s0.json"}
    assert results[0] == results[1]


def test_practice_in_two_cells_runs(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both commands of the page, in turn and on Ray, leave the same trials."""
    trials = []
    for name, place in (("here", None), ("there", "local")):
        shutil.copytree(tiny_run, tmp_path / name / "runs/desk")
        monkeypatch.chdir(tmp_path / name)
        cli.main(documented(place, "practice"))
        (found,) = Path("runs/desk/practice/europlug").glob("*/trials.jsonl")
        trials.append((found.parent.name, found.read_text()))
    assert trials[0] == trials[1] and trials[0][1].count("\n") == 2


def test_commands_for_a_running_cluster_run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` and an address find the cluster: a collection, practices and an ablation are done there, each with its
    results."""
    shutil.copytree(tiny_run, tmp_path / "runs/desk")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "debug", load_preset(tiny_run))
    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        cluster.add_node(**small)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)  # what `auto` finds, whatever else runs here
        cli.main(documented("auto", "collect"))
        with TrajectoryStore("runs/paper/data/trajectories.sqlite") as store:
            assert len(store) == 6
        assert ray.cluster_resources()["CPU"] == 2
        cli.main(documented("auto", "tables", "practice"))
        ray.shutdown()
        ablation = documented("10.0.0.1:6379", "tables", "ablation")
        cli.main([cluster.address if value == "10.0.0.1:6379" else value for value in ablation])
        assert {path.stem for path in Path("results").glob("*/*.json")} == {
            "europlug-ensemble-learned-s0",
            "europlug-none-ensemble-s0",
        }
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_every_command_of_the_page_has_its_test() -> None:
    """A command that is added to the page is added here."""
    assert {" ".join(arguments[: 1 + (arguments[0] == "tables")]) for arguments in PAGE} == set(SMALL)
    assert len(PAGE) == 7
