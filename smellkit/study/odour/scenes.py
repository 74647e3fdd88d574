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
from smellkit.odour.scene_encoder import SceneEncoder, load_scene_encoder
from smellkit.odour.scents import SCENTS, corpus, list_pictures, read_scents, to_channels
from smellkit.odour.senses import FOLDS, SENSES, Probe, fit_probe, fit_texts, pictures_of
from smellkit.study.odour.hybrid import fit_classifier, fit_hybrid
from smellkit.study.odour.mixture_data import groups, held_out, known_mixtures, read_windows, training_split
from smellkit.study.odour.mixture_task import load_encoder, pooled
from smellkit.task import Batch, Tensors

FLOOR = 0.01
SWAPS = 0.1  # of the pictures and texts in training are another scene's: what disagrees with the rest is doubted
NOISE = 0.1  # on the smell's channels, in deviations: the encoder has seen the training windows, too


@dataclass(frozen=True)
class EvidenceBank:
    """What each picture or description of a scent says, and its embedding: most examples of a scent, padded."""

    shares: Tensor  # (12, most, 12)
    embeddings: Tensor  # (12, most, d)
    count: Tensor  # (12,), examples of each scent

    @classmethod
    def of(cls, shares: NDArray, embeddings: NDArray, scent: NDArray) -> EvidenceBank:
        """The bank of examples (n, 12) and (n, d) of each `scent` (n,)."""
        indices = [np.flatnonzero(scent == i) for i in range(len(SCENTS))]
        tables = [torch.from_numpy(np.asarray(rows, np.float32)) for rows in (shares, embeddings)]
        smells, seen = (pad_sequence([rows[some] for some in indices], batch_first=True) for rows in tables)
        return cls(smells, seen, torch.tensor([*map(len, indices)]))

    def draw(self, ratios: Tensor, uniform: Tensor) -> tuple[Tensor, ...]:
        """Return shares (n, 12) and embeddings (n, d) of scenes, averaged over one drawn for each present scent.

        `uniform` (n, 12), from 0 to below 1, draws.
        """
        which = (uniform * self.count).long()  # (n, 12): which picture or text of each scent
        there = (ratios > 0).unsqueeze(-1)
        each = [table[torch.arange(len(self.count)), which] for table in (self.shares, self.embeddings)]  # (n, 12, d)
        return tuple(torch.where(there, one, 0.0).sum(dim=1) / there.sum(dim=1).clamp(min=1) for one in each)


Banks: TypeAlias = tuple[
    dict[str, EvidenceBank], Probe
]  # "train", each read by a probe that has not seen it, and "test"


def picture_banks(folder: Path, encoder: SceneEncoder, *, seed: int) -> Banks:
    """The banks of pictures, and their probe; a fifth of them is the test."""
    files, scent = pictures_of(list_pictures(folder))
    rank = ranks(scent, seed=seed)
    held = rank == 0
    if min(np.bincount(scent[~held], minlength=len(SCENTS))) < 2:
        raise DataError(f"Fewer than 3 pictures of a scent in {folder / 'images'}", hint="3 or more of each are needed")
    known, new = (encoder.vision([files[row] for row in np.flatnonzero(part)]) for part in (~held, held))
    probe, unseen = fit_probe(known, scent[~held], rank[~held])
    test = EvidenceBank.of(probe.shares(new), new, scent[held])
    return {"train": EvidenceBank.of(unseen, known, scent[~held]), "test": test}, probe


def ranks(scent: NDArray, *, seed: int) -> NDArray[np.int64]:
    """A fold for each example, (n,): drawn by `seed`, and each scent spread over all `FOLDS`."""
    out = np.zeros(len(scent), int)
    for one in np.unique(scent):
        rows = np.flatnonzero(scent == one)
        out[np.random.default_rng([seed, one]).permutation(rows)] = np.arange(len(rows)) % FOLDS
    return out


def text_banks(folder: Path, encoder: SceneEncoder, *, seed: int) -> Banks:
    """The banks of descriptions, and their probe; the test has other sentences."""
    scents = read_scents(folder)
    lines, scent, fold = corpus(scents, part="train", seed=seed)
    known, new = encoder.text(lines), encoder.text(corpus(scents, part="test", seed=seed)[0])
    probe, unseen = fit_texts(encoder, known, scent, fold, scents=scents)
    test = EvidenceBank.of(probe.shares(new), new, scent)
    return {"train": EvidenceBank.of(unseen, known, scent), "test": test}, probe


@dataclass(frozen=True)
class Smells:
    """What the mixture board says of windows."""

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


def teller(
    train: MixtureWindows, mixtures: NDArray, encoder: str, *, trees: int = 100
) -> Callable[[MixtureWindows], Smells]:
    """Fit models to `train`, and return what they say of windows; z is of a trained, frozen `encoder`."""
    hybrid, network = fit_hybrid(train, trees=trees), fit_classifier(train, mixtures)
    folder = paths.weights() / encoder
    frozen = load_encoder(folder if folder.is_dir() else encoder)

    @torch.no_grad()
    def say(part: MixtureWindows) -> Smells:
        answer, rows = hybrid.explain(part.counts, recording=part.recording), torch.from_numpy(pooled(part.counts))
        return Smells(
            votes=hybrid.known.votes_on(mixtures, levels(part.counts)).astype(np.float32),
            network=network.votes(part.counts).astype(np.float32),
            posterior_mean=answer["posterior_mean"],
            known=answer["p_known_session"].astype(np.float32),
            z=torch.cat([frozen({"window": some})["z"] for some in rows.split(1024)]).numpy(),
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
    parts_of: list[list[Smells]] = [[] for _ in asked]
    for one in tqdm(np.unique(fold), desc="left out", leave=False):
        known, left_out = train.of(fold != one), [windows.of(fold == one) for windows in asked]
        if len(known) and any(map(len, left_out)):
            say = teller(known, mixtures, encoder, trees=50)
            for parts, windows in zip(parts_of, left_out, strict=True):
                parts += [say(windows)] if len(windows) else []
    return [Smells.stacked(parts) for parts in parts_of]


@dataclass(frozen=True)
class Scenes:
    """All that the fusion is trained and judged on: what the smell says by split, and what pictures and texts say.

    Splits: train, valid (other recordings), valid-day (the same as from another day), test, and unseen where it is.
    The plain form of the networks fuses embeddings, without probes.
    """

    smells: dict[str, Smells]
    mixtures: Array  # (k, 12), those of the training split, in the data's order
    banks: dict[str, dict[str, EvidenceBank]]  # picture, text -> train, test
    probes: dict[str, Probe]  # picture, text

    def batch(self, smells: Smells, drawn: Batch, *, plain: bool = False) -> Batch:
        """What the networks take, without "present": the smell, and a picture and a text that were `drawn`.

        The smell is (n, 37) of evidence, or in the plain form (n, 50) of channels, scaled on the training.
        """
        known, asked = (each.z if plain else each.evidence(self.mixtures) for each in (self.smells["train"], smells))
        smell = torch.from_numpy((asked - known.mean(0)) / np.maximum(known.std(0), 1e-3))
        return {"smell": smell, "ratios": torch.from_numpy(smells.ratios), **seen(drawn, plain=plain)}

    def tensors(self, part: str, *, plain: bool = False) -> Tensors:
        """Return a split as samples; in training pictures and descriptions are drawn anew in every batch."""
        smells = self.smells[part]
        batch: dict[str, Any] = self.batch(smells, self.show(part, smells, seed=7), plain=plain)
        batch["present"] = torch.ones(len(smells), 3, dtype=torch.bool)
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
            drawn[sense], drawn[f"{sense} embedding"] = self.banks[sense][part].draw(ratios, uniform)
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
    """Smells, pictures and descriptions of a SmellNet folder, embedded; `seed` splits pictures and draws sentences."""
    folder = find(data)
    smells, mixtures = read_smells(folder, encoder)
    embed = load_scene_encoder(scene, revision=revision)
    pictures, seeing = picture_banks(folder, embed, seed=seed)
    texts, reading = text_banks(folder, embed, seed=seed)
    return Scenes(smells, mixtures, {"picture": pictures, "text": texts}, {"picture": seeing, "text": reading})


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
