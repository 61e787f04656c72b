"""Diagonal Gaussians: what the policy head returns and what the bottleneck samples from."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """N(mean, exp(log_std)^2), independent in every component."""

    mean: Tensor
    """(B, A)."""
    log_std: Tensor
    """(A,) or (B, A), natural logarithm of the standard deviation."""


def gaussian_log_prob(gaussian: Gaussian, value: Tensor) -> Tensor:
    """Log density of ``value`` (B, A), summed over components: (B,), in nats."""
    scaled = (value - gaussian.mean) * torch.exp(-gaussian.log_std)
    return (-0.5 * scaled**2 - gaussian.log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def gaussian_sample(gaussian: Gaussian, generator: torch.Generator) -> Tensor:
    """A reparameterised sample, shaped like ``gaussian.mean``. Its noise is the same on every device."""
    noise = torch.randn(gaussian.mean.shape, generator=generator).to(gaussian.mean.device)
    return gaussian.mean + noise * torch.exp(gaussian.log_std)
