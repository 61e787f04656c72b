"""Red-teaming: who attacks whom, with which labels it is learned, and that it is exact when it is repeated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lotj import redteam, stages
from lotj.data.mined import SOURCE
from lotj.data.store import TrajectoryStore
from lotj.files import to_json, write_json
from lotj.offline import Known
from lotj.presets import PRESETS
from lotj.redteam import (
    Attack,
    Candidate,
    RedTeamConfig,
    RedTeamed,
    halves,
    is_red_teamed,
    red_team,
    reward_folder,
)
from lotj.sim.connectors import get_connector
from lotj.sim.toml import save_connector
from lotj.stats import clopper_pearson
from lotj.trials import read_records

DEBUG = replace(PRESETS["debug"], connectors=5)


@pytest.mark.parametrize("seed", range(5))
def test_halves_share_no_group_and_leave_nothing_out(seed: int) -> None:
    """Every training connector is on one side, its group with it; the sides are about equal."""
    known = PRESETS["desk"].split()
    one, other = halves(known, seed)
    assert sorted((*one.train, *other.train)) == sorted(known.train)
    groups = [{get_connector(name).group for name in side.train} for side in (one, other)]
    assert not groups[0] & groups[1]
    assert one.validation == other.validation == known.validation
    assert abs(len(groups[0]) - len(groups[1])) <= 1


def test_halves_know_connectors_from_files(tmp_path: Path) -> None:
    """A connector that only its file describes stays with its group."""
    described = replace(get_connector("gen-0-0"), name="mine", group="bench")
    save_connector(described, tmp_path)
    save_connector(replace(described, name="mine-too"), tmp_path)
    own = ("usb-a", "rj45", *(str(tmp_path / f"{name}.toml") for name in ("mine", "mine-too")))
    known = Known(("usb-a", "rj45", "mine", "mine-too"), ("bnc",))
    one, other = halves(known, 0, own)
    assert sorted((*one.train, *other.train)) == sorted(known.train)
    assert any({"mine", "mine-too"} <= set(side.train) for side in (one, other))


CONFIG = RedTeamConfig(trials=2, validation_trials=3)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RedTeamed]:
    """A debug run, trained and red-teamed once."""
    run = tmp_path_factory.mktemp("run")
    known = DEBUG.split()
    write_json(run / "preset.json", to_json(DEBUG))
    stages.collect_stage(DEBUG, run, 1, stages.silent_bars)
    stages.train_stage(DEBUG, run, known, stages.silent_bars, ("reward", "critic", "policy"))
    assert reward_folder(run) == run / "reward" and not is_red_teamed(run)
    stages.features_stage(DEBUG, run, known, DEBUG.practice, stages.silent_bars)
    return run, red_team(CONFIG, DEBUG, run, known, stages.store_path(run), workers=1)


def test_each_connector_is_attacked_with_a_reward_that_does_not_know_it(attacked: tuple[Path, RedTeamed]) -> None:
    _, found = attacked
    known = DEBUG.split()
    rounds = {attack.round for attack in found.attacks}
    assert rounds == set(range(1, len(rounds) + 1)) and len(found.candidates) == 1 + len(rounds)
    for number in rounds:
        assert sorted(a.connector for a in found.attacks if a.round == number) == sorted(known.train)
    for attack in found.attacks:
        assert attack.connector not in halves(known, 0)[attack.half].train
        assert attack.trials == 2 and attack.claimed_falsely <= attack.claimed


def test_mined_trials_are_labelled_by_the_simulator(attacked: tuple[Path, RedTeamed]) -> None:
    """What was collected stays as it was; what was mined pays true success, whatever the judge said; no validation
    connector is among it; a second round learns from the first as well, and from trials of its own."""
    run, found = attacked
    known = DEBUG.split()
    assert len(found.candidates) == 3, "debug's reward claims nothing, so no round bounds it"
    for number in range(1, len(found.candidates)):
        with (
            TrajectoryStore(stages.store_path(run)) as store,
            TrajectoryStore(run / f"redteam/round-{number}/trajectories.sqlite") as merged,
        ):
            assert len(merged) == len(store) + number * 2 * len(known.train)
            for index in range(0, len(store), 7):
                assert np.array_equal(store.read(index).image, merged.read(index).image)
            for index in range(len(store), len(merged)):
                mined = merged.read(index)
                truth = mined.privileged["success"].astype(bool)
                assert mined.source == SOURCE and mined.connector in known.train
                assert mined.reward.tolist() == truth[1:].astype(float).tolist()
                assert mined.terminated == truth[-1] and mined.truncated != mined.terminated
            starts = [(mined.connector, mined.seed) for mined in map(merged.read, range(len(store), len(merged)))]
            assert len(set(starts)) == len(starts)


def test_candidates_are_practised_against_on_validation_connectors(attacked: tuple[Path, RedTeamed]) -> None:
    """Their counts are those of the trials' records; the run's own reward is the one that was chosen."""
    run, found = attacked
    known = DEBUG.split()
    for candidate in found.candidates:
        folders = sorted((run / "redteam" / "validation" / candidate.name).iterdir())
        assert [folder.name for folder in folders] == sorted(known.validation)
        records = [record for folder in folders for record in read_records(folder / "trials.jsonl")]
        assert candidate.trials == len(records) == 3 * len(known.validation)
        assert candidate.claimed == sum(record.success for record in records)
        assert candidate.true == sum(record.true_success is True for record in records)
    assert found.chosen.paid_well == max(candidate.paid_well for candidate in found.candidates)
    assert is_red_teamed(run) is (found.chosen.name != "collected")
    if is_red_teamed(run):
        taken = run / "redteam" / found.chosen.name / "reward" / "model.safetensors"
        assert (reward_folder(run) / "model.safetensors").read_bytes() == taken.read_bytes()


def test_repeated_it_is_only_read(attacked: tuple[Path, RedTeamed]) -> None:
    run, found = attacked
    model = run / "redteam/round-1/reward/model.safetensors"
    before = model.stat().st_mtime_ns
    known = DEBUG.split()
    assert red_team(CONFIG, DEBUG, run, known, stages.store_path(run), workers=1) == found
    assert model.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"was begun with \{'trials': 2\}, got \{'trials': 5\}"):
        red_team(replace(CONFIG, trials=5), DEBUG, run, known, stages.store_path(run), workers=1)


COUNTS = {
    "none better": ([(100, 0), (100, 0)], "collected", 1),
    "attacks help": ([(100, 20), (90, 0)], "round-1", 1),
    "attacks help, twice": ([(100, 40), (100, 30), (100, 0)], "round-2", 2),
    "the first stays the best": ([(100, 30), (60, 20), (60, 20)], "collected", 2),
    "a silent reward is no choice": ([(100, 60), (0, 0), (0, 0)], "collected", 2),
}


@pytest.mark.parametrize("case", COUNTS)
def test_the_reward_that_pays_best_is_chosen_and_attacked_until_it_is_bounded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims less false ones decide, the earliest of equals; rounds end where 95% sure that 5% are false at most."""
    counts, name, rounds = COUNTS[case]

    def train(task: Any, number: int, out: Path, *_: Any) -> list[Attack]:
        (out / "reward").mkdir(parents=True)
        (out / "reward" / "done.json").write_text(str(number))
        return [Attack("usb-a", 0, 2, 1, 0, 1, number)]

    def score(task: Any, name: str, *_: Any) -> Candidate:
        claimed, false = counts[0 if name == "collected" else int(name.removeprefix("round-"))]
        return Candidate(name, 100, claimed, false, claimed - false)

    monkeypatch.setattr(redteam, "_round", train)
    monkeypatch.setattr(redteam, "_score", score)
    found = red_team(RedTeamConfig(), DEBUG, tmp_path, DEBUG.split(), tmp_path / "store", 1)
    assert found.chosen.name == name and len(found.candidates) == 1 + rounds == 1 + len(found.attacks)
    assert found.bounded is (clopper_pearson(found.chosen.claimed_falsely, found.chosen.claimed).high <= 0.05)
    if name == "collected":
        assert not is_red_teamed(tmp_path)
    else:
        assert (reward_folder(tmp_path) / "done.json").read_text() == name.removeprefix("round-")

    monkeypatch.setattr(redteam, "_round", lambda *_: pytest.fail("a finished round was made again"))
    more = RedTeamConfig(rounds=3)
    if name != "collected":
        with pytest.raises(ValueError, match=r"'rounds': 2.*'rounds': 3.*-redteam in"):
            red_team(more, DEBUG, tmp_path, DEBUG.split(), tmp_path / "store", 1)


@pytest.mark.parametrize("dies_in", ["copytree", "rename", "write_json"])
def test_a_kill_while_the_choice_is_written_leaves_it_to_the_next_call(
    dies_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was there, the chosen reward is in place, whole, after the same command."""

    def train(task: Any, number: int, out: Path, *_: Any) -> list[Attack]:
        (out / "reward").mkdir(parents=True, exist_ok=True)
        (out / "reward" / "model").write_text("whole")
        (out / "reward" / "done.json").write_text("{}")
        return []

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(redteam, "_round", train)
    monkeypatch.setattr(
        redteam, "_score", lambda task, name, *_: Candidate(name, 100, 100, 0 if name == "round-1" else 50, 100)
    )
    job = (RedTeamConfig(), DEBUG, tmp_path, DEBUG.split(), tmp_path / "store", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if dies_in == "copytree":
            half_done = tmp_path / "redteam" / "reward.tmp"
            patch.setattr(redteam.shutil, "copytree", lambda *_: (half_done.mkdir(), killed()))
        elif dies_in == "rename":
            patch.setattr(Path, "rename", killed)
        else:
            patch.setattr(
                redteam,
                "write_json",
                lambda path, _: killed() if path.name == "attacks.json" else path.write_text("{}"),
            )
            (tmp_path / "redteam").mkdir()
            write_json(tmp_path / "redteam" / "config.json", to_json(RedTeamConfig()))
            patch.setattr(redteam, "_claim", lambda *_: None)
        red_team(*job)
    found = red_team(*job)
    assert found.chosen.name == "round-1" and found.bounded and is_red_teamed(tmp_path)
    assert (reward_folder(tmp_path) / "model").read_text() == "whole"
    assert json.loads((tmp_path / "redteam" / "attacks.json").read_text())["chosen"] == "round-1"


@pytest.mark.parametrize("old", ["attacks.json", "half-0", "practice", "reward"])
def test_what_an_earlier_lotj_attacked_is_not_mixed_in(old: str, tmp_path: Path) -> None:
    (tmp_path / "redteam" / old).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"did not choose among rewards: .*delete .*redteam"):
        red_team(RedTeamConfig(), DEBUG, tmp_path, DEBUG.split(), tmp_path / "store", 1)
