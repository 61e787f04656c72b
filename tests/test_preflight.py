"""What is asked of a reward before practice: false successes on presses that cannot succeed, and a stricter rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_cell import ToyCell

from lotj import demo, pipeline
from lotj.files import write_json
from lotj.judge import SuccessRule
from lotj.preflight import BlindPress, NotTrustedError, Preflight, PreflightConfig, likely_successes, preflight
from lotj.presets import PRESETS, load_preset
from lotj.recipe import Offline
from lotj.rollout import policy_rng, rollout
from lotj.sim.env import InsertionEnv
from lotj.stats import clopper_pearson

CHOSEN = SuccessRule(0.3, 1)


class Believer:
    """Gives every image the same probability, but for every other trial, of which it is sure that it failed."""

    def __init__(self, probability: float, every: int = 1) -> None:
        self.probability_of, self.every, self.trials = probability, every, 0

    def probability(self, image: np.ndarray) -> np.ndarray:
        self.trials += 1
        sure = self.trials % self.every == 0
        return np.full(len(image), self.probability_of if sure else 0.0, np.float32)


def row(threshold: float, frames: int, false_fires: int, recall: float) -> dict[str, Any]:
    return {"threshold": threshold, "frames": frames, "false_fires": false_fires, "recall": recall}


TABLE = [row(0.3, 1, 5, 0.95), row(0.3, 3, 4, 0.9), row(0.7, 1, 3, 0.8), row(0.9, 1, 1, 0.4), row(0.7, 3, 9, 0.85)]


def ask(model: Any, config: PreflightConfig | None = None) -> Preflight:
    return preflight(config or PreflightConfig(presses=10, limit=0.1), ToyCell(), model, CHOSEN, TABLE, seed=0)


def test_a_reward_that_is_not_fooled_keeps_its_rule() -> None:
    answer = ask(Believer(0.2))
    assert answer.go and answer.rule == CHOSEN == answer.chosen
    assert (answer.fires, answer.presses, answer.recall) == (0, 10, 0.95)
    assert answer.interval == clopper_pearson(0, 10)


def test_a_fooled_reward_gets_the_stricter_rule_that_finds_most() -> None:
    """Of the rules that no press passes, the one with the highest recall, if it is measured as no less strict: not
    (0.3, 3), which lasting belief passes; not (0.7, 3), which fired wrongly more often on validation; not (0.9, 1),
    which finds less than half."""
    answer = ask(Believer(0.5))
    assert answer.rule == SuccessRule(0.7, 1) and answer.recall == 0.8
    assert (answer.chosen_fires, answer.fires) == (10, 0)
    assert "stricter" in answer.reason and "10 of 10" in answer.reason


@pytest.mark.parametrize(("every", "go"), [(10, True), (5, False)])
def test_a_reward_that_guesses_goes_behind_the_guard_alone(every: int, go: bool) -> None:
    """One press of ten that is liked makes the rule stricter; two, and no rule is trusted by itself any more."""
    answer = ask(Believer(0.5, every))
    assert (answer.go, answer.behind_guard) == (go, not go) and (answer.chosen_fires, answer.fires) == (10 // every, 0)
    assert answer.rule == SuccessRule(0.7, 1) and ("guessing" in answer.reason) is not go


def test_a_reward_that_believes_everything_is_not_trusted() -> None:
    """Only the rule of too little recall would be passed by none."""
    answer = ask(Believer(0.8))
    assert not answer.go and not answer.behind_guard and answer.fires == 10 and "not trusted" in answer.reason


@pytest.mark.parametrize(("every", "go"), [(10, True), (5, False)])
def test_the_limit_is_a_share_of_the_presses(every: int, go: bool) -> None:
    answer = ask(Believer(0.99, every))
    assert answer.go is go and answer.fires == 10 // every


class Script:
    """Gives the images of one trial after another the probability that was written for it."""

    def __init__(self, *trials: float) -> None:
        self.trials = iter(trials)

    def probability(self, image: np.ndarray) -> np.ndarray:
        return np.full(len(image), next(self.trials), np.float32)


class Still:
    """A policy that stays where it is, and remembers whether it was to explore."""

    def __init__(self) -> None:
        self.explored: list[bool] = []

    def reset(self) -> None:
        """Nothing to forget."""

    def act(self, observation: Any, rng: np.random.Generator, explore: bool = False) -> np.ndarray:
        self.explored.append(explore)
        return np.zeros(3, np.float32)


LADDER = [row(threshold, 2, 0, 0.9) for threshold in (0.1, 0.3, 0.5, 0.7, 0.9)]


def attempt(presses: list[float], attempts: list[float], more: list[float] | None = None, **config: Any) -> Preflight:
    """Ask by presses and attempts that score so; ``more`` are made where too few of those look like successes, and are
    like them where they are not given."""
    settings = PreflightConfig(presses=len(presses), attempts=len(attempts), **{"limit": 0.5, **config})
    scores = Script(*presses, *attempts, *(attempts if more is None else more))
    return preflight(settings, ToyCell(), scores, SuccessRule(0.7, 2), LADDER, 0, policy=Still())


FAILED = [0.001, 0.002, 0.004]


def test_a_rule_that_leaves_successes_unclaimed_is_made_looser() -> None:
    """Four of ten attempts look like successes, .7 claims one of them; the strictest rule that claims all of them and
    no press is .4."""
    answer = attempt(FAILED, [0.004, 0.45, 0.002, 0.55, 0.002, 0.65, 0.001, 0.75, 0.003, 0.001])
    assert answer.rule == SuccessRule(0.4, 2) and answer.go and answer.recall is None
    assert (answer.attempts, answer.likely, answer.chosen_claimed, answer.claimed) == (10, 4, 1, 4)
    unlike = attempt(FAILED, [0.02, 0.1, 0.4, 0.8])
    assert unlike.likely == 0 and "4 attempts do not tell" in unlike.reason
    assert "4 of 10 attempts" in answer.reason and "looser" in answer.reason and "0.4 instead of" in answer.reason


@pytest.mark.parametrize(
    ("presses", "attempts", "config", "threshold"),
    [
        pytest.param(FAILED, [0.45, 0.55, 0.65, 0.75], {"claimed": 0.75}, 0.5, id="no more than is asked for"),
        pytest.param(FAILED, [0.9, 0.95, 0.8, 0.001], {}, 0.7, id="nothing is left unclaimed"),
        pytest.param(FAILED, [0.45, 0.001, 0.001, 0.001], {}, 0.7, id="too few look like successes"),
        pytest.param(FAILED, [0.25, 0.35, 0.38, 0.001], {}, 0.2, id="as loose as it must be"),
        pytest.param(FAILED, [0.06, 0.07, 0.08, 0.001], {}, 0.05, id="looser than any of the table"),
        pytest.param(FAILED, [0.015, 0.015, 0.015, 0.001], {"apart": 0.0}, 0.7, id="as if nothing looked like success"),
        pytest.param(FAILED, [0.02, 0.1, 0.4, 0.8], {}, 0.7, id="everything between failure and success"),
        pytest.param(FAILED, [0.02, 0.1, 0.4, 0.8], {"apart": 0.0, "claimed": 0.75}, 0.1, id="told apart by will"),
        pytest.param([0.001, 0.001, 0.5], [0.9, 0.45, 0.55, 0.65], {}, 0.7, id="a press would pass"),
        pytest.param([0.001, 0.001, 0.95], [0.9, 0.45, 0.55, 0.65], {}, 0.4, id="a press passes anyway"),
        pytest.param([0.4, 0.01, 0.4], [0.5, 0.55, 0.6, 0.5], {}, 0.7, id="presses are of the better kind"),
        pytest.param([0.8, 0.01, 0.01], [0.95, 0.96, 0.97, 0.98], {}, 0.9, id="a stricter one costs nothing"),
        pytest.param([0.8, 0.01, 0.01], [0.75, 0.8, 0.85, 0.98], {}, 0.7, id="a stricter one leaves successes"),
        pytest.param([0.8, 0.01, 0.01], [0.4] * 4, {}, 0.9, id="a stricter one leaves what is not claimed anyway"),
        pytest.param(
            [0.8, 0.3, 0.01], [0.02, 0.1, 0.4, 0.6], {}, 0.7, id="no stricter one where nothing tells its cost"
        ),
        pytest.param([0.8, 0.8, 0.01], [0.02, 0.1, 0.4, 0.6], {}, 0.9, id="but where the reward guesses"),
        pytest.param([0.99] * 2 + [0.01], [0.35, 0.4, 0.45, 0.5], {}, 0.7, id="not where the reward guesses"),
        pytest.param([0.5] * 3, [0.5] * 4, {}, 0.7, id="all alike"),
    ],
)
def test_how_loose_a_rule_may_become(
    presses: list[float], attempts: list[float], config: dict[str, Any], threshold: float
) -> None:
    assert attempt(presses, attempts, **config).rule.threshold == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("attempts", "more", "made", "likely", "threshold"),
    [
        ([0.45, 0.55, 0.65, 0.001], [], 4, 3, 0.4),
        ([0.45, 0.55, 0.001, 0.001], [0.65, 0.001, 0.001, 0.001], 8, 3, 0.4),
        ([0.45, 0.55, 0.001, 0.001], [0.001] * 4, 8, 2, 0.7),
        ([0.001] * 4, [0.45, 0.55, 0.65, 0.001], 4, 0, 0.7),
    ],
)
def test_as_many_attempts_again_where_too_few_look_like_successes(
    attempts: list[float], more: list[float], made: int, likely: int, threshold: float
) -> None:
    """Once, and only where one or two do: where none does, the two kinds are not told apart, and more attempts seldom
    change that. All that were made count."""
    answer = attempt(FAILED, attempts, more)
    assert (answer.attempts, answer.likely, answer.rule.threshold) == (made, likely, threshold)


def test_without_attempts_nothing_is_looser_and_the_presses_are_the_same() -> None:
    """Attempts come after the presses, which do not depend on them."""
    answer = attempt(FAILED, [])
    assert answer.rule == answer.chosen and (answer.attempts, answer.likely) == (0, 0)
    assert "attempts" not in answer.reason
    cells = ToyCell(), ToyCell()
    policy, told = Still(), list[tuple[int, int]]()
    for cell, attempts in zip(cells, (0, 4)):
        settings = PreflightConfig(presses=2, attempts=attempts)
        scores = Script(*[0.1] * 6)
        preflight(settings, cell, scores, CHOSEN, TABLE, 3, policy=policy, progress=lambda *at: told.append(at))
    assert [options["scenario"] for options in cells[1].options if options] == ["II"] * 2 + ["I", "II"] * 2
    assert cells[0].options == cells[1].options[:2] and all(policy.explored) and len(policy.explored) == 4 * 8
    assert told == [(1, 2), (2, 2), *((done, 6) for done in range(1, 7))]


def test_ground_truth_has_no_say() -> None:
    """The answer is the same where the cell's truth is noise."""

    def asked(garbage: bool) -> Preflight:
        scores = Script(*FAILED, 0.45, 0.55, 0.65, 0.75)
        config = PreflightConfig(presses=3, attempts=4)
        return preflight(config, ToyCell(garbage=garbage), scores, SuccessRule(0.7, 2), LADDER, 0, policy=Still())

    assert asked(True) == asked(False) and asked(True).rule.threshold == 0.4


@pytest.mark.parametrize("seed", range(20))
def test_the_two_kinds_are_those_of_least_variance(seed: int) -> None:
    """Against every cut, tried by hand."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.002, 0.998, 8)
    logit = np.log(scores / (1 - scores))
    attempts, presses = [np.full(4, score) for score in scores[:5]], [np.full(4, score) for score in scores[5:]]

    def spread(cut: float) -> float:
        return sum(float(((kind - kind.mean()) ** 2).sum()) for kind in (logit[logit < cut], logit[logit >= cut]))

    best = min(np.sort(logit)[1:], key=spread)
    likely = likely_successes(attempts, presses, 3, limit=1.0, apart=0.0)
    assert [trial[0] for trial in likely] == [score for score, at in zip(scores[:5], logit) if at >= best]


def test_nearest_is_by_the_angle_between_mean_features() -> None:
    known = {"same": ("a", np.array([2.0, 2.0])), "right": ("b", np.array([0.0, 1.0])), "back": ("c", -np.ones(2))}
    answer = preflight(
        PreflightConfig(presses=3), ToyCell(), Believer(0.0), CHOSEN, TABLE, 0, known, lambda image: np.ones((3, 2))
    )
    assert [n.connector for n in answer.nearest] == ["same", "right", "back"]
    assert np.allclose([n.distance for n in answer.nearest], [0.0, 1 - 0.5**0.5, 2.0])
    assert answer.as_json()["nearest"][0] == {
        "connector": "same",
        "family": "a",
        "distance": answer.nearest[0].distance,
    }


@pytest.mark.parametrize("far", [False, True])
def test_presses_cannot_succeed(far: bool) -> None:
    """From the starts of scenario II a blind press touches nothing within 4 mm of the socket's axis; after a way past
    the socket it presses further off than any start."""
    pressed = []
    for connector in ("usb-b", "vehicle-lighter"):
        env = InsertionEnv(connector, "sawyer-a", "II", images=False)
        for seed in range(8):
            trial = rollout(env, BlindPress(far), policy_rng(seed), seed=seed)
            assert not trial.privileged["success"].any()
            beside = np.linalg.norm(trial.privileged["tip_in_socket"][:, :2], axis=1)
            touching = trial.privileged["force"].ravel() > 1.0
            assert beside[touching].min(initial=1.0) > 0.004 and (far or touching.any())
            pressed.append(beside[-1])
        env.close()
    assert bool(np.median(pressed) > 0.025) is far


@pytest.mark.parametrize("scale", [(0.005, 0.005, 0.005), (0.002, 0.002, 0.002), (0.02, 0.02, 0.01)])
@pytest.mark.parametrize("far", [False, True])
def test_a_press_goes_as_far_whatever_an_action_means(scale: tuple[float, float, float], far: bool) -> None:
    """25 mm down, then 3.75 mm sideways and no further, however long the trial; first 30 to 40 mm away if far."""
    for seed in range(5):
        press, rng = BlindPress(far, scale), np.random.default_rng(seed)
        press.reset()
        actions = np.array([press.act({}, rng) for _ in range(200)])
        assert np.abs(actions).max() <= 1 and actions.dtype == np.float32
        path = np.cumsum(actions * np.array(scale), axis=0)
        away = np.flatnonzero(actions[:, 2])[0]
        start = path[away - 1] if away else np.zeros(3)
        assert (0.03 - 1e-6 <= np.linalg.norm(start[:2]) <= 0.04 + 1e-6) if far else not start.any()
        sideways = np.linalg.norm(path[away:, :2] - start[:2], axis=1)
        assert sideways.max() == pytest.approx(0.00375, rel=1e-4)
        assert path[away:][sideways < 1e-6][-1, 2] == pytest.approx(-0.025, rel=1e-4)
        assert np.diff(path[-20:, 2]).max() < 0


@pytest.mark.parametrize(
    "bad",
    [
        {"presses": -1},
        {"limit": 1.0},
        {"recall": 2.0},
        {"attempts": -1},
        {"claimed": 1.1},
        {"attempts": 5, "presses": 0},
    ],
)
def test_bad_settings_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        PreflightConfig(**bad)


@pytest.mark.parametrize(
    ("answer", "mode", "force", "goes"),
    [
        ((True, False), "off", False, True),
        ((False, True), "off", False, False),
        ((False, True), "gate", False, True),
        ((False, True), "alarm", False, True),
        ((False, False), "gate", False, False),
        ((False, False), "off", True, True),
    ],
)
def test_what_practice_does_with_the_answer(
    answer: tuple[bool, bool], mode: Any, force: bool, goes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the guard alone means with the guard on; a plain no yields to force alone."""
    preset = PRESETS["debug"]
    held = {"go": answer[0], "behind_guard": answer[1], "reason": "guessing", "rule": {"threshold": 0.7, "frames": 2}}
    offline: Any = Offline(None, None, None, CHOSEN, preset.split())  # type: ignore[arg-type]
    begun: list[SuccessRule] = []
    write_json(tmp_path / "preset.json", preset)
    monkeypatch.setattr(demo, "load_offline", lambda *_: offline)
    monkeypatch.setattr(demo, "preflight_stage", lambda *_: held)
    monkeypatch.setattr(demo, "practise_in", lambda places, preset, offline, *_: begun.append(offline.rule))
    guard = replace(preset.practice.practice.guard, mode=mode)
    recipe = replace(preset.practice, practice=replace(preset.practice.practice, guard=guard))

    def practise() -> None:
        demo.practice_stage(
            preset, tmp_path, offline.known, "europlug", "learned", demo.silent_bars, recipe, force=force
        )

    if goes:
        practise()
        assert begun == [SuccessRule(0.7, 2)]
    else:
        with pytest.raises(NotTrustedError, match="guessing") as refused:
            practise()
        assert refused.value.behind_guard is answer[1] and not begun


def test_an_own_cell_stops_in_the_check_as_in_practice(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's STOP file reaches the cell that presses and attempts."""

    class Opened(Exception):
        """With which stop file."""

    def opened(*_: Any, stop_file: Path | None, **__: Any) -> None:
        raise Opened(stop_file)

    monkeypatch.setattr(pipeline, "open_cell", opened)
    preset = load_preset(tiny_run)
    with pytest.raises(Opened) as told:
        demo.preflight_stage(preset, tiny_run, preset.split(), "europlug", PreflightConfig(), seed=77)
    assert told.value.args == (tiny_run / "STOP",)
