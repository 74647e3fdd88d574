"""Words about the twelve scents: descriptions paraphrased without any name, and what people call them.

Paraphrases are one to three descriptors of the scent, drawn at random, in sentences of our own. No name of a scent
occurs in them, many descriptors are shared ("sweet", "green"), and the test's sentences are not those of the training.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smellkit import paths
from smellkit.errors import DataError
from smellkit.odour.scents import ALIASES, ODORANTS, SCENTS, Scent

TEXTS = 56  # paraphrases of a scent in each split
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
    random = np.random.default_rng([seed, scent.id, [*SENTENCES].index(part)])
    words, texts = descriptors(scent), []
    for number in range(count):
        chosen = random.permutation(words)[: random.integers(1, 4)]
        join = str(random.choice(JOINS[part]))
        texts.append(SENTENCES[part][number % len(SENTENCES[part])].format(join.join(chosen)))
    return texts


def corpus(scents: Sequence[Scent], *, part: str, seed: int) -> tuple[list[str], NDArray, NDArray]:
    """Return `TEXTS` paraphrases of each scent, the channel (0 to 11) of each, and its fold: one for each sentence."""
    texts = [text for one in scents for text in paraphrases(one, part=part, count=TEXTS, seed=seed)]
    channel = np.repeat([one.id - 1 for one in scents], TEXTS)
    return texts, channel, np.tile(np.arange(TEXTS) % len(SENTENCES[part]), len(scents))


@functools.cache
def lexicon() -> dict[str, list[str]]:
    """What people call each of the twelve scents, and where they meet it: data/lexicon.toml, in our own words."""
    return tomllib.loads((paths.HOME / "data" / "lexicon.toml").read_text(encoding="utf-8"))


def names_and_descriptions(scents: Sequence[Scent]) -> tuple[list[str], list[int]]:
    """Return texts that do name or describe the scents, and the channel (0 to 11) of each."""
    texts: list[str] = []
    channel: list[int] = []
    for scent in scents:
        name = scent.name.replace("_", " ")
        own = [name, f"the smell of {name}", f"a ripe {name}", f"{name} aroma", scent.long_description]
        own += [", ".join(scent.qualitative_descriptors), ", ".join(scent.key_molecules)]
        own = [text for text in own + lexicon().get(scent.name, []) if text]
        texts, channel = texts + own, channel + [scent.id - 1] * len(own)
    return texts, channel
