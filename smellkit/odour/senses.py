"""Pictures and texts as evidence: a scene encoder and the probes that were fitted to what it sees and reads."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit.odour.compact_senses import CompactScene, installed
from smellkit.odour.probe import Probe, fit_probe
from smellkit.odour.scene_encoder import LightScene, QwenScene, SceneEncoder
from smellkit.odour.scents import SCENTS, Scent, list_pictures, odorant, read_scents
from smellkit.odour.texts import corpus, names_and_descriptions

log = logging.getLogger(__name__)

PLAYED = tuple(odorant(name) for name in SCENTS)  # the odorants in the order of the device's channels
FOLDS = 5  # of pictures
SENSES = ("picture", "text")
NEARNESS = 10.0  # of a text to names and descriptions, beside what the paraphrases taught


@dataclass(frozen=True)
class Senses:
    """Who looks and reads (`scene`, the name of a scene encoder), and a probe for each of picture and text."""

    scene: str
    probes: dict[str, Probe]

    @classmethod
    def fit(cls, *folders: Path, scene: str = "", seed: int = 7) -> Senses:
        """Fit both probes to all pictures and descriptions of folders in the twelve-scent layout."""
        encoder = load_scene_encoder(scene)
        table, scents = pd.concat(map(list_pictures, folders)), [one for each in folders for one in read_scents(each)]
        scent = table["scent"].map(odorant).map(PLAYED.index).to_numpy()
        seen = encoder.vision([Path(file) for file in table["file"]])
        lines, channel, fold = corpus(scents, part="train", seed=seed)
        pictures, _ = fit_pictures(encoder, seen, scent, np.arange(len(scent)) % FOLDS)
        texts, _ = fit_texts(encoder, encoder.text(lines), channel, fold, scents=scents)
        return cls(scene, {"picture": pictures, "text": texts})

    @functools.cached_property
    def encoder(self) -> SceneEncoder:
        """Loaded when a picture or a text is first asked about."""
        return load_scene_encoder(self.scene)

    def shares(self, sense: str, content: str | Path) -> NDArray[np.float64] | None:
        """Shares of the twelve scents (12,) for a picture's file or a text; None where it is like nothing known."""
        embedding = self.encoder.vision([Path(content)]) if sense == "picture" else self.encoder.text([str(content)])
        probe = self.probes[sense]
        return None if probe.strange(embedding)[0] else probe.shares(embedding)[0]


def fit_pictures(
    encoder: SceneEncoder, seen: NDArray, scent: NDArray, fold: NDArray
) -> tuple[Probe, NDArray[np.float64]]:
    """A probe of pictures, and what it says of each that it has not seen, (n, 12)."""
    return fit_probe(seen, scent, fold)


def fit_texts(
    encoder: SceneEncoder, read: NDArray, scent: NDArray, fold: NDArray, *, scents: Sequence[Scent]
) -> tuple[Probe, NDArray[np.float64]]:
    """A probe of texts that knows names and descriptions, too, and what it says of each unseen paraphrase, (n, 12)."""
    words, channel = names_and_descriptions(scents)
    known = encoder.text(words), np.array(channel)
    return fit_probe(read, scent, fold, words=known, standardise=False, penalty=10.0, nearness=NEARNESS)


def load_scene_encoder(name: str = "", *, revision: str = "", batch: int = 8) -> SceneEncoder:
    """Return the encoder `name`: "compact", "light", or a Qwen-VL model's folder or hub name (with a `revision`).

    Without a name it is the compact one where its packages are installed, and else the light one, and a line says so.
    """
    name = name or usual()
    if name == "compact":
        return CompactScene()
    return LightScene() if name == "light" else QwenScene(name, revision=revision, batch=batch)


@functools.cache
def usual() -> str:
    """The name of the best encoder that is installed here."""
    if installed():
        return "compact"
    log.warning(
        "Pictures and texts are read by the light encoder: colours and letters alone. pip install 'smellkit[senses]'"
    )
    return "light"
