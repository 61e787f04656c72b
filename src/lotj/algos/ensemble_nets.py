"""The networks of the recipe ``ensemble``: a residual policy, and critics that are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualActor(nn.Module):
    """tanh(base + residual): (B, K + A) -> (B, A). The residual MLP's last layer starts at zero."""

    def __init__(self, components: int, action_dim: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        sizes = [components, *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [
                _uniform(nn.Linear(inputs, outputs), generator),
                nn.LayerNorm(outputs, elementwise_affine=False),
                nn.ReLU(),
            ]
        last = nn.Linear(sizes[-1], action_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(*layers, last)
        self.action_dim = action_dim

    def forward(self, feature: Tensor) -> Tensor:
        """Actions (B, A) in (-1, 1)."""
        components, base = feature[:, : -self.action_dim], feature[:, -self.action_dim :]
        return torch.tanh(base + self.residual(components))


class EnsembleCritic(nn.Module):
    """Independent critics computed together: every weight has a leading dimension of heads.

    LayerNorm has no gain and shift of its own: the weights after it and the bias before it can say the same.
    """

    def __init__(
        self,
        components: int,
        action_dim: int,
        hidden: Sequence[int],
        heads: int,
        action_repeats: int,
        generator: torch.Generator,
        layer_norm: bool = True,
    ) -> None:
        super().__init__()
        self.action_dim, self.action_repeats, self.layer_norm = action_dim, action_repeats, layer_norm
        sizes = [components + action_dim * action_repeats, *hidden, 1]
        self.weight, self.bias = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = inputs**-0.5
            self.weight.append(torch.empty(heads, inputs, outputs).uniform_(-bound, bound, generator=generator))
            self.bias.append(torch.empty(heads, 1, outputs).uniform_(-bound, bound, generator=generator))

    def forward(self, feature: Tensor, action: Tensor, heads: Tensor | None = None) -> Tensor:
        """Q (heads, B) of encoded frames (B, K + A) and actions (B, A), for all heads or those listed.

        The base action in the encoding belongs to the actor; critics read the components only.
        """

        weights, biases = list(self.weight), list(self.bias)
        if heads is not None:
            weights, biases = [w[heads] for w in weights], [b[heads] for b in biases]
        x = torch.cat([feature[:, : -self.action_dim], action.repeat(1, self.action_repeats)], dim=1)
        x = x.expand(len(weights[0]), *x.shape)  # (heads, B, K + repeats · A)
        for weight, bias in zip(weights[:-1], biases[:-1]):
            x = torch.baddbmm(bias, x, weight)
            x = torch.relu(F.layer_norm(x, x.shape[-1:]) if self.layer_norm else x)
        return torch.baddbmm(biases[-1], x, weights[-1]).squeeze(-1)


def _uniform(linear: nn.Linear, generator: torch.Generator) -> nn.Linear:
    """PyTorch's usual bounds, drawn from a generator of our own."""
    bound = linear.in_features**-0.5
    with torch.no_grad():
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.uniform_(-bound, bound, generator=generator)
    return linear
