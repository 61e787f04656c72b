"""The offline stages: what they start from and what they refuse; streams of randomness."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lotj import offline, pipeline, recipe, reward_validation
from lotj.algos.iql import CriticConfig, CriticLearner, CriticNetwork
from lotj.algos.policy import PolicyConfig
from lotj.algos.reward import RewardConfig
from lotj.data.store import TrajectoryStore
from lotj.judge import SuccessRule
from lotj.nets.encoder import EncoderConfig
from lotj.offline import CriticStage, Known, PolicyStage, RewardStage
from lotj.run import Run
from lotj.seeds import stream_seed
from lotj.types import Trajectory

ENCODER = EncoderConfig(4, 32)
KNOWN = Known(("usb-a", "rj45"), ("bnc",))


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    """Two trajectories of noise of each training connector, the first a success."""
    rng = np.random.default_rng(0)
    with TrajectoryStore(tmp_path / "t.sqlite", "a") as writing:
        for seed, (connector, success) in enumerate(itertools.product(KNOWN.train, (True, False))):
            label = np.array([False, False, success])
            writing.append(
                Trajectory(
                    image=rng.integers(0, 256, (3, 32, 32, 3), np.uint8),
                    state=np.zeros((3, 0), np.float32),
                    action=np.zeros((2, 3), np.float32),
                    reward=label[1:].astype(np.float32),
                    terminated=success,
                    truncated=not success,
                    connector=connector,
                    robot="sawyer-a",
                    seed=seed,
                    source="expert",
                    privileged={"success": label, "tip_in_socket": np.zeros((3, 3))},
                )
            )
    return TrajectoryStore(tmp_path / "t.sqlite")


def test_streams_of_a_seed_are_apart() -> None:
    """A stream is a function of seed and names in order; no two of them agree, and none is the seed itself."""
    streams = [stream_seed(seed, *names) for seed in (0, 1) for names in ((), ("a",), ("b",), ("a", "b"), ("b", "a"))]
    assert len(set(streams)) == len(streams) and not {0, 1} & set(streams)
    assert stream_seed(0, "reward", "batches") == stream_seed(0, "reward", "batches") < 2**63


def test_stages_start_apart(store: TrajectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one seed for all, the encoders of reward, Q, V and policy start with different weights, and no two of the
    stages' batch and noise generators draw alike."""
    started: list[tuple[Any, torch.Generator]] = []

    class Stop(Exception):
        pass

    def train(learner: Any, batches: Any, steps: int, run: Any, *, generators: Any, **_: Any) -> None:
        started.append((learner, generators["batches"]))
        raise Stop

    monkeypatch.setattr(offline, "train", train)
    critic = CriticNetwork(CriticConfig(ENCODER), 3)
    stages: list[Callable[[], Any]] = [
        lambda: offline.train_reward(RewardStage(RewardConfig(ENCODER)), store, KNOWN, tmp_path / "r", 0),
        lambda: offline.train_critic(CriticStage(CriticConfig(ENCODER)), store, KNOWN, tmp_path / "c", 0),
        lambda: offline.train_policy(PolicyStage(PolicyConfig(ENCODER)), store, KNOWN, critic, tmp_path / "p", 0),
    ]
    for stage in stages:
        with pytest.raises(Stop):
            stage()
    encoders: list[Any] = []
    for learner, _ in started:
        network = learner.network
        encoders += [network.q_encoder, network.v_encoder] if isinstance(learner, CriticLearner) else [network.encoder]
    assert len(encoders) == 4
    for one, other in itertools.combinations(encoders, 2):
        assert not torch.equal(one.stem[0].weight, other.stem[0].weight)
    generators = [generator for learner, batches in started for generator in (learner.generator, batches)]
    draws = [tuple(torch.randint(2**31, (4,), generator=generator).tolist()) for generator in generators]
    assert len(set(draws)) == len(draws) == 6


def test_each_connector_is_practised_from_places_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives two connectors different trials, and one connector the same trials with any reward. Practice
    is told how long a cell's trials are, and where they start if the cell decides that itself."""
    drawn: list[tuple[int, int]] = []
    told: list[tuple[int, str]] = []

    class Stop(Exception):
        pass

    def practice(config: Any, fleet: Any, learner: Any, features: Any, run: Any, rng: Any, *_: Any) -> None:
        drawn.append((learner, int(rng.integers(2**31))))
        told.append((config.horizon, config.scenario))
        raise Stop

    monkeypatch.setattr(pipeline, "make_learner", lambda config, offline, seed: seed)
    monkeypatch.setattr(pipeline, "offline_features", lambda *_: None)
    monkeypatch.setattr(pipeline, "open_fleet", lambda *_: None)
    monkeypatch.setattr(pipeline, "practise_in_rounds", practice)
    known: Any = type("Offline", (), {"known": KNOWN, "reward": None, "rule": SuccessRule()})
    held: Any = type("Store", (), {"shape": type("Shape", (), {"height": 32, "cameras": 2}), "metadata": {}})
    for number, connector in enumerate(("europlug", "nema-5-15", "europlug")):
        run = Run(tmp_path / str(number), "practice", {}, 0)
        with pytest.raises(Stop):
            config = recipe.RecipeConfig().resolved("ground-truth")
            pipeline.practise(connector, "sawyer-a", config, known, held, run, 0)
    assert drawn[0] == drawn[2]
    assert len({*drawn[0], *drawn[1]}) == 4
    assert told == [(20, "mixed")] * 3
    monkeypatch.setattr(pipeline, "honours_scenarios", lambda robot: False)
    monkeypatch.setattr(pipeline, "longest_trial", lambda robot: 33)
    with pytest.raises(Stop):
        pipeline.practise("europlug", "sawyer-a", config, known, held, Run(tmp_path / "own", "practice", {}, 0), 0)
    assert told[-1] == (33, "own")


def test_a_connector_is_known_once() -> None:
    """A name given twice would be two domains of one connector."""
    with pytest.raises(ValueError, match="names rj45 more than once"):
        Known(("rj45", "usb-a", "rj45"), ("bnc",))


def test_calibration_needs_both_classes_somewhere() -> None:
    """Rows are balanced within connectors that have both classes; where none has, the error says what was seen."""
    label, connector = np.array([True, False, False, False]), np.array(["a", "a", "b", "b"])
    rows = reward_validation._rebalanced(label, connector)
    assert sorted(rows.tolist()) == [0, 1]
    with pytest.raises(ValueError, match=r"successes among its frames: b: 0.*collect more"):
        reward_validation._rebalanced(label[2:], connector[2:])
