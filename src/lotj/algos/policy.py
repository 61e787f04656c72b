"""The policy: image -> action through a domain adversarial information bottleneck (Sec. V-E).

Extracted from a finished critic by Eq. 3 (advantage-weighted regression), or cloned from the data where no weights are
given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lotj.algos.iql import policy_loss
from lotj.algos.learner import image_to_batch
from lotj.algos.training import GradientLearner, config_from, seeded
from lotj.nets.bottleneck import Bottleneck, BottleneckConfig
from lotj.nets.distributions import gaussian_log_prob
from lotj.nets.encoder import Encoder, EncoderConfig
from lotj.nets.heads import PolicyHead
from lotj.types import Observation, noisy_action


@dataclass(frozen=True)
class PolicyConfig:
    """Settings of the policy."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The policy's own ResNet-18."""
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    """DAIB on the policy (Sec. V-E), or one of its ablations."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers between z and the action."""
    log_std_range: tuple[float, float] = (-2.0, -1.0)
    """Limits of the learned log standard deviation; equal limits fix it."""
    advantage_temperature: float = 0.1
    """The paper's beta of Eq. 3: advantages are divided by it."""
    weight_clip: float = 100.0
    """Largest weight of a transition in Eq. 3."""
    learning_rate: float = 3e-4
    """Adam's, for all but the domain head."""
    decay_steps: int = 0
    """Steps over which that rate falls to 0 along a half cosine; 0 keeps it constant."""

    def __post_init__(self) -> None:
        if self.advantage_temperature <= 0 or self.weight_clip <= 0 or self.learning_rate <= 0:
            raise ValueError("PolicyConfig: advantage_temperature, weight_clip and learning_rate must be positive")
        if self.log_std_range[0] > self.log_std_range[1]:
            raise ValueError(f"PolicyConfig.log_std_range must be (low, high), got {self.log_std_range}")


class PolicyNetwork(nn.Module):
    """image -> Gaussian over actions, through a bottleneck.

    Args:
        config: settings.
        action_dim: A.
        domains: D, number of training connectors.
    """

    def __init__(self, config: PolicyConfig, action_dim: int, domains: int) -> None:
        super().__init__()
        self.config = config
        self.action_dim = action_dim
        self.encoder = Encoder(config.encoder)
        self.bottleneck = Bottleneck(config.bottleneck, config.encoder.feature_dim, domains)
        self.head = PolicyHead(config.bottleneck.dim, action_dim, config.hidden, config.log_std_range)

    @property
    def identity(self) -> dict[str, Any]:
        """What ``from_state`` needs beside the weights."""
        return {
            "config": asdict(self.config),
            "action_dim": self.action_dim,
            "domains": self.bottleneck.domains,
        }

    def mean_action(self, feature: Tensor) -> Tensor:
        """Deterministic action (B, A) for features (B, F): the mean, of the mean encoding (Sec. V-E)."""
        mean: Tensor = self.head(self.bottleneck(feature).z).mean
        return mean

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PolicyNetwork:
        """Rebuild from a ``PolicyLearner``'s ``state_dict``."""
        network = cls(config_from(PolicyConfig, state["config"]), state["action_dim"], state["domains"])
        network.load_state_dict(state["network"])
        return network


class PolicyBatch(NamedTuple):
    """What ``PolicyLearner`` trains on."""

    image: Tensor
    """(B, 3, H, W) uint8."""
    action: Tensor
    """(B, A) in [-1, 1]."""
    domain: Tensor
    """(B,) int64, -1 where the connector has no class."""
    weight: Tensor | None = None
    """(B,) of Eq. 3, ``iql.advantage_weight`` of ``CriticNetwork.advantage``; None is behaviour cloning."""


def policy_objective(
    network: PolicyNetwork,
    feature: Tensor,
    action: Tensor,
    domain: Tensor,
    weight: Tensor | None,
    generator: torch.Generator,
    step: int | None,
) -> tuple[Tensor, dict[str, float]]:
    """L_pi + L_DAIB(z) of Sec. V-E on features (B, F); returns the scalar loss and metrics."""
    output = network.bottleneck(feature, generator)
    gaussian = network.head(output.z)
    loss = policy_loss(gaussian_log_prob(gaussian, action), weight)
    bottleneck_loss, metrics = network.bottleneck.loss(output, domain, step)
    metrics |= {"policy_loss": loss.item(), "action_error": (gaussian.mean - action).abs().mean().item()}
    if weight is not None:
        metrics["weight"] = weight.mean().item()
    return loss + bottleneck_loss, metrics


class PolicyLearner(GradientLearner):
    """Trains a ``PolicyNetwork`` by advantage-weighted regression with DAIB, or by behaviour cloning with DAIB.

    Args:
        config: settings.
        action_dim: A.
        domains: D, number of training connectors.
        seed: of initial weights and noise.
        device: where it lives; the fastest there is by default.
    """

    def __init__(
        self, config: PolicyConfig, action_dim: int, domains: int, seed: int, device: torch.device | str | None = None
    ) -> None:
        with seeded(seed):
            self.network = PolicyNetwork(config, action_dim, domains)
        super().__init__(self.network, self.network.identity, config.learning_rate, seed, device, config.decay_steps)

    def update(self, batch: PolicyBatch) -> dict[str, float]:
        """One step."""
        self.network.train()
        feature = self.network.encoder(batch.image.to(self.device))
        weight = None if batch.weight is None else batch.weight.to(self.device)
        action, domain = batch.action.to(self.device), batch.domain.to(self.device)
        loss, metrics = policy_objective(
            self.network, feature, action, domain, weight, self.generator, self.step
        )  # fmt: skip
        self._descend(loss)
        return metrics


class ImagePolicy:
    """A trained policy in a robot's hands (``lotj.types.Policy``), with the deterministic encoding.

    Args:
        network: the policy.
        exploration_std: standard deviation of the noise added where it explores, in units of action.
    """

    def __init__(self, network: PolicyNetwork, exploration_std: float = 0.3) -> None:
        self.network = network
        self.exploration_std = exploration_std

    def reset(self) -> None:
        """Nothing is kept between steps."""

    @torch.no_grad()
    def act(self, observation: Observation, rng: np.random.Generator, explore: bool = False) -> NDArray[np.float32]:
        """Action (A,) in [-1, 1] for one observation; deterministic unless ``explore``."""
        self.network.eval()
        image = image_to_batch(observation["image"], next(self.network.parameters()).device)
        action = self.network.mean_action(self.network.encoder(image))[0].cpu().numpy()
        return noisy_action(action, self.exploration_std, rng) if explore else action
