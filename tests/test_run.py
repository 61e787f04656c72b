"""Run folders, checkpoints and exact resume."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

import lotj.run as run_module
from lotj.algos.calibration import reliability
from lotj.algos.reward import RewardConfig, RewardLearner
from lotj.algos.training import config_from, train
from lotj.checkpoint import CheckpointError, join_state, load_state, save_state, split_state
from lotj.data.augment import AugmentConfig
from lotj.data.batches import FrameBatch
from lotj.encoding import FeatureConfig
from lotj.files import BusyError, to_json, write_json
from lotj.nets.bottleneck import BottleneckConfig
from lotj.nets.encoder import EncoderConfig
from lotj.run import TENSORBOARD, Run, RunMismatchError, read_metrics


@dataclass(frozen=True)
class Inner:
    widths: tuple[int, ...] = (4, 8)


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    inner: Inner = field(default_factory=Inner)


def open_run(path: Path, config: Config = Config(), seed: int = 0) -> Run:
    return Run(path / "stage", "reward", config, seed)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    """While one process is at work in a folder another is refused; when the first ends, however, the folder is free."""
    code = (
        "import sys, time; from lotj.run import Run; "
        "run = Run(sys.argv[1], 'reward', {}, 0).start(); print('started', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "stage")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "started\n"
        with pytest.raises(BusyError, match="another process"):
            Run(tmp_path / "stage", "reward", {}, 0).start()
    finally:
        other.kill()
        other.wait()
    Run(tmp_path / "stage", "reward", {}, 0).start()


# -- the folder -------------------------------------------------------------------------------------------------------


def test_constructing_touches_nothing(tmp_path: Path) -> None:
    """A folder appears when a run starts, not before."""
    run = open_run(tmp_path)
    assert not run.is_done() and not run.out_dir.exists()
    with pytest.raises(RuntimeError, match="start"):
        run.log(1, loss=0.0)


def test_config_says_what_was_run(tmp_path: Path) -> None:
    """config.json carries stage, seed, config, command, commit, versions and time."""
    run = open_run(tmp_path).start()
    stored = json.loads((run.out_dir / "config.json").read_text())
    assert stored["config"] == {"rate": 0.1, "inner": {"widths": [4, 8]}}
    assert (stored["stage"], stored["seed"]) == ("reward", 0)
    assert stored["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"command", "git", "platform", "started"} <= set(stored)


def test_done_stage_is_reused_with_the_same_config(tmp_path: Path) -> None:
    """is_done is true after finish, in a new process too, and the summary is there."""
    run = open_run(tmp_path).start()
    assert not run.is_done()
    run.finish({"accuracy": np.float32(0.5), "path": Path("a")})
    assert open_run(tmp_path).is_done()
    done = json.loads((run.out_dir / "done.json").read_text())
    assert done["summary"] == {"accuracy": 0.5, "path": "a"} and done["seconds"] >= 0


@pytest.mark.parametrize(
    "other, field_name",
    [
        (Config(rate=0.2), r"config\.rate is 0\.1 there and 0\.2 now"),
        (Config(inner=Inner((4, 9))), r"config\.inner\.widths is \[4, 8\] there and \[4, 9\] now"),
    ],
)
def test_another_config_is_refused_by_field(tmp_path: Path, other: Config, field_name: str) -> None:
    """The error names the differing fields, both values, and the ways out; nothing is overwritten."""
    run = open_run(tmp_path).start()
    before = (run.out_dir / "config.json").read_bytes()
    for attempt in (open_run(tmp_path, other).is_done, open_run(tmp_path, other).start):
        with pytest.raises(RunMismatchError, match=field_name + ".*delete that folder"):
            attempt()
    with pytest.raises(RunMismatchError, match="seed is 0 there and 1 now"):
        open_run(tmp_path, seed=1).start()
    assert (run.out_dir / "config.json").read_bytes() == before


def test_a_torn_last_row_is_repaired(tmp_path: Path) -> None:
    """A kill in the middle of a line loses that line only."""
    run = open_run(tmp_path).start()
    run.log(1, loss=1.5)
    with (run.out_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in read_metrics(run.out_dir)] == [1]
    again = open_run(tmp_path).start()
    again.log(2, loss=1.25)
    assert [(row["step"], row["loss"]) for row in read_metrics(run.out_dir)] == [(1, 1.5), (2, 1.25)]


def test_seconds_accumulate_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock continues from the last row or checkpoint, whichever is later."""
    now = [100.0]
    monkeypatch.setattr(run_module.time, "monotonic", lambda: now[0])
    run = open_run(tmp_path).start()
    now[0] += 5
    run.log(1, loss=0.0)
    now[0] += 2
    run.save_checkpoint({"step": 1})
    now[0] = 1000.0
    again = open_run(tmp_path).start()
    now[0] += 1
    assert again.seconds == pytest.approx(8)


def test_tensorboard_is_written_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files appear at the first log where the environment asks for them; where the package lacks, it is named."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    silent = Run(tmp_path / "silent", "reward", Config(), 0).start()
    silent.log(1, loss=0.5)
    silent.finish({})
    assert not (silent.out_dir / "tensorboard").exists()
    monkeypatch.setenv(TENSORBOARD, "1")
    run = Run(tmp_path / "a", "reward", Config(), 0).start()
    assert not (run.out_dir / "tensorboard").exists()
    run.log(1, loss=0.5)
    run.finish({})
    events = EventAccumulator(str(run.out_dir / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/loss")] == [(1, 0.5)]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[tensorboard\]'"):
        Run(tmp_path / "b", "reward", Config(), 0).start().log(1, loss=0.5)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files change by renaming a finished one: an interruption before that changes nothing."""
    write_json(tmp_path / "a.json", {"x": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write_json(tmp_path / "a.json", {"x": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_json_names_what_it_cannot_hold() -> None:
    """The error gives the path to the offender."""
    with pytest.raises(TypeError, match=r"value\.a\[1\] is a set"):
        to_json({"a": [1, {2}]})


def state() -> dict:
    network = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    return {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "torch": torch.Generator().manual_seed(3).get_state(),
        "numpy": np.random.default_rng(3).bit_generator.state,
        "scalars": [1, 0.1, None, True, "é", (1, 2)],
        "empty": torch.zeros(0, 3),
        "zero-dimensional": torch.tensor(5, dtype=torch.int64),
    }


def assert_same(a: object, b: object) -> None:
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        for layout in (torch.contiguous_format, torch.channels_last) if a.ndim == 4 else ():
            assert a.is_contiguous(memory_format=layout) == b.is_contiguous(memory_format=layout)
    elif isinstance(a, dict):
        assert isinstance(b, dict) and list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert type(a) is type(b) and len(a) == len(b)  # type: ignore[arg-type]
        for x, y in zip(a, b, strict=True):  # type: ignore[call-overload]
            assert_same(x, y)
    else:
        assert type(a) is type(b) and a == b


def test_state_round_trip(tmp_path: Path) -> None:
    """Modules, Adam, generators and scalars come back equal: values, types, order, integer keys and memory layout."""
    original = state()
    save_state(tmp_path / "x.safetensors", original)
    assert_same(original, load_state(tmp_path / "x.safetensors"))
    tensors, skeleton = split_state(original)
    assert_same(original, join_state(tensors, json.loads(json.dumps(skeleton))))


def test_state_refuses_objects(tmp_path: Path) -> None:
    """Tensors and JSON only: nothing that would need pickle."""
    with pytest.raises(TypeError, match="state/a/0 is a object"):
        save_state(tmp_path / "x.safetensors", {"a": [object()]})


def test_a_damaged_checkpoint_is_noticed(tmp_path: Path) -> None:
    """A flipped byte in the tensors, a truncated file and a stranger's file are errors that name the file."""
    path = tmp_path / "x.safetensors"
    save_state(path, {"w": torch.arange(100.0)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="does not match its hash"):
        load_state(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_state(path)
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, str(path))
    with pytest.raises(CheckpointError, match="not a lotj checkpoint"):
        load_state(path)


def test_no_temporary_files_remain(tmp_path: Path) -> None:
    """Only the finished file is left behind."""
    save_state(tmp_path / "x.safetensors", {"w": torch.zeros(1)})
    assert os.listdir(tmp_path) == ["x.safetensors"]


# -- training ---------------------------------------------------------------------------------------------------------

REWARD = RewardConfig(
    encoder=EncoderConfig(width=4, image_size=32),
    bottleneck=BottleneckConfig(invariant_dim=4, specific_dim=4, adversarial_warmup=20),
    hidden=(8,),
)


class Killed(Exception):
    pass


def train_reward(out_dir: Path, steps: int = 12, kill_at: int | None = None) -> RewardLearner:
    """Train on random batches drawn from two generators; ``kill_at`` interrupts in the middle of a step."""
    learner = RewardLearner(REWARD, domains=3, seed=0, device="cpu")
    pixels, labels = torch.Generator().manual_seed(1), np.random.default_rng(2)
    calls = 0

    def batches() -> FrameBatch:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed
        image = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=pixels)
        return FrameBatch(image, torch.from_numpy(labels.integers(0, 2, 6)), torch.arange(6) % 3)

    run = Run(out_dir, "reward", REWARD, 0).start()
    train(
        learner,
        batches,
        steps,
        run,
        generators={"pixels": pixels, "labels": labels},
        log_every=2,
        checkpoint_every=4,
        threads=1,
    )
    return learner


def test_resumed_training_is_bit_identical(tmp_path: Path) -> None:
    """Killed between checkpoint and end, then resumed: network, Adam, generators and metrics are the same."""
    straight = train_reward(tmp_path / "straight")
    with pytest.raises(Killed):
        train_reward(tmp_path / "killed", kill_at=8)  # after the row of step 6, before the checkpoint of step 8
    assert [row["step"] for row in read_metrics(tmp_path / "killed")] == [2, 4, 6]
    resumed = train_reward(tmp_path / "killed")
    assert_same(straight.state_dict(), resumed.state_dict())

    def rows(path: Path) -> list[dict]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(path)]

    assert rows(tmp_path / "killed") == rows(tmp_path / "straight")
    assert [row["step"] for row in rows(tmp_path / "straight")] == [2, 4, 6, 8, 10, 12]
    final = [load_state(tmp_path / name / "checkpoint.safetensors")["generators"] for name in ("straight", "killed")]
    assert_same(*final)


def test_finished_training_makes_no_further_step(tmp_path: Path) -> None:
    """Training to a number of steps already made returns at once with the trained weights."""
    first = train_reward(tmp_path / "a", steps=4)
    assert_same(first.state_dict(), train_reward(tmp_path / "a", steps=4, kill_at=1).state_dict())
    row = {k: v for k, v in read_metrics(tmp_path / "a")[-1].items() if k not in ("step", "seconds")}
    assert load_state(tmp_path / "a" / "checkpoint.safetensors")["row"] == row


def test_progress_and_threads(tmp_path: Path) -> None:
    """Progress sees each row; torch's thread count is as before afterwards; torn averages are refused."""

    class Counter:
        def update(self, batch: float) -> dict[str, float]:
            return {"value": batch, "threads": torch.get_num_threads()}

        def state_dict(self) -> dict:
            return {}

        def load_state_dict(self, state: object) -> None: ...

    seen: list[tuple[int, float]] = []
    values = iter(range(10))
    run = Run(tmp_path / "a", "x", Config(), 0).start()
    before = torch.get_num_threads()
    last = train(
        Counter(),
        lambda: float(next(values)),
        5,
        run,
        generators={},
        log_every=2,
        checkpoint_every=2,
        threads=before + 1,
        progress=lambda step, row: seen.append((step, row["value"])),
    )
    assert seen == [(2, 0.5), (4, 2.5), (5, 4.0)]
    assert last == {"value": 4.0, "threads": before + 1} and torch.get_num_threads() == before
    with pytest.raises(ValueError, match="multiple of log_every"):
        train(Counter(), lambda: 0.0, 5, run, generators={}, log_every=2, checkpoint_every=3)


def test_a_loss_that_is_not_finite_stops_training() -> None:
    """The error names learner and step, and the weights stay finite."""
    learner = RewardLearner(REWARD, domains=3, seed=0, device="cpu")
    image = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(FloatingPointError, match="RewardLearner: loss is nan at step 0"):
        learner.update(FrameBatch(image, torch.tensor([float("nan"), 0.0]), torch.tensor([0, 1])))
    assert all(bool(p.isfinite().all()) for p in learner.network.parameters())


def test_config_survives_json() -> None:
    """A nested config read back from JSON equals the original, tuples included."""
    assert config_from(RewardConfig, json.loads(json.dumps(to_json(REWARD)))) == REWARD
    for features in (FeatureConfig(), FeatureConfig(augment=AugmentConfig(pad=1), sources=("expert",))):
        assert config_from(FeatureConfig, json.loads(json.dumps(to_json(features)))) == features


def test_json_files_hold_no_nan(tmp_path: Path) -> None:
    """Not-a-number, Python's or numpy's, however deep, becomes null; infinity is refused by name."""
    empty = reliability(np.array([0.05]), np.array([True]))
    write_json(tmp_path / "a.json", {"bins": [row._asdict() for row in empty], "loss": np.float32("nan")})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert read["loss"] is None and read["bins"][0]["frequency"] == 1 and read["bins"][-1]["frequency"] is None
    with pytest.raises(TypeError, match=r"value\.loss is inf"):
        write_json(tmp_path / "a.json", {"loss": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == read
