"""Implicit Q-learning from images: Eq. 1-3 of the paper (Kostrikov et al. 2022), and its critic.

What the paper's print leaves open is settled here: Eq. 2 squares once (the expectile loss already contains the square);
Eq. 3 is *minimised* with a minus sign; advantages are divided by ``advantage_temperature`` (the paper's beta; codes
that multiply by 10 use beta = 0.1); ``reward`` describes the next state. Eq. 1's target is
``lotj.algos.learner.td_target``.

Critic and policy (``lotj.algos.policy``) are trained apart. Q and V do not depend on the policy or its bottleneck, so
one critic serves every policy ablation, and weights computed once by a finished critic make policy extraction cost one
encoder only.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lotj.algos.learner import ema_update, freeze, td_target
from lotj.algos.training import GradientLearner, config_from, seeded
from lotj.nets.encoder import Encoder, EncoderConfig
from lotj.nets.heads import QHead, ValueHead


@dataclass(frozen=True)
class CriticConfig:
    """Settings of Q and V."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Shape of the two ResNet-18, one for the twin Q and one for V."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of each head."""
    action_repeat: int = 8
    """Copies of the action at the input of Q."""
    discount: float = 0.95
    """gamma of Eq. 1."""
    expectile: float = 0.8
    """The paper's tau of Eq. 2, in (0, 1); 0.5 is the mean."""
    target_rate: float = 0.005
    """Rate of the moving average of the target Q."""
    learning_rate: float = 3e-4
    """Adam's."""

    def __post_init__(self) -> None:
        if not 0 < self.expectile < 1:
            raise ValueError(f"CriticConfig.expectile must lie in (0, 1), got {self.expectile}")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"CriticConfig.discount must lie in [0, 1], got {self.discount}")
        if not 0 < self.target_rate <= 1:
            raise ValueError(f"CriticConfig.target_rate must lie in (0, 1], got {self.target_rate}")
        if self.action_repeat < 1 or self.learning_rate <= 0:
            raise ValueError("CriticConfig: action_repeat must be at least 1 and learning_rate positive")


def expectile_loss(diff: Tensor, expectile: float) -> Tensor:
    """Eq. 2: mean of |expectile - 1(diff < 0)| diff^2 over ``diff`` = Q - V (B,); scalar."""
    weight = torch.where(diff < 0, 1 - expectile, expectile)
    return (weight * diff**2).mean()


def advantage_weight(advantage: Tensor, advantage_temperature: float, clip: float) -> Tensor:
    """Eq. 3: exp(advantage / advantage_temperature), at most ``clip``; (B,)."""
    return torch.exp((advantage / advantage_temperature).clamp(max=math.log(clip)))


def policy_loss(log_prob: Tensor, weight: Tensor | None = None) -> Tensor:
    """Eq. 3 with its sign settled: -mean(weight * log_prob) of (B,); scalar. Behaviour cloning without weights."""
    return -(log_prob if weight is None else weight.detach() * log_prob).mean()


class CriticHeads(nn.Module):
    """Twin Q, their moving average, and V, on top of features.

    Args:
        config: settings.
        action_dim: A.
    """

    def __init__(self, config: CriticConfig, action_dim: int) -> None:
        super().__init__()
        dim = config.encoder.feature_dim
        self.q = nn.ModuleList(QHead(dim, action_dim, config.hidden, config.action_repeat) for _ in range(2))
        self.target_q = freeze(copy.deepcopy(self.q))
        self.value = ValueHead(dim, config.hidden)

    def target(self, feature: Tensor, action: Tensor) -> Tensor:
        """The smaller of the two target Q (B,), without gradient."""
        with torch.no_grad():
            return torch.minimum(*(head(feature, action) for head in self.target_q))  # type: ignore[attr-defined]


class CriticNetwork(nn.Module):
    """Encoders and heads of Q and V.

    Args:
        config: settings.
        action_dim: A.
    """

    def __init__(self, config: CriticConfig, action_dim: int) -> None:
        super().__init__()
        self.config = config
        self.action_dim = action_dim
        self.q_encoder = Encoder(config.encoder)
        self.v_encoder = Encoder(config.encoder)
        self.heads = CriticHeads(config, action_dim)
        self.target_q_encoder = freeze(copy.deepcopy(self.q_encoder))

    @torch.no_grad()
    def advantage(self, image: Tensor, action: Tensor) -> Tensor:
        """A(s, a) = min target Q - V (B,) of images (B, 3, H, W) uint8 and actions (B, A)."""
        self.eval()
        target = self.heads.target(self.target_q_encoder(image), action)
        return target - self.heads.value(self.v_encoder(image))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CriticNetwork:
        """Rebuild from a ``CriticLearner``'s ``state_dict``."""
        network = cls(config_from(CriticConfig, state["config"]), state["action_dim"])
        network.load_state_dict(state["network"])
        return network


class CriticFeatures(NamedTuple):
    """What the heads of a critic read: all (B, F)."""

    q: Tensor
    target_q: Tensor
    v: Tensor
    next_v: Tensor


class CriticBatch(Protocol):
    """The fields of a transition that Eq. 1-2 read, besides what it looks like."""

    @property
    def action(self) -> Tensor: ...  # (B, A)
    @property
    def reward(self) -> Tensor: ...  # (B,)
    @property
    def terminated(self) -> Tensor: ...  # (B,) bool


class ImageCriticBatch(CriticBatch, Protocol):
    """``lotj.data.replay.Transition``, by shape."""

    @property
    def image(self) -> Tensor: ...  # (B, 3, H, W) uint8
    @property
    def next_image(self) -> Tensor: ...


class CriticLoss(NamedTuple):
    """Eq. 1 for both Q plus Eq. 2."""

    loss: Tensor
    """Scalar; the terms' gradients reach disjoint parameters."""
    advantage: Tensor
    """(B,) min target Q - V, without gradient."""
    metrics: dict[str, Tensor]


def critic_loss(heads: CriticHeads, features: CriticFeatures, batch: CriticBatch, config: CriticConfig) -> CriticLoss:
    """Eq. 1 and 2 on features: the same function trains from pixels and from cached features."""
    with torch.no_grad():
        target = td_target(batch.reward, batch.terminated, heads.value(features.next_v), config.discount)
    q = torch.stack([head(features.q, batch.action) for head in heads.q])  # (2, B)
    q_loss = ((target - q) ** 2).mean(dim=1).sum()
    value = heads.value(features.v)
    advantage = heads.target(features.target_q, batch.action) - value
    v_loss = expectile_loss(advantage, config.expectile)
    metrics = {"q_loss": q_loss, "v_loss": v_loss, "q": q.mean(), "v": value.mean(), "advantage_std": advantage.std()}
    return CriticLoss(q_loss + v_loss, advantage.detach(), metrics)


class CriticLearner(GradientLearner):
    """Trains a ``CriticNetwork`` by Eq. 1 and 2.

    Args:
        config: settings.
        action_dim: A.
        seed: of initial weights.
        device: where it lives; the fastest there is by default.
    """

    def __init__(
        self, config: CriticConfig, action_dim: int, seed: int, device: torch.device | str | None = None
    ) -> None:
        with seeded(seed):
            self.network = CriticNetwork(config, action_dim)
        self.config = config
        identity = {"config": asdict(config), "action_dim": action_dim}
        super().__init__(self.network, identity, config.learning_rate, seed, device)

    def update(self, batch: ImageCriticBatch) -> dict[str, float]:
        """One step on a batch of transitions, then one of the moving average."""
        network = self.network
        network.train()
        network.target_q_encoder.eval()
        image, next_image = batch.image.to(self.device), batch.next_image.to(self.device)
        with torch.no_grad():
            target_q, next_v = network.target_q_encoder(image), network.v_encoder(next_image)
        features = CriticFeatures(network.q_encoder(image), target_q, network.v_encoder(image), next_v)
        numbers = _Numbers(*(x.to(self.device) for x in (batch.action, batch.reward, batch.terminated)))
        loss, _, metrics = critic_loss(network.heads, features, numbers, self.config)
        self._descend(loss)
        for target, source in (
            (network.target_q_encoder, network.q_encoder),
            (network.heads.target_q, network.heads.q),
        ):
            ema_update(list(target.parameters()), list(source.parameters()), self.config.target_rate)
            for kept, current in zip(target.buffers(), source.buffers(), strict=True):
                kept.copy_(current)
        return {name: number.item() for name, number in metrics.items()}


class _Numbers(NamedTuple):
    action: Tensor
    reward: Tensor
    terminated: Tensor
