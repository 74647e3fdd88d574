"""What a window of sensor values says, as a few hundred numbers: one torch function for trees, networks and ONNX alike.

    window (batch, steps, channels) --- summarise ---> (batch, features) --- QuantileNormalizer ---> about N(0, 1) each

Written with matrix products and sorts only, so that a network which holds it can be exported as it is.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
LAG = 25  # steps of the strict protocol's differences
LAGS = (1, 5, 10, 20)  # steps, for the autocorrelation
BANDS = 6  # of the spectrum, equally wide on a logarithmic axis
SEGMENTS = 8
TINY = 1e-6
STILL = 1e-4  # a change that is none
REMEMBERED = 4  # sets of windows whose features `describe` keeps


def summarise(windows: Tensor, *, lag: int = 0) -> Tensor:
    """Return the summary features of `windows` (batch, steps, channels) as (batch, features).

    A channel gives quantiles, polynomial trends, segment means, the size and roughness of its changes, autocorrelations
    and spectral bands; pairs of channels give correlations; all channels together give the direction of the response.
    With a `lag`, the differences over so many steps are summarised as well, and follow.
    """
    if lag:
        return torch.cat([summarise(windows), summarise(windows[:, lag:] - windows[:, :-lag])], -1)
    x = windows.transpose(1, 2).contiguous()  # (batch, channels, steps), in a row: all below is several times as fast
    centred, change = x - x[..., :1], x[..., 1:] - x[..., :-1]  # first, so that what rests is 0 and not rounding
    centred = centred - centred.mean(-1, keepdim=True)
    maps, sizes = _maps(x.shape[-1])
    linear, cubic, waves = _times(x, maps).split(sizes, -1)
    deviation, noise = _size(centred), _size(x - _times(cubic, _cubics(x.shape[-1]).T))
    alone = [_quantiles(x), linear, deviation, noise, *_changes(change)]
    alone += [_autocorrelations(centred) / (deviation.square() + TINY), _bands(waves)]
    directions = _direction(torch.cat([linear[..., :2], deviation], -1))
    return torch.cat([torch.cat(alone, -1).flatten(1), _correlations(centred, change), directions], -1)


def _times(x: Tensor, rows: NDArray[np.float32]) -> Tensor:
    """Products of x (batch, channels, steps) with each of `rows` (n, steps), (batch, channels, n), in one step."""
    return x @ torch.from_numpy(rows).to(x).T


def _size(x: Tensor) -> Tensor:
    """Root mean square over the steps of x (batch, channels, steps), (batch, channels, 1)."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True) / x.shape[-1] ** 0.5


def _quantiles(x: Tensor) -> Tensor:
    if x.requires_grad or not x.is_cpu or torch.compiler.is_exporting():
        ordered = x.topk(x.shape[-1], largest=False).values  # as ONNX sorts
    else:  # numpy's sort is thirty times as fast as torch's, which ONNX can hold
        ordered = torch.from_numpy(np.sort(x.numpy(), axis=-1))
    return _chosen(ordered, [round(q * (x.shape[-1] - 1)) for q in QUANTILES])


def _chosen(x: Tensor, indices: ArrayLike) -> Tensor:
    return x.index_select(-1, torch.as_tensor(np.asarray(indices), device=x.device))


def _changes(change: Tensor) -> list[Tensor]:
    """Size of the changes between steps: mean, root mean square, largest, share of none, and mean in each quarter."""
    size = change.abs()
    return [
        size.mean(-1, keepdim=True),
        _size(change),
        size.amax(-1, keepdim=True),
        (STILL - size).sign().relu().mean(-1, keepdim=True),  # size < STILL; a comparison takes four times as long
        _times(size, _segments(change.shape[-1], 4)),
    ]


def _autocorrelations(centred: Tensor) -> Tensor:
    return torch.cat([(centred[..., lag:] * centred[..., :-lag]).mean(-1, keepdim=True) for lag in LAGS], -1)


def _bands(waves: Tensor) -> Tensor:
    """Log power in `BANDS` bands of the spectrum, from cosines and then sines (batch, channels, 2 frequencies)."""
    return (_times(waves.square(), _pools(waves.shape[-1] // 2)) + TINY).log()


def describe(windows: NDArray[np.float32], *, lag: int = 0) -> Tensor:
    """Summary features of many windows, (windows, features); the last few sets are kept, as seeds ask again."""
    return _described(np.asarray(windows, np.float32).tobytes(), np.shape(windows), lag)


@functools.lru_cache(maxsize=REMEMBERED)
@torch.no_grad()
def _described(values: bytes, shape: tuple[int, ...], lag: int, *, batch: int = 256) -> Tensor:
    windows = torch.from_numpy(np.frombuffer(values, np.float32).reshape(shape).copy())
    return torch.cat([summarise(part, lag=lag) for part in windows.split(batch)])


class QuantileNormalizer(nn.Module):
    """Map each feature onto a normal distribution by its quantiles in the training windows, clipped at +-3.

    x (batch, features) -> (batch, features). The quantiles are buffers, so they travel with the weights. Values nearer
    than `least` (and this share of their size) are one: whole counts give many that only rounding tells apart.
    """

    knots: Tensor

    def __init__(self, features: int, *, knots: int = 25, least: float = TINY):
        super().__init__()
        self.reach, self.least = 3.0, least
        self.register_buffer("knots", torch.zeros(knots, features))

    def fit(self, x: Tensor) -> QuantileNormalizer:
        """Learn the quantiles of `x` (windows, features); a constant feature becomes 0."""
        shares = torch.special.ndtr(torch.linspace(-self.reach, self.reach, len(self.knots))).numpy()
        self.knots.copy_(torch.from_numpy(np.quantile(x.numpy(), shares, axis=0)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        # x -> -3, and for each step between knots how much of it lies below x, (batch, features)
        left, width, high = self.knots[:-1], self.knots[1:] - self.knots[:-1], 2 * self.reach / (len(self.knots) - 1)
        least = self.least * left.abs().clamp_min(1)
        middle = high / 2 * (width < least)  # much mass on one value: it sits in the middle of its step
        steepness = high / torch.maximum(width, least)
        if torch.compiler.is_exporting():  # all knots at once: a file of half the size, for few windows at a time
            steps = torch.addcmul(middle, x[:, None] - left, steepness).clamp(0.0, high)
            return left.new_ones(len(left)) @ steps - self.reach  # summed over the middle it takes twice as long
        passed = torch.full_like(x, -self.reach)
        for knot, slope, half in zip(left, steepness, middle, strict=True):
            passed += torch.addcmul(half, x - knot, slope).clamp_(0.0, high)
        return passed


@functools.cache
def _basis(steps: int) -> np.ndarray:
    """Mean, three Legendre trends, segment means, first five and last five steps, as rows (14, steps)."""
    time = np.linspace(-1, 1, steps)
    trends = [time, (3 * time**2 - 1) / 2, (5 * time**3 - 3 * time) / 2]
    rows = [np.full(steps, 1 / steps), *[t * np.sqrt(2 * i + 3) / steps for i, t in enumerate(trends)]]
    edge = np.zeros((2, steps))
    edge[0, :5] = edge[1, -5:] = 1 / 5
    return np.vstack([rows, _segments(steps, SEGMENTS), edge]).astype(np.float32)


@functools.cache
def _segments(steps: int, count: int) -> np.ndarray:
    rows = np.zeros((count, steps), np.float32)
    for row, part in zip(rows, np.array_split(np.arange(steps), count), strict=True):
        row[part] = 1 / max(len(part), 1)
    return rows


@functools.cache
def _cubics(steps: int) -> np.ndarray:
    """Orthonormal cubic polynomials, as rows (4, steps)."""
    q, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, steps), 4))
    return q.T.astype(np.float32)


@functools.cache
def _maps(steps: int) -> tuple[np.ndarray, list[int]]:
    """All products with the rows of a channel, one below the other (n, steps), and how many rows each has.

    They are `_basis`, `_cubics`, and windowed cosines and sines.
    """
    phase = 2 * np.pi * np.outer(np.arange(1, steps // 2 + 1), np.arange(steps)) / steps
    taper = np.hanning(steps) / np.sqrt(steps)
    waves = [(wave(phase) * taper).astype(np.float32) for wave in (np.cos, np.sin)]
    rows = _basis(steps), _cubics(steps), np.vstack(waves)
    return np.vstack(rows), [len(one) for one in rows]


@functools.cache
def _pools(frequencies: int) -> np.ndarray:
    """Means over `BANDS` bands of the spectrum, as rows (BANDS, 2 frequencies): cosines and sines count alike."""
    frequency, edges = np.arange(1, frequencies + 1), np.geomspace(1, frequencies + 1, BANDS + 1)
    bands = ((frequency >= edges[:-1, None]) & (frequency < edges[1:, None])).astype(np.float32)
    return np.tile(bands / bands.sum(1, keepdims=True).clip(1), 2)


def _correlations(*several: Tensor) -> Tensor:
    """Of each pair of channels of each x (batch, channels, steps): the cosine of the angle between them."""
    channels = several[0].shape[1]
    products = torch.cat([x @ x.transpose(1, 2) for x in several], 1).flatten(1)  # (batch, all channels * channels)
    every = np.arange(len(several) * channels)
    one, other = (np.add.outer(every[::channels], index).ravel() for index in np.triu_indices(channels, 1))
    length = (_chosen(products, channels * every + every % channels) + TINY).sqrt()  # (batch, all channels)
    return _chosen(products, channels * one + other % channels) / (_chosen(length, one) * _chosen(length, other))


def _direction(responses: Tensor) -> Tensor:
    """Each of the responses (batch, channels, n) as shares of its length, one after the other (batch, n * channels)."""
    return (responses / (responses.square().sum(1, keepdim=True) + TINY).sqrt()).transpose(1, 2).flatten(1)
