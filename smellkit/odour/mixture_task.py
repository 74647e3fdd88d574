"""Mixture recordings as windows, the encoder that hears them, and the task that teaches it.

    counts (600, 4) at 10 Hz -> windows of 100, every 50 -> log-conductance, averaged to 2 Hz (20, 4)
      -> LSTM -> z (50) -> alpha -> odour vector -> head -> ratios (12)

A metal-oxide sensor sits in a voltage divider, so its count c of 1023 means a conductance in proportion to
c / (1023 - c). Odours act on conductance by factors: its logarithm is where mixing and drift are simplest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smellkit import checkpoint as weights
from smellkit import windows
from smellkit.errors import DataError, OptionError
from smellkit.odour.alpha import AlphaMixture, mixture_loss
from smellkit.odour.mixtures import MIXTURE_GAS, read_mixtures
from smellkit.odour.recordings import find
from smellkit.odour.scents import ODORANTS
from smellkit.task import Batch, Task, Tensors

LENGTH, STRIDE, STEPS = 100, 50, 600  # a window, the way to the next, and how much of a recording counts
POOL = 5  # steps averaged into one for the networks
FULL = 1023.0  # the largest count of a 10-bit converter
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """Windows of mixture recordings: what the sensors said, what was there, and where it comes from."""

    counts: Array  # (windows, 100, 4), 0..1023
    ratios: Array  # (windows, 12), in the order of ODORANTS; NaN when unknown
    recording: NDArray[np.int64]  # (windows,), row of `index`
    start: NDArray[np.int64]  # (windows,), first step
    index: pd.DataFrame  # one row a recording, as `read_mixtures` gives it

    def __len__(self) -> int:
        return len(self.counts)

    def of(self, recordings: NDArray) -> Windows:
        """Return the windows of the recordings where `recordings` (a mask over `index`) is true."""
        rows = np.flatnonzero(np.asarray(recordings)[self.recording])
        return Windows(self.counts[rows], self.ratios[rows], self.recording[rows], self.start[rows], self.index)

    def column(self, name: str) -> NDArray:
        """Return a column of `index` for every window."""
        return self.index[name].to_numpy()[self.recording]


def log_conductance(counts: NDArray) -> Array:
    """Return ln(c / (1023 - c)) of converter counts: the log of the sensor's conductance, up to a constant."""
    counts = np.clip(np.asarray(counts, np.float32), 1.0, FULL - 1.0)
    return np.log(counts / (FULL - counts))


def cut(values: list[Array] | Array, index: pd.DataFrame, *, length: int = LENGTH, stride: int = STRIDE) -> Windows:
    """Cut recordings, (steps, 4) each, into windows; only the first 600 steps count, as in the published protocol."""
    parts = [windows.sliding(value[:STEPS], length=length, stride=stride) for value in values]
    counts = [len(part) for part in parts]
    if not sum(counts):
        raise DataError(f"No recording has a whole window of {length} steps", hint="at least 10 s at 10 Hz are needed")
    recording = np.repeat(np.arange(len(parts)), counts)
    start = np.concatenate([stride * np.arange(count) for count in counts])
    ratios = index[list(ODORANTS)].to_numpy(np.float32)[recording]
    return Windows(np.concatenate(parts), ratios, recording, start, index)


def joined(parts: Sequence[Windows]) -> Windows:
    """Return parts of the same recordings' windows as one again."""
    names = ("counts", "ratios", "recording", "start")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Windows(**arrays, index=parts[0].index)


def read_windows(
    folder: str | Path | None, split: str, *, copies: bool = False, length: int = LENGTH, stride: int = STRIDE
) -> Windows:
    """Return the windows of mixture/<split>; without `copies` a byte-identical file counts once."""
    values, index = read_mixtures(folder, split)
    if not copies:
        own = (index["duplicate_of"].fillna("") == "").to_numpy()
        values = [value for value, keep in zip(values, own, strict=True) if keep]
        index = index[own].reset_index(drop=True)
    return cut(values, index, length=length, stride=stride)


def training_split(folder: str | Path | None) -> str:
    """Return the larger training split that the folder has."""
    root = find(folder) / "mixture"
    return next((name for name in ("training_new", "training_seen") if (root / name).is_dir()), "training_seen")


def label(ratios: NDArray) -> str:
    """Return ratios (12,) in words: `almond80 clove20`."""
    order = np.argsort(-np.asarray(ratios), kind="stable")
    return " ".join(f"{ODORANTS[i]}{100 * ratios[i]:.0f}" for i in order if ratios[i] > 0)


def groups(index: pd.DataFrame, by: str) -> NDArray:
    """Return for each recording the group that a validation holds out as a whole.

    recording: files made from one recording stay together; combination: the same set of odorants; day: the date
    (made-up files, which have none, go with the day of the real recordings of their mixture).
    """
    if by == "recording":
        stems = [re.sub(r"( \(\d+\)|_\d+)?\.csv$", "", Path(file).name) for file in index["file"]]
        return np.array([re.sub(r"^.*?\.([0-9a-z]{8})\b.*", r"\1", stem) for stem in stems])
    names = np.array(ODORANTS)
    if by == "combination":
        return np.array([" ".join(names[row > 0]) for row in index[list(ODORANTS)].to_numpy()])
    if by == "day":
        days = index["recorded_at"].dt.strftime("%Y-%m-%d")
        mixtures = pd.Series([label(row) for row in index[list(ODORANTS)].to_numpy()], index=index.index)
        return days.fillna(days.groupby(mixtures).transform("first")).fillna("unknown").to_numpy(str)
    raise OptionError(f"No validation by {by!r}", hint="recording, combination or day")


def held_out(index: pd.DataFrame, *, by: str = "recording", share: float = 0.2, seed: int = 7) -> NDArray[np.bool_]:
    """Return a mask over recordings: about `share` of the groups, drawn by `seed`."""
    of = groups(index, by)
    names = np.unique(of)
    chosen = np.random.default_rng(seed).permutation(names)[: max(1, round(share * len(names)))]
    return np.isin(of, chosen)


def pooled(counts: NDArray) -> Array:
    """Return log-conductance averaged over `POOL` steps, (windows, steps / 5, 4): what the networks hear."""
    levels = log_conductance(counts)
    n, steps, channels = levels.shape
    return levels[:, : steps // POOL * POOL].reshape(n, steps // POOL, POOL, channels).mean(axis=2)


class MixtureEncoder(nn.Module):
    """LSTM over log-conductance: "window" (batch, steps, 4) -> "z" (batch, 50) and "logits" (batch, 12).

    Levels stay in, unlike in the encoder of the 50 substances: without them nobody tells mixtures apart, and how far
    that carries to another day is what the bench measures. Each step also shows the change since the window began.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, channels: int = len(MIXTURE_GAS), hidden: int = 64, dim: int = 50, scents: int = 12):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.lstm = nn.LSTM(2 * channels, hidden, batch_first=True)
        self.channels = nn.Sequential(nn.Linear(hidden + channels, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.logits = nn.Linear(dim, scents)

    def fit(self, levels: Tensor) -> MixtureEncoder:
        """Measure mean and deviation of training windows (windows, steps, 4)."""
        self.mean.copy_(levels.mean(dim=(0, 1)))
        self.scale.copy_(levels.std(dim=(0, 1)).clamp(min=1e-6))
        return self

    def forward(self, batch: Batch) -> Batch:
        x = (batch["window"] - self.mean) / self.scale
        steps, _ = self.lstm(torch.cat([x, 4 * (x - x[:, :1])], dim=-1))
        z = torch.tanh(self.channels(torch.cat([steps[:, -1], x.mean(dim=1)], dim=-1)))
        return {"z": z, "logits": self.logits(z)}


def blend(batch: Batch, *, chance: float = 0.3, drift: float = 0.05) -> Batch:
    """Augment a batch: blend `chance` of the windows with another one, and let the sensors drift.

    Conductances add up in proportion, G = w G1 + (1 - w) G2, and so do the ratios. Drift is one random factor a channel
    and window, `drift` its deviation in the logarithm. Random numbers come from torch's generator.
    """
    window, ratios = batch["window"], batch["ratios"]
    other = torch.randperm(len(window))
    weight = torch.where(torch.rand(len(window)) < chance, torch.rand(len(window)), 1.0)
    w = weight.view(-1, 1, 1).clamp(1e-6, 1.0)
    mixed = torch.logaddexp(window + w.log(), window[other] + (1 - w).clamp(min=1e-9).log())
    mixed = mixed + drift * torch.randn(len(window), 1, window.shape[2])
    w = w.view(-1, 1)
    return {**batch, "window": mixed, "ratios": w * ratios + (1 - w) * ratios[other]}


def scores(outputs: Batch, batch: Batch) -> dict[str, float]:
    """All scores of predicted ratios over a split (see `mixture_scores`)."""
    from smellkit.odour.mixture_scores import summary

    return summary(outputs["beta"].numpy(), batch["ratios"].numpy())


def task(
    *,
    data: str = "",
    stage: str = "joint",
    encoder: str = "",
    validation: str = "recording",
    mixing: float = 0.3,
    drift: float = 0.05,
    hidden: int = 64,
    dim: int = 128,
    seed: int = 7,
) -> Task:
    """Mixture ratios from a window of four gas sensors, as a task for the trainer.

    data: a SmellNet folder, "" for the sample. stage: "encoder" trains the encoder alone by its own logits, "frozen"
    puts alpha and head on the finished `encoder` (a run's name or a folder of weights), "fine-tuned" lets that encoder
    learn on, "joint" learns all from nothing. validation: what is held out as a whole, "recording", "combination" or
    "day". mixing: chance of blending a training window with another; drift: of the sensors, in log-conductance.
    """
    if stage not in ("encoder", "frozen", "fine-tuned", "joint"):
        raise OptionError(f"No stage {stage!r}", hint="encoder, frozen, fine-tuned or joint")
    if stage in ("frozen", "fine-tuned") and not encoder:
        raise OptionError(
            f"Stage {stage!r} needs a trained encoder",
            hint="`smellkit train odour-mixture --set stage=encoder --name my-encoder`, then --set encoder=my-encoder",
        )
    kept: dict[str, Tensor] = {}

    def load():
        train = read_windows(data, training_split(data))
        out = held_out(train.index, by=validation, seed=seed)
        parts = {"train": train.of(~out), "valid": train.of(out)}
        if (find(data) / "mixture" / "test_seen").is_dir():
            parts["test"] = read_windows(data, "test_seen", copies=True)
        for name, part in parts.items():
            if not len(part):
                raise DataError(f"No windows left for {name}", hint="more recordings, or another validation")
        sets = {
            name: Tensors(
                window=pooled(part.counts),
                ratios=part.ratios,
                change=(lambda batch: blend(batch, chance=mixing, drift=drift)) if name == "train" else None,
            )
            for name, part in parts.items()
        }
        kept["levels"] = sets["train"].tensors["window"]
        return sets

    def build() -> nn.Module:
        if stage in ("frozen", "fine-tuned"):
            ears = load_encoder(encoder)
        else:
            ears = MixtureEncoder(hidden=hidden)
            if not kept:
                load()
            ears.fit(kept["levels"])
        return ears if stage == "encoder" else AlphaMixture(ears, dim=dim, frozen=stage == "frozen")

    def loss(outputs: Batch, batch: Batch) -> Tensor:
        if stage == "encoder":
            return -(batch["ratios"] * outputs["logits"].log_softmax(dim=-1)).sum(dim=-1).mean()
        return mixture_loss(outputs, batch)

    def score(outputs: Batch, batch: Batch) -> dict[str, float]:
        return (
            scores({"beta": outputs["logits"].softmax(dim=-1), **outputs}, batch)
            if stage == "encoder"
            else scores(outputs, batch)
        )

    return Task("odour-mixture", load, build, loss, score, watch="top1_at_0.1")


def load_encoder(name: str) -> MixtureEncoder:
    """Return the trained encoder in a run or a folder of weights, whole models included."""
    from smellkit import paths

    folder = Path(name) if (Path(name) / weights.FILE).exists() else paths.runs() / name
    tensors, _ = weights.load(folder, made_by=f"`smellkit train odour-mixture --set stage=encoder --name {name}`")
    inside = {key.removeprefix("encoder."): value for key, value in tensors.items() if key.startswith("encoder.")}
    tensors = inside or tensors
    hidden = tensors["lstm.weight_hh_l0"].shape[1] if "lstm.weight_hh_l0" in tensors else 64
    encoder = MixtureEncoder(hidden=hidden)
    weights.fill(encoder, tensors, where=str(folder))
    return encoder
