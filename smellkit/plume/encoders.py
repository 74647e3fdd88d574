"""The two published encoders: a frame in, its fine and its coarse features out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit.errors import OptionError


class Features(NamedTuple):
    """What an encoder sees: fine and early (`low`), coarse and late (`high`)."""

    low: Tensor
    high: Tensor


class ResNet(nn.Module):
    """ResNet-50 with a stem of one channel, from transformers: low is stage 1 (256, 1/4), high stage 4 (2048, 1/32)."""

    low, high = 256, 2048

    def __init__(self, channels: int = 1):
        super().__init__()
        try:
            from transformers import ResNetBackbone, ResNetConfig
        except ImportError as why:
            raise OptionError("The ResNet-50 encoder needs transformers", hint="pip install smellkit[vlm]") from why
        stages = ["stage1", "stage4"]
        self.backbone = ResNetBackbone(ResNetConfig(num_channels=channels, out_features=stages))  # type: ignore[call-arg]

    def forward(self, frame: Tensor) -> Features:
        return Features(*self.backbone(frame).feature_maps)


class FastSCNN(nn.Module):
    """Fast-SCNN's encoder, 1.07 M parameters.

        frame (1) -- conv 32 /2 -- DS 48 /4 -- DS 64 /8 --> low (64)
                                                   |
              inverted residuals 64 /16, 96 /32, 128 /32, three each -- pyramid pooling --> high (128)

    Source: Poudel et al., arXiv 1902.04502, table 1.
    """

    low, high = 64, 128

    def __init__(self, channels: int = 1):
        super().__init__()
        self.downsample = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            separable(32, 48, stride=2),
            separable(48, 64, stride=2),
        )
        self.extract = nn.Sequential(
            *bottlenecks(64, 64, stride=2), *bottlenecks(64, 96, stride=2), *bottlenecks(96, 128, stride=1)
        )
        self.pyramid = PyramidPooling(128)

    def forward(self, frame: Tensor) -> Features:
        low = self.downsample(frame)
        return Features(low, self.pyramid(self.extract(low)))


class InvertedResidual(nn.Module):
    """Widen by `expansion`, look around (3x3, each channel alone), narrow again; added to the input where that fits."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int = 6):
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class PyramidPooling(nn.Module):
    """Means over 1, 4, 9 and 36 parts of the picture, laid beside the picture itself."""

    def __init__(self, channels: int, sizes: tuple[int, ...] = (1, 2, 3, 6)):
        super().__init__()
        self.sizes = sizes
        part = channels // len(sizes)
        self.parts = nn.ModuleList(nn.Conv2d(channels, part, 1) for _ in sizes)  # one pixel has no batch norm
        self.join = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = [conv(F.adaptive_avg_pool2d(x, size)) for conv, size in zip(self.parts, self.sizes, strict=True)]
        return self.join(torch.cat([x, *(resize(part, x.shape[-2:]) for part in pooled)], dim=1))


def separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """A depthwise-separable 3x3 convolution, with one batch norm at its end."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def bottlenecks(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    """Three inverted residuals, the first of which changes size and channels."""
    rest = [InvertedResidual(outputs, outputs, stride=1) for _ in range(2)]
    return [InvertedResidual(inputs, outputs, stride=stride), *rest]


def resize(x: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Bilinear, to (height, width)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


ENCODERS: dict[str, type[ResNet] | type[FastSCNN]] = {"fast-scnn": FastSCNN, "resnet": ResNet}
