"""Principal components of frozen features, fitted in one pass: what makes updates on them cheap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Projection(NamedTuple):
    """Principal components scaled to unit variance."""

    mean: Tensor  # (D,)
    components: Tensor  # (D, K)
    scale: Tensor  # (K,) standard deviation along each
    explained: Tensor  # () share of the variance kept

    def apply(self, feature: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        return ((feature - self.mean) @ self.components) / self.scale


def principal_components(batches: Iterable[Tensor], count: int) -> Projection:
    """The ``count`` leading principal components of features that come in batches (B, D), in one pass and O(D²) memory.

    Moments are summed in float64, relative to the first batch's mean; each component's largest entry is positive.
    Directions without variance are kept, with a scale that cannot blow up rounding.

    Raises:
        ValueError: fewer than two rows.
    """
    rows, origin, total, square = 0, torch.empty(0), torch.empty(0), torch.empty(0)
    for batch in batches:
        if rows == 0:
            origin = batch.double().mean(dim=0)
            total, square = torch.zeros_like(origin), torch.zeros(len(origin), len(origin)).to(origin)
        centred = batch.double() - origin
        rows, total, square = rows + len(batch), total + centred.sum(dim=0), square + centred.T @ centred
    if rows < 2:
        raise ValueError(f"principal components need at least 2 feature vectors, got {rows}: pass more offline images")
    covariance = square / rows - torch.outer(total, total) / rows**2
    variance, vectors = torch.linalg.eigh(covariance)
    variance, vectors = variance.flip(0).clamp(min=0.0), vectors.flip(1)
    kept = vectors[:, :count]
    kept = kept * kept.gather(0, kept.abs().argmax(dim=0, keepdim=True)).sign()
    scale = variance[:count].sqrt().clamp(min=1e-4 * float(variance[0].sqrt()) + 1e-12)
    explained = variance[:count].sum() / variance.sum().clamp(min=1e-12)
    return Projection((origin + total / rows).float(), kept.float().contiguous(), scale.float(), explained.float())
