"""Practice by the paper's own recipe, ``iql``: Eq. 1-3 with DAIB on heads over frozen convolutions (Sec. V-C, V-E).

Because the convolutions are frozen, every frame is encoded once; an update touches fully connected layers only and is
the same update, to rounding, as one from pixels through frozen encoders. A deviation: offline frames are augmented
``FeatureConfig.views`` times, when they are encoded, and not anew each time that they are drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lotj.algos.iql import CriticFeatures, CriticNetwork, advantage_weight, critic_loss
from lotj.algos.learner import Batch, Samples, batch_to, ema_update, freeze, image_to_batch
from lotj.algos.policy import PolicyNetwork, policy_objective
from lotj.algos.training import adam, default_device
from lotj.types import Observation, later, noisy_action


@dataclass(frozen=True)
class IqlPracticeConfig:
    """Settings of the recipe ``iql``; those of its losses come with the trained critic and policy."""

    learning_rate: float = 3e-4
    """Adam's, for all but the domain head."""
    exploration_std: float = 0.3
    """Standard deviation of exploration noise, in units of action."""
    imitate_offline_policy: bool = later(False)
    """A deviation: on offline frames imitate what the offline policy does there, all with weight 1. Eq. 3 imitates what
    was done there, weighted by its advantage; but that was an expert with noise, and an offline policy that was
    relabelled (``PolicyStage.relabel``) knows better. Online frames are weighted as ever."""

    advantage_temperature: float | None = later(None)
    """beta of Eq. 3, which the paper does not give; None is that of the offline policy
    (``PolicyConfig.advantage_temperature``). Practice weighs its own actions, whose advantages differ by a few
    hundredths: what is far above that imitates all of them alike."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.exploration_std < 0:
            raise ValueError(
                "IqlPracticeConfig: learning_rate must be positive and exploration_std not negative, "
                f"got {self.learning_rate} and {self.exploration_std}"
            )
        if self.advantage_temperature is not None and self.advantage_temperature <= 0:
            raise ValueError(
                f"IqlPracticeConfig.advantage_temperature must be positive, got {self.advantage_temperature}"
            )


class IqlPractice:
    """The learner (``lotj.algos.learner.Learner``). An encoded frame is [policy | Q | V] features, raw.

    The networks given are copied, so that several practices can start from the same checkpoints.

    Args:
        config: the recipe's settings.
        policy: trained offline.
        critic: trained offline.
        seed: of the noise in z_specific.
        device: where it lives; the fastest there is by default.

    Raises:
        ValueError: if policy and critic act in different spaces.
    """

    name = "iql"

    def __init__(
        self,
        config: IqlPracticeConfig,
        policy: PolicyNetwork,
        critic: CriticNetwork,
        *,
        seed: int,
        device: torch.device | str | None = None,
    ) -> None:
        if policy.action_dim != critic.action_dim:
            raise ValueError(f"the policy has {policy.action_dim} action components and the critic {critic.action_dim}")
        self.config = config
        self.device = torch.device(device) if device is not None else default_device()
        self.policy = copy.deepcopy(policy).to(self.device)
        self.critic = copy.deepcopy(critic).to(self.device)
        self._untaught = copy.deepcopy(self.policy) if config.imitate_offline_policy else None
        if self._untaught is not None:
            freeze(self._untaught)
        for encoder in (self.policy.encoder, self.critic.q_encoder, self.critic.v_encoder):
            freeze(encoder)
        # One frozen encoder now serves Q and its target, so the target starts as Q itself.
        self.critic.heads.target_q.load_state_dict(self.critic.heads.q.state_dict())
        self.heads = nn.ModuleDict(
            {"bottleneck": self.policy.bottleneck, "policy": self.policy.head, "critic": self.critic.heads}
        )
        """All that practice changes."""
        critic_dim = critic.config.encoder.feature_dim
        self.feature_dims = (policy.config.encoder.feature_dim, critic_dim, critic_dim)
        self.feature_dim = sum(self.feature_dims)
        self.action_dim = policy.action_dim
        self._optimizer = adam(self.heads, config.learning_rate)
        self._generator = torch.Generator().manual_seed(seed)

    def fit(self, images: Iterable[Tensor]) -> dict[str, float]:
        """Nothing to fit."""
        return {}

    def fit_state(self) -> dict[str, Any]:
        """Nothing was fitted."""
        return {}

    def load_fit_state(self, state: Mapping[str, Any]) -> None:
        """Nothing to take over."""

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, F) float32, F = policy + Q + V features."""
        image = image.to(self.device)
        encoders = (self.policy.encoder, self.critic.q_encoder, self.critic.v_encoder)
        return torch.cat([encoder(image) for encoder in encoders], dim=1)

    def prepare(self, offline: Samples) -> dict[str, float]:
        """Nothing precedes practice: critic and policy come trained."""
        return {}

    def reset(self) -> None:
        """Nothing is kept between steps."""

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """Action (A,) for one observation; only the policy's encoder runs."""
        image = image_to_batch(observation["image"], self.device)
        with torch.no_grad():
            return self._act(self.policy.encoder(image), rng, explore)

    def act_on(self, feature: Tensor, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """Action (A,) for one encoded frame (1, F), with the deterministic encoding."""
        return self._act(feature.to(self.device)[:, : self.feature_dims[0]], rng, explore)

    def remember_success(self, feature: Tensor, action: Tensor) -> None:
        """Ignored: the paper's recipe does not imitate its own successes."""

    def update(self, batch: Batch) -> dict[str, float]:
        """One joint step of Eq. 1-3 and L_DAIB, then one of the target's moving average."""
        loss, metrics = self.loss(batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        heads = self.critic.heads
        rate = self.critic.config.target_rate
        ema_update(list(heads.target_q.parameters()), list(heads.q.parameters()), rate)
        return metrics

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """L_Q + L_V + L_pi + L_DAIB; stop-gradients and disjoint parameters keep the terms apart."""
        batch = batch_to(batch, self.device)
        policy_feature, q, v = batch.feature.split(self.feature_dims, dim=1)
        next_v = batch.next_feature.split(self.feature_dims, dim=1)[2]
        critic = critic_loss(self.critic.heads, CriticFeatures(q, q, v, next_v), batch, self.critic.config)
        config = self.policy.config
        temperature = self.config.advantage_temperature or config.advantage_temperature
        weight, action = advantage_weight(critic.advantage, temperature, config.weight_clip), batch.action
        if self._untaught is not None:
            with torch.no_grad():
                action = torch.where(batch.online[:, None], action, self._untaught.mean_action(policy_feature))
            weight = torch.where(batch.online, weight, torch.ones_like(weight))
        actor_loss, actor_metrics = policy_objective(
            self.policy, policy_feature, action, batch.domain, weight, self._generator, step=None
        )
        critic_metrics = {name: number.item() for name, number in critic.metrics.items()}
        return critic.loss + actor_loss, critic_metrics | actor_metrics

    def state_dict(self) -> dict[str, Any]:
        """Heads, Adam and noise. The frozen encoders are in the checkpoints that this was built from."""
        return {
            "heads": {name: value.clone() for name, value in self.heads.state_dict().items()},
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""
        self.heads.load_state_dict(state["heads"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._generator.set_state(state["generator"])

    def _act(self, policy_feature: Tensor, rng: np.random.Generator, explore: bool) -> NDArray[np.float32]:
        with torch.no_grad():
            action: NDArray[np.float32] = self.policy.mean_action(policy_feature)[0].cpu().numpy()
        return noisy_action(action, self.config.exploration_std, rng) if explore else action
