"""The twelve scents: their names in the data and on the device, their pictures, and words about them.

Paraphrases are one to three descriptors of the scent, drawn at random, in sentences of our own. No name of a scent
occurs in them, many descriptors are shared ("sweet", "green"), and the test's sentences are not those of the training.
"""

import functools
import itertools
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import paths
from smellkit.checks import Report, fault, long_text, read_json
from smellkit.errors import DataError, OptionError
from smellkit.options import nearest

ODORANTS = (  # in the order of the labels of SmellNet-Mixture
    "peach", "apple", "banana", "orange", "pear", "strawberry",
    "mango", "almond", "clove", "coriander", "cumin", "garlic",
)  # fmt: skip
SCENTS = (  # in the order of the player's scents 1 to 12
    "banana", "mandarin_orange", "pear", "apple", "mango", "peach",
    "strawberry", "cloves", "coriander", "cumin", "garlic", "almond",
)  # fmt: skip
ALIASES = {"orange": "mandarin_orange", "clove": "cloves"}  # odorant of a mixture -> substance, picture and channel
CATEGORIES = {  # SmellNet's 50 substances, ten each, as its authors sort them (analysis/plot_pca_iclr.py)
    "nuts": "almond brazil_nut cashew chestnuts hazelnut peanuts pecans pili_nut pistachios walnuts",
    "spices": "allspice chervil cinnamon cloves cumin ginger mustard nutmeg saffron star_anise",
    "herbs": "angelica chamomile chives coriander dill garlic mint mugwort oregano turnip",
    "fruits": "apple banana kiwi lemon mandarin_orange mango peach pear pineapple strawberry",
    "vegetables": "asparagus avocado broccoli brussel_sprouts cabbage cauliflower potato radish sweet_potato tomato",
}
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
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


@dataclass(frozen=True)
class Scent:
    """One scent of the device: its channel (1 to 12), its name, and what is known of its smell."""

    id: int
    name: str
    long_description: str
    key_molecules: tuple[str, ...] = ()
    qualitative_descriptors: tuple[str, ...] = ()


def substance(odorant: str) -> str:
    """Return the name that recordings, pictures and the device use for an odorant: orange is mandarin_orange."""
    return ALIASES.get(odorant, odorant)


def odorant(name: str) -> str:
    """Return which of the twelve `ODORANTS` the name of a substance, picture folder or channel means."""
    for known in ODORANTS:
        if name in (known, substance(known)):
            return known
    raise OptionError(f"No odorant is called {name!r}", hint=nearest(name, [*ODORANTS, *ALIASES.values()]))


_ORDER = np.array([ODORANTS.index(odorant(name)) for name in SCENTS])


def to_channels(ratios: np.ndarray) -> np.ndarray:
    """Beta (..., 12) in the order of the device's channels for ratios (..., 12) in the order of `ODORANTS`."""
    return np.asarray(ratios)[..., _ORDER]


def to_odorants(beta: np.ndarray) -> np.ndarray:
    """Ratios (..., 12) in the order of `ODORANTS` for beta (..., 12) in the order of the device's channels."""
    return np.asarray(beta)[..., np.argsort(_ORDER)]


def category(substance: str) -> str:
    """Nuts, spices, herbs, fruits or vegetables; "other" for a substance that is not in SmellNet."""
    return next((name for name, members in CATEGORIES.items() if substance in members.split()), "other")


def read_scents(folder: str | Path | None = None, *, report: Report | None = None) -> list[Scent]:
    """Return the scents of smell_descriptions.json in `folder`, in the order of their id: the device's channels.

    Ids run from 1 without a gap. A missing, empty or wrong-typed `long_description` is refused with its key.
    """
    path = (Path(folder) if folder else paths.sample() / "smellnet") / "smell_descriptions.json"
    value = read_json(path)
    entries, report = value.get("odors"), report if report is not None else Report()
    if not isinstance(entries, list) or not entries:
        instead = f"only {', '.join(value)[:100]}" if entries is None else repr(entries)[:60]
        raise fault(path, key="$.odors", expected="a list of scents", actual=instead, hint="see data/README.md")
    scents = [_scent(path, f"$.odors[{number}]", entry, report) for number, entry in enumerate(entries)]
    scents.sort(key=lambda scent: scent.id)
    ids, names = [scent.id for scent in scents], Counter(scent.name for scent in scents)
    if ids != [*range(1, len(scents) + 1)]:
        expected, actual = f"1 to {len(scents)}", ", ".join(map(str, ids))
        raise fault(path, key="id", expected=expected, actual=actual, hint="number the scents without a gap")
    if twice := [name for name, count in names.items() if count > 1]:
        raise fault(path, key="name", expected="each once", actual=f"{twice[0]!r} again", hint="correct one of them")
    return scents


def _scent(path: Path, where: str, entry: Any, report: Report) -> Scent:
    if not isinstance(entry, dict):
        raise fault(path, key=where, expected="an object", actual=repr(entry)[:60], hint="see data/README.md")
    name, lists = entry.get("name"), ("key_molecules", "qualitative_descriptors")
    wanted = {"id": ("a whole number from 1", type(entry.get("id")) is int)}
    wanted["name"] = "a name", isinstance(name, str) and bool(name.strip())
    for key in lists:
        words = entry.get(key, [])
        wanted[key] = "a list of texts", isinstance(words, list) and all(isinstance(word, str) for word in words)
    for key, (expected, right) in wanted.items():
        if not right:
            actual = repr(entry.get(key))[:60]
            raise fault(path, key=f"{where}.{key}", expected=expected, actual=actual, hint="correct it")
    return Scent(
        id=entry["id"],
        name=entry["name"].strip(),
        long_description=long_text(entry, "long_description", path=path, where=f"{where} ({name})", report=report),
        **{key: tuple(entry.get(key, [])) for key in lists},
    )


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted; none where it is not there."""
    files = (path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in PICTURES)


def list_pictures(folder: str | Path | None = None) -> pd.DataFrame:
    """Return a table (scent, file) of every picture images/<scent>/* in `folder`, sorted; `file` is a full path."""
    root = (Path(folder) if folder else paths.sample() / "smellnet") / "images"
    files = [file for inside in sorted(root.glob("*/")) for file in pictures_in(inside)]
    if not files:
        raise DataError(f"No pictures in {root}", hint="images/<scent>/*.jpg; data/sample/smellnet has drawings")
    return pd.DataFrame({"scent": [file.parent.name for file in files], "file": [str(file) for file in files]})


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
    for sentence in itertools.islice(itertools.cycle(SENTENCES[part]), count):
        chosen = random.permutation(words)[: random.integers(1, 4)]
        texts.append(sentence.format(str(random.choice(JOINS[part])).join(chosen)))
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
