"""The whole chain on the ``debug`` preset, through the command line: by stages, in one command, killed on the way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lotj.checkpoint import load_state
from lotj.cli import main
from lotj.comparison import compare
from lotj.data.store import TrajectoryStore
from lotj.evaluate import Evaluation
from lotj.presets import PRESETS
from lotj.report.records import film_of
from lotj.sim.connectors import TEST_CONNECTORS, get_connector, variants_of
from lotj.sim.distance import TWIN, distance
from lotj.stages import store_path

CONNECTOR = PRESETS["debug"].practise_on[0]
REWARDS = ("learned", "ground-truth")
FACTS = ("evaluation.json", "evaluation-before.json", "evaluation-after.json", "trials.jsonl")
"""Files of a run that hold results and no times."""

DYING = """
import os, signal, sys
from lotj.cli import main
from lotj.data.store import TrajectoryStore

owner, name = {"append": (TrajectoryStore, "append"), "fsync": (os, "fsync")}[sys.argv[1]]
deadline, original, calls = int(sys.argv[2]), getattr(owner, name), 0

def dying(*arguments, **settings):
    global calls
    calls += 1
    if calls == deadline:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **settings)

setattr(owner, name, dying)
main(sys.argv[3:])
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A run made by one command for each stage, and what they printed."""
    run = tmp_path_factory.mktemp("chain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        synced = []
        original = os.fsync
        patch.setattr(os, "fsync", lambda descriptor: synced.append(1) or original(descriptor))
        main(["collect", "--run", str(run), "--workers", "1", "debug"])
        main(["train", "--run", str(run)])
        for reward in REWARDS:
            main(["practice", "--run", str(run), "--connector", CONNECTOR, "--reward", reward])
        main(["report", "--run", str(run)])
    return run, len(synced)


def folder(run: Path, reward: str) -> Path:
    return run / "practice" / CONNECTOR / f"ensemble-{reward}-s0"


def facts(run: Path) -> dict[str, str]:
    """Every result file of a run, by its place."""
    return {
        str(path.relative_to(run)): path.read_text()
        for path in sorted(run.rglob("*"))
        if path.name in FACTS and "evaluations" not in path.parts
    }


def tensors(state, name=""):
    """Every tensor and number of a nested state, by its place."""
    if isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from tensors(value, f"{name}/{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from tensors(value, f"{name}/{index}")
    else:
        yield name, torch.tensor([hash(str(state))])


def assert_same_run(one: Path, other: Path) -> None:
    """Same results to the letter, same checkpoints to the bit, same data."""
    assert facts(one) == facts(other)
    checkpoints = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert checkpoints == sorted(path.relative_to(other) for path in other.rglob("*.safetensors"))
    assert len(checkpoints) == 8  # three stages, the reward model, the features, two practices
    for path in checkpoints:
        ours, theirs = (dict(tensors(load_state(run / path))) for run in (one, other))
        assert ours.keys() == theirs.keys(), path
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), f"{path}{name}"
    for path in one.rglob("*.npy"):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes(), path
    with TrajectoryStore(store_path(one)) as ours, TrajectoryStore(store_path(other)) as theirs:
        assert len(ours) == len(theirs)
        np.testing.assert_array_equal(ours.index.seed, theirs.index.seed)
        for index in range(0, len(ours), 7):
            np.testing.assert_array_equal(ours.read(index).image, theirs.read(index).image)


def test_every_stage_leaves_its_results(chain):
    """A run holds trained networks, judged evaluations, a summary, and a page that needs nothing else."""
    run, _ = chain
    for stage in ("reward", "critic", "policy"):
        assert json.loads((run / stage / "done.json").read_text())["stage"] == stage
    page = (run / "report.html").read_text()
    films = [film_of(folder(run, reward)) for reward in REWARDS]
    assert all(films) and page.count("the first evaluation trials, before practice and after it") == len(REWARDS)
    assert "<html" in page and CONNECTOR in page and 'src="http' not in page
    assert json.loads((run / "summary.json").read_text())
    for reward in REWARDS:
        evaluation = json.loads((folder(run, reward) / "evaluation-after.json").read_text())
        assert len(evaluation["trials"]) == 2 * PRESETS["debug"].evaluate.trials
        lines = (folder(run, reward) / "trials.jsonl").read_text().splitlines()
        assert len(lines) == PRESETS["debug"].practice.practice.trials


def test_the_held_out_connector_was_never_known(chain):
    """Neither a test connector nor a close variant of one is in the store, and none was trained on, at any size."""
    run, _ = chain
    held_out = {variant for name in TEST_CONNECTORS for variant in variants_of(name)}
    with TrajectoryStore(store_path(run)) as store:
        assert not set(store.index.connector.tolist()) & held_out
    for preset in PRESETS.values():
        known = preset.split()
        assert len(known.train) + len(known.validation) == preset.connectors + preset.generated + preset.generated_more
        assert not {*known.train, *known.validation} & held_out
        for name in (*known.train, *known.validation):
            assert min(distance(get_connector(name), get_connector(test)) for test in held_out) >= TWIN, name
        groups = [{get_connector(name).group for name in side} for side in (known.train, known.validation)]
        assert not groups[0] & groups[1]
    known = PRESETS["debug"].split()
    for stage in ("reward", "policy"):
        assert json.loads((run / stage / "config.json").read_text())["config"]["known"]["train"] == list(known.train)


def test_a_known_connector_is_refused(chain, capsys):
    """What offline training knew cannot be practised as novel; the message names it."""
    run, _ = chain
    known = PRESETS["debug"].split()
    with pytest.raises(SystemExit):
        main(["practice", "--run", str(run), "--connector", known.train[0]])
    assert known.train[0] in capsys.readouterr().err
    assert not (run / "practice" / known.train[0]).exists()


def test_another_scale_of_actions_is_refused(chain, capsys, tmp_path):
    """A policy whose data meant other metres by an action of 1 does not act on this cell; the message gives both."""
    run = shutil.copytree(chain[0], tmp_path / "run")
    with TrajectoryStore(store_path(run), mode="a") as store:
        assert store.metadata["action_scale"] == [0.005] * 3
        store.set_metadata("action_scale", [0.01, 0.01, 0.01])
    with pytest.raises(SystemExit):
        main(["practice", "--run", str(run), "--connector", "europlug"])
    told = capsys.readouterr().err
    assert "0.01" in told and "0.005" in told
    assert not (run / "practice/europlug/ensemble-learned-s0/trials.jsonl").exists()


def test_a_validation_connector_is_marked_wherever_it_goes(chain, capsys):
    """Practised on purpose, a validation connector is named as one in every output."""
    run, _ = chain
    (name,) = PRESETS["debug"].split().validation
    command = ["practice", "--run", str(run), "--connector", name, "--trials", "1"]
    with pytest.raises(SystemExit):
        main(command)
    assert "--validation" in capsys.readouterr().err
    main([*command, "--validation"])
    assert f"{name} (validation)" in capsys.readouterr().out
    out = run / "practice" / name / "ensemble-learned-s0"
    assert json.loads((out / "config.json").read_text())["config"]["validation"] is True
    assert json.loads((out / "done.json").read_text())["summary"]["validation"] is True
    for side in ("before", "after"):
        assert json.loads((out / f"evaluation-{side}.json").read_text())["policy"]["validation"] is True
    main(["report", "--run", str(run)])
    rows = json.loads((run / "summary.json").read_text())["practices"]
    assert {row["connector"]: row["validation"] for row in rows} == {CONNECTOR: False, name: True}
    assert "validation connector, practised on purpose" in (run / "report.html").read_text()
    shutil.rmtree(out)
    main(["report", "--run", str(run)])


def test_a_practised_policy_is_compared_with_the_offline_one(chain, capsys, monkeypatch):
    """On the same start states: both are counted, with intervals and McNemar's p; what was evaluated is not again."""
    run, _ = chain
    out = folder(run, "learned")
    command = ["evaluate", "--run", str(run), "--connector", CONNECTOR, "--trials", "1", "--seed", "5"]
    main([*command, "--practised", str(out)])
    first = capsys.readouterr().out
    files = sorted((run / "evaluations" / CONNECTOR).glob("*-s5-n1.json"))
    assert len(files) == 2
    before, after = (
        Evaluation.from_json(json.loads(path.read_text()))
        for path in sorted(files, key=lambda path: not path.name.startswith("offline"))
    )
    assert [trial.seed for trial in before.trials] == [trial.seed for trial in after.trials]
    rule = json.loads((out / "config.json").read_text())["config"]["rule"]
    assert json.loads(max(files, key=lambda path: not path.name.startswith("offline")).read_text())["rule"] == rule
    for row in compare(before, after):
        assert f"{row.p_value:.4f}" in first
    assert "McNemar" in first and "95% interval" in first
    monkeypatch.setattr("lotj.evaluating.evaluate_policy", None)
    main([*command, "--practised", str(out)])
    assert capsys.readouterr().out.count("McNemar") == 2


def test_ground_truth_reward_is_marked_wherever_it_goes(chain, capsys):
    """Every output about a practice says whether ground truth was its reward, and only then calls it a diagnostic."""
    run, _ = chain
    for reward in REWARDS:
        diagnostic = reward == "ground-truth"
        out = folder(run, reward)
        assert json.loads((out / "done.json").read_text())["summary"]["diagnostic"] is diagnostic
        assert json.loads((out / "evaluation-after.json").read_text())["policy"]["diagnostic"] is diagnostic
        assert json.loads((out / "evaluation-before.json").read_text())["policy"]["diagnostic"] is False
        assert json.loads((out / "config.json").read_text())["config"]["recipe"]["practice"]["reward"] == reward
        assert all(json.loads(line)["reward"] == reward for line in (out / "trials.jsonl").open())
        main(["evaluate", "--run", str(run), "--connector", CONNECTOR, "--trials", "1", "--practised", str(out)])
        assert ("Diagnostic" in capsys.readouterr().out) is diagnostic
        main(["practice", "--run", str(run), "--connector", CONNECTOR, "--reward", reward])
        assert ("diagnostic" in capsys.readouterr().out.lower()) is diagnostic
    marks = [row["diagnostic"] for row in json.loads((run / "summary.json").read_text())["practices"]]
    assert sorted(marks) == [False, True]
    assert "diagnostic" in (run / "report.html").read_text().lower()


def test_killed_and_repeated_is_the_same_run(chain, tmp_path):
    """A demo killed (SIGKILL) while it collects and again at a write of a later stage, then repeated, ends with the
    results, checkpoints and data of the stages run one by one without interruption."""
    reference, writes = chain
    rng = np.random.default_rng(int.from_bytes(b"lotj"))
    run, result = tmp_path / "run", tmp_path / "result.json"
    command = ["demo", "--out", str(run), "--result", str(result), "--workers", "1", "debug"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for event, number in (("append", rng.integers(2, 40)), ("fsync", rng.integers(2, writes - 20))):
        killed = subprocess.run(
            [sys.executable, "-c", DYING, event, str(number), *command], env=environment, capture_output=True, text=True
        )
        assert killed.returncode == -9, killed.stdout + killed.stderr
        assert not result.exists()
    main(command)
    assert_same_run(reference, run)
    outcome = json.loads(result.read_text())
    assert [row["reward"] for row in outcome["practices"]] == list(REWARDS)
    assert [row["diagnostic"] for row in outcome["practices"]] == [False, True]
    assert set(outcome["stage_seconds"]) >= {"collect", "train", "report"}
    for row in outcome["practices"]:
        after = json.loads((folder(reference, row["reward"]) / "evaluation-after.json").read_text())
        for scenario, counts in row["scenarios"].items():
            assert counts["online_true"] == [after["summary"][scenario][key] for key in ("true", "trials")]
