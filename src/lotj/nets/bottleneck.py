"""The domain adversarial information bottleneck, DAIB (Sec. V-D, Eq. 4-5), and its four ablations (Table IV).

z = (z_invariant, z_specific). A domain head tries to tell the connector from z_invariant and its gradient is reversed
on the way back; z_specific is a Gaussian whose divergence from N(0, I) is paid for. The five methods are settings of
one config with the same total Z, so that none is favoured by its capacity:

    method          z_invariant          z_specific            adversarial_weight   kl_weight
    erm             Z (deterministic)    0                     0                    0
    dann            Z                    0                     > 0                  0
    vib             0                    Z (sampled)           0                    0.01
    daib-lambda-0   Z / 2                Z / 2 (sampled)       > 0                  0
    daib            Z / 2                Z / 2 (sampled)       > 0                  0.01

The adversary diverges if left alone: the encoder can raise the domain cross-entropy without bound. Four measures hold
it: z_invariant is layer-normalised, the domain head learns at a rate of its own, the reversed gradient is warmed up,
and it is switched off while the cross-entropy is above chance (beyond which there is nothing left to hide).
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lotj.nets.distributions import Gaussian, gaussian_sample
from lotj.nets.heads import mlp

LOG_STD_START = -1.0
"""Offset of log_std before training: the prior's own spread would drown z_specific in noise for the first steps."""
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


@dataclass(frozen=True)
class BottleneckConfig:
    """Size and weights of the split representation. The default is DAIB."""

    invariant_dim: int = 64
    """Length of z_invariant."""
    specific_dim: int = 64
    """Length of z_specific."""
    adversarial_weight: float = 0.1
    """Weight of the reversed gradient of the domain loss, after warm-up. The paper prints 1; 0.3-1 was unstable."""
    kl_weight: float = 0.01
    """The paper's lambda: weight of the divergence of z_specific from N(0, I)."""
    adversarial_warmup: int = 1000
    """Steps N over which it rises as 2 / (1 + exp(-10 step / N)) - 1 (Ganin et al. 2016). 0: none."""
    domain_hidden: int = 128
    """Width of the domain head's hidden layer."""
    domain_learning_rate: float = 1e-3
    """Adam's learning rate for the domain head, faster than the encoder's, so that the adversary keeps up."""

    def __post_init__(self) -> None:
        for name in ("invariant_dim", "specific_dim", "adversarial_warmup"):
            if getattr(self, name) < 0:
                raise ValueError(f"BottleneckConfig.{name} must be >= 0, got {getattr(self, name)}")
        for name in ("adversarial_weight", "kl_weight"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"BottleneckConfig.{name} must be >= 0, got {getattr(self, name)}: the sign is built in"
                )
        if self.invariant_dim + self.specific_dim == 0:
            raise ValueError("BottleneckConfig: invariant_dim and specific_dim are both 0, so z would be empty")
        if self.adversarial_weight > 0 and self.invariant_dim == 0:
            raise ValueError("BottleneckConfig: adversarial_weight > 0 needs invariant_dim > 0; set the weight to 0")
        if self.kl_weight > 0 and self.specific_dim == 0:
            raise ValueError("BottleneckConfig: kl_weight > 0 needs specific_dim > 0; set the weight to 0")
        if self.domain_hidden < 1 or self.domain_learning_rate <= 0:
            raise ValueError("BottleneckConfig: domain_hidden and domain_learning_rate must be positive")

    @property
    def dim(self) -> int:
        """Z, the length of z."""
        return self.invariant_dim + self.specific_dim

    @classmethod
    def of(cls, method: str, dim: int = 128, **changes: Any) -> BottleneckConfig:
        """The setting of one of Table IV's methods.

        Args:
            method: one of ``METHODS``: erm, dann, vib, daib-lambda-0, daib.
            dim: Z, the same for all of them; even.
            changes: other fields, for example ``adversarial_warmup``.

        Raises:
            ValueError: if the method is unknown or ``dim`` is not a positive even number.
        """
        if method not in METHODS:
            close = difflib.get_close_matches(method, METHODS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"unknown bottleneck method {method!r}, expected one of {', '.join(METHODS)}{hint}")
        if dim < 2 or dim % 2:
            raise ValueError(f"dim must be a positive even number, so that it splits in two, got {dim}")
        invariant, adversarial, kl = METHODS[method]
        default = cls()
        fields: dict[str, Any] = {
            "invariant_dim": int(invariant * dim),
            "specific_dim": dim - int(invariant * dim),
            "adversarial_weight": default.adversarial_weight if adversarial else 0.0,
            "kl_weight": default.kl_weight if kl else 0.0,
        }
        return cls(**(fields | changes))


METHODS: dict[str, tuple[float, bool, bool]] = {
    "erm": (1.0, False, False),
    "dann": (1.0, True, False),
    "vib": (0.0, False, True),
    "daib-lambda-0": (0.5, True, False),
    "daib": (0.5, True, True),
}
"""Table IV: share of z that is z_invariant, whether there is an adversary, whether the divergence is paid for."""


class BottleneckOutput(NamedTuple):
    """The representation of a batch. Parts that a method does not have are (B, 0)."""

    z: Tensor
    """(B, Z) = z_invariant, then z_specific."""
    z_invariant: Tensor
    z_specific: Tensor
    """A sample in training, the mean where the encoding is deterministic."""
    mean: Tensor
    log_std: Tensor


class Bottleneck(nn.Module):
    """feature -> z, and L_DAIB of Eq. 5.

    Args:
        config: sizes and weights.
        in_dim: F, the length of a feature.
        domains: D, the number of training connectors; domain indices are 0 .. D - 1.

    Raises:
        ValueError: if there is an adversary and fewer than two domains.
    """

    def __init__(self, config: BottleneckConfig, in_dim: int, domains: int) -> None:
        super().__init__()
        if config.adversarial_weight > 0 and domains < 2:
            raise ValueError(
                f"the domain adversary needs at least 2 domains, got {domains}: "
                "add connectors or set BottleneckConfig.adversarial_weight to 0"
            )
        self.config = config
        self.domains = domains
        self.invariant = self.specific = self.domain_head = None
        if size := config.invariant_dim:
            self.invariant = nn.Sequential(nn.Linear(in_dim, size), nn.LayerNorm(size, elementwise_affine=False))
        if config.specific_dim:
            self.specific = nn.Linear(in_dim, 2 * config.specific_dim)
        if config.adversarial_weight:
            self.domain_head = mlp(config.invariant_dim, (config.domain_hidden,), domains)

    def forward(self, feature: Tensor, generator: torch.Generator | None = None) -> BottleneckOutput:
        """Encode features (B, F).

        Args:
            feature: (B, F).
            generator: source of z_specific's noise. Without one the encoding is deterministic (the mean), as Sec. V-E
            asks
                for rollouts and reward predictions.
        """
        empty = feature.new_zeros(len(feature), 0)
        z_invariant = self.invariant(feature) if self.invariant is not None else empty
        mean = log_std = z_specific = empty
        if self.specific is not None:
            mean, raw = self.specific(feature).chunk(2, dim=-1)
            log_std = (raw + LOG_STD_START).clamp(LOG_STD_MIN, LOG_STD_MAX)
            z_specific = mean if generator is None else gaussian_sample(Gaussian(mean, log_std), generator)
        return BottleneckOutput(torch.cat([z_invariant, z_specific], dim=-1), z_invariant, z_specific, mean, log_std)

    def loss(
        self, output: BottleneckOutput, domain: Tensor, step: int | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """L_DAIB of Eq. 5, to be added to the task's loss.

        Args:
            output: of ``forward``.
            domain: (B,) int64, -1 where the connector has no class.
            step: training step, for the warm-up of the adversary; None is after it.

        Returns:
            The scalar loss, whose gradient trains the domain head to classify and everything before it to hide; and
            metrics: ``kl``, ``domain_loss`` against ``domain_chance`` = log D (nats), ``domain_accuracy``,
            ``reversal_weight``.
        """
        loss = output.z.new_zeros(())
        metrics: dict[str, float] = {}
        if self.specific is not None:
            kl = bottleneck_kl(output.mean, output.log_std)
            loss = loss + self.config.kl_weight * kl
            metrics["kl"] = kl.item()
        if self.domain_head is not None:
            chance = math.log(self.domains)
            with torch.no_grad():
                logits = self.domain_head(output.z_invariant)
                domain_nats = domain_loss(logits, domain).item()
            weight = self._reversal_weight(step) if domain_nats <= chance else 0.0
            reversed_logits = self.domain_head(gradient_reversal(output.z_invariant, weight))
            loss = loss + domain_loss(reversed_logits, domain)
            known = domain >= 0
            if bool(known.any()):
                hits = (logits.argmax(dim=-1) == domain)[known].float().mean().item()
                metrics |= {"domain_loss": domain_nats, "domain_accuracy": hits}
            metrics |= {"domain_chance": chance, "reversal_weight": weight}
        return loss, metrics

    def _reversal_weight(self, step: int | None) -> float:
        if step is None or self.config.adversarial_warmup == 0:
            return self.config.adversarial_weight
        progress = min(1.0, step / self.config.adversarial_warmup)
        return self.config.adversarial_weight * (2 / (1 + math.exp(-10 * progress)) - 1)


def bottleneck_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, exp(log_std)^2) || N(0, I)) of Eq. 5, summed over components and averaged over the batch; nats."""
    return 0.5 * (mean**2 + torch.exp(2 * log_std) - 1 - 2 * log_std).sum(dim=-1).mean()


def domain_loss(logits: Tensor, domain: Tensor) -> Tensor:
    """Mean cross-entropy of the domain head over samples that have a domain (L_domain, Sec. V-D); scalar, nats.

    Args:
        logits: (B, D).
        domain: (B,) int64 in -1 .. D - 1; -1 drops out. A batch of only -1 gives exactly 0, with a graph.
    """
    total = F.cross_entropy(logits, domain, ignore_index=-1, reduction="sum")
    return total / (domain >= 0).sum().clamp(min=1)


def gradient_reversal(value: Tensor, weight: float) -> Tensor:
    """The identity, whose gradient is multiplied by -weight (Ganin & Lempitsky 2015)."""
    return _GradientReversal.apply(value, weight)  # type: ignore[no-any-return, no-untyped-call]


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: float) -> Tensor:  # type: ignore[override]
        ctx.weight = weight
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.weight * gradient, None
