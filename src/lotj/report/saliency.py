"""Grad-CAM (Selvaraju et al. 2017): where in an image the answer of a reward or a policy comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class SaliencyPanel(NamedTuple):
    """Images with heat maps, as a report shows them."""

    title: str
    caption: str
    image: NDArray[np.uint8]
    """(B, H, W, 3)."""
    heat: NDArray[np.float32]
    """(B, H, W) in [0, 1]."""


def grad_cam(target: Callable[[Tensor], Tensor], layer: nn.Module, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return Grad-CAM maps of ``target`` at ``layer``.

    The map is what *raises* the target: channels of the layer, weighted by the target's mean gradient, summed and
    clipped at 0. Its resolution is the layer's: the last stage of a ResNet-18 has 2 x 2 cells for a 64 px image, so
    take an earlier stage there (``encoder.stages[1]`` has 8 x 8).

    Args:
        target: maps (B, 3, H, W) uint8, on the layer's device, to one score an image (B,), through ``layer``. For a
            reward: its logit. For a critic: ``lambda image: q(encoder(image), action)`` with the action (B, A) held.
            For a policy: the log probability of the action taken, or one coordinate of the mean.
        layer: a convolutional module whose output is (B, C, h, w); may be frozen.
        image: (B, H, W, 3) uint8.

    Returns:
        (B, H, W) float32 in [0, 1], each scaled by its own maximum; zero where nothing raises the target. The pictures
        of several cameras are one to a layer, so all of an image's have the same map.

    Raises:
        ValueError: if the target's shape is not (B,), or no gradient reaches the layer.
    """
    from captum.attr import LayerAttribution, LayerGradCam  # imported late: it costs a second

    device = next((parameter.device for parameter in layer.parameters()), torch.device("cpu"))
    batch = torch.from_numpy(np.ascontiguousarray(image)).permute(0, 3, 1, 2).to(device)

    def score(pixels: Tensor) -> Tensor:
        value = target(pixels)
        if value.shape != (len(image),):
            raise ValueError(
                f"grad_cam needs one score an image, ({len(image)},), from its target; got {tuple(value.shape)}"
            )
        if not value.requires_grad:
            raise ValueError(
                "no gradient reaches grad_cam's layer: the target must pass through it, and not run under torch.no_grad"
            )
        return value

    handle = layer.register_forward_hook(_require_grad)
    try:
        with torch.enable_grad():
            maps = LayerGradCam(score, layer).attribute(batch, relu_attributions=True)
    finally:
        handle.remove()
    height, width = batch.shape[2:]
    cameras = width // height if width % height == 0 else 1
    heat = LayerAttribution.interpolate(maps, (height, width // cameras), "bilinear")[:, 0].repeat(1, 1, cameras)
    peak = heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)
    return (heat / peak).detach().cpu().numpy().astype(np.float32)


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32], strength: float = 0.6) -> NDArray[np.uint8]:
    """Blend heat maps over images.

    Args:
        image: (B, H, W, 3) uint8.
        heat: (B, H, W) in [0, 1].
        strength: opacity where the heat is 1.

    Returns:
        (B, H, W, 3) uint8.
    """
    from matplotlib import colormaps

    colour = colormaps["inferno"](heat)[..., :3] * 255
    opacity = strength * np.sqrt(heat)[..., None]
    return np.round((1 - opacity) * image + opacity * colour).astype(np.uint8)


def _require_grad(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Make a frozen layer's output a leaf that gradients can be taken of."""
    return output if output.requires_grad else output.detach().requires_grad_()
