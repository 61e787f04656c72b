"""The image encoder: a ResNet-18 whose width is a setting (Sec. V-B: "independent ResNet-18 backbones").

Deviations from the paper, and why: GroupNorm by default, which at small widths trains faster on a CPU than BatchNorm
and keeps no running statistics that could drift while the convolutions are frozen; and the last map is flattened at 2x2
cells instead of averaged to one, because insertion needs to know *where* things are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lotj.types import later

STAGES = 4
BLOCKS_PER_STAGE = 2


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of a ResNet-18."""

    width: int = 16
    """Channels of the first stage; the stages have 1, 2, 4 and 8 times as many. 64 is the paper's ResNet-18."""
    image_size: int = 64
    """Height and width of a camera's picture, in pixels."""
    cameras: int = later(1)
    """How many cameras' pictures an image holds, side by side. To the network each is three more channels: it costs the
    first convolution alone, and a place in one picture means nothing in another, which is for the network to learn."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation: ``group`` or, as in the original ResNet, ``batch``."""
    pixel_mean: float = 0.5
    """Subtracted from pixels in [0, 1]. A setting, not fitted, and saved with every checkpoint: offline and online
    frames are seen through one transform."""
    pixel_std: float = 0.25
    """Then they are divided by it."""

    def __post_init__(self) -> None:
        if self.pixel_std <= 0:
            raise ValueError(f"EncoderConfig.pixel_std must be positive, got {self.pixel_std}")
        if self.width < 4 or self.width % 4:
            raise ValueError(f"EncoderConfig.width must be a positive multiple of 4, got {self.width}")
        if self.image_size < 32:
            raise ValueError(f"EncoderConfig.image_size must be at least 32 pixels, got {self.image_size}")
        if self.cameras < 1:
            raise ValueError(f"EncoderConfig.cameras must be at least 1, got {self.cameras}")
        if self.norm not in ("group", "batch"):
            raise ValueError(f"EncoderConfig.norm must be 'group' or 'batch', got {self.norm!r}")

    @property
    def cells(self) -> int:
        """Cells along each side of the pooled map: 2, or 1 where the image is too small for 2."""
        return min(2, math.ceil(self.image_size / 32))

    @property
    def feature_dim(self) -> int:
        """F, the length of a feature."""
        return 8 * self.width * self.cells**2


class Encoder(nn.Module):
    """Image -> feature. The only place that divides pixels by 255.

    Args:
        config: its shape.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        norm = _norm(config.norm)
        width = config.width
        self.stem = nn.Sequential(
            nn.Conv2d(3 * config.cameras, width, kernel_size=7, stride=2, padding=3, bias=False),
            norm(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        widths = [width * 2**stage for stage in range(STAGES)]
        self.stages = nn.Sequential(
            *(_stage(widths[max(i - 1, 0)], widths[i], stride=1 if i == 0 else 2, norm=norm) for i in range(STAGES))
        )
        self.pool = nn.AdaptiveAvgPool2d(config.cells)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Encode a batch.

        Args:
            image: (B, 3, H, W) uint8 with H = ``config.image_size`` and W = ``config.cameras`` times that.

        Returns:
            (B, F) float32.

        Raises:
            ValueError: if the shape or dtype is another.
        """
        size, width = self.config.image_size, self.config.cameras * self.config.image_size
        if image.dtype != torch.uint8 or image.ndim != 4 or tuple(image.shape[1:]) != (3, size, width):
            raise ValueError(
                f"Encoder expects images (B, 3, {size}, {width}) uint8, of {self.config.cameras} camera(s), got "
                f"{tuple(image.shape)} {image.dtype}: resize them, or train with EncoderConfig.image_size and cameras "
                "set to theirs"
            )
        if self.config.cameras > 1:
            image = torch.cat(image.split(size, dim=3), dim=1)  # (B, 3 * cameras, size, size)
        pixels = image.to(torch.float32, memory_format=torch.channels_last)
        pixels = (pixels / 255 - self.config.pixel_mean) / self.config.pixel_std
        return self.pool(self.stages(self.stem(pixels))).flatten(1)  # (B, F)


def _norm(kind: str) -> Callable[[int], nn.Module]:
    if kind == "batch":
        return nn.BatchNorm2d
    return lambda channels: nn.GroupNorm(max(1, channels // 8), channels)


def _stage(in_width: int, width: int, stride: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    from torchvision.models.resnet import BasicBlock  # takes as long to import as torch

    blocks: list[Any] = []
    for index in range(BLOCKS_PER_STAGE):
        block_in, block_stride = (in_width, stride) if index == 0 else (width, 1)
        shortcut = None
        if block_stride != 1 or block_in != width:
            # Subsampling apart from the convolution is the same map. A strided 1 x 1 convolution of few channels makes
            # oneDNN 3.12 write past its workspace (uxlfoundation/oneDNN issue 6035).
            subsample = nn.AvgPool2d(1, block_stride)
            shortcut = nn.Sequential(subsample, nn.Conv2d(block_in, width, 1, bias=False), norm(width))
        blocks.append(BasicBlock(block_in, width, stride=block_stride, downsample=shortcut, norm_layer=norm))
    return nn.Sequential(*blocks)
