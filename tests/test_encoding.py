"""The cache of frozen features: reused only for what it is of."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lotj import encoding, stages
from lotj.data.replay import TransitionDataset
from lotj.data.store import TrajectoryStore
from lotj.offline import content_of, stage_run
from lotj.presets import load_preset
from lotj.recipe import Offline, feature_cache, make_learner
from lotj.run import RunMismatchError


@pytest.fixture(scope="module")
def offline(tiny_run: Path) -> Offline:
    return stages.load_offline(tiny_run, load_preset(tiny_run).split())


def encode(run: Path, offline: Offline, path: Path, **changes: int) -> np.ndarray:
    """Encode through the stage, and read what the cache holds."""
    preset = load_preset(run)
    recipe = replace(preset.practice, features=replace(preset.practice.features, **changes))
    stages.encode_offline(preset, offline, recipe, stages.store_path(run), path, stages.silent_bars)
    return np.array(np.load(path.with_suffix(".npy")))


def test_features_are_encoded_once(
    tiny_run: Path, offline: Offline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is taken as it is."""
    first = encode(tiny_run, offline, tmp_path / "features.safetensors")
    monkeypatch.setattr(encoding, "_encode_all", None)
    assert np.array_equal(encode(tiny_run, offline, tmp_path / "features.safetensors"), first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.npy", "features.safetensors"]


def test_other_networks_or_settings_make_them_anew(tiny_run: Path, offline: Offline, tmp_path: Path) -> None:
    """A folder that was trained anew does not practise on features of the networks before."""
    path = tmp_path / "features.safetensors"
    first = encode(tiny_run, offline, path)
    policy = copy.deepcopy(offline.policy)
    with torch.no_grad():
        next(policy.encoder.parameters()).mul_(-1.0)
    other = replace(offline, policy=policy)
    second = encode(tiny_run, other, path)
    assert second.shape == first.shape and not np.array_equal(second, first)
    assert np.array_equal(encode(tiny_run, offline, path), first)
    assert encode(tiny_run, offline, path, views=2).shape[1] == 2


def test_all_that_an_encoding_depends_on_is_in_its_name(tiny_run: Path, offline: Offline, tmp_path: Path) -> None:
    """Whatever changes what the learner encodes makes the cache another's: clips, components, the policy's head."""
    recipe = load_preset(tiny_run).practice
    head = copy.deepcopy(offline.policy)
    with torch.no_grad():
        next(head.head.parameters()).mul_(-1.0)
    settings = [
        replace(recipe, ensemble=replace(recipe.ensemble, **change))
        for change in ({"components": 5}, {"feature_clip": 0.5}, {"base_clip": 0.3})
    ]
    names = [feature_cache(tmp_path, one, offline).encoding for one in (recipe, *settings)]
    names.append(feature_cache(tmp_path, recipe, replace(offline, policy=head)).encoding)
    assert len(set(names)) == 5
    assert (
        feature_cache(tmp_path, replace(recipe, ensemble=replace(recipe.ensemble, discount=0.5)), offline).encoding
        == names[0]
    )


def test_a_kill_between_numbers_and_their_name_leaves_no_cache(
    tiny_run: Path, offline: Offline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.safetensors"
    encode(tiny_run, offline, path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            encode(tiny_run, offline, path, seed=1)
    preset = load_preset(tiny_run)
    learner, cache = make_learner(preset.practice, offline, 0), feature_cache(path, preset.practice, offline)
    with TrajectoryStore(stages.store_path(tiny_run)) as store:
        assert not encoding.is_cached(learner, preset.practice.features, store, offline.known, cache)


def test_a_cached_practice_reads_no_image(
    tiny_run: Path, offline: Offline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cached costs neither time nor memory for pictures."""
    path = tmp_path / "features.safetensors"
    first = encode(tiny_run, offline, path)

    def read(*_: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr(TrajectoryStore, "read_images", read)
    monkeypatch.setattr(TrajectoryStore, "read_trajectory_images", read)
    assert np.array_equal(encode(tiny_run, offline, path), first)


@pytest.mark.parametrize("wrong", ["action", "reward", "image", "dislodged"])
def test_as_much_other_data_is_other_data(tiny_run: Path, offline: Offline, tmp_path: Path, wrong: str) -> None:
    """An own cell's data, or an import, collected anew after a mistake: neither networks nor features of the old pass
    for those of the new. What was begun before it said so is left alone, and what is simulated says enough."""
    stage, known = load_preset(tiny_run).reward, offline.known
    mistake: dict[str, Any] = {"action": lambda a: -a, "reward": lambda r: 1 - r, "image": lambda i: 255 - i}

    def write(name: str, right: bool) -> Path:
        with TrajectoryStore(stages.store_path(tiny_run)) as source, TrajectoryStore(tmp_path / name, "a") as store:
            for one in map(source.read, range(len(source))):
                if wrong == "dislodged":
                    told = {**one.privileged, "dislodged": ~one.privileged["dislodged"]}
                    store.append(one if right else replace(one, privileged=told))
                else:
                    store.append(one if right else replace(one, **{wrong: mistake[wrong](getattr(one, wrong))}))
        return tmp_path / name

    recipe = load_preset(tiny_run).practice
    learner, cache = make_learner(recipe, offline, 0), feature_cache(tmp_path / "features.safetensors", recipe, offline)
    with TrajectoryStore(write("old", False)) as old, TrajectoryStore(write("new", True)) as new:
        done = stage_run("reward", stage, known, old, tmp_path / "reward", 0).start()
        done.finish({})
        assert stage_run("reward", stage, known, old, tmp_path / "reward", 0).is_done()
        with pytest.raises(RunMismatchError, match="content"):
            stage_run("reward", stage, known, new, tmp_path / "reward", 0).is_done()
        config = json.loads((done.out_dir / "config.json").read_text())
        del config["config"]["content"]
        (done.out_dir / "config.json").write_text(json.dumps(config))
        assert stage_run("reward", stage, known, new, tmp_path / "reward", 0).is_done()
        encoding.offline_features(learner, recipe.frozen, old, known, cache)
        assert encoding.is_cached(learner, recipe.frozen, old, known, cache)
        assert not encoding.is_cached(learner, recipe.frozen, new, known, cache)
    with TrajectoryStore(stages.store_path(tiny_run)) as simulated:
        assert content_of(simulated) is None
        made = stage_run("reward", stage, known, simulated, tmp_path / "simulated", 0).start()
        assert "content" not in json.loads((made.out_dir / "config.json").read_text())["config"]


def test_a_lost_plug_ends_the_task_in_practice_as_in_training(tiny_run: Path, offline: Offline, tmp_path: Path) -> None:
    """Rows from cached features end where rows from pixels end: a lost plug is an end without a reward."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    with TrajectoryStore(stages.store_path(run), "a") as store:
        one = store.read(0)
        lost = one.privileged | {"dislodged": np.arange(len(one) + 1) == len(one)}
        unpaid = replace(one, reward=np.zeros_like(one.reward), terminated=False, truncated=True, privileged=lost)
        store.append(unpaid)
        data = TransitionDataset(store, offline.known.train)
        learner: Any = SimpleNamespace(feature_dim=1, action_dim=store.shape.action)
        buffer = encoding._fill(learner, data, torch.zeros(data.frames, 1, 1), 1)
        cached, pixels = (rows.sample(600, torch.Generator().manual_seed(1)) for rows in (buffer, data))
    assert torch.equal(cached.terminated, pixels.terminated) and torch.equal(cached.reward, pixels.reward)
    assert (pixels.terminated & (pixels.reward == 0)).any()


def test_other_settings_have_a_cache_of_their_own(tiny_run: Path) -> None:
    """Trying settings does not encode the run's frames anew; settings of practice alone share its cache."""
    usual = load_preset(tiny_run).practice
    path = stages.features_path(tiny_run, usual)
    views, components = (
        replace(usual, features=replace(usual.features, views=7)),
        replace(usual, ensemble=replace(usual.ensemble, components=7)),
    )
    discount = replace(usual, ensemble=replace(usual.ensemble, discount=0.5))
    assert path.name == "ensemble.safetensors" == stages.features_path(tiny_run, discount).name
    assert len({path, *(stages.features_path(tiny_run, other) for other in (views, components))}) == 3
    paper = replace(usual, recipe="iql", ensemble=components.ensemble)
    assert stages.features_path(tiny_run, paper).name == "iql.safetensors"
