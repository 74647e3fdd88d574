"""From features to a mask or to a class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smellkit.plume.attention import ChannelAttention
from smellkit.plume.encoders import Features, resize, separable

MASKS, CLASSES = 3, 3  # background, tube, gas; Healthy, Transitional, Acidotic


class SimpleHead(nn.Module):
    """Two 3x3 convolutions of 256 channels on the coarse features, which alone are looked at."""

    def __init__(self, low: int, high: int):
        super().__init__()
        self.body = nn.Sequential(_conv(high, 256, 3), _conv(256, 256, 3), nn.Conv2d(256, MASKS, 1))

    def forward(self, features: Features) -> Tensor:
        return self.body(features.high)


class DeepLabHead(nn.Module):
    """DeepLabV3+: the coarse features at five reaches, joined with the fine ones. Source: arXiv 1802.02611."""

    def __init__(self, low: int, high: int):
        super().__init__()
        reaches = [_conv(high, 256, 1), *(_conv(high, 256, 3, dilation=rate) for rate in (6, 12, 18))]
        self.reaches = nn.ModuleList(reaches)
        self.whole = _conv(high, 256, 1)
        self.project = _conv(5 * 256, 256, 1)
        self.low = _conv(low, 48, 1)
        self.body = nn.Sequential(_conv(256 + 48, 256, 3), _conv(256, 256, 3), nn.Conv2d(256, MASKS, 1))

    def forward(self, features: Features) -> Tensor:
        low, high = features
        whole = self.whole(high.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *high.shape[-2:])
        coarse = self.project(torch.cat([*(reach(high) for reach in self.reaches), whole], dim=1))
        return self.body(torch.cat([resize(coarse, low.shape[-2:]), self.low(low)], dim=1))


class FusionHead(nn.Module):
    """Fast-SCNN's head: coarse and fine features are added, weighed by channel, and read by two separable layers.

    The published counts don't tell how its 69,987 parameters are laid out; this layout has them, and the MACs.
    """

    def __init__(self, low: int, high: int):
        super().__init__()
        self.low = separable(low, high)
        self.high = nn.Sequential(nn.Conv2d(high, high, 1, bias=False), nn.BatchNorm2d(high))
        self.weigh = ChannelAttention(high, reduction=4)
        self.body = nn.Sequential(separable(high, high), separable(high, high), nn.Conv2d(high, MASKS, 1))

    def forward(self, features: Features) -> Tensor:
        low, high = features
        return self.body(self.weigh(self.low(low) + self.high(resize(high, low.shape[-2:]))))


class Classifier(nn.Module):
    """From means over the picture (B, C): a layer for each of `hidden`, with dropout after each."""

    def __init__(self, channels: int, hidden: tuple[int, ...], *, dropout: float = 0.5):
        super().__init__()
        sizes = (channels, *hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers, nn.Linear(sizes[-1], CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        return self.body(features)


def mean(features: Tensor) -> Tensor:
    """Mean over the picture: (B, C, H, W) to (B, C)."""
    return features.mean(dim=(2, 3))


def _conv(inputs: int, outputs: int, size: int, *, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"simple": SimpleHead, "deeplab": DeepLabHead, "fusion": FusionHead}
