"""Every network of the odour encoder behind one registry.

    window (batch, steps, channels) -- backbone --> (batch, width) -- linear --> z (batch, 50) -- linear --> logits

A backbone sees what the protocol gives it (say, differences over 25 s) and scales it itself, with statistics that it
took from the training windows in `prepare`. No loss, no optimiser and no file in here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smellkit.odour.features import LAG, TINY, QuantileNormalizer, describe, summarise
from smellkit.options import check
from smellkit.task import Batch

Z_CHANNELS = 50  # of the odour embedding z


class Encoder(nn.Module):
    """Turn a batch of windows into the odour channels `z` (batch, 50) and `logits` (batch, classes)."""

    def __init__(self, backbone: Backbone, *, classes: int):
        super().__init__()
        self.backbone = backbone
        self.embed = nn.Linear(backbone.width, Z_CHANNELS)
        self.head = nn.Linear(Z_CHANNELS, classes)

    def prepare(self, windows: Tensor) -> Encoder:
        """Take the scaling from the training `windows` (windows, steps, channels)."""
        self.backbone.prepare(windows)
        return self

    def forward(self, batch: Batch) -> Batch:
        known = {"summary": batch["summary"]} if "summary" in batch else {}  # what `normalizer` gave, computed once
        z = self.embed(self.backbone(batch["window"], **known))  # (batch, width) -> (batch, 50)
        return {"z": z, "logits": self.head(z)}

    @torch.no_grad()
    def run(self, windows: NDArray, output: str = "logits", *, batch: int = 256) -> Tensor:
        """One output for any number of windows (n, steps, channels), in batches; (0, size) where there are none."""
        none = torch.zeros(0, {"z": self.head.in_features, "logits": self.head.out_features}[output])
        parts = torch.from_numpy(np.asarray(windows, np.float32)).split(batch)
        return torch.cat([self({"window": part})[output] if len(part) else none for part in parts])


class Standardizer(nn.Module):
    """Standard units a channel, from the training windows: x (..., channels) -> the same shape."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def prepare(self, windows: Tensor) -> None:
        flat = windows.reshape(-1, windows.shape[-1]).double()
        deviation = flat.std(0, unbiased=False)
        self.mean.copy_(flat.mean(0))
        self.scale.copy_(torch.where(deviation < 1e-9, torch.ones_like(deviation), deviation))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


class Backbone(nn.Module):
    """What all backbones share: the scale of the channels and the width of what they return."""

    width: int

    def __init__(self, *, channels: int, width: int):
        super().__init__()
        self.standardizer = Standardizer(channels)
        self.width = width

    def prepare(self, windows: Tensor) -> None:
        self.standardizer.prepare(windows)


class Lstm(Backbone):
    """The original encoder: an LSTM reads the window; its last state, and the mean of all, are the answer."""

    def __init__(self, *, steps: int, channels: int, hidden: int = 96, layers: int = 1, dropout: float = 0.2):
        super().__init__(channels=channels, width=2 * hidden)
        self.lstm = nn.LSTM(channels, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.standardizer(x))  # (batch, steps, hidden)
        return self.dropout(torch.cat([states[:, -1], states.mean(1)], -1))  # (batch, 2 * hidden)


class ScentFormer(Backbone):
    """A transformer over time, after SmellNet's (arXiv 2506.00239), whose tokens are single steps.

    Here `patch` steps make a token: 4 train an order of magnitude faster than 1 on a CPU. `positions` are sines
    ("sincos") or "learned"; `pool` reads a class token ("cls") or the "mean" of the tokens.
    """

    def __init__(
        self,
        *,
        steps: int,
        channels: int,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        positions: str = "sincos",
        pool: str = "mean",
        patch: int = 4,
    ):
        super().__init__(channels=channels, width=hidden)
        self.pool, self.patch = pool, patch
        self.lift = nn.Linear(channels * patch, hidden)
        self.cls = nn.Parameter(torch.zeros(1, 1, hidden)) if pool == "cls" else None
        sines = sinusoids(steps // patch, hidden)  # (tokens, hidden)
        self.positions = nn.Parameter(0.02 * torch.randn_like(sines)) if positions == "learned" else nn.Buffer(sines)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, 4 * hidden, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(hidden), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.standardizer(x)[:, x.shape[1] % self.patch :]  # the newest steps fill whole tokens
        tokens = self.lift(x.reshape(len(x), -1, self.patch * x.shape[2])) + self.positions  # (batch, tokens, hidden)
        if self.cls is not None:
            tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)  # the class token goes first
        tokens = self.layers(tokens)
        return tokens[:, 0] if self.cls is not None else tokens.mean(1)


class FeatureMLP(Backbone):
    """Two dense layers on what a window sums up to.

        window -> summarise (batch, features) -> normalizer, about N(0, 1) -> noise -> 2 x dense -> (batch, hidden)

    The noise (in units of a feature's deviation, training only) keeps the dense layers from learning a session by
    heart. With a `lag`, differences over so many steps are summarised beside the window itself. Without `hidden` units
    the features themselves are the answer, for a linear discriminant.
    """

    def __init__(
        self,
        *,
        steps: int,
        channels: int,
        hidden: int = 256,
        dropout: float = 0.4,
        noise: float = 0.6,
        lag: int = 0,
        least: float = TINY,
    ):
        features = summarise(torch.zeros(1, steps, channels), lag=lag).shape[1]
        super().__init__(channels=channels, width=hidden or features)
        self.lag = lag
        self.normalizer = QuantileNormalizer(features, least=least)
        self.noise = noise
        layers = [dense(features, hidden, dropout=dropout), dense(hidden, hidden, dropout=dropout)] if hidden else []
        self.dense = nn.Sequential(*layers)

    def prepare(self, windows: Tensor) -> None:
        super().prepare(windows)
        self.normalizer.fit(describe(windows.numpy(), lag=self.lag))

    def forward(self, x: Tensor, summary: Tensor | None = None) -> Tensor:
        features = self.normalizer(summarise(x, lag=self.lag)) if summary is None else summary  # (batch, features)
        if self.training and self.noise:
            features = features + self.noise * torch.randn_like(features)
        return self.dense(features)


def dense(inside: int, outside: int, *, dropout: float) -> nn.Sequential:
    """Linear layer, batch norm, GELU and dropout."""
    return nn.Sequential(nn.Linear(inside, outside), nn.BatchNorm1d(outside), nn.GELU(), nn.Dropout(dropout))


def sinusoids(steps: int, width: int) -> Tensor:
    """Sines and cosines of the position, (steps, width). Source: Vaswani et al., arXiv 1706.03762, section 3.5."""
    rate = torch.exp(torch.arange(0, width, 2) / width * -torch.log(torch.tensor(10000.0)))
    phase = torch.arange(steps)[:, None] * rate
    return torch.stack([phase.sin(), phase.cos()], -1).flatten(1)[:, :width]


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "lstm": Lstm,
    "scentformer": ScentFormer,
    "summary-mlp": FeatureMLP,
    "curve-mlp": partial(FeatureMLP, lag=LAG),  # on whole curves, with the strict differences beside them
    "linear": partial(FeatureMLP, hidden=0, noise=0.0),  # for a discriminant
}
FEATURE_LAG = {"summary-mlp": 0, "curve-mlp": LAG}  # those that may be given summary features, with this lag


def make(model: str, shape: tuple[int, ...], *, classes: int, **options) -> Encoder:
    """Build the network called `model` for windows of `shape` (steps, channels)."""
    check([model], BACKBONES, "There is no model")
    return Encoder(BACKBONES[model](steps=shape[0], channels=shape[1], **options), classes=classes)


def discriminant(windows: Tensor, weight: Tensor, bias: Tensor, **options: float) -> Encoder:
    """The network that is a linear discriminant: `weight` (classes, features) and `bias` on normal summary features.

    z are the singular directions of the discriminant, so all of it for up to 50 classes.
    """
    network = make("linear", tuple(windows.shape[1:]), classes=len(weight), **options).prepare(windows)
    outer, sizes, directions = torch.linalg.svd(weight.double(), full_matrices=False)
    kept = min(Z_CHANNELS, len(sizes))
    with torch.no_grad():
        for layer in (network.embed, network.head):
            layer.weight.zero_(), layer.bias.zero_()
        network.embed.weight[:kept] = directions[:kept].float()
        network.head.weight[:, :kept] = (outer * sizes)[:, :kept].float()
        network.head.bias.copy_(bias)
    return network.eval()
