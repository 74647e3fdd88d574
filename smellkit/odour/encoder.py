"""Every model of the odour encoder behind one registry.

    window (batch, steps, channels) --- body ---> (batch, width) --- linear ---> z (batch, 50) --- linear ---> logits

A body sees what the protocol gives it (say, differences over 25 s) and scales it itself, with statistics that it took
from the training windows in `prepare`. No loss, no optimiser and no file in here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smellkit.odour.features import LAG, Normal, describe, summarise
from smellkit.task import Batch

CHANNELS = 50  # of the odour embedding z


class Encoder(nn.Module):
    """Turn a batch of windows into the odour channels `z` (batch, 50) and `logits` (batch, classes).

    While training, outputs hold "match" (batch, classes) too with the `table` of an `Alignment`, and with the number of
    `recordings` of each class "recording" (batch, recordings), see `Opponent`.
    """

    def __init__(self, body: Body, *, classes: int, table: Tensor | None = None, recordings: int = 0):
        super().__init__()
        self.body = body
        self.embed = nn.Linear(body.width, CHANNELS)
        self.head = nn.Linear(CHANNELS, classes)
        self.alignment = Alignment(table) if table is not None else None
        self.opponent = Opponent(classes, recordings) if recordings else None

    def prepare(self, windows: Tensor) -> Encoder:
        """Take the scaling from the training `windows` (windows, steps, channels)."""
        self.body.prepare(windows)
        return self

    def forward(self, batch: Batch) -> Batch:
        known = {"summary": batch["summary"]} if "summary" in batch else {}  # what `body.normal` gave, computed once
        z = self.embed(self.body(batch["window"], **known))
        outputs = {"z": z, "logits": self.head(z)}
        if self.alignment is not None and self.training:
            outputs["match"] = self.alignment(z)
        if self.opponent is not None and self.training:
            outputs["recording"] = self.opponent(z, batch["target"])
        return outputs


class Alignment(nn.Module):
    """How well z fits each class's chemistry, as logits (batch, classes): cosines in a shared space.

        z (batch, 50) -> shared (batch, dim) <- cosine -> (classes, dim) <- table (classes, columns)

    The table (GC-MS element abundances, say) is needed in training only; an exported model has none.
    """

    table: Tensor

    def __init__(self, table: Tensor, *, dim: int = 32):
        super().__init__()
        self.register_buffer("table", table)
        self.smell = nn.Linear(CHANNELS, dim)
        self.chemistry = nn.Sequential(nn.Linear(table.shape[1], dim), nn.GELU(), nn.Linear(dim, dim))
        self.sharpness = nn.Parameter(torch.tensor(2.3))  # e^2.3: a temperature of 0.1

    def forward(self, z: Tensor) -> Tensor:
        smell = nn.functional.normalize(self.smell(z), dim=-1)
        chemistry = nn.functional.normalize(self.chemistry(self.table), dim=-1)
        return self.sharpness.exp().clamp(max=50) * smell @ chemistry.T


class Opponent(nn.Module):
    """Guess from z which recording of its substance a window is from: (batch, recordings).

    What it learns is turned round on its way back into z, so that z forgets the recording and, with it, its sitting.
    Source: gradient reversal, Ganin and Lempitsky, arXiv 1409.7495, section 3; given the class, as all that it may not
    forget.
    """

    def __init__(self, classes: int, recordings: int, *, hidden: int = 64):
        super().__init__()
        self.classes = classes
        self.layers = nn.Sequential(nn.Linear(CHANNELS + classes, hidden), nn.GELU(), nn.Linear(hidden, recordings))

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        reversed_ = 2 * z.detach() - z  # the value of z, with a gradient of -1
        known = target if target.ndim == 2 else nn.functional.one_hot(target, self.classes)
        return self.layers(torch.cat([reversed_, known.to(z)], -1))


class Scale(nn.Module):
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


class Body(nn.Module):
    """What all bodies share: the scale of the channels and the width of what they return."""

    width: int

    def __init__(self, *, channels: int, width: int):
        super().__init__()
        self.scale = Scale(channels)
        self.width = width

    def prepare(self, windows: Tensor) -> None:
        self.scale.prepare(windows)


class Lstm(Body):
    """The original encoder: an LSTM reads the window; its last state, and the mean of all, are the answer."""

    def __init__(self, *, steps: int, channels: int, hidden: int = 96, layers: int = 1, dropout: float = 0.2):
        super().__init__(channels=channels, width=2 * hidden)
        self.lstm = nn.LSTM(channels, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.scale(x))
        return self.dropout(torch.cat([states[:, -1], states.mean(1)], -1))


class Cnn(Body):
    """Three convolutions over time, each halving it, then the mean over what is left."""

    def __init__(self, *, steps: int, channels: int, hidden: int = 96, dropout: float = 0.2):
        super().__init__(channels=channels, width=hidden)
        self.layers = nn.Sequential(
            convolution(channels, hidden // 2, kernel=9, stride=2),
            convolution(hidden // 2, hidden, kernel=5, stride=2),
            convolution(hidden, hidden, kernel=5, stride=2),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.layers(self.scale(x).transpose(1, 2)).mean(-1))


class ScentFormer(Body):
    """A transformer over time, after SmellNet's (arXiv 2506.00239), whose tokens are single steps.

    Here `patch` steps make a token: 4 train an order of magnitude faster than 1 on a CPU. `positions` are sines
    ("sincos") or "learned"; `pool` reads a class token ("cls") or the "mean" of the steps.
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
        where = waves(steps // patch, hidden)
        self.where = nn.Parameter(0.02 * torch.randn_like(where)) if positions == "learned" else nn.Buffer(where)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, 4 * hidden, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(hidden), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale(x)[:, x.shape[1] % self.patch :]  # the newest steps fill whole tokens
        h = self.lift(x.reshape(len(x), -1, self.patch * x.shape[2])) + self.where
        if self.cls is not None:
            h = torch.cat([self.cls.expand(len(h), -1, -1), h], 1)
        h = self.layers(h)
        return h[:, 0] if self.cls is not None else h.mean(1)


class TwoPath(Body):
    """Two ways of looking at a window, side by side: what it sums up to, and its shape in time.

        window -+- summarise -> normal -> noise ----------------+-> two dense layers -> (batch, hidden)
                +- amplitude and shape -> convolutions -> pool -+

    The noise (in units of a feature's deviation, training only) keeps the dense layers from learning a session by
    heart. `convolutions=False` leaves the second way out; `lag` summarises differences over so many steps as well.
    """

    def __init__(
        self,
        *,
        steps: int,
        channels: int,
        hidden: int = 256,
        dropout: float = 0.4,
        noise: float = 0.6,
        convolutions: bool = True,
        width: int = 48,
        lag: int = 0,
    ):
        super().__init__(channels=channels, width=hidden)
        self.lag = lag
        features = summarise(torch.zeros(1, steps, channels), lag=lag).shape[1]
        self.normal = Normal(features)
        self.noise = Noise(noise)
        self.convolutions = Convolutions(2 * channels, width=width) if convolutions else None
        wide = features + (2 * width if convolutions else 0)
        self.dense = nn.Sequential(dense(wide, hidden, dropout=dropout), dense(hidden, hidden, dropout=dropout))

    def prepare(self, windows: Tensor) -> None:
        super().prepare(windows)
        self.normal.fit(describe(windows.numpy(), lag=self.lag))

    def forward(self, x: Tensor, summary: Tensor | None = None) -> Tensor:
        seen = [self.noise(self.normal(summarise(x, lag=self.lag)) if summary is None else summary)]
        if self.convolutions is not None:
            seen.append(self.convolutions(views(self.scale(x), x)))
        return self.dense(torch.cat(seen, -1))


class Convolutions(nn.Module):
    """A strided stem and two blocks with shortcuts: (batch, channels, steps) -> (batch, 2 * width)."""

    def __init__(self, channels: int, *, width: int):
        super().__init__()
        self.stem = nn.Sequential(
            convolution(channels, width, kernel=7, stride=2), convolution(width, width, kernel=5, stride=2)
        )
        self.near = convolution(width, width, kernel=5)
        self.far = convolution(width, width, kernel=3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = h + self.near(h)
        h = h + self.far(h)
        return torch.cat([h.mean(-1), h.amax(-1)], -1)


class Noise(nn.Module):
    """Add normal noise of a given deviation while training."""

    def __init__(self, deviation: float):
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        return x + self.deviation * torch.randn_like(x) if self.training and self.deviation else x


def views(scaled: Tensor, x: Tensor) -> Tensor:
    """Amplitude on a symmetric logarithm, and the shape alone, each (batch, channels, steps), one above the other."""
    amplitude = scaled.sign() * (4 * scaled.abs()).log1p()
    centred = x - x.mean(1, keepdim=True)
    shape = centred / (centred.square().mean(1, keepdim=True).sqrt() + 0.5)  # half a count: below is rounding
    return torch.cat([amplitude, shape], -1).transpose(1, 2)


def convolution(inside: int, outside: int, *, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch norm and GELU; the length stays, or is divided by `stride`."""
    padding = (kernel // 2) * dilation
    layer = nn.Conv1d(inside, outside, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(layer, nn.BatchNorm1d(outside), nn.GELU())


def dense(inside: int, outside: int, *, dropout: float) -> nn.Sequential:
    """Linear layer, batch norm, GELU and dropout."""
    return nn.Sequential(nn.Linear(inside, outside), nn.BatchNorm1d(outside), nn.GELU(), nn.Dropout(dropout))


def waves(steps: int, width: int) -> Tensor:
    """Sines and cosines of the position, (steps, width). Source: Vaswani et al., arXiv 1706.03762, section 3.5."""
    rate = torch.exp(torch.arange(0, width, 2) / width * -torch.log(torch.tensor(10000.0)))
    phase = torch.arange(steps)[:, None] * rate
    return torch.stack([phase.sin(), phase.cos()], -1).flatten(1)[:, :width]


def _summary_only(**options: Any) -> TwoPath:
    return TwoPath(**options, convolutions=False)


def _curve(**options: Any) -> TwoPath:
    return TwoPath(**options, convolutions=False, lag=LAG)


BODIES: dict[str, Callable[..., Body]] = {
    "lstm": Lstm,
    "cnn": Cnn,
    "scentformer": ScentFormer,
    "summary-mlp": _summary_only,
    "curve-mlp": _curve,
    "twopath": TwoPath,
}
SUMMARIES = {"summary-mlp": 0, "twopath": 0, "curve-mlp": LAG}  # may be given summary features, with this lag
