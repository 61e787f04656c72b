"""Small fully connected heads on top of features: policy, Q and V."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lotj.nets.distributions import Gaussian


def mlp(in_dim: int, hidden: Sequence[int], out_dim: int, layer_norm: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them; ``layer_norm`` normalises before each ReLU."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(in_dim, width))
        if layer_norm:
            layers.append(nn.LayerNorm(width))
        layers.append(nn.ReLU())
        in_dim = width
    layers.append(nn.Linear(in_dim, out_dim))
    return nn.Sequential(*layers)


class PolicyHead(nn.Module):
    """z -> Gaussian over actions, its mean squashed into (-1, 1) by tanh, its spread the same in every state.

    Args:
        in_dim: Z.
        action_dim: A.
        hidden: widths of the hidden layers.
        log_std_range: limits of the learned log standard deviation. Equal limits fix it.
    """

    def __init__(
        self, in_dim: int, action_dim: int, hidden: Sequence[int], log_std_range: tuple[float, float] = (-2.0, -1.0)
    ) -> None:
        super().__init__()
        self.low, self.high = log_std_range
        self.mean = mlp(in_dim, hidden, action_dim)
        start = torch.full((action_dim,), (self.low + self.high) / 2)
        self.log_std = nn.Parameter(start, requires_grad=self.low < self.high)

    def forward(self, z: Tensor) -> Gaussian:
        """Distribution of the action for z (B, Z): mean (B, A), log_std (A,)."""
        if torch.is_grad_enabled():
            with torch.no_grad():
                self.log_std.clamp_(self.low, self.high)
            # As it is: at a limit a clamp has no gradient, and what reached one never came back.
            return Gaussian(torch.tanh(self.mean(z)), self.log_std)
        return Gaussian(torch.tanh(self.mean(z)), self.log_std.clamp(self.low, self.high))


class QHead(nn.Module):
    """(feature, action) -> value. The action is repeated, so that the feature does not drown it.

    Args:
        in_dim: F.
        action_dim: A.
        hidden: widths of the hidden layers.
        action_repeat: copies of the action at the input.
    """

    def __init__(self, in_dim: int, action_dim: int, hidden: Sequence[int], action_repeat: int = 8) -> None:
        super().__init__()
        self.action_repeat = action_repeat
        self.layers = mlp(in_dim + action_repeat * action_dim, hidden, 1, layer_norm=True)

    def forward(self, feature: Tensor, action: Tensor) -> Tensor:
        """Q (B,) of feature (B, F) and action (B, A)."""
        repeated = action.repeat(1, self.action_repeat)
        return self.layers(torch.cat([feature, repeated], dim=-1)).squeeze(-1)


class ValueHead(nn.Module):
    """feature -> value.

    Args:
        in_dim: F.
        hidden: widths of the hidden layers.
    """

    def __init__(self, in_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = mlp(in_dim, hidden, 1, layer_norm=True)

    def forward(self, feature: Tensor) -> Tensor:
        """V (B,) of feature (B, F)."""
        return self.layers(feature).squeeze(-1)
