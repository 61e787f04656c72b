"""Red-teaming: who attacks whom, with which labels it is learned, and that it is exact when it is repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lotj import stages
from lotj.data.store import TrajectoryStore
from lotj.files import to_json, write_json
from lotj.offline import Known
from lotj.presets import PRESETS
from lotj.redteam import SOURCE, Attack, RedTeamConfig, halves, is_red_teamed, red_team, reward_folder
from lotj.sim.connectors import get_connector
from lotj.sim.toml import save_connector

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


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Attack]]:
    """A debug run, trained and red-teamed once."""
    run = tmp_path_factory.mktemp("run")
    known = DEBUG.split()
    write_json(run / "preset.json", to_json(DEBUG))
    stages.collect_stage(DEBUG, run, 1, stages.silent_bars)
    stages.train_stage(DEBUG, run, known, stages.silent_bars, ("reward", "critic", "policy"))
    assert reward_folder(run) == run / "reward" and not is_red_teamed(run)
    stages.features_stage(DEBUG, run, known, DEBUG.practice, stages.silent_bars)
    return run, red_team(RedTeamConfig(trials=2), DEBUG, run, known, stages.store_path(run), workers=1)


def test_each_connector_is_attacked_with_a_reward_that_does_not_know_it(attacked: tuple[Path, list[Attack]]) -> None:
    run, attacks = attacked
    known = DEBUG.split()
    assert sorted(attack.connector for attack in attacks) == sorted(known.train)
    for attack in attacks:
        assert attack.connector not in halves(known, 0)[attack.half].train
        assert attack.trials == 2 and attack.claimed_falsely <= attack.claimed
    assert is_red_teamed(run) and reward_folder(run) == run / "redteam" / "reward"


def test_mined_trials_are_labelled_by_the_simulator(attacked: tuple[Path, list[Attack]]) -> None:
    """What was collected stays as it was; what was mined pays true success, whatever the judge said; no validation
    connector is among it."""
    run, _ = attacked
    known = DEBUG.split()
    with (
        TrajectoryStore(stages.store_path(run)) as store,
        TrajectoryStore(run / "redteam/trajectories.sqlite") as merged,
    ):
        assert len(merged) == len(store) + 2 * len(known.train)
        for index in range(0, len(store), 7):
            assert np.array_equal(store.read(index).image, merged.read(index).image)
        for index in range(len(store), len(merged)):
            mined = merged.read(index)
            truth = mined.privileged["success"].astype(bool)
            assert mined.source == SOURCE and mined.connector in known.train
            assert mined.reward.tolist() == truth[1:].astype(float).tolist()
            assert mined.terminated == truth[-1] and mined.truncated != mined.terminated


def test_repeated_it_is_only_read(attacked: tuple[Path, list[Attack]]) -> None:
    run, attacks = attacked
    model = run / "redteam/reward/model.safetensors"
    before = model.stat().st_mtime_ns
    known = DEBUG.split()
    assert red_team(RedTeamConfig(trials=2), DEBUG, run, known, stages.store_path(run), workers=1) == attacks
    assert model.stat().st_mtime_ns == before
