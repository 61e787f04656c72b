"""Collection: the same data whatever the number of workers, killed or not; dislodged trials counted, not kept."""

import dataclasses
import hashlib
import json
from importlib import resources

import numpy as np
import pytest

from lotj import collect as collecting
from lotj.collect import CollectConfig, collect, trajectory_seed
from lotj.data.store import TrajectoryStore
from lotj.offline import Known
from lotj.presets import PRESETS
from lotj.rollout import rollout
from lotj.sim.connectors import TEST_CONNECTORS, get_connector, load_catalogue, variants_of
from lotj.sim.distance import barred_from_training
from lotj.sim.env import InsertionEnv
from lotj.sim.expert import Expert, ExpertConfig
from lotj.split import known_connectors, refuse_known, split_by_group

CONFIG = CollectConfig(("usb-a", "rj45"), trajectories=6, slow=0.3, wrong_place=0.3, image_size=32)


def content(path):
    """All that a store holds, in order."""
    with TrajectoryStore(path) as store:
        return [store.read(i) for i in range(len(store))]


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert (a.connector, a.robot, a.seed, a.source, a.terminated) == (
            b.connector,
            b.robot,
            b.seed,
            b.source,
            b.terminated,
        )
        for name in ("image", "action", "reward"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_same_store_whatever_the_workers(tmp_path, monkeypatch):
    """A trajectory depends on its seed alone: one process and two give the same store, in the same order."""
    monkeypatch.setattr(collecting, "CHUNK", 3)
    one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    collect(CONFIG, one, workers=1)
    collect(CONFIG, two, workers=2)
    assert_equal(content(one), content(two))


def test_a_killed_collection_continues(tmp_path, monkeypatch):
    """Interrupted after some trajectories and repeated, it ends with the store of an uninterrupted one."""
    whole, broken = tmp_path / "whole.sqlite", tmp_path / "broken.sqlite"
    monkeypatch.setattr(collecting, "CHUNK", 4)
    collect(CONFIG, whole, workers=1)

    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(CONFIG, broken, workers=1, progress=interrupt)
    assert 0 < len(content(broken)) < 12
    collect(CONFIG, broken, workers=1)
    assert_equal(content(whole), content(broken))


def test_another_config_is_refused(tmp_path):
    """A store keeps to one collection; the error names what differs."""
    collect(dataclasses.replace(CONFIG, trajectories=1), tmp_path / "s.sqlite", workers=1)
    with pytest.raises(ValueError, match="trajectories"):
        collect(dataclasses.replace(CONFIG, trajectories=2), tmp_path / "s.sqlite", workers=1)


@pytest.mark.parametrize("trajectories", [1, 6, 33, 80, 81])
def test_robots_share_the_work_evenly(trajectories):
    """Each robot takes as many trajectories of a connector as the other, or one more; every index is rolled once."""
    config = dataclasses.replace(CONFIG, trajectories=trajectories)
    for connector in config.connectors:
        chunks = [chunk for chunk in collecting._chunks(config) if chunk.connector == connector]
        assert sorted(index for chunk in chunks for index in chunk.indices) == list(range(trajectories))
        assert all(0 < len(chunk.indices) <= collecting.CHUNK for chunk in chunks)
        counts = [sum(len(c.indices) for c in chunks if c.robot == robot) for robot in config.robots]
        assert max(counts) - min(counts) == trajectories % 2
    rounds = [(chunk.connector, chunk.robot) for chunk in collecting._chunks(config)]
    assert len(set(rounds[:4])) == min(4, len(rounds))


def test_counts_of_each_connector(tmp_path):
    """Each connector's trajectories are those of a uniform collection of so many, in its order, and no more; equal
    counts are the uniform collection; a killed collection continues; another count is refused."""
    counted, uniform = tmp_path / "counted.sqlite", tmp_path / "uniform.sqlite"
    config = dataclasses.replace(CONFIG, counts=(5, 2))
    assert config.planned == (5, 2) and CONFIG.planned == (6, 6)
    collect(config, counted, workers=1)
    for name, count in zip(CONFIG.connectors, config.counts):
        path = tmp_path / f"{name}.sqlite"
        collect(dataclasses.replace(CONFIG, connectors=(name,), trajectories=count), path, workers=1)
        assert_equal([t for t in content(counted) if t.connector == name], content(path))
    assert collect(config, counted, workers=1).trajectories == 7
    for other in (dataclasses.replace(CONFIG, counts=(5, 3)), CONFIG):
        with pytest.raises(ValueError, match="another counts"):
            collect(other, counted, workers=1)
    chunks = [chunk[1:] for chunk in collecting._chunks(CONFIG)]
    assert [chunk[1:] for chunk in collecting._chunks(dataclasses.replace(CONFIG, counts=(6, 6)))] == chunks
    collect(dataclasses.replace(CONFIG, trajectories=1), uniform, workers=1)
    with TrajectoryStore(uniform) as store:
        assert "counts" not in store.metadata["collect"]


@pytest.mark.parametrize(
    ("trajectories", "digest"), [(1, "1684d4776fdd2287"), (33, "53cc50a7ed4745f4"), (80, "a21426d42855f346")]
)
def test_uniform_collections_keep_their_order(trajectories, digest):
    """What is rolled by whom, in which order, as before connectors could have counts of their own: stores that were
    begun then are continued to the same rows."""
    config = CollectConfig(("usb-a", "rj45", "bnc"), trajectories)
    chunks = [(chunk.connector, chunk.robot, chunk.indices) for chunk in collecting._chunks(config)]
    assert hashlib.sha256(json.dumps(chunks).encode()).hexdigest().startswith(digest)


def test_wrong_counts_are_refused():
    """The error names the connector, or how many counts there are for how many connectors."""
    with pytest.raises(ValueError, match="1 entries for 2 connectors"):
        dataclasses.replace(CONFIG, counts=(3,))
    with pytest.raises(ValueError, match="rj45 has 0, expected at least 1"):
        dataclasses.replace(CONFIG, counts=(3, 0))


def test_no_connectors_is_refused():
    """The error names the field and what lists connectors, and nothing that would be refused in turn."""
    with pytest.raises(ValueError, match=r"connectors is empty.*lotj connectors") as refusal:
        CollectConfig(())
    assert "'all'" not in str(refusal.value)


def test_a_store_says_how_it_came_about(tmp_path):
    """Command, commit, versions and all fields of each connector are in the store; a second one has the same rows."""
    config = dataclasses.replace(CONFIG, trajectories=1)
    metadata = []
    for name in ("one", "two"):
        collect(config, tmp_path / f"{name}.sqlite", workers=1)
        with TrajectoryStore(tmp_path / f"{name}.sqlite") as store:
            metadata.append(store.metadata)
    assert metadata[0] == metadata[1]
    assert metadata[0]["provenance"]["versions"]["numpy"] == np.__version__ and metadata[0]["provenance"]["command"]
    usb = get_connector("usb-a")
    held = metadata[0]["connectors"]["usb-a"]
    assert set(held) == {field.name for field in dataclasses.fields(usb)}
    assert held["insertion_depth"] == usb.insertion_depth and len(held["parts"]) == len(usb.parts)


def test_an_edited_connector_is_refused(tmp_path):
    """A collection resumed after its connector's file was edited would mix two connectors under one name."""
    text = (resources.files("lotj.sim") / "catalogue" / "usb.toml").read_text(encoding="utf-8")
    head, first, *_ = text.split("[[connector]]")
    mine, path = tmp_path / "mine.toml", tmp_path / "s.sqlite"
    mine.write_text(head + "[[connector]]" + first)
    config = CollectConfig((str(mine),), trajectories=1, image_size=32)
    collect(config, path, workers=1)
    collect(config, path, workers=1)
    mine.write_text(mine.read_text().replace('body_colour = "black"', 'body_colour = "white"'))
    with pytest.raises(ValueError, match=r"'usb-a' with another body_colour"):
        collect(config, path, workers=1)
    mine.write_text(mine.read_text().replace('name = "usb-a"', 'name = "usb-mine"'))
    with pytest.raises(ValueError, match=r"holds trajectories of 'usb-a', which the files named now do not describe"):
        collect(config, path, workers=1)


def test_one_named_connector_can_be_collected():
    """Training needs a split, collection does not."""
    preset = dataclasses.replace(PRESETS["debug"], known=("usb-a",))
    assert preset.collect().connectors == ("usb-a",)


def test_dislodged_trials_are_counted_and_discarded(tmp_path, monkeypatch):
    """A trial whose plug is dislodged is not stored, is counted, and is not tried again."""
    real = collecting.rollout

    def dislodging(*args, seed, **kwargs):
        trajectory = real(*args, seed=seed, **kwargs)
        if seed == trajectory_seed(0, "usb-a", 1):
            trajectory.privileged["dislodged"][-1] = True
        return trajectory

    monkeypatch.setattr(collecting, "rollout", dislodging)
    config = dataclasses.replace(CONFIG, connectors=("usb-a",), trajectories=3)
    for _ in range(2):
        collected = collect(config, tmp_path / "s.sqlite", workers=1)
        assert collected.trajectories == 2
        assert collected.dislodged == {"usb-a": 1}


def test_labels_stay_true_in_all_sources(tmp_path):
    """Reward is ground truth of the next frame for expert, slow and wrong-place trajectories alike; wrong places
    fail."""
    config = dataclasses.replace(CONFIG, trajectories=12)
    collect(config, tmp_path / "s.sqlite", workers=2)
    sources = set()
    for trajectory in content(tmp_path / "s.sqlite"):
        sources.add(trajectory.source)
        np.testing.assert_array_equal(trajectory.reward > 0, trajectory.privileged["success"][1:])
        if trajectory.source == "wrong-place":
            assert not trajectory.terminated
    assert sources == {"expert", "slow", "wrong-place"}


def test_a_flight_stays_in_the_air():
    """It gets to its place and height and stays; below the mouth is refused."""
    env = InsertionEnv("usb-a", images=False)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        trajectory = rollout(env, Expert(env, ExpertConfig(0.0, wrong_place=0.03, hover=0.05)), rng, seed=seed)
        tip = trajectory.privileged["tip_in_socket"][-3:]
        assert np.abs(np.linalg.norm(tip[:, :2], axis=1) - 0.03).max() < 0.002
        assert np.abs(tip[:, 2] - env.connector.insertion_depth - 0.05).max() < 0.002
    with pytest.raises(ValueError, match="hover"):
        ExpertConfig(hover=-0.01)


def test_a_third_of_the_wrong_places_is_far_and_a_sixth_in_the_air():
    """By counting: 1200 draws, within four standard deviations."""
    config, rng = CollectConfig(("usb-a",), wrong_place=1.0), np.random.default_rng(0)
    experts = [collecting._draw_behaviour(config, rng)[1] for _ in range(1200)]
    flights = [expert for expert in experts if expert.hover is not None]
    far = [expert for expert in experts if expert.hover is None and expert.wrong_place >= 0.02]
    assert abs(len(flights) / 1200 - 1 / 6) < 0.044 and abs(len(far) / 1200 - 1 / 3) < 0.055
    assert all(0.015 <= expert.hover <= 0.08 and expert.wrong_place <= 0.06 for expert in flights)


def test_no_test_connector_is_ever_known():
    """The four test connectors, all their close variants and their twins in other families are absent from every choice
    of known connectors, the largest included; one more is refused."""
    held_out = barred_from_training()
    assert {variant for name in TEST_CONNECTORS for variant in variants_of(name)} < held_out
    with pytest.raises(ValueError, match=f"the catalogue has {len(load_catalogue()) - len(held_out)}"):
        known_connectors(len(load_catalogue()) - len(held_out) + 1, 3)
    for count in (10, 44, len(load_catalogue()) - len(held_out)):
        known = known_connectors(count, 3)
        assert len(known.train) + len(known.validation) == count
        assert not held_out & {*known.train, *known.validation}
        groups = {load_catalogue()[name].group for name in known.validation}
        assert not groups & {load_catalogue()[name].group for name in known.train}


def test_practice_refuses_what_training_knew():
    """A trained connector, or a close variant of one, cannot be practised as novel."""
    known = known_connectors(44, 5)
    with pytest.raises(ValueError, match="not novel"):
        refuse_known(known.train[0], known)
    assert refuse_known("europlug", known) is False


def test_practice_refuses_validation_connectors_unless_asked():
    """What thresholds were chosen on is not novel, by name or by group; on purpose it may be practised, and is said to
    be what it is."""
    known = Known(("usb-a", "rj45"), ("bnc-75",))
    for name in ("bnc-75", "bnc"):
        with pytest.raises(ValueError, match=r"bnc-75.*group 'bnc'.*validation"):
            refuse_known(name, known)
        assert refuse_known(name, known, allow_validation=True) is True
    with pytest.raises(ValueError, match="training knew usb-a"):
        refuse_known("usb-a", known, allow_validation=True)


def test_groups_of_own_files_count(tmp_path):
    """A TOML connector that was known makes its group known, for files and catalogue alike; so does one to practise."""
    text = (resources.files("lotj.sim") / "catalogue" / "usb.toml").read_text(encoding="utf-8")
    head, *entries = text.split("[[connector]]")
    mine = tmp_path / "mine.toml"
    mine.write_text(head + "[[connector]]" + entries[0].replace('name = "usb-a"', 'name = "my-usb"'))
    assert get_connector(str(mine)).group == get_connector("usb-a").group
    own = (str(mine), "rj45", "bnc")
    known = split_by_group([get_connector(name) for name in own], 1)
    with pytest.raises(ValueError, match=r"'usb-a' is not novel.*my-usb"):
        refuse_known("usb-a", known, own)
    with pytest.raises(ValueError, match="training knew usb-a"):
        refuse_known(str(mine), Known(("usb-a", "rj45"), ("bnc",)))


def test_named_connectors_split_by_group():
    """Connectors known by name: the last groups stand aside whole, the rest is trained on."""
    preset = dataclasses.replace(PRESETS["debug"], known=("usb-a", "usb-3-a", "rj45", "bnc", "bnc-75"), validation=1)
    assert preset.split() == Known(("usb-a", "usb-3-a", "rj45"), ("bnc", "bnc-75"))
    assert preset.collect().connectors == preset.known
