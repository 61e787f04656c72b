"""Laws of sampling: which rows, how many, and that the numbers in a batch belong together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lotj.data.augment import Augment, AugmentConfig
from lotj.data.batches import FrameSampling
from lotj.data.features import FeatureBuffer
from lotj.data.replay import TransitionDataset, mix
from lotj.data.store import TrajectoryStore
from lotj.types import Trajectory

LENGTHS = (3, 5, 2, 4, 3, 6)
CONNECTORS = ("a", "b", "c", "a", "b", "new")


def marked(number: int, length: int, connector: str) -> Trajectory:
    """A trajectory whose every array says which trajectory and which step it is."""
    frame = np.arange(length + 1)
    image = np.zeros((length + 1, 6, 5, 3), np.uint8)
    image[:, 0, 0, 0], image[..., 1], image[:, 2, 3, 2] = frame, number, 7
    success = frame >= length - number % 2  # one or two positives
    tip = np.zeros((length + 1, 3))
    tip[:, 2] = np.where(frame == 1, 0.003, 0.02)  # frame 1 is a near miss unless it succeeds
    return Trajectory(
        image=image,
        state=np.stack([np.full(length + 1, number), frame], 1).astype(np.float32),
        action=np.stack([np.full(length, number / 10), frame[:-1] / 10], 1).astype(np.float32),
        reward=success[1:].astype(np.float32),
        terminated=number % 2 == 0,
        truncated=number % 2 == 1,
        connector=connector,
        robot="left",
        seed=number,
        source="expert" if number < 4 else "slow",
        privileged={
            "success": success,
            "tip_in_socket": tip,
            **({"dislodged": (frame == length) & (number in (0, 3))} if number != 1 else {}),
        },
    )


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[TrajectoryStore]:
    with TrajectoryStore(tmp_path / "s", "a") as store:
        store.extend(marked(i, length, name) for i, (length, name) in enumerate(zip(LENGTHS, CONNECTORS)))
        yield store


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("preload", [True, False])
def test_fields_of_a_transition_belong_together(store: TrajectoryStore, preload: bool) -> None:
    """Image, state, action, reward, terminated and domain of a row are those of one step; every step is drawn."""
    data = TransitionDataset(store, ["c", "a", "b"], held_out=["new"], preload=preload)
    assert len(data) == sum(LENGTHS) and data.frames == sum(LENGTHS) + len(LENGTHS)
    batch = data.sample(600, generator())
    assert batch.image.shape == (600, 3, 6, 5) and batch.image.dtype == torch.uint8
    domain = {"c": 0, "a": 1, "b": 2, "new": -1}
    seen = set()
    for row in range(600):
        number, step = (int(v) for v in batch.state[row])
        one = store.read(number)
        seen.add((number, step))
        assert torch.equal(batch.image[row], torch.from_numpy(one.image[step]).permute(2, 0, 1))
        assert torch.equal(batch.next_image[row], torch.from_numpy(one.image[step + 1]).permute(2, 0, 1))
        assert batch.next_state[row].tolist() == [number, step + 1]
        assert np.array_equal(batch.action[row].numpy(), one.action[step]) and batch.reward[row] == one.reward[step]
        # The plug of number 3 was lost: the task ended there, though the cell only ran out of tries.
        assert batch.terminated[row].item() is (number in (0, 2, 3, 4) and step == len(one) - 1)
        assert batch.domain[row] == domain[one.connector]
    assert len(seen) == sum(LENGTHS)


def test_a_lost_plug_ends_the_task(store: TrajectoryStore) -> None:
    """Ended is what terminated and what lost its plug, also in what is appended; number 1 does not know."""
    assert store.task_ended.tolist() == [True, False, True, True, True, False]
    store.append(marked(3, 2, "a"))
    assert store.task_ended.tolist() == [True, False, True, True, True, False, True]


def test_only_named_connectors_come_in(store: TrajectoryStore) -> None:
    """A connector that is not named, or excluded, or of another source never appears; domains keep their numbers."""

    def seen(data: TransitionDataset) -> set[tuple[int, int]]:
        batch = data.sample(400, generator())
        return {(int(s), int(d)) for s, d in zip(batch.state[:, 0], batch.domain)}

    assert seen(TransitionDataset(store, ["a", "b"])) == {(0, 0), (3, 0), (1, 1), (4, 1)}
    assert seen(TransitionDataset(store, ["a", "b"], exclude=["a"])) == {(1, 1), (4, 1)}
    assert seen(TransitionDataset(store, [], held_out=["new"])) == {(5, -1)}
    assert seen(TransitionDataset(store, ["a", "b"], sources=["slow"])) == {(4, 1)}
    with pytest.raises(ValueError, match="named twice"):
        TransitionDataset(store, ["a", "new"], held_out=["new"])
    with pytest.raises(ValueError, match="no trajectory of"):
        TransitionDataset(store, ["usb"])


def test_a_limit_takes_robots_in_turn_whatever_is_stored_beyond(tmp_path: Path) -> None:
    """Robots store in chunks of any size: the first N are as many of each, the same from a small store as from a large
    one, and fewer are among more."""
    taken: dict[tuple[int, int, int], list[int]] = {}
    for count, chunk in ((8, 2), (24, 6)):
        with TrajectoryStore(tmp_path / f"{count}", "a") as store:
            order = [2 * i + robot for start in range(0, count // 2, chunk) for robot in (0, 1)
                     for i in range(start, start + chunk)]  # fmt: skip
            for name in ("a", "b"):
                store.extend(replace(marked(1, 3, name), seed=i, robot=("left", "right")[i % 2]) for i in order)
            for limit in (3, 8):
                data = TransitionDataset(store, ["a", "b"], limit=limit)
                for domain in (0, 1):
                    taken[count, limit, domain] = sorted(store.index.seed[data.trajectories[data.domains == domain]])
    for count, domain in ((8, 0), (8, 1), (24, 0), (24, 1)):
        assert taken[count, 3, domain] == [0, 1, 2] and taken[count, 8, domain] == list(range(8))


def test_memory_and_disk_give_the_same_batches(store: TrajectoryStore) -> None:
    """Preloading changes nothing, augmentation included; a dataset is not moved by what is appended later."""
    augment = Augment(AugmentConfig(pad=1))
    datasets = [TransitionDataset(store, ["a", "b"], preload=preload, augment=augment) for preload in (True, False)]
    store.append(marked(9, 3, "a"))
    memory, disk = (
        [data.sample(16, draw), data.sample_frames_balanced(9, draw), data.sample(5, draw)]
        for data, draw in zip(datasets, (generator(4), generator(4)))
    )
    for one, other in zip(memory, disk):
        assert all(torch.equal(a, b) for a, b in zip(one, other))
    assert not (memory[0].state[:, 0] == 9).any()


def test_balanced_frames(store: TrajectoryStore) -> None:
    """Exact halves of true labels, connectors uniform whatever their size, none without a domain, all reached."""
    data = TransitionDataset(store, ["a", "b", "c"], held_out=["new"])
    batch = data.sample_frames_balanced(3001, generator())
    assert batch.label.sum() == 1500
    share = torch.bincount(batch.domain, minlength=3) / 3001
    assert (share - 1 / 3).abs().max() < 4 * (2 / 9 / 3001) ** 0.5
    seen = set()
    for image, label, domain in zip(batch.image, batch.label, batch.domain):
        number, step = int(image[1, 0, 0]), int(image[0, 0, 0])
        assert store.read(number).privileged["success"][step] == label.item()
        assert ["a", "b", "c"].index(CONNECTORS[number]) == domain
        seen.add((number, step))
    assert len(seen) == sum(n + 1 for n, name in zip(LENGTHS, CONNECTORS) if name != "new")
    assert np.array_equal(data.frame_label[:4], [False, False, False, True])
    assert data.frame_domain[:4].tolist() == [0] * 4
    assert torch.equal(data.frame_images(np.array([3]))[0], torch.from_numpy(store.read(0).image[3]).permute(2, 0, 1))


def test_near_misses_have_their_share(store: TrajectoryStore) -> None:
    """45/25/30: the counts of positives, near misses and other failures are exact where every connector has all."""
    data = TransitionDataset(store, ["a", "b"])
    batch = data.sample_frames_balanced(200, generator(), FrameSampling(positive_share=0.45, near_share=25 / 55))
    step = batch.image[:, 0, 0, 0]
    assert batch.label.sum() == 90
    assert (~batch.label & (step == 1)).sum() == 50 and (~batch.label & (step != 1)).sum() == 60
    with pytest.raises(ValueError, match="near_share"):
        FrameSampling(near_share=1.5)


def test_presses_beside_the_hole_have_their_share(tmp_path: Path) -> None:
    """Of 20 negatives 8 near misses, 6 pressed beside the hole, 6 others: exact counts; force alone, or distance alone,
    does not make a press beside; shares that sum to more than 1 are refused."""
    with TrajectoryStore(tmp_path / "s", "a") as store:
        for number, name in enumerate("ab"):
            one = marked(2 * number, 6, name)
            tip = np.zeros((7, 3), np.float32)
            tip[:, 2] = 0.02
            tip[1, 2] = 0.003  # near miss
            tip[2:4, 0] = 0.015  # beside
            one.privileged["tip_in_socket"][:] = tip
            store.append(replace(one, privileged=one.privileged | {"force": np.array([0, 9, 9, 0, 9, 0, 9.0])}))
        data = TransitionDataset(store, ["a", "b"])
        batch = data.sample_frames_balanced(40, generator(), FrameSampling(near_share=0.4, beside_share=0.3))
    step = batch.image[:, 0, 0, 0]
    assert batch.label.sum() == 20
    assert [int((~batch.label & (step == frame)).sum()) for frame in (1, 2)] == [8, 6]
    assert set(step[~batch.label & (step != 1) & (step != 2)].tolist()) == {0, 3, 4, 5}
    with pytest.raises(ValueError, match="must not sum"):
        FrameSampling(near_share=0.6, beside_share=0.5)


def test_a_connector_of_one_class_is_named(tmp_path: Path) -> None:
    """Balancing within a connector that never succeeded is impossible, and says so."""
    with TrajectoryStore(tmp_path / "s", "a") as store:
        store.append(marked(0, 3, "a"))
        failure = marked(1, 3, "b")
        failure.privileged["success"][:] = False
        store.append(failure)
        with pytest.raises(ValueError, match="'b' has no successes"):
            TransitionDataset(store, ["a", "b"]).sample_frames_balanced(4, generator())


def fill(
    data: TransitionDataset, store: TrajectoryStore, views: int = 1, dtype: torch.dtype = torch.float32
) -> FeatureBuffer:
    """A buffer whose feature is (trajectory, step, view)."""
    buffer = FeatureBuffer(data.frames, 3, 2, views, dtype)
    for i, domain in zip(data.trajectories.tolist(), data.domains.tolist()):
        one = store.read(i)
        feature = torch.cat([torch.from_numpy(one.state), torch.zeros(len(one) + 1, 1)], 1).repeat(views, 1, 1)
        feature[..., 2] = torch.arange(views)[:, None]
        action, reward = torch.from_numpy(one.action), torch.from_numpy(one.reward)
        buffer.add(feature if views > 1 else feature[0], action, reward, bool(store.task_ended[i]), domain)
    return buffer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_features_and_pixels_draw_the_same_rows(store: TrajectoryStore, dtype: torch.dtype) -> None:
    """For equal generators `mix` over cached features and over pixels gives the same rows in the same order."""
    offline = TransitionDataset(store, ["a", "b", "c"])
    online = TransitionDataset(store, [], held_out=["new"])
    pixels = mix(offline, online, 64, 0.25, generator(8))
    features = mix(fill(offline, store, dtype=dtype), fill(online, store, dtype=dtype), 64, 0.25, generator(8))
    assert features.feature.dtype == torch.float32
    assert torch.equal(features.feature[:, :2], pixels.state)
    assert torch.equal(features.next_feature[:, :2], pixels.next_state)
    for name in ("action", "reward", "terminated", "domain"):
        assert torch.equal(getattr(features, name), getattr(pixels, name)), name
    assert features.online.tolist() == [False] * 48 + [True] * 16


def test_a_buffer_over_mapped_features_draws_the_same(store: TrajectoryStore, tmp_path: Path) -> None:
    """Features that lie in a mapped file give the batches that added ones give, and are not copied; giving them twice,
    or not at all, or in another shape, is refused."""
    data = TransitionDataset(store, ["a", "b"])
    added = fill(data, store, views=2, dtype=torch.float16)
    np.save(tmp_path / "f.npy", added.features.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "f.npy", mmap_mode="c"))
    buffer = FeatureBuffer(data.frames, 3, 2, 2, feature=mapped)
    for i, domain in zip(data.trajectories.tolist(), data.domains.tolist()):
        one = store.read(i)
        action, reward = torch.from_numpy(one.action), torch.from_numpy(one.reward)
        buffer.add(None, action, reward, bool(store.task_ended[i]), domain)
    for ours, theirs in zip(buffer.sample(64, generator(3)), added.sample(64, generator(3))):
        assert torch.equal(ours, theirs)
    assert buffer.features.data_ptr() == mapped.data_ptr()
    with pytest.raises(ValueError, match="expected None exactly where"):
        FeatureBuffer(10, 3, 2).add(None, action, reward, True)
    with pytest.raises(ValueError, match="expected None exactly where"):
        buffer.add(torch.zeros(2, len(action) + 1, 3), action, reward, True)
    with pytest.raises(ValueError, match="feature: expected"):
        FeatureBuffer(data.frames, 4, 2, 2, feature=mapped)


def test_mix_counts_are_exact(store: TrajectoryStore) -> None:
    """Online rows number round(batch * fraction); a missing side is made up for by the other."""
    offline = fill(TransitionDataset(store, ["a", "b"]), store)
    online = fill(TransitionDataset(store, [], held_out=["new"]), store)
    empty = FeatureBuffer(10, 3, 2)
    for batch, fraction, count in ((128, 0.25, 32), (10, 0.25, 2), (7, 0.5, 4), (9, 0.0, 0), (9, 1.0, 9)):
        drawn = mix(offline, online, batch, fraction, generator())
        assert len(drawn.reward) == batch and drawn.online.sum() == count == (drawn.domain == -1).sum()
    assert mix(offline, empty, 8, 0.5, generator()).online.sum() == 0
    assert mix(offline, None, 8, 0.5, generator()).online.sum() == 0
    assert mix(empty, online, 8, 0.5, generator()).online.sum() == 8
    with pytest.raises(ValueError, match="both empty"):
        mix(empty, None, 8, 0.5, generator())
    with pytest.raises(ValueError, match="online_fraction"):
        mix(offline, online, 8, 25, generator())


def test_augmentation_touches_offline_rows_only(store: TrajectoryStore) -> None:
    """Online rows of a pixel batch are raw; offline rows are what the augmentation made of them."""

    def invert(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return 255 - image

    offline = TransitionDataset(store, ["a"], augment=invert)
    online = TransitionDataset(store, [], held_out=["new"])
    batch = mix(offline, online, 40, 0.25, generator())
    for image in (batch.image, batch.next_image):
        assert torch.equal(image[:, 1, 0, 0] > 127, torch.arange(40) < 30)
        assert image.is_contiguous(memory_format=torch.channels_last)


def test_views_are_drawn_at_random(store: TrajectoryStore) -> None:
    """All views of a frame come up about equally, and independently for the two frames of a transition."""
    buffer = fill(TransitionDataset(store, ["a", "b"]), store, views=3)
    batch = buffer.sample(3000, generator())
    pair = torch.bincount((batch.feature[:, 2] * 3 + batch.next_feature[:, 2]).long(), minlength=9) / 3000
    assert (pair - 1 / 9).abs().max() < 4 * (8 / 81 / 3000) ** 0.5
    assert torch.equal(batch.next_feature[:, 1], batch.feature[:, 1] + 1)
    assert torch.equal(batch.next_feature[:, 0], batch.feature[:, 0])
    assert buffer.features.shape == (buffer.frames, 3, 3)


def test_buffer_refuses_what_does_not_fit() -> None:
    """Wrong shapes and a full buffer are errors that leave the buffer as it was."""
    buffer = FeatureBuffer(5, 3, 2)
    buffer.add(torch.ones(4, 3), torch.ones(3, 2), torch.ones(3), True)
    for feature, action, reward in ((3, 3, 3), (4, 3, 2), (4, 4, 4)):
        with pytest.raises(ValueError, match="feature, action, reward"):
            buffer.add(torch.ones(feature, 3), torch.ones(action, 2), torch.ones(reward), True)
    with pytest.raises(ValueError, match=r"trials x \(horizon"):
        buffer.add(torch.ones(2, 3), torch.ones(1, 2), torch.ones(1), True)
    assert len(buffer) == 3 and buffer.frames == 4
    assert buffer.sample(50, generator()).terminated.any()
