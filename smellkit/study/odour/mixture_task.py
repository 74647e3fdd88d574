"""The task "odour-mixture": an encoder, the alpha stage and a head that learn the ratios, and what ratios score.

    log-conductance (20, 4) -> LSTM -> z (50) -> alpha -> odour vector (dim) -> head -> beta (12), presence (12)

Odours act on conductance by factors: its logarithm is where mixing and drift are simplest. The published score,
Top-1@0.1 (Feng et al., arXiv 2506.00239), asks only about the components that are really there, so naming too many
costs nothing: a constant 0.5 for all twelve scores 37 % on SmellNet's seen split. Never read it without the dynamic
top-k, the error and the presence. Ratios are (windows, 12); a truth of 0 means absent.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit import checkpoint, paths
from smellkit.errors import DataError, OptionError
from smellkit.odour.mixture import ROUNDING, AlphaSum, Array, dynamic_top_k, mixture_conductance, within_tolerance
from smellkit.odour.recordings import find
from smellkit.odour.smell import inside
from smellkit.study.evaluate import Measure, value
from smellkit.study.odour.mixture_data import held_out, read_windows, training_split
from smellkit.task import Batch, Task, Tensors

POOL = 5  # steps averaged into one
STAGES = ("encoder", "frozen", "fine-tuned", "joint")


def pooled(counts: NDArray) -> Array:
    """Log-conductance averaged over `POOL` steps, (windows, steps / 5, 4): the input of the encoder."""
    n, steps, channels = counts.shape
    rows = mixture_conductance(counts)[:, : steps // POOL * POOL]
    return rows.reshape(n, steps // POOL, POOL, channels).mean(axis=2)


class MixtureEncoder(nn.Module):
    """LSTM over log-conductance: "window" (batch, steps, 4) -> "z" (batch, 50) and "logits" (batch, 12).

    Levels stay in, unlike in the encoder of the 50 substances: without them nobody tells mixtures apart, and how far
    that carries to another day is what the bench measures. Each step also shows the change since the window began.
    `mean` and `scale` are those of training windows.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, hidden: int = 64):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("scale", torch.ones(4))
        self.lstm = nn.LSTM(8, hidden, batch_first=True)
        self.channels = nn.Sequential(nn.Linear(hidden + 4, hidden), nn.GELU(), nn.Linear(hidden, 50))
        self.logits = nn.Linear(50, 12)

    def forward(self, batch: Batch) -> Batch:
        x = (batch["window"] - self.mean) / self.scale  # (batch, steps, 4), in deviations of the training windows
        change = 4 * (x - x[:, :1])  # (batch, steps, 4), since the window began; 4 makes it as large as the level
        states, _ = self.lstm(torch.cat([x, change], dim=-1))  # (batch, steps, 8) -> (batch, steps, hidden)
        last = torch.cat([states[:, -1], x.mean(dim=1)], dim=-1)  # (batch, hidden + 4): last state, mean level
        z = torch.tanh(self.channels(last))  # (batch, 50), each channel from -1 to 1
        return {"z": z, "logits": self.logits(z)}


class MixtureHead(nn.Module):
    """Ratios of the components, each behind a gate that says whether it is there at all.

    odour (batch, dim) -> hidden -> ratio logits (12), presence logits (12)
    beta = softmax(ratio logits + log sigmoid(presence logits))
    """

    def __init__(self, dim: int, *, hidden: int = 128):
        super().__init__()
        self.backbone = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0.1))
        self.ratio = nn.Linear(hidden, 12)
        self.presence = nn.Linear(hidden, 12)

    def forward(self, odour: Tensor) -> Batch:
        hidden = self.backbone(odour)  # (batch, dim) -> (batch, hidden)
        presence = self.presence(hidden)  # (batch, 12), logits of "this component is there"
        # In logarithms a gate is a sum: a gate near 0 pulls its component's share of the softmax to 0.
        gated = self.ratio(hidden) + F.logsigmoid(presence)  # (batch, 12)
        return {"presence": presence, "log_beta": F.log_softmax(gated, dim=-1), "beta": gated.softmax(dim=-1)}


class AlphaMixture(nn.Module):
    """Encoder, alpha stage and mixture head; `frozen`: the encoder keeps its weights and its evaluation mode."""

    def __init__(self, encoder: nn.Module, *, dim: int = 128, frozen: bool = True):
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.alpha = AlphaSum(50, dim)
        self.head = MixtureHead(dim)
        if frozen:
            encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> AlphaMixture:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()  # dropout and running statistics too
        return self

    def forward(self, batch: Batch) -> Batch:
        z = self.encoder(batch)["z"]  # (batch, 50)
        odour = self.alpha(z)  # (batch, dim)
        return {"z": z, "odour": odour, **self.head(odour)}


def mix_windows(batch: Batch, *, probability: float = 0.3, drift: float = 0.05) -> Batch:
    """Augment a batch: mix a window with another one with `probability`, and let the sensors drift.

    Conductances add up in proportion, G = w G1 + (1 - w) G2, and so do the ratios. Drift is one random factor a channel
    and window, `drift` its deviation in the logarithm. Random numbers come from torch's generator.
    """
    window, ratios = batch["window"], batch["ratios"]
    other = torch.randperm(len(window))
    weight = torch.where(torch.rand(len(window)) < probability, torch.rand(len(window)), 1.0)
    w = weight.view(-1, 1, 1).clamp(1e-6, 1.0)
    mixed = torch.logaddexp(window + w.log(), window[other] + (1 - w).clamp(min=1e-9).log())
    mixed = mixed + drift * torch.randn(len(window), 1, window.shape[2])
    w = w.view(-1, 1)
    return {**batch, "window": mixed, "ratios": w * ratios + (1 - w) * ratios[other]}


def mixture_loss(outputs: Batch, batch: Batch, *, presence: float = 0.3) -> Tensor:
    """KL divergence from the true ratios `batch["ratios"]`, plus `presence` x cross-entropy of the gates."""
    ratios = batch["ratios"]
    ratios = ratios / ratios.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    divergence = F.kl_div(outputs["log_beta"], ratios, reduction="batchmean")
    gates = F.binary_cross_entropy_with_logits(outputs["presence"], (ratios > 0).to(ratios.dtype))
    return divergence + presence * gates


def encoder_loss(outputs: Batch, batch: Batch) -> Tensor:
    """Cross-entropy between the true ratios and the encoder's own logits."""
    return -(batch["ratios"] * outputs["logits"].log_softmax(dim=-1)).sum(dim=-1).mean()


def divergence(predicted: ArrayLike, truth: ArrayLike, *, floor: float = 1e-3) -> NDArray[np.float64]:
    """Per window, KL(truth || prediction) in nats; `floor` is mixed into the prediction so that a miss stays finite."""
    q, p = np.clip(np.asarray(predicted, np.float64), 0, None), np.asarray(truth, np.float64)
    q = q / np.maximum(q.sum(axis=1, keepdims=True), 1e-12)
    return rel_entr(p / p.sum(axis=1, keepdims=True), (1 - floor) * q + floor / q.shape[1]).sum(axis=1)


def presence_f1(predicted: ArrayLike, truth: ArrayLike, *, threshold: float = 0.1) -> float:
    """F1 of "is this component there", over all windows and components together; there means at least `threshold`."""
    named, present = np.asarray(predicted) >= threshold - ROUNDING, np.asarray(truth) > 0
    return float(2 * (named & present).sum() / max(named.sum() + present.sum(), 1))


def mixture_measures(predicted: ArrayLike, truth: ArrayLike, *, times: float = 1) -> dict[str, Measure]:
    """Every score of ratios by window, or of any windows; shares `times` 100 are percentages, as in the paper."""
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    return {
        "top1_at_0.1": times * within_tolerance(predicted, truth),
        "top1_at_0.2": times * within_tolerance(predicted, truth, tolerance=0.2),
        "dynamic_top_k": times * dynamic_top_k(predicted, truth),
        "mae": np.abs(predicted - truth).mean(axis=1),
        "kl": divergence(predicted, truth),
        "presence_f1": lambda rows: times * presence_f1(predicted[rows], truth[rows]),
    }


def mixture_scores(predicted: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """All of `mixture_measures` over all windows, in per cent, and how many these are."""
    every = np.arange(len(np.asarray(truth)))
    means = {name: value(each, every) for name, each in mixture_measures(predicted, truth, times=100).items()}
    return {"windows": len(every), **means}


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
    "day". mixing: probability of mixing a training window with another; drift: of the sensors, in log-conductance.
    """
    given = stage in ("frozen", "fine-tuned")
    if stage not in STAGES:
        raise OptionError(f"No stage {stage!r}", hint=", ".join(STAGES))
    if given and not encoder:
        hint = "`smellkit train odour-mixture --set stage=encoder --name my-encoder`, then --set encoder=my-encoder"
        raise OptionError(f"Stage {stage!r} needs a trained encoder", hint=hint)

    @functools.cache
    def load() -> dict[str, Any]:
        augment = functools.partial(mix_windows, probability=mixing, drift=drift)
        return load_splits(data, validation=validation, augment=augment, seed=seed)

    def build() -> nn.Module:
        network = load_encoder(encoder) if given else MixtureEncoder(hidden=hidden)
        if not given:
            windows = load()["train"].tensors["window"]
            network.mean.copy_(windows.mean(dim=(0, 1)))
            network.scale.copy_(windows.std(dim=(0, 1)).clamp(min=1e-6))
        return network if stage == "encoder" else AlphaMixture(network, dim=dim, frozen=stage == "frozen")

    def score(outputs: Batch, batch: Batch) -> dict[str, float]:
        beta = outputs["logits"].softmax(dim=-1) if stage == "encoder" else outputs["beta"]
        return mixture_scores(beta.numpy(), batch["ratios"].numpy())

    loss = encoder_loss if stage == "encoder" else mixture_loss
    return Task("odour-mixture", load, build, loss, score, watch="top1_at_0.1")


def load_splits(data: str, *, validation: str, augment: Any, seed: int) -> dict[str, Tensors]:
    """Return "train" (its batches changed by `augment`), "valid" and, where the folder has it, "test" as samples."""
    train = read_windows(data, training_split(data))
    held = held_out(train.index, by=validation, seed=seed)
    parts = {"train": train.of(~held), "valid": train.of(held)}
    if (find(data) / "mixture" / "test_seen").is_dir():
        parts["test"] = read_windows(data, "test_seen", copies=True)
    if lost := [name for name, part in parts.items() if not len(part)]:
        raise DataError(f"No windows left for {lost[0]}", hint="more recordings, or another validation")
    return {
        name: Tensors(window=pooled(part.counts), ratios=part.ratios, change=augment if name == "train" else None)
        for name, part in parts.items()
    }


def load_encoder(name: str | Path) -> MixtureEncoder:
    """The trained encoder in a run or a folder of weights, whole models included."""
    folder = Path(name) if (Path(name) / checkpoint.FILE).exists() else paths.runs() / name
    tensors, _ = checkpoint.load(folder, made_by=f"`smellkit train odour-mixture --set stage=encoder --name {name}`")
    if any(key.startswith("encoder.") for key in tensors):
        tensors = inside(tensors, "encoder.")
    size = tensors["lstm.weight_hh_l0"].shape[1] if "lstm.weight_hh_l0" in tensors else 64
    return checkpoint.fill(MixtureEncoder(hidden=size), tensors, where=str(folder)).eval()
