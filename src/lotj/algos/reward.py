"""The reward model R(s): a classifier of success from one image, over a bottleneck (Sec. V-B, V-D, Eq. 5).

Its numbers after training (calibration, threshold, scores) are in ``lotj.algos.calibration``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lotj.algos.calibration import sigmoid
from lotj.algos.training import GradientLearner, config_from, seeded
from lotj.nets.bottleneck import Bottleneck, BottleneckConfig, BottleneckOutput
from lotj.nets.encoder import Encoder, EncoderConfig
from lotj.nets.heads import mlp

CHUNK = 128
"""Images encoded at once by ``RewardModel``."""


@dataclass(frozen=True)
class RewardConfig:
    """Settings of the reward model."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The reward's own ResNet-18."""
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    """DAIB, or one of its ablations: ``BottleneckConfig.of(method)``."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers between z and the logit."""
    learning_rate: float = 3e-4
    """Adam's, for all but the domain head."""
    decay_steps: int = 0
    """Steps over which that rate falls to 0 along a half cosine; 0 keeps it constant."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"RewardConfig.learning_rate must be positive, got {self.learning_rate}")


class LabelledImages(Protocol):
    """What ``RewardLearner`` trains on, balanced and augmented by the caller (``lotj.data.batches.FrameBatch``)."""

    @property
    def image(self) -> Tensor: ...  # (B, 3, H, W) uint8
    @property
    def label(self) -> Tensor: ...  # (B,) 1 for success, 0 otherwise
    @property
    def domain(self) -> Tensor: ...  # (B,) int64, -1 where the connector has no class


class RewardNetwork(nn.Module):
    """image -> logit of success.

    Args:
        config: settings.
        domains: D, number of training connectors.
    """

    def __init__(self, config: RewardConfig, domains: int) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder)
        self.bottleneck = Bottleneck(config.bottleneck, config.encoder.feature_dim, domains)
        self.head = mlp(config.bottleneck.dim, config.hidden, 1)

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, BottleneckOutput]:
        """Logit (B,) of images (B, 3, H, W) uint8, and the representation; deterministic without a generator."""
        output = self.bottleneck(self.encoder(image), generator)
        return self.head(output.z).squeeze(-1), output


class RewardLearner(GradientLearner):
    """Trains a ``RewardNetwork`` by Eq. 5: binary cross-entropy plus L_DAIB.

    Args:
        config: settings.
        domains: D, number of training connectors.
        seed: of initial weights and noise.
        device: where it lives; the fastest there is by default.
    """

    def __init__(self, config: RewardConfig, domains: int, seed: int, device: torch.device | str | None = None) -> None:
        with seeded(seed):
            self.network = RewardNetwork(config, domains)
        identity = {"config": asdict(config), "domains": domains}
        super().__init__(self.network, identity, config.learning_rate, seed, device, config.decay_steps)

    def update(self, batch: LabelledImages) -> dict[str, float]:
        """One step; returns loss (nats), accuracy and the bottleneck's metrics."""
        self.network.train()
        label = batch.label.to(self.device, torch.float32)
        logit, output = self.network(batch.image.to(self.device), self.generator)
        reward_loss = F.binary_cross_entropy_with_logits(logit, label)
        bottleneck_loss, metrics = self.network.bottleneck.loss(output, batch.domain.to(self.device), self.step)
        self._descend(reward_loss + bottleneck_loss)
        accuracy = ((logit > 0) == (label > 0.5)).float().mean().item()
        return {"reward_loss": reward_loss.item(), "accuracy": accuracy, **metrics}

    def model(self, logit_temperature: float = 1.0, threshold: float = 0.5) -> RewardModel:
        """The reward model trained so far. It shares the network: train on, and it changes."""
        return RewardModel(self.network, self._identity, logit_temperature, threshold)


class RewardModel:
    """A trained reward model: images in, calibrated probabilities out (``lotj.types.RewardModel``).

    Args:
        network: the classifier.
        identity: ``config`` and ``domains`` it was built from.
        logit_temperature: logits are divided by it (``calibration.fit_logit_temperature``).
        threshold: probability from which an image counts as a success (chosen on validation connectors).

    Raises:
        ValueError: if temperature or threshold are out of range.
    """

    def __init__(
        self,
        network: RewardNetwork,
        identity: Mapping[str, Any],
        logit_temperature: float = 1.0,
        threshold: float = 0.5,
    ) -> None:
        if logit_temperature <= 0:
            raise ValueError(f"RewardModel.logit_temperature must be positive, got {logit_temperature}")
        if not 0 < threshold <= 1:
            raise ValueError(f"RewardModel.threshold must lie in (0, 1], got {threshold}")
        self.network = network
        self.logit_temperature = logit_temperature
        self.threshold = threshold
        self._identity = dict(identity)

    @torch.no_grad()
    def logit(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw logit (B,) of camera images (B, H, W, 3) uint8, with the deterministic encoding.

        Raises:
            ValueError: if the images are not (B, H, W, 3) uint8 of the encoder's size.
        """
        logits = [self.network(tensor)[0].cpu().numpy() for tensor in self._tensors(image)]
        return np.concatenate(logits) if logits else np.zeros(0, np.float32)

    @torch.no_grad()
    def feature(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The encoder's feature (B, F) of camera images (B, H, W, 3) uint8: what pictures look like to this model."""
        features = [self.network.encoder(tensor).cpu().numpy() for tensor in self._tensors(image)]
        size = self.network.encoder.config.feature_dim
        return np.concatenate(features) if features else np.zeros((0, size), np.float32)

    def _tensors(self, image: NDArray[np.uint8]) -> list[Tensor]:
        """The images in chunks (b, 3, H, W) on the network's device, the network in evaluation mode."""
        if image.dtype != np.uint8 or image.ndim != 4 or image.shape[-1] != 3:
            raise ValueError(f"RewardModel expects images (B, H, W, 3) uint8, got {image.shape} {image.dtype}")
        self.network.eval()
        device = next(self.network.parameters()).device
        chunks = [image[start : start + CHUNK] for start in range(0, len(image), CHUNK)]
        return [torch.from_numpy(np.ascontiguousarray(chunk)).permute(0, 3, 1, 2).to(device) for chunk in chunks]

    def probability(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability of success (B,) of camera images (B, H, W, 3) uint8, never 0 or 1."""
        return sigmoid(self.logit(image) / self.logit_temperature).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """All that ``from_state`` needs: tensors and JSON scalars, for ``lotj.checkpoint.save_state``."""
        return {
            **self._identity,
            "network": dict(self.network.state_dict()),
            "logit_temperature": self.logit_temperature,
            "threshold": self.threshold,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device | str = "cpu") -> RewardModel:
        """Rebuild from ``state_dict``, or from a ``RewardLearner``'s."""
        network = RewardNetwork(config_from(RewardConfig, state["config"]), state["domains"])
        network.load_state_dict(state["network"])
        identity = {"config": state["config"], "domains": state["domains"]}
        return cls(network.to(device), identity, state.get("logit_temperature", 1.0), state.get("threshold", 0.5))
