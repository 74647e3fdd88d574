"""Write a simulated sample in SmellNet's layout and in the twelve-scent layout: the same seed, the same files."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smellkit import paths
from smellkit.errors import DataError, OptionError
from smellkit.odour.scents import SCENTS, substance
from smellkit.paths import write_text
from smellkit.simulate import nose

SEED = 2026
DRAWN = 5  # pictures of a scent in the sample, at most
STUCK = "apple"  # its environment sensor does not answer, as in nine substances of SmellNet
ELSEWHERE = ("cinnamon", "cloves", "coriander", "cumin", "garlic", "mint")  # sniffed again on another day
SEEN = (
    *("peach", "apple", "banana", "orange", "mango", "almond", "clove", "garlic"),
    *("Almond50_Orange50", "almond80_clove20", "pear50_apple50", "peach50_strawberry50", "banana20_mango80"),
    *("clove50_garlic50", "orange20_coriander80", "almond_50_cumin_50", "strawberry33_clove33_coriander33"),
)
NEW = ("banana50_peach50", "cumin80_pear20", "Garlic20_Mango80", "coriander50_apple50")  # in training_new alone
UNSEEN = ("almond20_coriander80", "banana_50_cumin_50", "garlic50_orange50", "peach80_clove20", "mango50_pear50")
ELEMENTS = ("C", "Ca", "Cl", "Co", "Cr", "Fe", "H", "K", "Mg", "Mn", "N", "Na", "O", "P", "S", "V", "Zn")
FORMULAS = np.array([  # carbon, hydrogen, nitrogen, oxygen, sulphur of a typical molecule of each of nose.COMPOUNDS
    (7, 14, 0, 2, 0), (7, 6, 0, 1, 0), (10, 16, 0, 0, 0), (6, 14, 0, 1, 0), (6, 10, 0, 0, 2), (10, 12, 0, 2, 0),
])  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How much is written: training recordings a substance (one is for testing), rows a recording, pictures a scent.

    `mixtures` counts recordings of each seen mixture; 0 leaves the mixtures out.
    """

    training: int = 3
    rows: int = 300
    mixtures: int = 2
    pictures: int = 5
    scent_rows: int = 200

    def __post_init__(self):
        for name, value in vars(self).items():
            least, most = 0 if name == "mixtures" else 1, DRAWN if name == "pictures" else 10**6
            if not least <= value <= most:
                raise OptionError(f"{name} is {value}", hint=f"{least} to {most:,}")


def write_sample(folder: Path, *, seed: int = SEED, size: Size | None = None, sessions: str = "substance") -> Path:
    """Write `folder`/smellnet and `folder`/scents and return the folder; it must not hold them yet.

    `sessions` is "substance" (all recordings of one in one session, as in SmellNet: the session gives it away) or
    "recording" (a new session for each). The same arguments give the same files.
    """
    if sessions not in ("substance", "recording"):
        raise OptionError(f"sessions is {sessions!r}", hint="substance or recording")
    folder, size = Path(folder), size or Size()
    for part, write in (("smellnet", write_smellnet), ("scents", write_scents)):
        if (folder / part).exists():
            raise DataError(f"{folder / part} exists already", hint="delete it, or choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{part}-") as half:
            write(Path(half) / part, seed=seed, size=size, sessions=sessions)
            shutil.move(Path(half) / part, folder / part)
    return folder


def write_smellnet(folder: Path, *, seed: int, size: Size, sessions: str) -> None:
    """Write the layout of SmellNet: base, mixture, images, descriptions and a table of elements."""
    _base(folder / "base", _generator(seed, 1), size=size, sessions=sessions)
    if size.mixtures:
        _mixtures(folder / "mixture", _generator(seed, 2), size=size)
    _copy(folder, "smell_descriptions.json", "text_description.json", pictures=size.pictures)
    names = sorted(nose.SUBSTANCES)
    amounts = 1000 * np.array([nose.SUBSTANCES[name] for name in names]) @ FORMULAS  # only ratios mean something
    elements = pd.DataFrame(amounts.round(1), pd.Index(names, name="food_name"), ["C", "H", "N", "O", "S"])
    write_text(folder / "gcms.csv", elements.reindex(columns=ELEMENTS, fill_value=0.0).to_csv(lineterminator="\n"))


def write_scents(folder: Path, *, seed: int, size: Size, sessions: str) -> None:
    """Write the twelve-scent layout: smell_data/<odour>/*.csv, images/<odour>/*, smell_descriptions.json."""
    generator = _generator(seed, 4)
    for name in sorted(SCENTS):
        session = nose.session(generator)
        session = session if sessions == "substance" else nose.session(generator)
        _recording(folder / "smell_data" / name, name, session, generator, rows=size.scent_rows)
    _copy(folder, "smell_descriptions.json", pictures=size.pictures)


def _generator(seed: int, part: int) -> np.random.Generator:
    """Parts have their own stream: more pictures don't change the recordings."""
    return np.random.default_rng([seed, part])


def _base(folder: Path, generator: np.random.Generator, *, size: Size, sessions: str) -> None:
    for name in sorted(nose.SUBSTANCES):
        session = nose.session(generator, stuck=name == STUCK)
        for number in range(size.training + 1):
            split = "training" if number < size.training else "testing"
            session = session if sessions == "substance" else nose.session(generator)
            _recording(folder / split / name, name, session, generator, rows=size.rows, since=number * size.rows)
    for name in ELSEWHERE:
        session = nose.session(generator)
        _recording(folder / "online_other" / name, name, session, generator, rows=size.rows)


def _recording(
    folder: Path, name: str, session: nose.Day, generator: np.random.Generator, *, rows: int, since: int = 0
) -> None:
    onset, puff = generator.uniform(5, 25), (generator.uniform(50, 70), generator.uniform(30, 45))
    how: dict[str, Any] = {"onset": onset, "puff": puff, "strength": generator.lognormal(0, 0.2), "since": since}
    table = nose.recording({name: 1.0}, session, generator, seconds=rows, **how)
    _write(folder / f"{name}.{generator.bytes(6).hex()}.csv", table)


def _mixtures(folder: Path, generator: np.random.Generator, *, size: Size) -> None:
    """Seen mixtures in training and test on two days in July, new ones in August, unseen ones a week later."""
    by_day = {day: nose.session(generator, spread=0.15) for day in ("21", "22", "11", "16")}
    times = {day: datetime(2025, 7 if day > "20" else 8, int(day), 9) for day in by_day}

    def sniff(label: str, day: str, *splits: str) -> tuple[str, pd.DataFrame]:
        times[day] += timedelta(seconds=generator.uniform(80, 120))
        since = (times[day] - times[day].replace(hour=9, minute=0, second=0)).total_seconds() / 4
        parts = re.findall(r"([a-z]+)_?(\d*)", label.lower())  # almond80_clove20, almond_50_cumin_50, peach
        ratios = {substance(name): int(share or 100) / 100 for name, share in parts}
        strength = generator.lognormal(0, 0.12)
        table = nose.mixture_recording(ratios, by_day[day], generator, strength=strength, since=since)
        number = round((times[day] - datetime(2019, 1, 1)) / timedelta(milliseconds=1))  # as real ids are, probably
        name = f"{label}.{np.base_repr(number, 32).lower()}.simulated"
        for split in splits:
            _write(folder / split / f"{name}.csv", table)
        return name, table

    both = ("training_seen", "training_new")
    for number, label in enumerate(SEEN):
        day = "21" if number % 2 else "22"
        for _ in range(size.mixtures):
            name, table = sniff(label, day, *both)
        if number % 6 == 0:  # a few are synthetic
            for split in both:
                _write(folder / split / f"{name}_1.csv", nose.bootstrap(table, _generator(number, 5)))
        sniff(label, day, "test_seen")
    for label in NEW:
        sniff(label, "11", "training_new")
    for label in UNSEEN:
        for _ in range(2):
            name, table = sniff(label, "16", f"test_unseen/{label}")
    _write(folder / f"test_unseen/{label}/{name} (1).csv", table)  # a browser's copy, as in the real set


def _copy(folder: Path, *texts: str, pictures: int) -> None:
    """Texts and drawings were made by hand, once: whatever the seed, they are those of the sample in the kit."""
    made = paths.sample() / folder.name
    for name in texts:
        shutil.copy(made / name, folder / name)
    for drawn in sorted((made / "images").iterdir()):
        (folder / "images" / drawn.name).mkdir(parents=True)
        for picture in sorted(drawn.iterdir())[:pictures]:
            shutil.copy(picture, folder / "images" / drawn.name)


def _write(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
