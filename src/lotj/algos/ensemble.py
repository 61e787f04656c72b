"""Practice by the gradient of a critic ensemble over frozen features: the recipe ``ensemble``.

Not the paper's recipe. Advantage weighting (Eq. 3) can only reweight actions that were tried; here the policy follows
the gradient of an ensemble of critics instead, after RLPD (Ball et al. 2023) and TD3+BC (Fujimoto and Gu 2021). The
policy is the offline one plus a residual that starts at zero, so practice begins exactly where offline training ended,
and the robot does what it says only where the critics prefer that to the offline policy's action.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lotj.algos.ensemble_nets import EnsembleCritic, ResidualActor
from lotj.algos.learner import (
    Batch,
    Samples,
    batch_to,
    ema_update,
    freeze,
    image_to_batch,
    td_target,
)
from lotj.algos.projection import Projection, principal_components
from lotj.types import Observation, later


@dataclass(frozen=True)
class EnsembleConfig:
    """Settings of the recipe ``ensemble``; the defaults are from a study on two connectors, and from docs/lab.md."""

    components: int = 128
    """Principal components kept of the frozen features."""
    feature_clip: float = 5.0
    """Components, scaled to unit variance, are clipped to ± this."""
    base_clip: float = 0.98
    """The base action is clipped to ± this before atanh, which is infinite at 1."""
    actor_hidden: tuple[int, ...] = (256, 256)
    """Widths of the residual policy."""
    critic_hidden: tuple[int, ...] = (128, 128)
    """Widths of each critic."""
    layer_norm: bool = later(True)
    """Whether the critics' hidden layers are normalised, which keeps Q from growing where nothing was tried (RLPD)."""
    heads: int = 5
    """Critics in the ensemble."""
    consent: Literal["none", "mean", "all"] = "mean"
    """Who must prefer the practised action to the offline policy's, for the robot to do it in practice and after: no
    critic, their mean, or every one of them. Two proposals that the critics choose from are IBRL's (Hu et al. 2023);
    here the critics go on learning what the practised policy is worth, whoever acts (docs/lab.md, Practice)."""
    target_heads: int = 2
    """Random critics whose minimum is the target."""
    action_repeats: int = 8
    """Copies of the action at the critics' input, so that features do not drown it."""
    discount: float = 0.95
    """γ of Eq. 1."""
    target_rate: float = 0.01
    """Rate of the moving average of the target critics."""
    learning_rate: float = 3e-4
    """Of Adam, actor and critics alike."""
    batch_size: int = 64
    """Of the offline critic updates in ``prepare``; practice brings its own batches."""
    prepare_updates: int = 1500
    """Critic updates on offline data before practice."""
    bc_weight: float = 0.25
    """Weight of the squared distance to the offline policy's action on offline frames. What was done there would be a
    bad example: presses beside the hole and a first policy's trials are among it (``RecipeConfig.frozen``)."""
    success_weight: float = 1.0
    """Weight of the squared distance to the robot's own actions in trials that it rewarded."""
    success_batch_size: int = 32
    """Own rewarded transitions drawn for that term."""
    exploration_std: float = 0.3
    """Standard deviation of exploration noise, in units of action."""
    exploration_factor: float = 1.5
    """Each trial scales its noise by a factor drawn from [0, this]: some trials try the policy, some explore."""

    def __post_init__(self) -> None:
        whole = ("components", "heads", "target_heads", "action_repeats", "batch_size", "success_batch_size")
        for name in whole:
            if getattr(self, name) < 1:
                raise ValueError(f"EnsembleConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.consent not in ("none", "mean", "all"):
            raise ValueError(f"EnsembleConfig.consent must be none, mean or all, got {self.consent!r}")
        if self.target_heads > self.heads:
            raise ValueError(f"EnsembleConfig.target_heads must not exceed heads={self.heads}, got {self.target_heads}")
        if not (0.0 < self.base_clip < 1.0 and 0.0 <= self.discount <= 1.0 and 0.0 < self.target_rate <= 1.0):
            raise ValueError(
                "EnsembleConfig: base_clip must lie in (0, 1), discount in [0, 1], target_rate in (0, 1]; "
                f"got {self.base_clip}, {self.discount}, {self.target_rate}"
            )


class EnsemblePractice:
    """The learner (``lotj.algos.learner.Learner``). An encoded frame is [components (K) | base action before tanh (A)].

    Args:
        config: the recipe's settings.
        encoders: frozen (B, 3, H, W) uint8 -> (B, F_i); the first is the policy's, the others the critics'. Modules
            among them are put in evaluation mode and lose their gradients.
        base_action: the offline policy's deterministic action (B, A) in [-1, 1] from the first encoder's feature,
            in evaluation mode.
        action_dim: A.
        seed: of weights, of the heads drawn and of the successes drawn.
        device: where everything lives.
    """

    name = "ensemble"

    def __init__(
        self,
        config: EnsembleConfig,
        encoders: Sequence[Callable[[Tensor], Tensor]],
        base_action: Callable[[Tensor], Tensor],
        *,
        action_dim: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if not encoders:
            raise ValueError("EnsemblePractice needs at least the policy's encoder, got none")
        self.config = config
        self.action_dim = action_dim
        self.feature_dim = 0
        self.device = torch.device(device)
        self._encoders = [
            freeze(encoder.to(self.device)) if isinstance(encoder, nn.Module) else encoder for encoder in encoders
        ]
        self._base_action = base_action
        self._generator = torch.Generator().manual_seed(seed)
        self._noise_factor: float | None = None
        self._success_feature = torch.empty(0)
        self._success_action = torch.empty(0)

    # -- features ---------------------------------------------------------------------------------------------------

    def fit(self, images: Iterable[Tensor]) -> dict[str, float]:
        """Fit the principal components on a sample of offline images and build the networks that read them."""
        self._projection = principal_components((self._raw(image)[0] for image in images), self.config.components)
        self._build()
        return {"pca_explained_variance": float(self._projection.explained)}

    def fit_state(self) -> dict[str, Any]:
        """The principal components."""
        return {"projection": self._projection._asdict()}

    def load_fit_state(self, state: Mapping[str, Any]) -> None:
        """Take the principal components of another learner over the same networks, and build fresh networks on them."""
        self._projection = Projection(**{name: value.to(self.device) for name, value in state["projection"].items()})
        self._build()

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, K + A) float32."""
        raw, policy_feature = self._raw(image)
        clip = self.config.base_clip
        base = torch.atanh(self._base_action(policy_feature).clamp(-clip, clip))
        small = self._projection.apply(raw).clamp(-self.config.feature_clip, self.config.feature_clip)
        return torch.cat([small, base.to(small.dtype)], dim=1)  # (B, K + A)

    @torch.no_grad()
    def _raw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """All encoders' features, each normalised (LayerNorm, no affine), and the policy's own as it came."""
        features = [encoder(image.to(self.device)).float() for encoder in self._encoders]
        normalised = [F.layer_norm(feature, feature.shape[1:]) for feature in features]
        return torch.cat(normalised, dim=1), features[0]  # (B, ΣF_i), (B, F_0)

    # -- practice ---------------------------------------------------------------------------------------------------

    def prepare(self, offline: Samples) -> dict[str, float]:
        """Warm the critics up on offline data, with the base policy as the policy."""
        metrics: dict[str, float] = {}
        for _ in range(self.config.prepare_updates):
            batch = batch_to(offline.sample(self.config.batch_size, self._generator), self.device)
            loss, metrics = self._critic_loss(batch)
            self._descend({self.critic: loss})
        return metrics

    def reset(self) -> None:
        """Begin a trial: its noise factor is drawn at the first exploring action."""
        self._noise_factor = None

    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """Action (A,) for one observation."""
        return self.act_on(self.encode(image_to_batch(observation["image"], self.device)), rng, explore)

    @torch.no_grad()
    def act_on(self, feature: Tensor, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """Action (A,) for one encoded frame (1, F)."""
        action: NDArray[np.float32] = self._agreed(feature)[0].cpu().numpy()
        if explore:
            if self._noise_factor is None:
                self._noise_factor = float(rng.uniform(0.0, self.config.exploration_factor))
            noise = rng.normal(0.0, self.config.exploration_std * self._noise_factor, self.action_dim)
            action = np.clip(action + noise, -1.0, 1.0).astype(np.float32)
        return action

    def _agreed(self, feature: Tensor) -> Tensor:
        """The practised action (B, A), where it needs no consent or has it; else the offline policy's."""
        practised: Tensor = self.actor(feature)
        if self.config.consent == "none":
            return practised
        base = torch.tanh(feature[:, -self.action_dim :])  # (B, A)
        gain = self.critic(feature, practised) - self.critic(feature, base)  # (heads, B)
        margin = gain.amin(dim=0) if self.config.consent == "all" else gain.mean(dim=0)
        return torch.where(margin[:, None] > 0, practised, base)

    def remember_success(self, feature: Tensor, action: Tensor) -> None:
        """Keep a rewarded trial to imitate: feature (T, F), action (T, A)."""
        self._success_feature = torch.cat([self._success_feature, feature.to(self.device)])
        self._success_action = torch.cat([self._success_action, action.to(self.device)])

    def update(self, batch: Batch) -> dict[str, float]:
        """One gradient step of critics and actor, both at the same parameters."""
        batch = batch_to(batch, self.device)
        critic_loss, metrics = self._critic_loss(batch)
        actor_loss, actor_metrics = self._actor_loss(batch)
        self._descend({self.critic: critic_loss, self.actor: actor_loss})
        return metrics | actor_metrics

    def _descend(self, losses: Mapping[nn.Module, Tensor]) -> None:
        """Step each module on the gradient of its own loss; whatever else a loss passed through stays, target aside."""
        self._adam.zero_grad()
        for module, loss in losses.items():
            parameters = list(module.parameters())
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
                parameter.grad = gradient
        self._adam.step()
        ema_update(list(self.target.parameters()), list(self.critic.parameters()), self.config.target_rate)

    def _critic_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            heads = torch.randperm(self.config.heads, generator=self._generator)[: self.config.target_heads]
            heads = heads.to(self.device)
            next_value = self.target(batch.next_feature, self.actor(batch.next_feature), heads).amin(dim=0)  # (B,)
            target = clamped_target(batch.reward, batch.terminated, next_value, self.config.discount)
        value = self.critic(batch.feature, batch.action)  # (heads, B)
        loss = ensemble_td_loss(value, target)
        return loss, _numbers(critic_loss=loss, q=value.mean(), target=target.mean())

    def _actor_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        rows, own = len(batch.feature), self._own_successes()
        action, own_action = self.actor(torch.cat([batch.feature, own[0]])).tensor_split([rows])
        value = self.critic(batch.feature, action)  # (heads, B)
        base = torch.tanh(batch.feature[:, -self.action_dim :])  # (B, A), the offline policy's
        cloning = imitation_loss(action, base, ~batch.online)
        success = imitation_loss(own_action, own[1], own_action.new_ones(len(own_action)))
        loss = normalised_value_loss(value) + self.config.bc_weight * cloning + self.config.success_weight * success
        return loss, _numbers(
            actor_loss=loss, actor_q=value.mean(), behaviour_cloning=cloning, success_imitation=success
        )

    def _own_successes(self) -> tuple[Tensor, Tensor]:
        """Rewarded transitions of the robot's own: feature (N, F) and action (N, A), drawn anew; N = 0 before any."""
        if not len(self._success_feature) or not self.config.success_weight:
            return self._success_feature[:0], self._success_action[:0]
        rows = torch.randint(len(self._success_feature), (self.config.success_batch_size,), generator=self._generator)
        return self._success_feature[rows.to(self.device)], self._success_action[rows.to(self.device)]

    # -- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Projection, networks, optimizer, generator, as ``lotj.checkpoint`` saves them; see ``remember_success``."""
        state = {
            "projection": self._projection._asdict(),
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "target": self.target.state_dict(),
            "adam": self._adam.state_dict(),
            "generator": self._generator.get_state(),
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``; ``fit`` need not have run, and what was remembered is forgotten."""
        self.load_fit_state(state)
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        self.target.load_state_dict(state["target"])
        self._adam.load_state_dict(copy.deepcopy(state["adam"]))
        self._generator.set_state(state["generator"].cpu())

    def _build(self) -> None:
        config, components = self.config, self._projection.components.shape[1]
        self.feature_dim = components + self.action_dim
        self.actor = ResidualActor(components, self.action_dim, config.actor_hidden, self._generator).to(self.device)
        critic = (components, self.action_dim, config.critic_hidden, config.heads, config.action_repeats)
        self.critic = EnsembleCritic(*critic, self._generator, config.layer_norm).to(self.device)
        self.target = EnsembleCritic(*critic, self._generator, config.layer_norm).to(self.device).requires_grad_(False)
        self.target.load_state_dict(self.critic.state_dict())
        parameters = [*self.critic.parameters(), *self.actor.parameters()]
        self._adam = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
        self._success_feature = torch.empty(0, self.feature_dim, device=self.device)
        self._success_action = torch.empty(0, self.action_dim, device=self.device)


# -- losses ---------------------------------------------------------------------------------------------------------


def clamped_target(reward: Tensor, terminated: Tensor, next_value: Tensor, discount: float) -> Tensor:
    """Eq. 1's target (B,), clamped to [0, 1]: a return of one sparse reward of 1 cannot lie elsewhere."""
    return td_target(reward, terminated, next_value, discount).clamp(0.0, 1.0)


def ensemble_td_loss(value: Tensor, target: Tensor) -> Tensor:
    """Mean over B of the squared error, summed over heads: value (heads, B), target (B,)."""
    return (value - target).square().mean(dim=1).sum()


def normalised_value_loss(value: Tensor) -> Tensor:
    """−mean Q / mean |Q| with the normaliser detached, so that its gradient has one scale whatever Q's is (TD3+BC)."""
    return -value.mean() / value.detach().abs().mean().clamp(min=1e-3)


def imitation_loss(action: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of actions (B, A) over the rows where ``mask`` (B,); 0 where there are none."""
    error = (action - reference).square().mean(dim=1) * mask
    return error.sum() / mask.sum().clamp(min=1)


def _numbers(**metrics: Tensor) -> dict[str, float]:
    """Scalars as floats, fetched at once."""
    return dict(zip(metrics, torch.stack([metric.detach() for metric in metrics.values()]).tolist()))
