"""Evaluation on a toy cell whose outcomes are known in advance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from lotj.comparison import compare, evaluation_table
from lotj.evaluate import EvaluateConfig, Evaluation, TrialLog, TrialResult, evaluate, trial_seed
from lotj.judge import Judge, SuccessRule
from lotj.stats import barnard, mcnemar
from lotj.types import Observation, Trajectory

HORIZON = 8


class ToyCell(gymnasium.Env[Any, Any]):
    """A plug ``depth`` steps above its socket, where depth is 2..9 by seed; action +1 lowers it by one.

    The image is a constant whose grey level is the number of steps inserted so far.
    """

    observation_space = gymnasium.spaces.Dict({"image": gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)})
    action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, scenario: str, terminate: bool = False) -> None:
        self.scenario, self.terminate, self.closed = scenario, terminate, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.depth = int(self.np_random.integers(2, 10)) + (100 if self.scenario == "II" else 0)
        self.steps = self.inserted = 0
        return self._observation(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.inserted = max(0, self.inserted + round(float(action[0])))
        success = self.inserted >= self.depth
        return self._observation(), float(success), self.terminate and success, self.steps >= HORIZON, self._info()

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> dict[str, NDArray[np.uint8]]:
        return {"image": np.full((4, 4, 3), self.inserted, np.uint8)}

    def _info(self) -> dict[str, Any]:
        return {
            "privileged/success": self.inserted >= self.depth,
            "privileged/tip_in_socket": np.array([0.0, 0.0, 0.001 * (self.depth - self.inserted)]),
            "privileged/force": 2.0 * self.inserted,
            "dislodged": False,
        }


class Down:
    """Lowers the plug by ``speed`` a step; insists on being asked for deterministic actions."""

    def __init__(self, speed: float) -> None:
        self.speed = speed

    def reset(self) -> None:
        pass

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        assert not explore
        return np.array([self.speed, 0, 0], np.float32)


class GreyReward:
    """Probability 0.9 where the grey level is one of ``levels``."""

    def __init__(self, levels: set[int]) -> None:
        self.levels = levels

    def probability(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array([0.9 if int(x[0, 0, 0]) in self.levels else 0.1 for x in image], np.float32)


CONFIG = EvaluateConfig(trials=20, scenarios=("I", "II"), seed=3, acting_std=0.0, connector="toy")


def test_counts_are_exact_and_the_horizon_is_full() -> None:
    """True success is reached where the depth fits the horizon, after as many steps as it is deep, never in II."""
    cells: list[ToyCell] = []

    def make(scenario: str) -> ToyCell:
        cells.append(ToyCell(scenario))
        return cells[-1]

    result = evaluate(CONFIG, make, Down(1))
    depth = []
    for trial in result.scenario("I"):
        ToyCell.reset(cells[0], seed=trial.seed)
        depth.append(cells[0].depth)
    assert [t.true_step for t in result.scenario("I")] == [d if d <= HORIZON else None for d in depth]
    assert result.count("I", "true") == sum(d <= HORIZON for d in depth) not in (0, 20)
    assert result.count("II", "true") == 0
    assert {t.steps for t in result.trials} == {HORIZON} and {t.max_force for t in result.trials} == {2.0 * HORIZON}
    assert all(cell.closed for cell in cells)
    assert result.count("I", "judged") is None and result.confusion("I") is None
    assert [t.start[2] for t in result.scenario("I") if t.start] == pytest.approx([0.001 * d for d in depth])


def test_rewarded_judged_and_true_are_three_different_things() -> None:
    """A reward firing at levels 1, 3, 4 is rewarded always, judged by two in a row at step 4, true only by depth."""
    judge = Judge(GreyReward({1, 3, 4}), SuccessRule(threshold=0.5, frames=2))
    result = evaluate(CONFIG, ToyCell, Down(1), judge)
    assert (result.count("I", "rewarded"), result.count("I", "judged")) == (20, 20)
    assert {t.judged_step for t in result.trials} == {4}
    for trial in result.scenario("I"):
        assert trial.true_when_judged is (trial.true_step is not None and trial.true_step <= 4)
    strict = evaluate(CONFIG, ToyCell, Down(1), Judge(GreyReward({1, 3, 4}), SuccessRule(threshold=0.5, frames=3)))
    assert (strict.count("I", "rewarded"), strict.count("I", "judged")) == (20, 0)
    assert strict.count("I", "true") == result.count("I", "true")
    counts = result.confusion("I")
    assert counts is not None and counts["judged_true"] == result.count("I", "true")
    assert counts["judged_true"] + counts["judged_false"] == 20 and counts["not_judged_true"] == 0


def test_before_and_after_share_start_states() -> None:
    """Seeds depend on seed, connector, scenario and index, never on the policy; so comparisons are paired."""
    before, after = evaluate(CONFIG, ToyCell, Down(0)), evaluate(CONFIG, ToyCell, Down(1))
    assert [(t.seed, t.start) for t in before.trials] == [(t.seed, t.start) for t in after.trials]
    assert len({t.seed for t in before.trials}) == 40
    other = EvaluateConfig(trials=20, seed=3, acting_std=0.0, connector="other")
    assert {trial_seed(other, "I", i) for i in range(20)}.isdisjoint(t.seed for t in before.trials)
    row = compare(before, after)[0]
    gained = after.count("I", "true")
    assert (row.gained, row.lost) == (gained, 0)
    assert gained is not None and row.p_value == mcnemar(gained, 0) and row.difference == gained / 20
    unpaired = compare(
        evaluate(EvaluateConfig(trials=20, scenarios=("I",), seed=4, acting_std=0.0), ToyCell, Down(0)), after
    )
    assert len(unpaired) == 1 and (unpaired[0].gained, unpaired[0].test) == (None, "Barnard")
    assert unpaired[0].p_value == barnard(0, 20, gained, 20)


@pytest.mark.parametrize("start", [None, (0.5, 0.0, 0.0)])
def test_trials_that_began_elsewhere_are_no_pairs(start: tuple[float, ...] | None) -> None:
    """A cell that begins wherever it stands has the same seeds and other starts, or says nothing of them."""
    before, after = evaluate(CONFIG, ToyCell, Down(0)), evaluate(CONFIG, ToyCell, Down(1))
    moved = replace(after.trials[3], start=start)
    other = replace(after, trials=(*after.trials[:3], moved, *after.trials[4:]))
    assert compare(before, after)[0].test == "McNemar"
    first, second = compare(before, other)
    assert first.gained is None and first.test == "Barnard" and second.test == "McNemar"


def test_json_round_trip() -> None:
    """An evaluation survives a file exactly, and the file's summary holds the three columns."""
    result = evaluate(CONFIG, ToyCell, Down(1), Judge(GreyReward({3}), SuccessRule()))
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert Evaluation.from_json(written) == result
    assert written["summary"]["I"]["rewarded"] == 20 and written["summary"]["II"]["true"] == 0
    with pytest.raises(ValueError, match="not an evaluation as lotj writes it"):
        Evaluation.from_json({"config": written["config"], "trials": [{"scenario": "I"}]})


def test_table_rows() -> None:
    """Rows carry counts and trials; without a judge only *true* can be listed."""
    result = evaluate(CONFIG, ToyCell, Down(1))
    rows = evaluation_table(result, "ensemble", "after", ("rewarded", "judged", "true"))
    assert [(r.method, r.phase, r.connector, r.scenario, r.trials) for r in rows] == [
        ("ensemble", "after, true", "toy", "I", 20),
        ("ensemble", "after, true", "toy", "II", 20),
    ]
    assert rows[0].successes == result.count("I", "true")


def test_progress_sees_every_trajectory() -> None:
    """Progress is told each trial with the trajectory it came from."""
    seen: list[int] = []

    def progress(result: Any, trajectory: Trajectory) -> None:
        assert result.seed == trajectory.seed and result.steps == len(trajectory)
        seen.append(result.index)

    evaluate(EvaluateConfig(trials=3, scenarios=("I",)), ToyCell, Down(1), progress=progress)
    assert seen == [0, 1, 2]


def test_whoever_is_evaluated_acts_with_the_same_noise() -> None:
    """The policy's own action plus noise of the given spread, drawn from the trial's seed: the same again, and the same
    for another policy; the start states are those without noise."""

    def acted(std: float, speed: float) -> tuple[list[int], NDArray[np.float32]]:
        seen: list[Trajectory] = []
        config = EvaluateConfig(trials=200, scenarios=("I",), acting_std=std)
        evaluate(config, ToyCell, Down(speed), progress=lambda _, trajectory: seen.append(trajectory))
        return [trajectory.seed for trajectory in seen], np.concatenate([trajectory.action for trajectory in seen])

    seeds, plain = acted(0.0, 0.1)
    assert np.array_equal(plain, np.tile(np.float32([0.1, 0, 0]), (len(plain), 1)))
    noisy_seeds, noisy = acted(0.1, 0.1)
    assert noisy_seeds == seeds and np.array_equal(acted(0.1, 0.1)[1], noisy)
    noise = (noisy - plain)[:, 1:]
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 0.1) < 0.01
    np.testing.assert_array_equal(acted(0.1, 0.2)[1][:, 1:], noisy[:, 1:])
    assert np.abs(acted(3.0, 0.1)[1]).max() == 1.0
    with pytest.raises(ValueError, match=r"acting_std must not be negative, got -0.1"):
        EvaluateConfig(acting_std=-0.1)


def test_a_cell_that_ends_trials_is_refused() -> None:
    """An early end on true success would hide what the rule says afterwards."""
    with pytest.raises(ValueError, match="without its early end on success"):
        evaluate(CONFIG, lambda scenario: ToyCell(scenario, terminate=True), Down(1))
    with pytest.raises(ValueError, match="trials must be at least 1"):
        EvaluateConfig(trials=0)


@pytest.mark.parametrize("after", [1, 20, 27])
def test_a_stopped_evaluation_goes_on(tmp_path: Path, after: int) -> None:
    """Killed after any trial, with the last line half written: the rest is evaluated and no trial twice."""
    rolled: list[tuple[str, int]] = []

    def run(log: TrialLog, stop: int | None = None) -> Evaluation:
        def told(result: TrialResult, trajectory: Trajectory | None) -> None:
            if trajectory is not None:
                rolled.append((result.scenario, result.index))
                if len(rolled) == stop:
                    raise KeyboardInterrupt

        return evaluate(CONFIG, ToyCell, Down(1), Judge(GreyReward({3, 4}), SuccessRule(0.5, 2)), told, log)

    path, about = tmp_path / "before.partial.jsonl", {"policy": "offline"}
    with pytest.raises(KeyboardInterrupt):
        run(TrialLog(path, about), stop=after)
    # The last line half written, and the last trial noted twice, as by a process that outlived the stop.
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]) + '{"scenario": "I", "ind')
    whole = run(TrialLog(path, about))
    assert len(rolled) == len(set(rolled)) == 40
    expected = evaluate(CONFIG, ToyCell, Down(1), Judge(GreyReward({3, 4}), SuccessRule(0.5, 2)))
    assert sorted(whole.trials, key=lambda t: (t.scenario, t.index)) == list(expected.trials)
    assert TrialLog(path, {"policy": "another"}).results == []
