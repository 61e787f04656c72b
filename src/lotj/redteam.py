"""Red-teaming: a reward model learns from what practice finds when it optimises against one that does not know better.

A passive data set does not hold the states that fool a reward; optimising against it finds them. So the training
connectors are halved, a reward is trained on each half, and every training connector is practised with the reward of
the *other* half, which has never seen it: cross-fitting, as in estimating a generalisation error. Those trials, with
true labels, join the scripted ones, and the reward model is trained anew on all. That is a round.

Rewards are chosen by being practised against: the one that the run has and that of each round, on the validation
connectors, counted by ground truth. What pays best of all candidates is what the run practises with from then on, and
there are further rounds as long as it may still pay too many failures. No trial on a validation connector is learned
from, and no test connector is practised.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lotj.data.mined import merge_truly_labelled
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
from lotj.stats import clopper_pearson
from lotj.trials import TrialRecord, read_records


@dataclass(frozen=True)
class RedTeamConfig:
    """How hard the rewards are attacked."""

    trials: int = 40
    """Of each training connector, in each round."""
    seed: int = 0
    """Of the halves and the practices."""
    rounds: int = 2
    """At most; the next one begins only where the chosen reward is not bounded."""
    bound: float = 0.05
    """Largest share of claimed successes that may be false, at the upper end of its 95% interval over all validation
    connectors."""
    validation_trials: int = 100
    """Of each validation connector, against each candidate."""

    def __post_init__(self) -> None:
        for name in ("trials", "rounds", "validation_trials"):
            if getattr(self, name) < 1:
                raise ValueError(f"RedTeamConfig.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.bound < 1:
            raise ValueError(f"RedTeamConfig.bound must lie between 0 and 1, got {self.bound}")


class Attack(NamedTuple):
    """What one practice against a half's reward came to."""

    connector: str
    half: int
    """The half whose reward was attacked; it does not know this connector."""
    trials: int
    claimed: int
    claimed_falsely: int
    true: int
    round: int = 1


class Candidate(NamedTuple):
    """What a reward came to when the validation connectors were practised against it."""

    name: str
    """``collected`` is the run's own, ``round-1`` learned from the first round's attacks as well."""
    trials: int
    claimed: int
    claimed_falsely: int
    true: int
    """Trials of practice that truly succeeded at some step."""

    @property
    def paid_well(self) -> int:
        """Successes paid less failures paid: what is compared."""
        return self.claimed - 2 * self.claimed_falsely

    @property
    def may_be_false(self) -> float:
        """Upper end of the 95% interval of the share of claims that are false; 1 where nothing was claimed. It takes
        the claims of one connector as independent: what is fooled on one of many connectors alone can hide in it."""
        return clopper_pearson(self.claimed_falsely, self.claimed).high


class RedTeamed(NamedTuple):
    """What red-teaming came to."""

    attacks: list[Attack]
    candidates: list[Candidate]
    chosen: Candidate
    bounded: bool
    """Whether it may be practised with: at most ``RedTeamConfig.bound`` of its claims may be false."""


def halves(known: Known, seed: int, own: Sequence[str] = ()) -> tuple[Known, Known]:
    """Split the training connectors in two, whole groups on one side; both keep the validation connectors.

    Args:
        known: the split.
        seed: of the halves.
        own: names and TOML files that the split was made of (``Preset.known``).

    Raises:
        ValueError: a connector cannot be practised in the simulated cell.
    """
    described = {connector.name: connector for connector in map(get_connector, own)}
    try:
        every = (*known.train, *known.validation)
        group = {name: (described.get(name) or get_connector(name)).group for name in every}
    except ConnectorError as error:
        raise ValueError(
            "red-teaming practises all known connectors in the simulated cell, and one is known by trajectories alone "
            f"({error}); begin a run without it"
        ) from error
    chosen = set(
        np.random.default_rng([seed, 7]).permutation(sorted({group[name] for name in known.train}))[::2].tolist()
    )
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
) -> RedTeamed:
    """Attack rewards, train on what that found, practise against every candidate and choose; again if need be.

    Every step is kept in ``RUN/redteam`` and reused; a kill loses a trial, or the steps since a checkpoint. Where a
    reward that learned from attacks is chosen, it is in ``RUN/redteam/reward`` in the end.

    Args:
        config: how hard.
        preset: of the run; its reward stage trains all rewards.
        run_root: a run with trained policy, critic and encoded frames.
        known: its split.
        store: its trajectories.
        workers: processes.
        progress: called with (stage, done, total).

    Raises:
        ValueError: a training or validation connector cannot be practised in the simulated cell, or an earlier
            red-teaming of this run was asked for otherwise.
    """
    halves(known, config.seed, preset.known)
    root = run_root / "redteam"
    root.mkdir(exist_ok=True)
    _claim(root, config)
    own = run_root / "reward"
    task = _Task(config, preset, run_root, known, store, store, own, root / "validation" / COLLECTED, config.seed)
    candidates, attacks, bounded = [_score(task, COLLECTED, workers, progress)], [], False
    for number in range(1, config.rounds + 1):
        name, out = f"round-{number}", root / f"round-{number}"
        attacks += _round(task, number, out, workers, progress)
        task = task._replace(store=out / "trajectories.sqlite", reward=out / "reward", out=root / "validation" / name)
        candidates.append(_score(task, name, workers, progress))
        # The earliest of equals; what claims nothing pays no failure either, and teaches nothing.
        chosen = max(candidates, key=lambda candidate: (candidate.claimed > 0, candidate.paid_well))
        bounded = chosen.may_be_false <= config.bound
        if bounded:
            break
    if chosen.name != COLLECTED and not is_red_teamed(run_root):
        temporary = root / "reward.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(root / chosen.name / "reward", temporary)
        temporary.rename(root / "reward")
    found = {"attacks": [attack._asdict() for attack in attacks], "candidates": [c._asdict() for c in candidates]}
    write_json(root / "attacks.json", {"config": asdict(config), **found, "chosen": chosen.name, "bounded": bounded})
    return RedTeamed(attacks, candidates, chosen, bounded)


COLLECTED = "collected"
"""The candidate that has learned from no attack: the run's own reward."""


def _claim(root: Path, config: RedTeamConfig) -> None:
    """Note what was asked for, or refuse to go on with something else: the reward that was chosen is practised with."""
    path, asked = root / "config.json", asdict(config)
    again = f"repeat that, or begin anew: delete {root}, and what was practised and asked with its reward (names with "
    again += f"-redteam in {root.parent / 'practice'} and {root.parent / 'preflight'})"
    if not path.exists() and any((root / old).exists() for old in ("half-0", "practice", "reward", "attacks.json")):
        raise ValueError(f"{root} is of a lotj that did not choose among rewards: {again}")
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else asked
    differs = [name for name in asked if held.get(name) != asked[name]]
    # More rounds can follow as long as no reward that learned from attacks is practised with.
    if differs and (differs != ["rounds"] or (root / "reward").exists()):
        was, wanted = ({name: values.get(name) for name in differs} for values in (held, asked))
        raise ValueError(f"{root} was begun with {was}, got {wanted}: {again}")
    write_json(path, asked)


def _round(
    task: _Task, number: int, out: Path, workers: int, progress: Callable[[str, int, int], None]
) -> list[Attack]:
    """Train both halves' rewards, attack them, and train the reward of ``out/reward`` on all trials so far."""
    out.mkdir(exist_ok=True)
    # Each round draws trials of its own: the same ones would be learned from twice.
    seed = stream_seed(task.config.seed, "round", str(number))
    own = task._replace(out=out / "practice", seed=seed)
    tasks = [own._replace(reward=out / f"half-{half}", half=half) for half in (0, 1)]
    mark = f", round {number}" if number > 1 else ""
    progress(f"train two rewards{mark}", 0, 2)
    for done, _ in enumerate(_each(_train_half, tasks, workers), start=1):
        progress(f"train two rewards{mark}", done, 2)
    sides = halves(task.known, task.config.seed, task.preset.known)
    attacked = [(name, 1 - half) for half, side in enumerate(sides) for name in side.train]
    practices = [tasks[half]._replace(connector=name) for name, half in attacked]
    attacks = []
    progress(f"attack them{mark}", 0, len(practices))
    for (name, half), records in zip(attacked, _each(_attack, practices, workers)):
        attacks.append(Attack(name, half, *_counts(records), number))
        progress(f"attack them{mark}", len(attacks), len(practices))
    merged = out / "trajectories.sqlite"
    merge_truly_labelled(task.store, [out / "practice" / name / "online.sqlite" for name in task.known.train], merged)
    torch.set_num_threads(task.preset.threads)
    with TrajectoryStore(merged) as trajectories:

        def told(done: int, total: int, metrics: Any) -> None:
            progress(f"train the reward anew{mark}", done, total)

        train_reward(task.preset.reward, trajectories, task.known, out / "reward", task.preset.seed, told)
    return attacks


def _score(task: _Task, name: str, workers: int, progress: Callable[[str, int, int], None]) -> Candidate:
    """Practise every validation connector against a reward."""
    tasks = [task._replace(connector=connector, half=None) for connector in task.known.validation]
    found: list[TrialRecord] = []
    progress(f"practise against {name}", 0, len(tasks))
    for done, records in enumerate(_each(_attack, tasks, workers), start=1):
        found += records
        progress(f"practise against {name}", done, len(tasks))
    return Candidate(name, *_counts(found))


def _counts(records: Sequence[TrialRecord]) -> tuple[int, int, int, int]:
    """Trials, successes claimed, falsely, and trials that truly succeeded."""
    claims = [record for record in records if record.success]
    false = sum(not record.true_at_success for record in claims)
    return len(records), len(claims), false, sum(bool(record.true_success) for record in records)


class _Task(NamedTuple):
    config: RedTeamConfig
    preset: Preset
    run_root: Path
    known: Known
    collected: Path
    """The run's trajectories, which practice draws on."""
    store: Path
    """What rewards are trained on: those, and the attacks of the rounds before."""
    reward: Path
    """That is trained or attacked."""
    out: Path
    """Folder of the practices."""
    seed: int
    """Of the practices."""
    half: int | None = None
    """That the reward is trained on; None where a validation connector is practised."""
    connector: str = ""


def _each(function: Callable[[_Task], Any], tasks: list[_Task], workers: int) -> Any:
    with closing(in_processes(function, tasks, workers)) as results:
        yield from results


def _train_half(task: _Task) -> None:
    torch.set_num_threads(task.preset.threads)
    assert task.half is not None
    side = halves(task.known, task.config.seed, task.preset.known)[task.half]
    seed = stream_seed(task.config.seed, "half", str(task.half))
    with TrajectoryStore(task.store) as store:
        train_reward(task.preset.reward, store, side, task.reward, seed)


def _attack(task: _Task) -> list[TrialRecord]:
    """Practise a connector against a reward that does not know it; continues or reuses what is there."""
    torch.set_num_threads(task.preset.threads)
    model, rule = load_reward(task.reward)
    root = task.run_root
    offline = Offline(load_policy(root / "policy"), load_critic(root / "critic"), model, rule, task.known)
    recipe = task.preset.practice.resolved("learned")
    trials = task.config.validation_trials if task.half is None else task.config.trials
    # What a tug refutes is what is looked for.
    recipe = replace(recipe, practice=replace(recipe.practice, trials=trials, guard=GuardConfig()))
    named = {get_connector(name).name: name for name in task.preset.known}.get(task.connector, task.connector)
    folder = task.out / task.connector
    run = Run(folder, "practice", {"connector": task.connector, "recipe": recipe, "rule": rule}, task.seed)
    # The frozen features are those of policy and critic: the same whatever the rewards have learned from.
    cache = root / "features" / f"{recipe.recipe}.safetensors"
    with TrajectoryStore(task.collected) as store:
        practise_unchecked(
            named,
            task.preset.robot,
            recipe,
            offline,
            store,
            run,
            task.seed,
            cache=cache,
            validation=task.half is None,
        )
    return read_records(folder / "trials.jsonl")


def is_red_teamed(run_root: Path) -> bool:
    """Whether a run's reward model has learned from attacks."""
    return (run_root / "redteam" / "reward" / "done.json").exists()


def reward_folder(run_root: Path) -> Path:
    """Where the reward model is that a run practises with: the red-teamed one if there is one."""
    return run_root / "redteam" / "reward" if is_red_teamed(run_root) else run_root / "reward"
