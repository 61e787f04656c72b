"""What is asked of a reward before practice: false successes on presses that cannot succeed, and a stricter rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_cell import ToyCell

from lotj import demo
from lotj.files import write_json
from lotj.judge import SuccessRule
from lotj.preflight import BlindPress, NotTrustedError, Preflight, PreflightConfig, preflight
from lotj.presets import PRESETS
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


@pytest.mark.parametrize("bad", [{"presses": -1}, {"limit": 1.0}, {"recall": 2.0}])
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
