"""Scenes for the fusion: a smell, pictures and descriptions that belong together, without letting any of them cheat.

- Pictures are split by file: no picture of the test was ever trained on.
- Descriptions are paraphrases: one to three descriptors of the scent, drawn at random, in sentences of our own. No name
  of a scent occurs, many descriptors are shared ("sweet", "green"), and the test's sentences are not trained on.
- A mixture's scene shows every component alike: what one picture and one description of each say is averaged. So
  pictures and text tell what is there, and only the smell can tell how much.
- A handful of pictures is learnt by heart at once, and then trusted far too much. So a shrunk linear probe turns each
  embedding into shares of the scents, and while the fusion is trained, nothing is read by a probe that has seen it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from smellkit import paths
from smellkit.errors import DataError, OptionError
from smellkit.odour.mixture_task import MixtureWindows, held_out, load_encoder, pooled, read_windows, training_split
from smellkit.odour.recordings import find
from smellkit.odour.scene_encoder import Array, SceneEncoder, load_scene_encoder
from smellkit.odour.scents import ALIASES, ODORANTS, SCENTS, Scent, list_pictures, odorant, read_scents, to_channels
from smellkit.task import Batch, Tensors

MODALITIES = ("smell", "picture", "text")  # the order of the columns of `present`
PLAYED = tuple(odorant(name) for name in SCENTS)  # the odorants in the order of the device's channels
FOLDS, FLOOR = 5, 0.01
SWAPS = 0.2  # of the pictures and texts in training are another scene's: what disagrees with the rest is doubted
NOISE = 0.1  # on the smell's channels, in deviations: the encoder has seen the training windows, too
PARTS = ("train", "valid", "test")
SENTENCES = {
    "train": (
        "It smells {0}.",
        "A {0} smell.",
        "Notes of something {0}.",
        "I would call it {0}.",
        "Rather {0}, I think.",
        "The air is {0} in here.",
        "This one has a {0} character.",
    ),
    "valid": ("How {0}!", "Somebody left a {0} trace."),
    "test": ("What I notice first is how {0} it is.", "My nose says: {0}.", "Quite a {0} impression"),
}
JOINS = {"train": (", ", " and ", ", a little "), "valid": (" yet ",), "test": ("; also ", " with a hint of ")}


@dataclass(frozen=True)
class EvidenceBank:
    """What each picture or description says, as shares of the twelve scents: (12, most, 12), `count` of each scent."""

    shares: Tensor
    count: Tensor  # (12,)

    def draw(self, ratios: Tensor, uniform: Tensor) -> Tensor:
        """Return the evidence for a scene, (n, 12): log shares, averaged over one drawn for each present scent.

        `uniform` (n, 12), from 0 to below 1, draws.
        """
        which = (uniform * self.count).long()  # (n, 12): which picture or text of each scent
        each = self.shares[torch.arange(len(self.count)), which]  # (n, 12 present, 12 shares)
        there = (ratios > 0).unsqueeze(-1)
        mean = torch.where(there, each, 0.0).sum(dim=1) / there.sum(dim=1).clamp(min=1)
        return (mean + FLOOR).log()


class LinearProbe:
    """Turns an embedding into shares of the twelve scents: a linear discriminant whose covariance is shrunk."""

    def __init__(self, embeddings: NDArray, scent: NDArray):
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(12, 1 / 12))
        self._model = make_pipeline(StandardScaler(), discriminant).fit(embeddings, scent)

    def __call__(self, embeddings: NDArray) -> Array:
        return self._model.predict_proba(embeddings).astype(np.float32)


def evidence_banks(embeddings: dict[str, list[Array]], fold: list[NDArray]) -> dict[str, EvidenceBank]:
    """Probe all `embeddings` (split -> one array a scent); the training ones in the folds `fold` (one array a scent).

    So the fusion learns how far a probe can be trusted on what it has not seen.
    """
    known, folds = np.concatenate(embeddings["train"]), np.concatenate(fold)
    scent = np.repeat(np.arange(len(fold)), [len(rows) for rows in embeddings["train"]])
    shares = np.zeros((len(known), len(fold)), np.float32)
    for one in np.unique(folds):
        held, train = folds == one, folds != one
        if len(np.unique(scent[train])) < len(fold):
            train = np.ones_like(held)  # a scent with one picture has to be read by what saw it
        shares[held] = LinearProbe(known[train], scent[train])(known[held])
    probe = LinearProbe(known, scent)
    rows = {part: [probe(each) for each in embeddings[part]] for part in embeddings}
    rows["train"] = [shares[scent == i] for i in range(len(fold))]
    return {
        part: EvidenceBank(
            pad_sequence([torch.from_numpy(one) for one in each], batch_first=True), torch.tensor([*map(len, each)])
        )
        for part, each in rows.items()
    }


def split_pictures(folder: Path, *, seed: int) -> dict[str, list[list[Path]]]:
    """Return for each split the pictures of the twelve scents in channel order; about 60, 20 and 20 % of the files."""
    table = list_pictures(folder)
    shown = table["scent"].map(odorant)
    split: dict[str, list[list[Path]]] = {part: [] for part in PARTS}
    for channel, name in enumerate(PLAYED):
        files = [Path(file) for file in table.loc[shown == name, "file"]]
        if len(files) < len(PARTS):
            raise DataError(f"Only {len(files)} pictures of {name} in {folder / 'images'}", hint="3 are needed")
        order = np.random.default_rng([seed, channel]).permutation(len(files))
        held = max(1, round(0.2 * len(files)))
        for part, rows in zip(PARTS, (order[2 * held :], order[held : 2 * held], order[:held]), strict=True):
            split[part].append([files[row] for row in sorted(rows)])
    return split


def descriptors(scent: Scent) -> list[str]:
    """Return the words that describe a scent, without any name of a scent in them, sorted."""
    names = {name[:4] for known in (*SCENTS, *ODORANTS, *ALIASES.values(), scent.name) for name in known.split("_")}
    source = " ".join(scent.qualitative_descriptors) or scent.long_description
    words = {word for word in re.findall(r"[a-z]{4,}", source.lower()) if word[:4] not in names}
    if not words:
        raise DataError(f"Nothing but names describes the scent {scent.name!r}", hint="give it qualitative_descriptors")
    return sorted(words)


def paraphrases(scent: Scent, *, part: str, count: int, seed: int) -> list[str]:
    """Return `count` descriptions of a scent for the split `part`, never naming it: its sentences in turn.

    Which descriptors, and how many, is drawn by `seed`.
    """
    random = np.random.default_rng([seed, scent.id, PARTS.index(part)])
    words = descriptors(scent)
    texts = []
    for number in range(count):
        chosen = random.permutation(words)[: random.integers(1, 4)]
        join = random.choice(JOINS[part])
        texts.append(SENTENCES[part][number % len(SENTENCES[part])].format(str(join).join(chosen)))
    return texts


def picture_banks(folder: Path, encoder: SceneEncoder, *, seed: int) -> dict[str, EvidenceBank]:
    """Return what the pictures of each split say. A training picture is read by a probe that has not seen it."""
    split = split_pictures(folder, seed=seed)
    embeddings = {part: [encoder.vision(files) for files in scents] for part, scents in split.items()}
    return evidence_banks(embeddings, [np.arange(len(files)) % FOLDS for files in split["train"]])


def text_banks(folder: Path, encoder: SceneEncoder, *, seed: int, count: int = 56) -> dict[str, EvidenceBank]:
    """Return what the descriptions say, `count` a scent. A training one is read by a probe of other sentences."""
    known = {odorant(scent.name): scent for scent in read_scents(folder)}
    embeddings = {
        part: [encoder.text(paraphrases(known[name], part=part, count=count, seed=seed)) for name in PLAYED]
        for part in PARTS
    }
    return evidence_banks(embeddings, [np.arange(count) % len(SENTENCES["train"])] * len(SCENTS))


@torch.no_grad()
def smell_channels(part: MixtureWindows, encoder: str = "mixture") -> Tensor:
    """Return the 50 channels of a trained mixture encoder for each window, (n, 50); it stays frozen."""
    folder = paths.weights() / encoder
    network = load_encoder(str(folder) if folder.is_dir() else encoder).eval()
    return torch.cat([network({"window": rows})["z"] for rows in torch.from_numpy(pooled(part.counts)).split(1024)])


def swap_modality(evidence: Tensor, probability: float) -> Tensor:
    """Return `evidence` (n, d) with each row, with `probability`, exchanged for that of another scene."""
    return torch.where(torch.rand(len(evidence), 1) < probability, evidence[torch.randperm(len(evidence))], evidence)


@dataclass(frozen=True)
class Scenes:
    """All that the fusion is trained and judged on: smells by split, and what pictures and descriptions there are."""

    smells: dict[str, tuple[Tensor, Tensor, MixtureWindows]]  # split -> z (n, 50), ratios (n, 12) by channel, windows
    pictures: dict[str, EvidenceBank]
    texts: dict[str, EvidenceBank]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Sizes of the embeddings of smell, picture and text."""
        picture, text = (bank["train"].shares.shape[2] for bank in (self.pictures, self.texts))
        return self.smells["train"][0].shape[1], picture, text

    def tensors(self, part: str, *, present: Sequence[bool] = (True, True, True), seed: int = 7) -> Tensors:
        """Return a split as samples; in training pictures and descriptions are drawn anew in every batch."""
        z, ratios, _ = self.smells[part]
        mask = torch.tensor(present).repeat(len(z), 1)
        if part == "train":
            return Tensors(smell=z, ratios=ratios, present=mask, change=self.augmented)
        scene = self.draw(part, ratios, generator=torch.Generator().manual_seed(seed))
        return Tensors(smell=z, ratios=ratios, present=mask, picture=scene["picture"], text=scene["text"])

    def augmented(self, batch: Batch) -> Batch:
        """Return a training batch with noise on its smell, and pictures and texts drawn anew, some of them swapped."""
        smell = batch["smell"] + NOISE * torch.randn(batch["smell"].shape)
        evidence = self.draw("train", batch["ratios"])
        return {**batch, "smell": smell, **{name: swap_modality(rows, SWAPS) for name, rows in evidence.items()}}

    def draw(self, part: str, ratios: Tensor, *, generator: torch.Generator | None = None) -> Batch:
        """Return what a picture and a text say for each row of `ratios` (n, 12), from the files of split `part`.

        A split without files of its own, such as "unseen", shows those of the test.
        """
        part = part if part in PARTS else "test"
        first, second = (torch.rand(ratios.shape, generator=generator) for _ in range(2))
        return {"picture": self.pictures[part].draw(ratios, first), "text": self.texts[part].draw(ratios, second)}


def read_scenes(
    data: str = "", *, scene: str = "light", revision: str = "", encoder: str = "mixture", seed: int = 7
) -> Scenes:
    """Read smells, pictures and descriptions of a SmellNet folder and embed them; pictures and texts are cached.

    Splits: train and valid are whole recordings of the training split, test is test_seen, and unseen (where the folder
    has it) test_unseen. A byte-identical file counts once.
    """
    folder = find(data)
    train = read_windows(folder, training_split(folder))
    held = held_out(train.index, share=1 / 6, seed=seed)
    parts = {"train": train.of(~held), "valid": train.of(held)}
    for split, name in (("test_seen", "test"), ("test_unseen", "unseen")):
        if (folder / "mixture" / split).is_dir():
            parts[name] = read_windows(folder, split)
    channels = {name: smell_channels(part, encoder) for name, part in parts.items()}
    mean, scale = channels["train"].mean(0), channels["train"].std(0).clamp(min=1e-3)
    smells = {name: ((channels[name] - mean) / scale, _beta(part), part) for name, part in parts.items()}
    embed = load_scene_encoder(scene, revision=revision)
    return Scenes(smells, picture_banks(folder, embed, seed=seed), text_banks(folder, embed, seed=seed))


def _beta(part: MixtureWindows) -> Tensor:
    """True ratios in the order of the device's channels, (n, 12), adding to 1."""
    return torch.from_numpy(to_channels(part.ratios / part.ratios.sum(1, keepdims=True)))


def check_modality(name: str) -> None:
    """Refuse a `name` that is neither a modality nor ""."""
    if name and name not in MODALITIES:
        raise OptionError(f"There is no modality {name!r}", hint=f"one of {', '.join(MODALITIES)}")


class SceneProbes:
    """What a picture or a text says of the twelve scents, learned from the pictures and descriptions of a folder.

    Each is read when it is first asked about, and no scent's own name stands in the texts that are learned from.
    """

    def __init__(self, folder: Path, scene: str = "light", *, seed: int = 7):
        self.folder, self.scene, self.seed = folder, scene, seed

    @functools.cached_property
    def encoder(self) -> SceneEncoder:
        """Who looks and reads."""
        return load_scene_encoder(self.scene)

    @functools.cached_property
    def pictures(self) -> LinearProbe:
        """The probe of picture embeddings, fitted to all pictures of the folder."""
        table = list_pictures(self.folder)
        scent = table["scent"].map(odorant).map(PLAYED.index).to_numpy()
        return LinearProbe(self.encoder.vision([Path(file) for file in table["file"]]), scent)

    @functools.cached_property
    def texts(self) -> LinearProbe:
        """The probe of text embeddings, fitted to paraphrases of the folder's descriptions."""
        lines = [paraphrases(scent, part="train", count=56, seed=self.seed) for scent in read_scents(self.folder)]
        scent = np.repeat([PLAYED.index(odorant(each.name)) for each in read_scents(self.folder)], 56)
        return LinearProbe(self.encoder.text([line for some in lines for line in some]), scent)

    def picture(self, file: str | Path) -> Array:
        """Shares of the twelve scents for a picture, (12,); DataError when it can't be read."""
        return self.pictures(self.encoder.vision([Path(file)]))[0]

    def text(self, words: str) -> Array:
        """Shares of the twelve scents for a text, (12,)."""
        return self.texts(self.encoder.text([words]))[0]
