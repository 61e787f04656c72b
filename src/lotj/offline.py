"""The offline phase: reward model, critic and policy from trajectories of known connectors (Sec. V-B).

Each stage is one function ``(stage, data, out_dir, seed)`` that trains, resumes after a kill, and is reused when it is
complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lotj.algos.iql import CriticConfig, CriticLearner, CriticNetwork, advantage_weight
from lotj.algos.policy import PolicyBatch, PolicyConfig, PolicyLearner, PolicyNetwork
from lotj.algos.reward import RewardConfig, RewardLearner, RewardModel
from lotj.algos.training import default_device, train
from lotj.checkpoint import load_state, save_state
from lotj.data.augment import Augment, AugmentConfig
from lotj.data.batches import FrameSampling
from lotj.data.replay import TransitionDataset
from lotj.data.store import TrajectoryStore
from lotj.files import write_json
from lotj.judge import SuccessRule
from lotj.relabel import expert_actions
from lotj.reward_validation import calibrate
from lotj.run import Run
from lotj.seeds import stream_seed

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called with (steps done, steps in all, metrics)."""


def silent(done: int, total: int, metrics: Mapping[str, float]) -> None:
    """A progress callback that shows nothing."""


@dataclass(frozen=True)
class Known:
    """The connectors that offline training may use, split by connector so that variants never straddle the line."""

    train: tuple[str, ...]
    """Their order gives the domain index of the adversary."""
    validation: tuple[str, ...]
    """Kept out of every gradient; thresholds, temperatures and recipes are chosen on these."""

    def __post_init__(self) -> None:
        both = set(self.train) & set(self.validation)
        if both or len(self.train) < 2 or not self.validation:
            raise ValueError(
                f"Known needs at least 2 training and 1 validation connectors without overlap, got {len(self.train)} "
                f"and {len(self.validation)}, shared: {sorted(both)}"
            )
        if twice := sorted({name for name in self.train if self.train.count(name) > 1}):
            raise ValueError(f"Known.train names {', '.join(twice)} more than once; name each connector once")


@dataclass(frozen=True)
class RewardStage:
    """Training of the reward model."""

    model: RewardConfig = field(default_factory=RewardConfig)
    """Network, bottleneck and optimiser."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Image augmentation."""
    steps: int = 2500
    """Gradient steps."""
    batch_size: int = 64
    """Images a step."""
    sampling: FrameSampling = field(default_factory=lambda: FrameSampling(near_share=0.4, beside_share=0.3))
    """Make-up of a batch: half positive (Sec. VI-B); of the negatives 40% near misses, 30% pressed beside the hole."""
    false_fire_limit: float = 0.01
    """Largest share of validation trials that the rule may end wrongly."""
    trajectories: int | None = None
    """At most this many trajectories of each training connector; None takes all."""


@dataclass(frozen=True)
class CriticStage:
    """Training of Q and V (Eq. 1-2)."""

    model: CriticConfig = field(default_factory=CriticConfig)
    """Networks, discount, expectile and optimiser."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Image augmentation."""
    steps: int = 1500
    """Gradient steps."""
    batch_size: int = 64
    """Transitions a step."""


@dataclass(frozen=True)
class PolicyStage:
    """Training of the policy (Eq. 3 + DAIB)."""

    model: PolicyConfig = field(default_factory=PolicyConfig)
    """Network, bottleneck, temperature and optimiser."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Image augmentation."""
    sources: tuple[str, ...] = ("expert",)
    """Which trajectories are worth imitating."""
    relabel: bool = False
    """Imitate what the scripted expert would have done on each frame where the tip's place is known, in place of what
    was done (``lotj.relabel``): every trajectory is then worth imitating, whatever its source. Not the paper's."""
    steps: int = 5000
    """Gradient steps."""
    batch_size: int = 64
    """Transitions a step."""


def stage_run(
    name: str,
    stage: Any,
    known: Known,
    store: TrajectoryStore,
    out_dir: Path,
    seed: int,
    validation_store: TrajectoryStore | None = None,
) -> Run:
    """A stage's folder. What makes it the same stage: its settings, the split, the data it was given, and the seed."""
    begun: dict[str, Any] | None = None
    with suppress(FileNotFoundError, ValueError, KeyError):  # whatever is wrong with it, `Run` says
        begun = json.loads((out_dir / "config.json").read_text(encoding="utf-8"))["config"]
    identity = {"stage": stage, "known": known, **_data(store, begun)}
    if validation_store is not None:
        identity["validation"] = _data(validation_store, None if begun is None else begun.get("validation", {}))
    return Run(out_dir, name, identity, seed)


def _data(store: TrajectoryStore, begun: Mapping[str, Any] | None) -> dict[str, Any]:
    """What tells a store's data from others, as a stage that was begun says it: those of before lack the content."""
    said = {"collect": store.metadata.get("collect"), "trajectories": len(store)}
    content = content_of(store) if begun is None or "content" in begun else None
    return said if content is None else {**said, "content": content}


def content_of(store: TrajectoryStore, trajectories: NDArray[np.int64] | None = None) -> str | None:
    """Tells data from as much other data where no settings do: an own cell's, and what was imported; None of what the
    simulator makes anew from its settings."""
    metadata = store.metadata
    made = metadata.get("collect") is not None and not any(key.startswith("import/") for key in metadata)
    return None if made else store.content(trajectories)


def train_reward(
    stage: RewardStage,
    store: TrajectoryStore,
    known: Known,
    out_dir: Path,
    seed: int,
    progress: Progress = silent,
    validation_store: TrajectoryStore | None = None,
) -> tuple[RewardModel, SuccessRule]:
    """Train R(s), calibrate it and choose its success rule on the validation connectors, which may have a store of
    their own.

    Returns:
        The calibrated model and what pays and ends a trial. ``out_dir/model.safetensors`` holds both.
    """
    run = stage_run("reward", stage, known, store, out_dir, seed, validation_store)
    if not run.is_done():
        run.start()
        dataset = TransitionDataset(store, known.train, limit=stage.trajectories, augment=Augment(stage.augment))
        learner = RewardLearner(stage.model, len(known.train), stream_seed(seed, "reward", "learner"))
        generator = torch.Generator().manual_seed(stream_seed(seed, "reward", "batches"))

        train(
            learner,
            lambda: dataset.sample_frames_balanced(stage.batch_size, generator, stage.sampling),
            stage.steps,
            run,
            generators={"batches": generator},
            threads=torch.get_num_threads(),
            progress=lambda done, metrics: progress(done, stage.steps, metrics),
        )
        calibration = store if validation_store is None else validation_store
        model, rule, evaluation = calibrate(learner.model(), calibration, known.validation, stage.false_fire_limit)
        save_state(out_dir / "model.safetensors", {**model.state_dict(), "rule": [rule.threshold, rule.frames]})
        write_json(out_dir / "evaluation.json", evaluation)
        run.finish({key: evaluation[key] for key in ("accuracy", "auroc", "threshold", "frames", "connectors")})
    return load_reward(out_dir)


def load_reward(out_dir: Path) -> tuple[RewardModel, SuccessRule]:
    """The calibrated reward model and its rule from a stage's folder."""
    state = load_state(_need(out_dir / "model.safetensors", "lotj train --stage reward"))
    threshold, frames = state["rule"]
    return RewardModel.from_state(state, default_device()), SuccessRule(threshold, frames)


def rule_candidates(out_dir: Path) -> list[dict[str, Any]]:
    """The table that a reward model's rule was chosen from, as its validation left it (``RuleChoice.as_json``)."""
    evaluated = _need(out_dir / "evaluation.json", "lotj train --stage reward")
    return list(json.loads(evaluated.read_text(encoding="utf-8"))["rule"]["candidates"])


def train_critic(
    stage: CriticStage, store: TrajectoryStore, known: Known, out_dir: Path, seed: int, progress: Progress = silent
) -> CriticNetwork:
    """Train Q and V by Eq. 1 and 2. They serve every policy over the same data."""
    run = stage_run("critic", stage, known, store, out_dir, seed)
    if not run.is_done():
        run.start()
        dataset = TransitionDataset(store, known.train, augment=Augment(stage.augment))
        learner = CriticLearner(stage.model, store.shape.action, stream_seed(seed, "critic", "learner"))
        generator = torch.Generator().manual_seed(stream_seed(seed, "critic", "batches"))
        last = train(
            learner,
            lambda: dataset.sample(stage.batch_size, generator),
            stage.steps,
            run,
            generators={"batches": generator},
            threads=torch.get_num_threads(),
            progress=lambda done, metrics: progress(done, stage.steps, metrics),
        )
        run.finish(last)
    return load_critic(out_dir)


def load_critic(out_dir: Path) -> CriticNetwork:
    """The trained critic from a stage's folder."""
    state = load_state(_need(out_dir / "checkpoint.safetensors", "lotj train --stage critic"))
    return CriticNetwork.from_state(state["learner"]).to(default_device())


def train_policy(
    stage: PolicyStage,
    store: TrajectoryStore,
    known: Known,
    critic: CriticNetwork | None,
    out_dir: Path,
    seed: int,
    progress: Progress = silent,
) -> PolicyNetwork:
    """Extract the policy from a finished critic by Eq. 3, with DAIB; without a critic, clone what was done.

    The weights are computed once, from plain images. What is relabelled weighs 1.
    """
    run = stage_run("policy", stage, known, store, out_dir, seed)
    if not run.is_done():
        run.start()
        dataset = TransitionDataset(store, known.train, sources=None if stage.relabel else stage.sources)
        rows, action, weight = _lessons(stage, dataset, critic)
        augment = Augment(stage.augment)
        learner = PolicyLearner(
            stage.model, store.shape.action, len(known.train), stream_seed(seed, "policy", "learner")
        )
        generator = torch.Generator().manual_seed(stream_seed(seed, "policy", "batches"))

        def batch() -> PolicyBatch:
            drawn = torch.randint(len(rows), (stage.batch_size,), generator=generator)
            seen = dataset.transitions(rows[drawn.numpy()])
            return PolicyBatch(augment(seen.image, generator), action[drawn], seen.domain, weight[drawn])

        last = train(
            learner,
            batch,
            stage.steps,
            run,
            generators={"batches": generator},
            threads=torch.get_num_threads(),
            progress=lambda done, metrics: progress(done, stage.steps, metrics),
        )
        run.finish(
            {
                **last,
                "mean_weight": float(weight.mean()),
                "clipped": float((weight >= stage.model.weight_clip).float().mean()),
            }
        )
    return load_policy(out_dir)


def _lessons(
    stage: PolicyStage, dataset: TransitionDataset, critic: CriticNetwork | None
) -> tuple[NDArray[np.int64], Tensor, Tensor]:
    """What a policy imitates: rows (N,) of the data set, actions (N, A), weights (N,)."""
    action = torch.from_numpy(dataset.actions)
    told: NDArray[np.bool_] = np.zeros(len(dataset), bool)
    tip, force = dataset.contacts
    if stage.relabel and np.isfinite(tip).any():
        scale = dataset.store.metadata.get("action_scale")
        if scale is None:
            raise ValueError(
                f"{dataset.store.path} does not say what an action of 1 moves (action_scale), so nothing can be "
                "relabelled; collect with `lotj collect`, or train with PolicyStage.relabel off"
            )
        expert = expert_actions(tip, force, np.array(scale[:3]))
        told[np.isfinite(expert).all(axis=1)] = True
        action[told, :3] = torch.from_numpy(expert[told])
    rows = np.flatnonzero(told | np.isin(dataset.source, stage.sources))
    weight = torch.ones(len(rows))
    if critic is not None:
        weight[~told[rows]] = transition_weights(dataset, critic, stage.model, rows[~told[rows]])
    return rows, action[rows], weight


def load_policy(out_dir: Path) -> PolicyNetwork:
    """The trained policy from a stage's folder."""
    state = load_state(_need(out_dir / "checkpoint.safetensors", "lotj train --stage policy"))
    return PolicyNetwork.from_state(state["learner"]).to(default_device())


def transition_weights(
    dataset: TransitionDataset,
    critic: CriticNetwork,
    config: PolicyConfig,
    rows: NDArray[np.int64] | None = None,
    chunk: int = 128,
) -> Tensor:
    """Eq. 3's weight (N,) of the transitions ``rows`` (N,) of a data set; of all of them by default."""
    device = next(critic.parameters()).device
    rows = np.arange(len(dataset)) if rows is None else rows
    weights = [torch.empty(0)]
    for start in range(0, len(rows), chunk):
        batch = dataset.transitions(rows[start : start + chunk])
        advantage = critic.advantage(batch.image.to(device), batch.action.to(device)).cpu()
        weights.append(advantage_weight(advantage, config.advantage_temperature, config.weight_clip))
    return torch.cat(weights)


def _need(path: Path, command: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run `{command}` first")
    return path
