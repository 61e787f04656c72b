"""The stages, wired: where the simulator, the data, the learners and the run folder meet.

A run folder holds one offline phase and any number of practices on connectors that it never saw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lotj.algos.ensemble import EnsembleConfig, EnsemblePractice
from lotj.algos.iql import CriticNetwork
from lotj.algos.iql_practice import IqlPractice, IqlPracticeConfig
from lotj.algos.learner import Learner
from lotj.algos.policy import PolicyNetwork
from lotj.algos.reward import RewardModel
from lotj.cells.adapter import Ask
from lotj.cells.opening import (
    OWN_STARTS,
    action_scale,
    honours_scenarios,
    identify,
    is_own_cell,
    longest_trial,
    open_cell,
)
from lotj.data.store import TrajectoryStore
from lotj.encoding import Cache, FeatureConfig, offline_features
from lotj.evaluate import EvaluateConfig, Evaluation, TrialLog, evaluate
from lotj.files import to_json, write_json
from lotj.fleet import Cells
from lotj.guard import GuardConfig
from lotj.judge import Judge, SuccessRule
from lotj.offline import Known
from lotj.open_fleet import Job, open_fleet
from lotj.practice import PracticeConfig, practise_in_rounds
from lotj.preflight import Preflight, PreflightConfig, preflight
from lotj.run import Run
from lotj.seeds import stream_seed
from lotj.sim.connectors import get_connector
from lotj.split import refuse_known
from lotj.trials import RewardSource, TrialRecord

Recipe = Literal["ensemble", "iql"]

ONLINE_FRACTION: Mapping[Recipe, float] = {"ensemble": 0.5, "iql": 0.25}
"""Share of online transitions in a batch: the paper's 25%; the half of RLPD with which ``ensemble`` won."""
ONLINE_VIEWS: Mapping[Recipe, int] = {"ensemble": 4, "iql": 0}
"""Augmented versions that are kept of each online frame: the paper augments offline frames alone (Sec. V-C)."""
SOURCES: Mapping[Recipe, tuple[str, ...] | None] = {"ensemble": None, "iql": ("expert",)}
"""Whose offline trajectories are mixed in. ``iql`` imitates; from all (None) the critics of ``ensemble`` learn what
a press beside the hole comes to as well."""


@dataclass(frozen=True)
class Offline:
    """What offline training leaves for practice."""

    policy: PolicyNetwork
    critic: CriticNetwork
    reward: RewardModel
    rule: SuccessRule
    known: Known


@dataclass(frozen=True)
class RecipeConfig:
    """A recipe of practice with its settings; only the chosen recipe's settings are used."""

    recipe: Recipe = "ensemble"
    """``iql``: the paper's. ``ensemble``: ours, a deviation."""
    practice: PracticeConfig = PracticeConfig()
    """Trials, batches and what is paid."""
    ensemble: EnsembleConfig = EnsembleConfig()
    """Settings of ``ensemble``."""
    iql: IqlPracticeConfig = IqlPracticeConfig()
    """Settings of ``iql``."""
    features: FeatureConfig = FeatureConfig()
    """The cache of frozen features."""
    preflight: PreflightConfig = field(default_factory=PreflightConfig)
    """What is asked of a learned reward before it is practised on."""

    @property
    def online_fraction(self) -> float:
        """Share of online transitions in a batch: what ``practice`` says, or else the recipe's own."""
        own = ONLINE_FRACTION[self.recipe]
        return own if self.practice.online_fraction is None else self.practice.online_fraction

    @property
    def online_views(self) -> int:
        """Augmented versions of each online frame, likewise."""
        own = ONLINE_VIEWS[self.recipe]
        return own if self.practice.online_views is None else self.practice.online_views

    @property
    def frozen(self) -> FeatureConfig:
        """``features`` with the recipe's own sources where it names none."""
        return replace(self.features, sources=self.features.sources or SOURCES[self.recipe])

    def resolved(self, reward: RewardSource) -> RecipeConfig:
        """The same with the reward source given and no setting left to be derived, as outputs record it."""
        practice = replace(
            self.practice,
            reward=reward,
            online_fraction=self.online_fraction,
            online_views=self.online_views,
            guard=GuardConfig() if reward == "ground-truth" else self.practice.guard,
        )
        return replace(self, practice=practice, features=self.frozen)


def make_learner(config: RecipeConfig, offline: Offline, seed: int) -> Learner:
    """Build the recipe's learner on copies of the offline networks."""
    if config.recipe == "iql":
        return IqlPractice(config.iql, offline.policy, offline.critic, seed=seed)
    policy, critic = offline.policy.eval(), offline.critic.eval()
    device = next(policy.parameters()).device
    return EnsemblePractice(
        config.ensemble,
        [policy.encoder, critic.q_encoder, critic.v_encoder],
        policy.mean_action,
        action_dim=policy.action_dim,
        seed=seed,
        device=device,
    )


def feature_cache(path: Path, config: RecipeConfig, offline: Offline) -> Cache:
    """The cache of a recipe's frozen features, told from those of other networks."""
    encoders = (offline.policy.encoder, offline.critic.q_encoder, offline.critic.v_encoder)
    weights = _digest(*(encoder.state_dict() for encoder in encoders))
    return Cache(path, f"{config.recipe} {_components(config)} {weights}")


def encoding_settings(config: RecipeConfig) -> str:
    """All of a recipe that decides what its frozen features are, as JSON."""
    return json.dumps({"features": to_json(config.frozen), "components": _components(config)}, sort_keys=True)


def _components(config: RecipeConfig) -> int:
    return config.ensemble.components if config.recipe == "ensemble" else 0


def _digest(*states: Mapping[str, Any]) -> str:
    """Tells weights from others: SHA-256 of all tensors of nested states, in their order."""
    digest = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().numpy().tobytes())
        elif isinstance(value, Mapping):
            for inner in value.values():
                take(inner)

    for state in states:
        take(state)
    return digest.hexdigest()


def practise(
    connector: str,
    robot: str,
    config: RecipeConfig,
    offline: Offline,
    store: TrajectoryStore,
    run: Run,
    seed: int,
    *,
    cache: Path | None = None,
    progress: Callable[[TrialRecord], None] | None = None,
    own: Sequence[str] = (),
    allow_validation: bool = False,
    cells: Cells = Cells(),
    stop_file: Path | None = None,
) -> Learner:
    """Practise one connector (Sec. V-C) in the run's folder; continues or reuses what is there. Returns the learner.

    ``cells`` practise instead of ``robot``; ``own`` and ``allow_validation`` are those of ``refuse_known``.
    """
    validation = refuse_known(connector, offline.known, own, robot=robot, allow_validation=allow_validation)
    return practise_unchecked(
        connector,
        robot,
        config,
        offline,
        store,
        run,
        seed,
        cache=cache,
        progress=progress,
        validation=validation,
        cells=cells,
        stop_file=stop_file,
    )


def practise_unchecked(
    connector: str,
    robot: str,
    config: RecipeConfig,
    offline: Offline,
    store: TrajectoryStore,
    run: Run,
    seed: int,
    *,
    cache: Path | None = None,
    progress: Callable[[TrialRecord], None] | None = None,
    validation: bool = False,
    cells: Cells = Cells(),
    stop_file: Path | None = None,
) -> Learner:
    """``practise`` of any connector, known ones too: for red-teaming and diagnosis, never for a claim."""
    name = identify(connector, robot).name
    learner = make_learner(config, offline, stream_seed(seed, name, "learner"))
    features = offline_features(
        learner, config.frozen, store, offline.known, None if cache is None else feature_cache(cache, config, offline)
    )
    if run.is_done():
        state = run.load_checkpoint()
        assert state is not None
        learner.load_state_dict(state["learner"])
        return learner
    config = config.resolved(config.practice.reward)
    settings, robots = config.practice, cells.robots or (robot,)
    settings = replace(settings, horizon=max(longest_trial(each) for each in robots))
    if not any(honours_scenarios(each) for each in robots):
        settings = replace(settings, scenario=OWN_STARTS)
    for each in robots:
        refuse_other_scale(store, action_scale(each))
    job = Job(
        connector if is_own_cell(robot) else get_connector(connector),
        store.shape.height,
        store.shape.cameras,
        settings.reward,
        offline.reward,
        offline.rule,
        settings.guard,
        stop_file,
        run.out_dir / "contact.json",
    )
    with ExitStack() as places:
        build_learner = partial(make_learner, config, offline, seed=0)
        fleet = open_fleet(job, cells._replace(robots=robots), learner, build_learner, places)
        run.start()
        # The same for all recipes and rewards, so that they meet the same start states; another for each connector.
        rng = np.random.default_rng(stream_seed(seed, name, "practice"))
        result = practise_in_rounds(settings, fleet, learner, features, run, rng, progress)
    run.finish({**result.summary(), "validation": validation})
    return learner


def check_reward(
    connector: str,
    robot: str,
    config: PreflightConfig,
    offline: Offline,
    candidates: Sequence[Mapping[str, Any]],
    store: TrajectoryStore,
    seed: int,
) -> Preflight:
    """Ask whether the reward may be trusted on a connector (``lotj.preflight``).

    Args:
        connector: to be practised.
        robot: the cell.
        config: how much is asked.
        offline: the reward and its rule.
        candidates: the table that the rule was chosen from.
        store: pictures of the known connectors.
        seed: of the run.
    """
    shape = store.shape
    with open_cell(connector, robot, "II", image_size=shape.height, cameras=shape.cameras, purpose="practise") as env:
        answer = preflight(
            config,
            env,
            offline.reward,
            offline.rule,
            candidates,
            stream_seed(seed, identify(connector, robot).name, "preflight"),
            _looks(offline, store) if config.presses else None,
            offline.reward.feature,
        )
    return answer


def _looks(offline: Offline, store: TrajectoryStore, images: int = 12) -> dict[str, tuple[str, NDArray[np.float32]]]:
    """Family and mean feature of first frames of every training connector."""
    described = store.metadata.get("connectors", {})
    looks = {}
    for name in offline.known.train:
        ids = np.flatnonzero(store.index.connector == name)[:images]
        first = store.read_images(ids, np.zeros(len(ids), np.int64))
        looks[name] = (described.get(name, {}).get("family", "unknown"), offline.reward.feature(first).mean(axis=0))
    return looks


def evaluate_policy(
    connector: str,
    robot: str,
    policy: Any,
    offline: Offline,
    config: EvaluateConfig,
    image_size: int,
    cameras: int,
    out: Path | None = None,
    progress: Callable[..., None] | None = None,
    about: Mapping[str, Any] | None = None,
    ask: Ask | None = None,
) -> Evaluation:
    """Evaluate a policy or learner on one connector by ground truth, with the reward model watching.

    It is written to ``out`` with ``about``, which says whose policy this is, under ``policy``. ``ask`` is asked where
    the cell has no other way to know success.
    """
    name = identify(connector, robot).name
    config = replace(config, connector=name)
    rule = {"threshold": offline.rule.threshold, "frames": offline.rule.frames}
    log = None
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Networks that were trained anew begin anew: no evaluation mixes the trials of two.
        acting = policy.state_dict() if hasattr(policy, "state_dict") else {}
        weights = _digest(offline.policy.state_dict(), offline.reward.network.state_dict(), acting)
        of = {"policy": dict(about or {}), "rule": rule, "config": config, "robot": robot, "weights": weights}
        log = TrialLog(out.with_suffix(".partial.jsonl"), of)
    result = evaluate(
        config,
        partial(open_cell, connector, robot, image_size=image_size, cameras=cameras, purpose="evaluate", ask=ask),
        policy,
        Judge(offline.reward, offline.rule),
        progress,
        log,
    )
    if out is not None and log is not None:
        write_json(out, {"policy": dict(about or {}), "rule": rule, **result.to_json()})
        log.path.unlink()
    return result


def refuse_other_scale(store: TrajectoryStore, now: list[float]) -> None:
    """A policy's actions mean what they meant in its data: metres for an action of 1. Raises `ValueError`."""
    wanted = store.metadata.get("action_scale")
    if wanted is not None and wanted != now:
        raise ValueError(
            f"{store.path} was collected with {wanted} m for an action of 1, this cell moves {now}: "
            "collect and train anew for this cell, or give it the scale of the data"
        )
