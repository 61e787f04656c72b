"""The recipes of practice: their settings, and the learner that each makes of the offline networks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from lotj.algos.ensemble import EnsembleConfig, EnsemblePractice
from lotj.algos.iql import CriticNetwork
from lotj.algos.iql_practice import IqlPractice, IqlPracticeConfig
from lotj.algos.learner import Learner
from lotj.algos.policy import PolicyNetwork
from lotj.algos.reward import RewardModel
from lotj.data.augment import AugmentConfig
from lotj.encoding import Cache, FeatureConfig
from lotj.files import to_json
from lotj.guard import GuardConfig
from lotj.judge import SuccessRule
from lotj.offline import Known
from lotj.practice import PracticeConfig
from lotj.preflight import PreflightConfig
from lotj.trials import RewardSource

Recipe = Literal["ensemble", "iql"]

ONLINE_FRACTION: Mapping[Recipe, float] = {"ensemble": 0.5, "iql": 0.25}
"""Share of online transitions in a batch: the paper's 25%; the half of RLPD with which ``ensemble`` won."""
ONLINE_VIEWS: Mapping[Recipe, int] = {"ensemble": 4, "iql": 0}
"""Augmented versions that are kept of each online frame: the paper augments offline frames alone (Sec. V-C)."""
SOURCES: Mapping[Recipe, tuple[str, ...] | None] = {"ensemble": None, "iql": ("expert",)}
"""Whose offline trajectories are mixed in. ``iql`` imitates; from all (None) the critics of ``ensemble`` learn what
a press beside the hole comes to as well."""

AUGMENT: Mapping[Recipe, AugmentConfig] = {
    "ensemble": AugmentConfig(),
    "iql": AugmentConfig(pad=2, brightness=0.1, contrast=0.1, saturation=0.1, recolour=0.8),
}
"""How offline frames are augmented. ``iql`` goes on training the policy's heads, so it sees as that was trained."""


@dataclass(frozen=True)
class Offline:
    """What offline training leaves for practice."""

    policy: PolicyNetwork
    critic: CriticNetwork
    reward: RewardModel
    rule: SuccessRule
    known: Known

    @property
    def networks(self) -> str:
        """Tells these networks from those of another training (``weights_digest``)."""
        modules = (self.policy, self.critic, self.reward.network)
        return weights_digest(*(module.state_dict() for module in modules))


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
        """``features`` with the recipe's own sources and augmentation where it names none."""
        return replace(
            self.features,
            sources=self.features.sources or SOURCES[self.recipe],
            augment=self.features.augment or AUGMENT[self.recipe],
        )

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
    encoders = (offline.critic.q_encoder, offline.critic.v_encoder)
    weights = weights_digest(offline.policy.state_dict(), *(encoder.state_dict() for encoder in encoders))
    return Cache(path, f"{config.recipe} {json.dumps(_encoding(config))} {weights}")


def encoding_settings(config: RecipeConfig) -> str:
    """All of a recipe that decides what its frozen features are, as JSON."""
    return json.dumps({"features": to_json(config.frozen), **_encoding(config)}, sort_keys=True)


def weights_digest(*states: Mapping[str, Any]) -> str:
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


def _encoding(config: RecipeConfig) -> dict[str, float]:
    """The settings of ``ensemble`` that its encoding depends on; ``iql`` has none."""
    if config.recipe == "iql":
        return {}
    return {name: getattr(config.ensemble, name) for name in ("components", "feature_clip", "base_clip")}
