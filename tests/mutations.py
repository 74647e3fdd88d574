"""Break files on purpose, by seed: every fault of a file that the kit reads, and changes that must not matter.

python -m smellkit.study.mutations --count 1000 --seed 7    # 0 tracebacks, 0 silent changes of an answer, or exit 1

A mutated file must be refused by name, or give the answer of the clean file, or another one with a word about it.
"""

from __future__ import annotations

import io
import logging
import random
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from faults import BROKEN_JSON, BROKEN_PICTURES, REFUSED, Fault, document, surrogate_safe

from smellkit import checkpoint, paths
from smellkit.checks import Report
from smellkit.errors import SmellkitError
from smellkit.gcode import recordings as machine
from smellkit.odour import recordings
from smellkit.odour.predict import recording_rows
from smellkit.odour.scents import read_scents
from smellkit.odour.smell import SubstanceSmell, load_smell
from smellkit.study import sweep
from smellkit.study.plume import data as plumes

Change = Callable[[pd.DataFrame, random.Random], pd.DataFrame]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 40213\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>not here</body></html>\n"


def _archive(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays) if arrays else zipfile.ZipFile(out, "w").close()  # type: ignore[arg-type]
    return out.getvalue()


def _truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data) - 1)]


def _flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


NPZ = _archive(x=np.arange(50), y=np.arange(50))
NOT_DATA: dict[str, Fault] = {
    "LFS pointer": lambda data, chance: POINTER,
    "web page": lambda data, chance: PAGE,
    "NPZ": lambda data, chance: NPZ,
    "truncated NPZ": lambda data, chance: NPZ[: chance.randrange(40, len(NPZ) - 30)],
    "empty archive": lambda data, chance: _archive(),
    "empty file": lambda data, chance: chance.choice([b"", b"\0" * 100, b" \n"]),
}


def _frame(change: Change) -> Fault:
    """A change of a CSV file as a table."""
    return lambda data, chance: change(pd.read_csv(io.BytesIO(data)), chance).to_csv(index=False).encode()


def _parquet(change: Change) -> Fault:
    """A change of a parquet file as a table."""
    return lambda data, chance: change(pd.read_parquet(io.BytesIO(data)), chance).to_parquet()


def _scaled(columns: list[str], *factors: float) -> Fault:
    return _frame(lambda table, chance: table.assign(**(table[columns] * chance.choice(factors))))


def _clock(change: Callable[[pd.Series, random.Random], Any]) -> Fault:
    return _frame(lambda table, chance: table.assign(timestamp_ms=change(table["timestamp_ms"], chance)))


def _every(seconds: float) -> Fault:
    """A machine's rows at times of another kind, so many seconds apart."""
    return _parquet(lambda table, _: table.assign(
        t_console=pd.Timestamp(2025, 3, 1) + pd.to_timedelta(table.index * seconds, unit="s")
    ))  # fmt: skip


CLOCKS: dict[str, Fault] = {
    "every row twice": _frame(lambda table, chance: table.loc[table.index.repeat(2)]),
    "reversed": _frame(lambda table, chance: table.iloc[::-1]),
    "shuffled": _frame(lambda table, chance: table.sample(frac=1, random_state=chance.randrange(999))),
    "a gap": _clock(lambda times, chance: times
        + (times.index >= chance.randrange(5, len(times) - 5)) * chance.choice([60_000, 3_600_000])),
    "lost rows": _frame(lambda table, chance: table.drop(index=[chance.randrange(9, len(table) - 9)])),
    "faster": _clock(lambda times, chance: times // chance.choice([2, 4, 10])),
    "slower": _clock(lambda times, chance: times * chance.choice([2, 10])),
    "a word in the clock": _clock(lambda times, chance: [*times[:7], "soon", *times[8:]]),
    "ISO": _clock(lambda times, chance: pd.to_datetime(times, unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S.%f")),
    "overflow of the counter": _clock(lambda times, chance: (times + 2**32 - chance.randrange(9_999)) % 2**32),
    "a clock that stands still": _clock(lambda times, chance: 0 * times),
}  # fmt: skip
COUNTS = ["NO2", "C2H5OH", "VOC", "CO"]
UNITS: dict[str, Fault] = {
    "volts": _scaled(COUNTS, 3.3 / 1023, 5 / 1023),
    "per cent": _scaled(COUNTS, 100 / 1023, 1 / 1023),
    "more bits": _scaled(COUNTS, 4, 16, 64),
    "a dead channel": _frame(lambda table, chance: table.assign(**{chance.choice(COUNTS): chance.choice([0, 1023])})),
    "columns exchanged halfway": _frame(
        lambda table, chance: pd.concat([table[:140], table[140:].rename(columns={"VOC": "CO", "CO": "VOC"})])
    ),
}
LINES = {name: fault for name, fault in REFUSED.items() if name != "first row too long"}
PARQUET: dict[str, Fault] = NOT_DATA | {
    "truncated": _truncated,
    "every row twice": _parquet(lambda table, chance: table.loc[table.index.repeat(2)].reset_index(drop=True)),
    "a word among numbers": _parquet(lambda table, chance: table.assign(mpox=["far", *table["mpox"].astype(str)[1:]])),
    "numbers as texts": _parquet(lambda table, chance: table.assign(mpox=table["mpox"].astype(str))),
    "a word in the clock": _parquet(lambda table, chance: table.assign(t_console=["soon", *table["t_console"][1:]])),
    "another clock": _every(1 / machine.RATE),
    "slower": _every(2.0),
    "another dialect": _parquet(
        lambda table, chance: table.assign(gcode_string="n1 " + table["gcode_string"].str.lower() + "*7")
    ),
}
SEEDS = [b"seeds: many", b"seeds: {a: 1}", b"seeds: [x]"]
YAML: dict[str, Fault] = {
    "key twice": lambda data, chance: data + chance.choice([b"seeds: [9]\n", b"task: other\n"]),
    "tab": lambda data, chance: data.replace(b"  ", b"\t", 1),
    "open bracket": lambda data, chance: data.replace(b"]", b"", 1),
    "open quote": lambda data, chance: data.replace(b": [", b": 'x [", 1),
    "a list": lambda data, chance: b"- " + data.replace(b"\n", b"\n  "),
    "another type": lambda data, chance: data.replace(b"seeds: [1, 2]", chance.choice(SEEDS)),
    "grid of another type": lambda data, chance: data.replace(b"[0, 1]", chance.choice([b"7", b"all"])),
    "unknown key": lambda data, chance: data.replace(b"seeds", b"seed"),
    "a tag": lambda data, chance: data.replace(b"[0, 1]", b"!!python/object/apply:os.system ['true']"),
    "Latin-1": lambda data, chance: data + b"name: caf\xe9\n",
    "UTF-16": lambda data, chance: data.decode().encode("utf-16"),
} | {name: NOT_DATA[name] for name in ("LFS pointer", "web page", "NPZ", "empty file")}
PICTURES: dict[str, Fault] = BROKEN_PICTURES | NOT_DATA | {"a byte flipped": _flipped}
WEIGHTS: dict[str, Fault] = NOT_DATA | {"truncated": _truncated, "a byte flipped": _flipped}
MANIFEST: dict[str, Fault] = NOT_DATA | {
    "truncated": lambda data, chance: _truncated(data[:-1], chance),
    "NaN": lambda data, chance: re.sub(rb"0\.\d+", b"NaN", data, count=1),
    "key twice": lambda data, chance: data.replace(b"{", b'{"kind": "odour", ', 1),
    "a class less": lambda data, chance: data.replace(b'  "almond",\n', b"", 1),
    "key missing": lambda data, chance: data.replace(chance.choice([b'"classes"', b'"sha256"']), b'"x"', 1),
    "a list": lambda data, chance: b"[" + data + b"]",
    "deep": BROKEN_JSON["100,000 deep"],
}


@dataclass(frozen=True)
class Kind:
    """A kind of file: where a clean one is put, what breaks it, and the answer that is read of it."""

    name: str  # of the file, below a folder of its own
    faults: dict[str, Fault]
    prepare: Callable[[Path], object]  # puts clean files into a folder
    answer: Callable[[Path, Report], Any]  # of the file


def _copied(pattern: str, name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(sorted(paths.sample().glob(pattern))[0], folder / name)


def _board(folder: Path) -> None:
    """A recording of the twelve columns with a clock, 280 rows long."""
    table = pd.read_csv(sorted(paths.sample().glob("smellnet/base/testing/*/*.csv"))[0])[:280]
    table.insert(0, "timestamp_ms", np.arange(len(table)) * 1000)
    table.to_csv(folder / "a.csv", index=False)


def _pair(folder: Path) -> None:
    """One pair of the plume sample with its annotations."""
    sample = paths.sample() / "plume"
    pairs = pd.read_csv(sample / "paired_test_annotations.csv", dtype=str, keep_default_na=False)
    pairs = pairs[pairs["missing_modality"] == ""][:1]
    for name in (column for column in pairs if column.endswith(("_frame", "_mask"))):
        shutil.copy(sample / pairs[name].iloc[0], folder / f"{name}.png")
        pairs[name] = f"{name}.png"
    pairs.to_csv(folder / "paired_test_annotations.csv", index=False)


def _weights(folder: Path) -> None:
    for name in (checkpoint.FILE, checkpoint.MANIFEST):
        shutil.copy(checkpoint.find("odour") / name, folder / name)


def _substances(path: Path, report: Report) -> Any:
    smell = load_smell("odour")
    assert isinstance(smell, SubstanceSmell)
    return [row[3:] for row in recording_rows(path.name, path, smell, report=report)]


def _rows_of(path: Path, report: Report) -> Any:
    return machine.read_one(path, report=report).drop(columns=["clock", "row"]).to_csv()


def _fingerprint(path: Path, report: Report) -> Any:
    smell = SubstanceSmell.load(path.parent)
    return checkpoint.fingerprint(smell.network), smell.classes, smell.confidence, smell.protocol


def _pictures(path: Path, report: Report) -> Any:
    return [part.tobytes() for part in plumes.read(path.parent, "test", size=(72, 96), report=report)[1:]]


MIXTURE = "Almond20_Orange80.csv"
MACHINE = ("short row", "long row", "open quote", "text", "NUL", "blank line", "header only")
PLAN = "task: odour-encoder\nseeds: [1, 2]\ngrid:\n  gamma: [0, 1]\nfixed:\n  epochs: 3\n"
KINDS = (
    Kind("a.csv", LINES | CLOCKS | UNITS | NOT_DATA, _board, _substances),
    Kind(MIXTURE, {name: fault for name, fault in (LINES | CLOCKS | NOT_DATA).items() if name != "not a number"},
         _copied("smellnet/mixture/test_seen/*.csv", MIXTURE),
         lambda path, report: recordings.read_mixture(path, report=report).values.tobytes()),
    Kind("face_001.parquet", PARQUET, _copied("gcode/face_001.parquet", "face_001.parquet"), _rows_of),
    Kind("face_001_aligned.csv", {name: LINES[name] for name in MACHINE} | NOT_DATA,
         lambda folder: pd.read_parquet(paths.sample() / "gcode/face_001.parquet").to_csv(
             folder / "face_001_aligned.csv", index=False), _rows_of),
    Kind("co2_frame.png", PICTURES, _pair, _pictures),
    Kind("co2_mask.png", PICTURES, _pair, _pictures),
    Kind("smell_descriptions.json", BROKEN_JSON | NOT_DATA,
         lambda folder: (folder / "smell_descriptions.json").write_bytes(document(random.Random(1))),
         lambda path, report: read_scents(path.parent, report=report)),
    Kind(checkpoint.FILE, WEIGHTS, _weights, _fingerprint),
    Kind(checkpoint.MANIFEST, MANIFEST, _weights, _fingerprint),
    Kind("plan.yaml", YAML, lambda folder: (folder / "plan.yaml").write_text(PLAN),
         lambda path, report: sweep.read(path)),
)  # fmt: skip


def outcome(kind: Kind, fault: str, folder: Path, clean: Any, *, chance: random.Random) -> tuple[str, str]:
    """Break one file in `folder` and read it: (refused, same, warned, SILENT, TRACEBACK or UNNAMED; what was said)."""
    path, report = folder / kind.name, Report()
    whole = path.read_bytes()
    path.write_bytes(surrogate_safe(kind.faults[fault](whole, chance)))
    try:
        answer = kind.answer(path, report)
    except SmellkitError as why:
        named = path.name in str(why) and (why.hint or "Try:" in str(why))
        return ("refused" if named else "UNNAMED"), str(why)
    except Exception as why:  # whatever it is, the reader would see a traceback
        return "TRACEBACK", f"{type(why).__name__}: {why}"
    finally:
        path.write_bytes(whole)
    if answer == clean:
        return "same", ""
    return ("warned", "; ".join(what for _, what, _ in report.warnings)) if report.warnings else ("SILENT", "")


def run(
    count: int, *, kinds: tuple[Kind, ...] = KINDS, seed: int = 7, progress: Callable[[str], object] = lambda _: None
) -> Counter[str]:
    """Break `count` files, all `kinds` in turn and every fault of each before any again; return how many ended how.

    What went wrong is said by `progress`: file, fault, what happened.
    """
    ends: Counter[str] = Counter()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        ready = []
        for kind in kinds:
            folder = Path(tempfile.mkdtemp(dir=root))
            kind.prepare(folder)
            ready.append((kind, folder, kind.answer(folder / kind.name, Report())))
        for number in range(count):
            kind, folder, clean = ready[number % len(ready)]
            fault = list(kind.faults)[number // len(ready) % len(kind.faults)]
            end, said = outcome(kind, fault, folder, clean, chance=chance)
            ends[end] += 1
            if end.isupper():
                progress(f"{end}: {kind.name}, {fault}: {said}")
    return ends


@click.command()
@click.option("--count", default=1000, show_default=True, help="How many files to break.")
@click.option("--seed", default=7, show_default=True, help="The same seed breaks the same files.")
def main(count, seed):
    """Break files and see that each is refused by name, answered as before, or answered with a word about it."""
    logging.getLogger("smellkit").setLevel(logging.ERROR)
    began = time.monotonic()
    ends = run(count, seed=seed, progress=click.echo)
    words = ", ".join(f"{ends[end]} {end}" for end in ("refused", "same", "warned", "SILENT", "UNNAMED", "TRACEBACK"))
    click.echo(f"{count} files broken in {time.monotonic() - began:.0f} s: {words}")
    sys.exit(1 if ends["SILENT"] or ends["UNNAMED"] or ends["TRACEBACK"] else 0)


if __name__ == "__main__":
    main()
