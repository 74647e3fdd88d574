"""Scenes for the fusion: a smell, pictures and descriptions that belong together, without letting any of them cheat.

- Pictures are split by file: no picture of the test was ever trained on. So are the sentences of descriptions.
- A mixture's scene shows every component alike: what one picture and one description of each say is averaged. So
  pictures and text tell what is there, and only the smell can tell how much.
- While the fusion is trained, nothing is told by what has seen it: pictures and texts by probes of other folds, the
  smell by a look-up without that recording (a known session), and once more without that day (an unknown one).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from smellkit import paths
from smellkit.errors import DataError
from smellkit.odour.experts import Experts
from smellkit.odour.mixture import Array, levels
from smellkit.odour.recordings import MixtureWindows, find
from smellkit.odour.scene_encoder import SceneEncoder
from smellkit.odour.scents import SCENTS, corpus, list_pictures, read_scents, to_channels
from smellkit.odour.senses import FOLDS, SENSES, Probe, fit_probe, fit_texts, load_scene_encoder, pictures_of
from smellkit.study.odour.hybrid import fit_classifier, fit_hybrid
from smellkit.study.odour.mixture_data import groups, held_out, known_mixtures, read_windows, training_split
from smellkit.study.odour.mixture_task import load_encoder, pooled
from smellkit.task import Batch, Tensors

FLOOR = 0.01
SWAPS = 0.1  # of the pictures and texts in training are another scene's: what disagrees with the rest is doubted
NOISE = 0.1  # on the smell's channels, in deviations: the encoder has seen the training windows, too


@dataclass(frozen=True)
class EvidenceBank:
    """What each picture or description says, as shares of the twelve scents: (12, most, 12), `count` of each scent."""

    shares: Tensor
    count: Tensor  # (12,)

    @classmethod
    def of(cls, shares: NDArray, scent: NDArray) -> EvidenceBank:
        """The shares (n, 12) of examples of each `scent` (n,)."""
        rows = [torch.from_numpy(np.asarray(shares[scent == i], np.float32)) for i in range(len(SCENTS))]
        return cls(pad_sequence(rows, batch_first=True), torch.tensor([*map(len, rows)]))

    def draw(self, ratios: Tensor, uniform: Tensor) -> Tensor:
        """Return the evidence for a scene, (n, 12): shares, averaged over one drawn for each present scent.

        `uniform` (n, 12), from 0 to below 1, draws.
        """
        which = (uniform * self.count).long()  # (n, 12): which picture or text of each scent
        each = self.shares[torch.arange(len(self.count)), which]  # (n, 12 present, 12 shares)
        there = (ratios > 0).unsqueeze(-1)
        return torch.where(there, each, 0.0).sum(dim=1) / there.sum(dim=1).clamp(min=1)


Banks: TypeAlias = tuple[dict[str, EvidenceBank], dict[str, EvidenceBank], Probe]
Part: TypeAlias = tuple[NDArray, NDArray]  # embeddings or shares of examples, and the scent of each


def banks(train: Part, test: Part, fitted: tuple[Probe, NDArray]) -> Banks:
    """What examples say, "train" (each read by a probe that has not seen it) and "test"; embeddings; the probe."""
    probe, unseen = fitted
    said = {"train": EvidenceBank.of(unseen, train[1]), "test": EvidenceBank.of(probe.shares(test[0]), test[1])}
    return said, {"train": EvidenceBank.of(*train), "test": EvidenceBank.of(*test)}, probe


def picture_banks(folder: Path, encoder: SceneEncoder, *, seed: int) -> Banks:
    """The banks of pictures; a fifth of them is the test."""
    files, scent = pictures_of(list_pictures(folder))
    rank = ranks(scent, seed=seed)
    held = rank == 0
    if min(np.bincount(scent[~held], minlength=len(SCENTS))) < 2:
        raise DataError(f"Fewer than 3 pictures of a scent in {folder / 'images'}", hint="3 or more of each are needed")
    known, new = (encoder.vision([files[row] for row in np.flatnonzero(part)]) for part in (~held, held))
    return banks((known, scent[~held]), (new, scent[held]), fit_probe(known, scent[~held], rank[~held]))


def ranks(scent: NDArray, *, seed: int) -> NDArray[np.int64]:
    """A fold for each example, (n,): drawn by `seed`, and each scent spread over all `FOLDS`."""
    out = np.zeros(len(scent), int)
    for one in np.unique(scent):
        rows = np.flatnonzero(scent == one)
        out[np.random.default_rng([seed, one]).permutation(rows)] = np.arange(len(rows)) % FOLDS
    return out


def text_banks(folder: Path, encoder: SceneEncoder, *, seed: int) -> Banks:
    """The banks of descriptions; the test has other sentences."""
    scents = read_scents(folder)
    lines, scent, fold = corpus(scents, part="train", seed=seed)
    known, new = encoder.text(lines), encoder.text(corpus(scents, part="test", seed=seed)[0])
    return banks((known, scent), (new, scent), fit_texts(encoder, known, scent, fold, scents=scents))


@dataclass(frozen=True)
class Smells:
    """What the mixture board says of windows: the votes of known mixtures, the posterior mean, the session, and z."""

    votes: Array  # (n, k), of the `mixtures` of the training split: by look-up
    network: Array  # (n, k), by the classifier
    posterior_mean: Array  # (n, 12), in the data's order
    known: Array  # (n,), 0 to 1: is the session known
    z: Array  # (n, 50)
    ratios: Array  # (n, 12), the truth, in channel order, adding to 1
    recording: NDArray[np.int64]  # (n,), row of `index`
    index: pd.DataFrame  # one row a recording

    def __len__(self) -> int:
        return len(self.votes)

    def __getitem__(self, rows: NDArray) -> Smells:
        """The windows at `rows`; the recordings stay those of all."""
        return Smells(**{name: getattr(self, name)[rows] for name in ARRAYS}, index=self.index)

    @classmethod
    def stacked(cls, parts: Sequence[Smells]) -> Smells:
        """Parts of the same recordings under each other."""
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
        return cls(**arrays, index=parts[0].index)

    def belief(self, experts: Experts, mixtures: NDArray) -> NDArray[np.float64]:
        """What the smell makes the `experts` believe, (n, m + 1)."""
        return experts.voted(self.votes, self.network, mixtures, self.posterior_mean, self.known)

    def evidence(self, mixtures: NDArray) -> Array:
        """What a network may see of it, (n, 37): log shares by look-up, network and posterior mean, and the session."""
        shares = (to_channels(each) for each in (self.votes @ mixtures, self.network @ mixtures, self.posterior_mean))
        logs = [np.log(each / each.sum(axis=1, keepdims=True) + FLOOR) for each in shares]
        return np.concatenate([*logs, self.known[:, None]], axis=1).astype(np.float32)


ARRAYS = [field.name for field in fields(Smells) if field.name != "index"]


@torch.no_grad()
def channels(counts: NDArray, encoder: str) -> Array:
    """The 50 channels of a trained mixture encoder for windows of counts, (n, 50); it stays frozen."""
    folder = paths.weights() / encoder
    network = load_encoder(str(folder) if folder.is_dir() else encoder)
    return torch.cat([network({"window": rows})["z"] for rows in torch.from_numpy(pooled(counts)).split(1024)]).numpy()


def teller(
    train: MixtureWindows, mixtures: NDArray, encoder: str, *, trees: int = 100
) -> Callable[[MixtureWindows], Smells]:
    """Fit models to `train`, and return what they say of windows, with votes for the `mixtures` (k, 12)."""
    hybrid, network = fit_hybrid(train, trees=trees), fit_classifier(train, mixtures)

    def say(part: MixtureWindows) -> Smells:
        answer = hybrid.explain(part.counts, recording=part.recording)
        return Smells(
            votes=hybrid.known.votes_on(mixtures, levels(part.counts)).astype(np.float32),
            network=network.votes(part.counts).astype(np.float32),
            posterior_mean=answer["posterior_mean"],
            known=answer["p_known_session"].astype(np.float32),
            z=channels(part.counts, encoder),
            ratios=to_channels(part.ratios / part.ratios.sum(1, keepdims=True)).astype(np.float32),
            recording=part.recording,
            index=part.index,
        )

    return say


def cross_fitted(
    train: MixtureWindows, *asked: MixtureWindows, by: str, mixtures: NDArray, encoder: str
) -> list[Smells]:
    """What hybrids say of the windows of each `asked` that were fitted to `train` without their recordings, or days."""
    names, number = np.unique(groups(train.index, by), return_inverse=True)
    fold = number % (FOLDS if by == "recording" else len(names))
    said: list[list[Smells]] = [[] for _ in asked]
    for one in tqdm(np.unique(fold), desc="left out", leave=False):
        known, left_out = train.of(fold != one), [windows.of(fold == one) for windows in asked]
        if len(known) and any(map(len, left_out)):
            say = teller(known, mixtures, encoder, trees=50)
            for parts, windows in zip(said, left_out, strict=True):
                parts.extend([say(windows)] if len(windows) else [])
    return [Smells.stacked(parts) for parts in said]


@dataclass(frozen=True)
class Scenes:
    """All that the fusion is trained and judged on: what the smell says by split, and what pictures and texts say.

    Splits: train, valid (other recordings), valid-day (the same as from another day), test, and unseen where it is.
    `embeddings` are those of the scene encoder, for the plain form that fuses them without probes.
    """

    smells: dict[str, Smells]
    mixtures: Array  # (k, 12), those of the training split, in the data's order
    banks: dict[str, dict[str, EvidenceBank]]  # picture, text -> train, test
    embeddings: dict[str, dict[str, EvidenceBank]]
    probes: dict[str, Probe]  # picture, text

    def smell(self, smells: Smells, *, plain: bool) -> Tensor:
        """The smell's token for the networks, (n, 37) of evidence or (n, 50) of channels, scaled on the training."""
        known, asked = (each.z if plain else each.evidence(self.mixtures) for each in (self.smells["train"], smells))
        return torch.from_numpy((asked - known.mean(0)) / np.maximum(known.std(0), 1e-3))

    def batch(self, smells: Smells, drawn: Batch, *, plain: bool = False) -> Batch:
        """What the networks take, without "present": the smell, and a picture and a text that were `drawn`."""
        tokens = {"smell": self.smell(smells, plain=plain), "ratios": torch.from_numpy(smells.ratios)}
        return tokens | seen(drawn, plain=plain)

    def tensors(self, part: str, *, present: Sequence[bool] = (True, True, True), plain: bool = False) -> Tensors:
        """Return a split as samples; in training pictures and descriptions are drawn anew in every batch."""
        smells = self.smells[part]
        batch: dict[str, Any] = self.batch(smells, self.show(part, smells, seed=7), plain=plain)
        batch["present"] = torch.tensor(present).repeat(len(smells), 1)
        if part != "train":
            return Tensors(**batch)
        kept = {name: batch[name] for name in ("smell", "ratios", "present")}
        return Tensors(**kept, change=functools.partial(self.augmented, plain=plain))

    def augmented(self, batch: Batch, *, plain: bool = False) -> Batch:
        """Return a training batch with noise on its smell, and pictures and texts drawn anew, some of them swapped."""
        shown = seen(self.draw("train", batch["ratios"]), plain=plain)
        smell = batch["smell"] + NOISE * torch.randn(batch["smell"].shape)
        return {**batch, "smell": smell, **{name: swap_modality(rows, SWAPS) for name, rows in shown.items()}}

    def show(self, part: str, smells: Smells, *, seed: int) -> Batch:
        """What a picture and a text show of each window, drawn by `seed`."""
        return self.draw(part, torch.from_numpy(smells.ratios), generator=torch.Generator().manual_seed(seed))

    def draw(self, part: str, ratios: Tensor, *, generator: torch.Generator | None = None) -> Batch:
        """Return what a picture and a text show of each row of `ratios` (n, 12): shares (n, 12), and embeddings.

        The training's and the validation's scenes show examples that the probes have not seen, all others the test's.
        """
        part = "train" if part.startswith(("train", "valid")) else "test"
        drawn = {}
        for sense in SENSES:
            uniform = torch.rand(ratios.shape, generator=generator)
            drawn[sense] = self.banks[sense][part].draw(ratios, uniform)
            drawn[f"{sense} embedding"] = self.embeddings[sense][part].draw(ratios, uniform)
        return drawn


def seen(drawn: Batch, *, plain: bool) -> Batch:
    """The tokens of what was `drawn` for picture and text: log shares, or embeddings in the plain form."""
    return {name: drawn[f"{name} embedding"] if plain else (drawn[name] + FLOOR).log() for name in SENSES}


def swap_modality(evidence: Tensor, probability: float) -> Tensor:
    """Return `evidence` (n, d) with each row, with `probability`, exchanged for that of another scene."""
    return torch.where(torch.rand(len(evidence), 1) < probability, evidence[torch.randperm(len(evidence))], evidence)


def read_scenes(
    data: str = "", *, scene: str = "", revision: str = "", encoder: str = "mixture", seed: int = 7
) -> Scenes:
    """Read smells, pictures and descriptions of a SmellNet folder and embed them; pictures and texts are cached.

    `seed` splits pictures and draws sentences.
    """
    folder = find(data)
    smells, mixtures = read_smells(folder, encoder)
    embed = load_scene_encoder(scene, revision=revision)
    read = [picture_banks(folder, embed, seed=seed), text_banks(folder, embed, seed=seed)]
    parts: Any = [dict(zip(SENSES, column, strict=True)) for column in zip(*read, strict=True)]
    return Scenes(smells, mixtures, *parts)


@functools.lru_cache(maxsize=2)
def read_smells(folder: Path, encoder: str) -> tuple[dict[str, Smells], Array]:
    """What the smell says of every split, and the mixtures of the training split (k, 12).

    A sixth of the training split's recordings is the validation; test is test_seen with every file that the protocol
    counts, unseen (where the folder has it) test_unseen.
    """
    whole = read_windows(folder, training_split(folder))
    held = held_out(whole.index, share=1 / 6)
    train, valid = whole.of(~held), whole.of(held)
    mixtures = known_mixtures(whole)
    how: dict[str, Any] = {"mixtures": mixtures, "encoder": encoder}
    (cross,) = cross_fitted(train, train, by="recording", **how)
    smells = {"train": cross, "valid": teller(train, **how)(valid)}
    if len(np.unique(groups(whole.index, "day"))) > 1:
        by_day, smells["valid-day"] = cross_fitted(train, train, valid, by="day", **how)
        smells["train"] = Smells.stacked([cross, by_day])
    say = teller(whole, **how)
    for split, name in (("test_seen", "test"), ("test_unseen", "unseen")):
        if (folder / "mixture" / split).is_dir():
            smells[name] = say(read_windows(folder, split, copies=True))
    return smells, mixtures
