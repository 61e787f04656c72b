"""Red-teaming: a reward model learns from what practice finds when it optimises against one that does not know better.

A passive data set does not hold the states that fool a reward; optimising against it finds them. So the training
connectors are halved, a reward is trained on each half, and every training connector is practised with the reward of
the *other* half, which has never seen it: cross-fitting, as in estimating a generalisation error. Those trials, with
true labels, join the scripted ones, and the reward model is trained anew on all. No validation or test connector is
practised, and no label of theirs is used.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lotj.data.store import TrajectoryStore
from lotj.files import write_json
from lotj.guard import GuardConfig
from lotj.offline import Known, load_critic, load_policy, load_reward, train_reward
from lotj.parallel import in_processes
from lotj.pipeline import practise_unchecked
from lotj.presets import Preset
from lotj.recipe import Offline
from lotj.run import Run
from lotj.seeds import stream_seed
from lotj.sim.connectors import get_connector
from lotj.sim.parts import ConnectorError
from lotj.trials import read_records
from lotj.types import Trajectory

SOURCE = "red-team"
"""What mined trajectories are stored as; their rewards are ground truth."""


@dataclass(frozen=True)
class RedTeamConfig:
    """How hard the rewards are attacked."""

    trials: int = 40
    """Of each training connector."""
    seed: int = 0
    """Of the halves and the practices."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"RedTeamConfig.trials must be at least 1, got {self.trials}")


class Attack(NamedTuple):
    """What one practice against a half's reward came to."""

    connector: str
    half: int
    """The half whose reward was attacked; it does not know this connector."""
    trials: int
    claimed: int
    claimed_falsely: int
    true: int


def halves(known: Known, seed: int, own: Sequence[str] = ()) -> tuple[Known, Known]:
    """Split the training connectors in two, whole groups on one side; both keep the validation connectors.

    Args:
        known: the split.
        seed: of the halves.
        own: names and TOML files that the split was made of (``Preset.known``).

    Raises:
        ValueError: a training connector cannot be practised in the simulated cell.
    """
    described = {connector.name: connector for connector in map(get_connector, own)}
    try:
        group = {name: (described.get(name) or get_connector(name)).group for name in known.train}
    except ConnectorError as error:
        raise ValueError(
            "red-teaming practises every training connector in the simulated cell, and one is known by trajectories "
            f"alone ({error}); begin a run without it"
        ) from error
    chosen = set(np.random.default_rng([seed, 7]).permutation(sorted(set(group.values())))[::2].tolist())
    sides = [tuple(name for name in known.train if (group[name] in chosen) is one) for one in (True, False)]
    return Known(sides[0], known.validation), Known(sides[1], known.validation)


def red_team(
    config: RedTeamConfig,
    preset: Preset,
    run_root: Path,
    known: Known,
    store: Path,
    workers: int,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[Attack]:
    """Train both halves' rewards, attack them, and train the reward of ``RUN/redteam/reward`` on all trials.

    Every step is kept in ``RUN/redteam`` and reused; a kill loses a trial, or the steps since a checkpoint.

    Args:
        config: how hard.
        preset: of the run; its reward stage trains all three rewards.
        run_root: a run with trained policy, critic and encoded frames.
        known: its split.
        store: its trajectories.
        workers: processes.
        progress: called with (stage, done, total).
    """
    root = run_root / "redteam"
    root.mkdir(exist_ok=True)
    tasks = [_Task(config, preset, run_root, known, store, half) for half in (0, 1)]
    for done, _ in enumerate(_each(_train_half, tasks, workers), start=1):
        progress("train two rewards", done, 2)
    sides = halves(known, config.seed, preset.known)
    attacked = [(name, 1 - half) for half, side in enumerate(sides) for name in side.train]
    attacks = []
    practices = [tasks[half]._replace(connector=name) for name, half in attacked]
    for attack in _each(_attack, practices, workers):
        attacks.append(attack)
        progress("attack them", len(attacks), len(practices))
    merged = root / "trajectories.sqlite"
    _merge(store, [root / "practice" / name / "online.sqlite" for name in known.train], merged)
    torch.set_num_threads(preset.threads)
    with TrajectoryStore(merged) as trajectories:

        def told(done: int, total: int, metrics: Any) -> None:
            progress("train the reward anew", done, total)

        train_reward(preset.reward, trajectories, known, root / "reward", preset.seed, told)
    write_json(root / "attacks.json", {"config": asdict(config), "attacks": [attack._asdict() for attack in attacks]})
    return attacks


class _Task(NamedTuple):
    config: RedTeamConfig
    preset: Preset
    run_root: Path
    known: Known
    store: Path
    half: int
    connector: str = ""

    @property
    def reward(self) -> Path:
        return self.run_root / "redteam" / f"half-{self.half}"


def _each(function: Callable[[_Task], Any], tasks: list[_Task], workers: int) -> Any:
    with closing(in_processes(function, tasks, workers)) as results:
        yield from results


def _train_half(task: _Task) -> int:
    torch.set_num_threads(task.preset.threads)
    side = halves(task.known, task.config.seed, task.preset.known)[task.half]
    with TrajectoryStore(task.store) as store:
        train_reward(
            task.preset.reward, store, side, task.reward, stream_seed(task.config.seed, "half", str(task.half))
        )
    return task.half


def _attack(task: _Task) -> Attack:
    torch.set_num_threads(task.preset.threads)
    model, rule = load_reward(task.reward)
    root = task.run_root
    offline = Offline(load_policy(root / "policy"), load_critic(root / "critic"), model, rule, task.known)
    recipe = task.preset.practice.resolved("learned")
    # What a tug refutes is what is looked for.
    recipe = replace(recipe, practice=replace(recipe.practice, trials=task.config.trials, guard=GuardConfig()))
    named = {get_connector(name).name: name for name in task.preset.known}.get(task.connector, task.connector)
    folder = root / "redteam" / "practice" / task.connector
    run = Run(folder, "practice", {"connector": task.connector, "recipe": recipe, "rule": rule}, task.config.seed)
    cache = root / "features" / f"{recipe.recipe}.safetensors"
    with TrajectoryStore(task.store) as store:
        practise_unchecked(
            named,
            task.preset.robot,
            recipe,
            offline,
            store,
            run,
            task.config.seed,
            cache=cache,
        )
    records = read_records(folder / "trials.jsonl")
    return Attack(
        task.connector,
        task.half,
        len(records),
        sum(record.success for record in records),
        sum(record.success and not record.true_at_success for record in records),
        sum(bool(record.true_success) for record in records),
    )


def _merge(store: Path, mined: list[Path], out: Path) -> None:
    """All trajectories in one store, truly labelled; made whole under another name, then renamed."""
    if out.exists():
        return
    temporary = out.with_name(f"{out.name}.tmp")
    for leftover in (temporary, Path(f"{temporary}-wal"), Path(f"{temporary}-shm")):
        leftover.unlink(missing_ok=True)
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(temporary)) as target:
        source.backup(target)
    with TrajectoryStore(temporary, mode="a") as merged:
        for path in mined:
            with TrajectoryStore(path) as own:
                merged.extend(_truly_labelled(own.read(index)) for index in range(len(own)))
    shutil.move(temporary, out)


def _truly_labelled(trajectory: Trajectory) -> Trajectory:
    """A trial of practice with the simulator's labels in place of the judge's, none of which may count as truth."""
    success = np.asarray(trajectory.privileged["success"], dtype=bool)
    return replace(
        trajectory,
        reward=success[1:].astype(np.float32),
        terminated=bool(success[-1]),
        truncated=not success[-1],
        source=SOURCE,
    )


def is_red_teamed(run_root: Path) -> bool:
    """Whether a run's reward model has learned from attacks."""
    return (run_root / "redteam" / "reward" / "done.json").exists()


def reward_folder(run_root: Path) -> Path:
    """Where the reward model is that a run practises with: the red-teamed one if there is one."""
    return run_root / "redteam" / "reward" if is_red_teamed(run_root) else run_root / "reward"
