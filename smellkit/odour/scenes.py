"""Scenes for the fusion: a smell, pictures and descriptions that belong together, without letting any of them cheat.

- Pictures are split by file: no picture of the test was ever trained on.
- Descriptions are paraphrases: one to three descriptors of the scent, drawn at random, in sentences of our own. No name
  of a scent occurs, many descriptors are shared ("sweet", "green"), and the test's sentences are not trained on.
- A mixture's scene shows every component alike: what one picture and one description of each say is averaged. So
  pictures and text tell what is there, and only the smell can tell how much.
- A handful of pictures is learnt by heart at once, and then trusted far too much. So a shrunk linear reader turns each
  embedding into shares of the scents, and while the fusion is trained, nothing is read by a reader that has seen it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smellkit import paths
from smellkit.errors import DataError, OptionError
from smellkit.odour.mixture_task import Windows, groups, load_encoder, pooled, read_windows, training_split
from smellkit.odour.recordings import find
from smellkit.odour.scene_encoder import SceneEncoder, scene_encoder
from smellkit.odour.scents import ALIASES, ODORANTS, SCENTS, Scent, list_pictures, odorant, read_scents, to_channels
from smellkit.task import Batch, Tensors

FOLDS, FLOOR = 5, 0.01
LIES = 0.2  # chance that a picture or a text in training is another scene's: what disagrees with the rest is doubted
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
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Bank:
    """What each picture or description says, as shares of the twelve scents: (12, most, 12), `count` of each scent."""

    shares: Tensor
    count: Tensor  # (12,)

    def draw(self, ratios: Tensor, chance: Tensor) -> Tensor:
        """Return the evidence for a scene, (n, 12): log shares, averaged over one drawn for each present scent.

        `chance` (n, 12), from 0 to below 1, draws.
        """
        which = (chance * self.count).long()
        each = self.shares[torch.arange(len(self.count)), which]  # (n, 12 present, 12 said)
        there = (ratios > 0).unsqueeze(-1)
        mean = torch.where(there, each, 0.0).sum(dim=1) / there.sum(dim=1).clamp(min=1)
        return (mean + FLOOR).log()


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


def split_pictures(folder: Path, *, seed: int) -> dict[str, list[list[Path]]]:
    """Return for each split the pictures of the twelve scents in channel order; about 60, 20 and 20 % of the files."""
    table = list_pictures(folder)
    own = [ODORANTS[i] for i in to_channels(np.arange(len(ODORANTS)))]
    found: dict[str, list[list[Path]]] = {part: [] for part in PARTS}
    of = table["scent"].map(odorant)
    for channel, name in enumerate(own):
        files = [Path(file) for file in table.loc[of == name, "file"]]
        if len(files) < len(PARTS):
            raise DataError(
                f"Only {len(files)} pictures of {name} in {folder / 'images'}", hint="at least 3 are needed"
            )
        order = np.random.default_rng([seed, channel]).permutation(len(files))
        held = max(1, round(0.2 * len(files)))
        for part, rows in zip(PARTS, (order[2 * held :], order[held : 2 * held], order[:held]), strict=True):
            found[part].append([files[row] for row in sorted(rows)])
    return found


def picture_banks(folder: Path, encoder: SceneEncoder, *, seed: int) -> dict[str, Bank]:
    """Return what the pictures of each split say. A training picture is read by a reader that has not seen it."""
    split = split_pictures(folder, seed=seed)
    embeddings = {part: [encoder.vision(files) for files in scents] for part, scents in split.items()}
    return _banks(embeddings, [np.arange(len(files)) % FOLDS for files in split["train"]])


def text_banks(folder: Path, encoder: SceneEncoder, *, seed: int, count: int = 56) -> dict[str, Bank]:
    """Return what the descriptions say, `count` a scent. A training one is read by a reader of other sentences."""
    scents = read_scents(folder)
    known = {odorant(scent.name): scent for scent in scents}
    own = [known[ODORANTS[i]] for i in to_channels(np.arange(len(ODORANTS)))]
    texts = {part: [paraphrases(scent, part=part, count=count, seed=seed) for scent in own] for part in PARTS}
    embeddings = {part: [encoder.text(lines) for lines in scents] for part, scents in texts.items()}
    return _banks(embeddings, [np.arange(count) % len(SENTENCES["train"])] * len(own))


class Reader:
    """Turns an embedding into shares of the twelve scents: a linear discriminant whose covariance is shrunk."""

    def __init__(self, embeddings: NDArray, scent: NDArray):
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(12, 1 / 12))
        self._model = make_pipeline(StandardScaler(), discriminant).fit(embeddings, scent)

    def __call__(self, embeddings: NDArray) -> Tensor:
        return torch.from_numpy(self._model.predict_proba(embeddings).astype(np.float32))


def _banks(embeddings: dict[str, list[Array]], fold: list[NDArray]) -> dict[str, Bank]:
    """Read all embeddings; the training ones in folds, so that the fusion learns how far a reader can be trusted."""
    known = np.concatenate(embeddings["train"])
    scent = np.repeat(np.arange(len(fold)), [len(rows) for rows in embeddings["train"]])
    folds = np.concatenate(fold)
    said = {}
    for one in np.unique(folds):
        train, held = folds != one, folds == one
        whole = len(np.unique(scent[train])) == len(fold)  # a scent with one picture has to be read by what saw it
        said[one] = Reader(known[train], scent[train])(known[held]) if whole else Reader(known, scent)(known[held])
    shares = torch.zeros(len(known), len(fold))
    for one, rows in said.items():
        shares[torch.from_numpy(folds == one)] = rows
    reader = Reader(known, scent)
    found = {"train": [shares[torch.from_numpy(scent == i)] for i in range(len(fold))]}
    found |= {part: [reader(rows) for rows in embeddings[part]] for part in embeddings if part != "train"}
    return {part: _padded(rows) for part, rows in found.items()}


def _padded(rows: list[Tensor]) -> Bank:
    count = torch.tensor([len(one) for one in rows])
    table = torch.zeros(len(rows), int(count.max()), rows[0].shape[1])
    for i, one in enumerate(rows):
        table[i, : len(one)] = one
    return Bank(table, count)


@torch.no_grad()
def smell(part: Windows, encoder: str = "mixture") -> Tensor:
    """Return the 50 channels of a trained mixture encoder for each window; it stays frozen."""
    folder = paths.weights() / encoder
    ears = load_encoder(str(folder) if folder.is_dir() else encoder).eval()
    rows = torch.from_numpy(pooled(part.counts)).split(1024)
    return torch.cat([ears({"window": row})["z"] for row in rows])


@dataclass(frozen=True)
class Scenes:
    """All that the fusion is trained and judged on: smells by split, and what pictures and descriptions there are."""

    smells: dict[str, tuple[Tensor, Tensor, Windows]]  # split -> z (n, 50), ratios (n, 12) in channel order, windows
    pictures: dict[str, Bank]
    texts: dict[str, Bank]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Sizes of the embeddings of smell, picture and text."""
        return (
            self.smells["train"][0].shape[1],
            self.pictures["train"].shares.shape[2],
            self.texts["train"].shares.shape[2],
        )

    def tensors(self, part: str, *, present: Sequence[bool] = (True, True, True), seed: int = 7) -> Tensors:
        """Return a split as samples; in training pictures and descriptions are drawn anew in every batch."""
        z, ratios, _ = self.smells[part]
        mask = torch.tensor(present).repeat(len(z), 1)
        if part == "train":

            def change(batch: Batch) -> Batch:
                smell = batch["smell"] + NOISE * torch.randn(batch["smell"].shape)
                seen = {name: lie(said, LIES) for name, said in self.draw(part, batch["ratios"]).items()}
                return {**batch, "smell": smell, **seen}

            return Tensors(smell=z, ratios=ratios, present=mask, change=change)
        kind = part if part in PARTS else "test"
        generator = torch.Generator().manual_seed(seed)
        scene = self.draw(kind, ratios, generator=generator)
        return Tensors(smell=z, ratios=ratios, present=mask, picture=scene["picture"], text=scene["text"])

    def draw(self, part: str, ratios: Tensor, *, generator: torch.Generator | None = None) -> Batch:
        """Return what a picture and a text say for each row of `ratios` (n, 12), from the files of split `part`."""
        chances = [torch.rand(ratios.shape, generator=generator) for _ in range(2)]
        return {
            "picture": self.pictures[part].draw(ratios, chances[0]),
            "text": self.texts[part].draw(ratios, chances[1]),
        }


def lie(said: Tensor, chance: float) -> Tensor:
    """Return `said` (n, d) with each row, with probability `chance`, exchanged for that of another scene."""
    return torch.where(torch.rand(len(said), 1) < chance, said[torch.randperm(len(said))], said)


def read_scenes(
    data: str = "", *, scene: str = "light", revision: str = "", encoder: str = "mixture", seed: int = 7
) -> Scenes:
    """Read smells, pictures and descriptions of a SmellNet folder and embed them; pictures and texts are cached.

    Splits: train and valid are whole recordings of the training split, test is test_seen, and unseen (where the folder
    has it) test_unseen. A byte-identical file counts once.
    """
    folder = find(data)
    train = read_windows(folder, training_split(folder))
    of = groups(train.index, "recording")
    names = np.unique(of)
    held = np.isin(of, np.random.default_rng(seed).permutation(names)[: max(1, len(names) // 6)])
    parts = {"train": train.of(~held), "valid": train.of(held)}
    for split, name in (("test_seen", "test"), ("test_unseen", "unseen")):
        if (folder / "mixture" / split).is_dir():
            parts[name] = read_windows(folder, split)
    smells = {
        name: (
            smell(part, encoder),
            torch.from_numpy(to_channels(part.ratios / part.ratios.sum(1, keepdims=True))),
            part,
        )
        for name, part in parts.items()
    }
    mean, scale = smells["train"][0].mean(0), smells["train"][0].std(0).clamp(min=1e-3)
    smells = {name: ((z - mean) / scale, ratios, part) for name, (z, ratios, part) in smells.items()}
    eyes = scene_encoder(scene, revision=revision)
    return Scenes(smells, picture_banks(folder, eyes, seed=seed), text_banks(folder, eyes, seed=seed))


def load(
    data: str, *, scene: str, revision: str, without: str, encoder: str, seed: int
) -> tuple[dict[str, Tensors], tuple[int, int, int]]:
    """Return the splits of the fusion task and the sizes of its embeddings; `without` is a modality left out."""
    from smellkit.odour.fusion import MODALITIES

    if without and without not in MODALITIES:
        raise OptionError(f"There is no modality {without!r}", hint=f"one of {', '.join(MODALITIES)}")
    present = tuple(name != without for name in MODALITIES)
    scenes = read_scenes(data, scene=scene, revision=revision, encoder=encoder, seed=seed)
    return {name: scenes.tensors(name, present=present, seed=seed) for name in scenes.smells}, scenes.sizes
