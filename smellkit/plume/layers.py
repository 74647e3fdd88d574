"""Parts of the published models: attention, the two encoders, and heads for a mask or a class. B, C, H, W as ever.

An encoder gives features that are fine and early (`low`), and coarse and late (`high`).
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit.errors import OptionError
from smellkit.plume import CLASSES

MASKS = 3  # background, tube, gas


def conv(inputs: int, outputs: int, size: int = 1, *, dilation: int = 1, bias: bool = False, **how) -> list[nn.Module]:
    """A convolution that keeps the size of the picture (but for a `stride`), batch norm, ReLU."""
    padding = dilation * (size // 2)
    layer = nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, bias=bias, **how)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """A depthwise-separable 3x3 convolution, with one batch norm at its end."""
    depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, *conv(inputs, outputs))


def resize(x: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Bilinear, to (height, width)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class Attention(nn.Module):
    """Every place of x attends to every place of `other`: x + gamma * attention(query of x, keys and values of other).

    gamma starts at 0; what is not `there` (B, 1, 1, 1) is not attended to. Source: Zhang et al., arXiv 1805.08318.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, other: Tensor, there: Tensor | float = 1.0) -> Tensor:
        # (B, HW, d) x (B, d, HW) -> weights (B, HW, HW); a row sums to 1 over the places attended to: eq. 1
        weights = torch.bmm(self.query(x).flatten(2).transpose(1, 2), self.key(other).flatten(2)).softmax(dim=-1)
        attended = torch.bmm(self.value(other).flatten(2), weights.transpose(1, 2)).view_as(x)  # (B, C, H, W): eq. 2
        return x + self.gamma * (attended * there)  # eq. 3


class ChannelAttention(nn.Module):
    """Squeeze and excite: the mean of every channel decides its weight. Source: Hu et al., arXiv 1709.01507."""

    def __init__(self, channels: int, *, reduction: int = 16):
        super().__init__()
        squeeze, excite = nn.Linear(channels, channels // reduction), nn.Linear(channels // reduction, channels)
        self.gate = nn.Sequential(squeeze, nn.ReLU(inplace=True), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]  # (B, C) -> (B, C, 1, 1): eq. 2, 3 and 4


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

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.backbone(frame).feature_maps
        return low, high


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
            *conv(channels, 32, 3, stride=2), separable(32, 48, stride=2), separable(48, 64, stride=2)
        )
        self.extract = nn.Sequential(
            *bottlenecks(64, 64, stride=2), *bottlenecks(64, 96, stride=2), *bottlenecks(96, 128, stride=1)
        )
        self.pyramid = PyramidPooling(128)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        low = self.downsample(frame)  # (B, 64, H/8, W/8)
        return low, self.pyramid(self.extract(low))  # high: (B, 128, H/32, W/32)


class InvertedResidual(nn.Module):
    """Widen by `expansion`, 3x3 on each channel alone, narrow again; added to the input where that fits."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, expansion: int = 6):
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *conv(inputs, wide), *conv(wide, wide, 3, stride=stride, groups=wide), *conv(wide, outputs)[:2]
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def bottlenecks(inputs: int, outputs: int, *, stride: int) -> list[nn.Module]:
    """Three inverted residuals, the first of which changes size and channels."""
    rest = [InvertedResidual(outputs, outputs) for _ in range(2)]
    return [InvertedResidual(inputs, outputs, stride=stride), *rest]


class PyramidPooling(nn.Module):
    """Means over 1, 4, 9 and 36 parts of the picture, laid beside the picture itself."""

    sizes = (1, 2, 3, 6)

    def __init__(self, channels: int):
        super().__init__()
        part = channels // len(self.sizes)
        self.parts = nn.ModuleList(nn.Conv2d(channels, part, 1) for _ in self.sizes)  # one pixel has no batch norm
        self.join = nn.Sequential(*conv(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        pooled = [part(means(x, size)) for part, size in zip(self.parts, self.sizes, strict=True)]
        return self.join(torch.cat([x, *(resize(part, x.shape[-2:]) for part in pooled)], dim=1))


def means(x: Tensor, parts: int) -> Tensor:
    """Means over `parts` by `parts` places, (B, C, parts, parts); two products in ONNX, or it takes dozens of steps."""
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(x, parts)
    rows, columns = (torch.from_numpy(_shares(length, parts)).to(x) for length in x.shape[-2:])
    return rows @ x @ columns.T


@functools.cache
def _shares(length: int, parts: int) -> NDArray[np.float32]:
    """What each place weighs in the mean of each part (parts, length); neighbours overlap where it does not divide."""
    position, part = np.arange(length), np.arange(parts)[:, None]
    inside = (position >= part * length // parts) & (position < -(-(part + 1) * length // parts))
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)


class DeepLabHead(nn.Module):
    """DeepLabV3+: the coarse features at five dilations, joined with the fine ones. Source: arXiv 1802.02611."""

    def __init__(self, low: int, high: int):
        super().__init__()

        def biased(*shape: int, dilation: int = 1) -> nn.Sequential:
            return nn.Sequential(*conv(*shape, dilation=dilation, bias=True))

        self.aspp = nn.ModuleList([biased(high, 256), *(biased(high, 256, 3, dilation=rate) for rate in (6, 12, 18))])
        self.pool, self.project, self.low = biased(high, 256), biased(5 * 256, 256), biased(low, 48)
        self.body = nn.Sequential(biased(256 + 48, 256, 3), biased(256, 256, 3), nn.Conv2d(256, MASKS, 1))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        pooled = self.pool(high.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *high.shape[-2:])
        coarse = self.project(torch.cat([*(branch(high) for branch in self.aspp), pooled], dim=1))
        return self.body(torch.cat([resize(coarse, low.shape[-2:]), self.low(low)], dim=1))  # (B, 3, H/4, W/4)


class FusionHead(nn.Module):
    """Fast-SCNN's head: coarse and fine features are added, weighed by channel, and read by two separable layers.

    The published counts don't tell how its 69,987 parameters are laid out; this layout has them, and the MACs.
    """

    def __init__(self, low: int, high: int):
        super().__init__()
        self.low = separable(low, high)
        self.high = nn.Sequential(*conv(high, high)[:2])
        self.attention = ChannelAttention(high, reduction=4)
        self.body = nn.Sequential(separable(high, high), separable(high, high), nn.Conv2d(high, MASKS, 1))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return self.body(self.attention(self.low(low) + self.high(resize(high, low.shape[-2:]))))  # (B, 3, H/8, W/8)


class Classifier(nn.Module):
    """From means over the picture (B, C): a layer for each of `hidden`, with dropout after each."""

    def __init__(self, channels: int, hidden: tuple[int, ...]):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((channels, *hidden), hidden, strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        self.body = nn.Sequential(*layers, nn.Linear(hidden[-1], len(CLASSES)))

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features)


ENCODERS: dict[str, type[ResNet] | type[FastSCNN]] = {"fast-scnn": FastSCNN, "resnet": ResNet}
HEADS: dict[str, Callable[[int, int], nn.Module]] = {"fast-scnn": FusionHead, "resnet": DeepLabHead}  # by encoder
HIDDEN = {"fast-scnn": (256, 128), "resnet": (512, 256)}  # widths of the classifier
