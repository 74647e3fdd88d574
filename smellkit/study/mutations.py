"""Break files on purpose, by seed: every fault of a file that the kit reads, and changes that must not matter.

python -m smellkit.study.mutations --count 1000 --seed 7    # 0 tracebacks, 0 silent changes of an answer, or exit 1

A mutated file must be refused by name, or give the answer of the clean file, or another one with a word about it.
"""

from __future__ import annotations

import io
import json
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
from PIL import Image

from smellkit import checkpoint, paths, sweep
from smellkit.checks import Report
from smellkit.errors import SmellkitError
from smellkit.gcode import recordings as machine
from smellkit.odour import mixtures
from smellkit.odour.predict import recording_rows
from smellkit.odour.scents import read_scents
from smellkit.odour.smell import SubstanceSmell, load_smell
from smellkit.plume import data as plumes

COLUMNS = ["NO2", "C2H5OH", "VOC", "CO", "Temperature"]


def table(chance: random.Random, *, columns=COLUMNS, rows=40) -> bytes:
    """A clean CSV file: counts, and one column with decimals."""
    lines = [",".join(columns)]
    for _ in range(rows):
        cells = [str(chance.randint(1, 900)) for _ in columns[:-1]] + [f"{chance.uniform(20, 30):.2f}"]
        lines.append(",".join(cells))
    return ("\n".join(lines) + "\n").encode()


def _row(change):
    """A change of one random row below the header."""

    def apply(data: bytes, chance: random.Random) -> bytes:
        lines = data.decode().splitlines()
        at = chance.randrange(1, len(lines))
        lines[at] = change(lines[at], chance)
        return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")

    return apply


def _cell(*texts: str):
    """Another text in one random cell."""

    def change(line: str, chance: random.Random) -> str:
        cells = line.split(",")
        cells[chance.randrange(len(cells))] = chance.choice(texts)
        return ",".join(cells)

    return _row(change)


def _header(change):
    """A change of the list of column names."""

    def apply(data: bytes, chance: random.Random) -> bytes:
        first, rest = data.split(b"\n", 1)
        return ",".join(change(first.decode().split(","), chance)).encode() + b"\n" + rest

    return apply


def _first_row(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    lines[1] += b",1" * chance.randint(1, 3)
    return b"\n".join(lines)


def _without_column(data: bytes, chance: random.Random) -> bytes:
    lines = [line.split(b",") for line in data.splitlines()]
    at = chance.randrange(len(lines[0]))
    return b"\n".join(b",".join(line[:at] + line[at + 1 :]) for line in lines) + b"\n"


def _typo(names: list[str], chance: random.Random) -> list[str]:
    at = chance.randrange(len(names))
    return [*names[:at], chance.choice([names[at].lower() + "x", names[at][:-1], "_" + names[at]]), *names[at + 1 :]]


def _decimal_commas(data: bytes, chance: random.Random) -> bytes:
    return data.replace(b".", b",")


def _delimiter(data: bytes, chance: random.Random) -> bytes:
    mark = chance.choice([b";", b"\t", b"|", b" "])
    data = data.replace(b",", mark)
    return data.replace(b".", b",") if mark == b";" and chance.random() < 0.5 else data


REFUSED = {  # fault -> what it makes of a clean table
    "empty": lambda data, chance: chance.choice([b"", b"\n", b"  \r\n", b"\xef\xbb\xbf", b"\0\0\0\0"]),
    "UTF-16": lambda data, chance: data.decode().encode(chance.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32"])),
    "Latin-1": _cell("caf\udce9"),
    "header only": lambda data, chance: data.split(b"\n")[0] + chance.choice([b"", b"\n", b"\n\n"]),
    "missing column": _without_column,
    "misnamed column": _header(_typo),
    "duplicate column": _header(lambda names, chance: [*names[:-1], chance.choice(names[:-1])]),
    "delimiter": _delimiter,
    "decimal comma": _decimal_commas,
    "decimal comma in quotes": _cell('"3,5"', '"0,25"'),
    "thousands": _cell('"1,000"', "1,000"),
    "long row": _row(lambda line, chance: line + ",7" * chance.randint(1, 4)),
    "first row too long": _first_row,
    "short row": _row(lambda line, chance: line.rsplit(",", 1)[0]),
    "blank line": _row(lambda line, chance: "\n" + line),
    "open quote": _row(lambda line, chance: '"' + line if chance.random() < 0.5 else line.replace(",", ',"', 1)),
    "text": _cell("abc", "12a", "--", "True", "0x10", "1_0", "#N/A!", "1 2", "４２"),
    "NUL": _cell("\0", "4\0"),
    "not a number": _cell("nan", "NaN", "", "NA", "null"),
    "infinite": _cell("inf", "-inf", "1e999", "Infinity"),
    "out of range": _cell("1e308", "-70", "4096", "99999999999999999999", "4294967295"),
}
ACCEPTED = {  # harmless change -> what it makes of a clean table
    "as it was": lambda data, chance: data,
    "byte order mark": lambda data, chance: b"\xef\xbb\xbf" + data,
    "CRLF": lambda data, chance: data.replace(b"\n", b"\r\n"),
    "CR": lambda data, chance: data.replace(b"\n", b"\r"),
    "no last newline": lambda data, chance: data.rstrip(b"\n"),
    "more last newlines": lambda data, chance: data + b"\n\n",
    "padded header": _header(lambda names, chance: [f" {name}  " for name in names]),
    "quoted header": _header(lambda names, chance: [f'"{name}"' for name in names]),
    "quoted number": _row(lambda line, chance: re.sub(r"^(\d+)", r'"\1"', line)),
}


def surrogate_safe(data: bytes) -> bytes:
    """The byte 0xe9 alone for the half character that stands for it."""
    return data.replace("\udce9".encode("utf-8", "surrogatepass"), b"\xe9")


def picture(chance: random.Random, *, form: str, size=(48, 40)) -> bytes:
    """A clean picture with some content."""
    pixels = np.random.default_rng(chance.randrange(2**32)).integers(0, 255, (size[1] // 4, size[0] // 4, 3))
    image = Image.fromarray(np.kron(pixels, np.ones((4, 4, 1))).astype(np.uint8))
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def _png_bomb(side: int) -> bytes:
    out = io.BytesIO()
    Image.new("1", (side, side)).save(out, "PNG", compress_level=9)
    return out.getvalue()


BOMBS = {side: _png_bomb(side) for side in (5_001, 10_000, 20_000)}
BROKEN_PICTURES = {
    "zero bytes": lambda data, chance: b"",
    "text": lambda data, chance: chance.choice([b"not a picture", b"<svg></svg>", b"%PDF-1.4", b"\x89PNG\r\n"]),
    "truncated": lambda data, chance: data[: int(len(data) * chance.uniform(0.05, 0.85))],
    "too large": lambda data, chance: BOMBS[chance.choice(list(BOMBS))],
    "a table": lambda data, chance: table(chance),
}


def document(chance: random.Random) -> bytes:
    """A clean smell_descriptions.json of three scents."""
    scents = [
        {
            "id": n,
            "name": name,
            "key_molecules": ["x"],
            "long_description": "smells of " + "words " * chance.randint(1, 9),
        }
        for n, name in enumerate(("banana", "pear", "apple"), 1)
    ]
    return json.dumps({"odors": scents}).encode()


def _swap(old: str, *new: str):
    return lambda data, chance: data.decode().replace(old, chance.choice(new), 1).encode("utf-8", "surrogatepass")


BROKEN_JSON = {
    "empty": lambda data, chance: b"",
    "NaN": _swap('"id": 1', '"id": NaN', '"id": -Infinity', '"id": 1e999'),
    "duplicate key": _swap('"id": 2', '"id": 2, "id": 3'),
    "lone surrogate": _swap("smells", r"\ud800", r"a\udfffb"),
    "list at the root": lambda data, chance: b"[" + data + b"]",
    "Latin-1": lambda data, chance: data.replace(b"smells", b"sm\xe9lls", 1),
    "UTF-16": lambda data, chance: data.decode().encode("utf-16"),
    "truncated": lambda data, chance: data[: chance.randrange(1, len(data))],
    "100,000 deep": lambda data, chance: chance.choice([b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000]),
    "no description": _swap('"long_description"', '"longdescription"', '"text"'),
    "description of another type": _swap('"smells', '7, "x": "', 'null, "x": "', '["a"], "x": "'),
    "empty description": _swap('"smells', '"", "x": "', '"  ", "x": "'),
    "no odors": _swap('"odors"', '"odours"'),
    "id twice": _swap('"id": 2', '"id": 1'),
    "id missing": _swap('"id": 2', '"number": 2', '"id": "2"', '"id": true', '"id": 9'),
    "huge number": _swap('"id": 2', '"id": ' + "9" * 5000),
}


Fault = Callable[[bytes, random.Random], bytes]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 40213\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>not here</body></html>\n"


def _npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, x=np.arange(50), y=np.arange(50))
    return out.getvalue()


def _empty_zip() -> bytes:
    out = io.BytesIO()
    zipfile.ZipFile(out, "w").close()
    return out.getvalue()


NPZ = _npz()
NOT_DATA: dict[str, Fault] = {
    "LFS pointer": lambda data, chance: POINTER,
    "web page": lambda data, chance: PAGE,
    "NPZ": lambda data, chance: NPZ,
    "truncated NPZ": lambda data, chance: NPZ[: chance.randrange(40, len(NPZ) - 30)],
    "empty archive": lambda data, chance: _empty_zip(),
    "empty file": lambda data, chance: chance.choice([b"", b"\0" * 100, b" \n"]),
}


def _frame(change: Callable[[pd.DataFrame, random.Random], pd.DataFrame]) -> Fault:
    """A change of a CSV file as a table."""

    def apply(data: bytes, chance: random.Random) -> bytes:
        return change(pd.read_csv(io.BytesIO(data)), chance).to_csv(index=False).encode()

    return apply


def _scaled(columns: list[str], *factors: float) -> Fault:
    return _frame(
        lambda table, chance: table.assign(**{c: table[c] * f for f in [chance.choice(factors)] for c in columns})
    )


def _clock(change: Callable[[pd.Series, random.Random], Any]) -> Fault:
    return _frame(lambda table, chance: table.assign(timestamp_ms=change(table["timestamp_ms"], chance)))


def _gap(times: pd.Series, chance: random.Random) -> pd.Series:
    return times + (times.index >= chance.randrange(5, len(times) - 5)) * chance.choice([60_000, 3_600_000])


CLOCKS: dict[str, Fault] = {
    "every row twice": _frame(lambda table, chance: table.loc[table.index.repeat(2)]),
    "reversed": _frame(lambda table, chance: table.iloc[::-1]),
    "shuffled": _frame(lambda table, chance: table.sample(frac=1, random_state=chance.randrange(999))),
    "a gap": _clock(_gap),
    "lost rows": _frame(lambda table, chance: table.drop(index=[chance.randrange(9, len(table) - 9)])),
    "faster": _clock(lambda times, chance: times // chance.choice([2, 4, 10])),
    "slower": _clock(lambda times, chance: times * chance.choice([2, 10])),
    "a word in the clock": _frame(
        lambda table, chance: table.astype({"timestamp_ms": object}).assign(
            timestamp_ms=[*table["timestamp_ms"][:7], "soon", *table["timestamp_ms"][8:]]
        )
    ),
    "ISO": _clock(lambda times, chance: pd.to_datetime(times, unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S.%f")),
    "overflow of the counter": _clock(lambda times, chance: (times + 2**32 - chance.randrange(9_999)) % 2**32),
    "a clock that stands still": _clock(lambda times, chance: 0 * times),
}
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
LINES = {name: REFUSED[name] for name in REFUSED if name not in ("first row too long",)}


def _parquet(change: Callable[[pd.DataFrame, random.Random], pd.DataFrame]) -> Fault:
    def apply(data: bytes, chance: random.Random) -> bytes:
        out = io.BytesIO()
        change(pd.read_parquet(io.BytesIO(data)), chance).to_parquet(out)
        return out.getvalue()

    return apply


def _truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data) - 1)]


def _flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


TIMES = "t_console"
PARQUET: dict[str, Fault] = NOT_DATA | {
    "truncated": _truncated,
    "every row twice": _parquet(lambda table, chance: table.loc[table.index.repeat(2)].reset_index(drop=True)),
    "a word among numbers": _parquet(lambda table, chance: table.assign(mpox=["far", *table["mpox"].astype(str)[1:]])),
    "numbers as texts": _parquet(lambda table, chance: table.assign(mpox=table["mpox"].astype(str))),
    "a word in the clock": _parquet(lambda table, chance: table.assign(**{TIMES: ["soon", *table[TIMES][1:]]})),
    "another clock": _parquet(
        lambda table, chance: table.assign(
            **{TIMES: pd.Timestamp(2025, 3, 1) + pd.to_timedelta(table.index / machine.RATE, unit="s")}
        )
    ),
    "slower": _parquet(
        lambda table, chance: table.assign(
            **{TIMES: pd.Timestamp(2025, 3, 1) + pd.to_timedelta(table.index * 2.0, unit="s")}
        )
    ),
    "another dialect": _parquet(
        lambda table, chance: table.assign(gcode_string="n1 " + table["gcode_string"].str.lower() + "*7")
    ),
}
YAML: dict[str, Fault] = {
    "key twice": lambda data, chance: data + chance.choice([b"seeds: [9]\n", b"task: other\n"]),
    "tab": lambda data, chance: data.replace(b"  ", b"\t", 1),
    "open bracket": lambda data, chance: data.replace(b"]", b"", 1),
    "open quote": lambda data, chance: data.replace(b": [", b": 'x [", 1),
    "a list": lambda data, chance: b"- " + data.replace(b"\n", b"\n  "),
    "another type": lambda data, chance: data.replace(
        b"seeds: [1, 2]", chance.choice([b"seeds: many", b"seeds: {a: 1}", b"seeds: [x]"])
    ),
    "grid of another type": lambda data, chance: data.replace(b"[0, 1]", chance.choice([b"7", b"all"])),
    "unknown key": lambda data, chance: data.replace(b"seeds", b"seed"),
    "a tag": lambda data, chance: data.replace(b"[0, 1]", b"!!python/object/apply:os.system ['true']"),
    "Latin-1": lambda data, chance: data + b"name: caf\xe9\n",
    "UTF-16": lambda data, chance: data.decode().encode("utf-16"),
} | {name: NOT_DATA[name] for name in ("LFS pointer", "web page", "NPZ", "empty file")}
PICTURES: dict[str, Fault] = BROKEN_PICTURES | NOT_DATA | {"a byte flipped": _flipped}
WEIGHTS: dict[str, Fault] = NOT_DATA | {"truncated": _truncated, "a byte flipped": _flipped}
MANIFEST: dict[str, Fault] = {
    "truncated": lambda data, chance: data[: chance.randrange(1, len(data) - 2)],
    "NaN": lambda data, chance: re.sub(rb"0\.\d+", b"NaN", data, count=1),
    "key twice": lambda data, chance: data.replace(b"{", b'{"kind": "odour", ', 1),
    "a class less": lambda data, chance: data.replace(b'  "almond",\n', b"", 1),
    "key missing": lambda data, chance: data.replace(chance.choice([b'"classes"', b'"sha256"']), b'"x"', 1),
    "a list": lambda data, chance: b"[" + data + b"]",
    "deep": BROKEN_JSON["100,000 deep"],
} | NOT_DATA  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of file: where a clean one is put, what breaks it, and the answer that is read of it."""

    name: str  # of the file, below a folder of its own
    faults: dict[str, Fault]
    prepare: Callable[[Path], None]  # puts clean files into a folder
    answer: Callable[[Path, Report], Any]  # of the file


def _copied(source: Path, name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(source.read_bytes())  # type: ignore[return-value]


def _board(folder: Path) -> None:
    """A recording of the twelve columns with a clock, 280 rows long."""
    table = pd.read_csv(sorted((paths.sample() / "smellnet/base/testing").glob("*/*.csv"))[0])[:280]
    table.insert(0, "timestamp_ms", np.arange(len(table)) * 1000)
    table.to_csv(folder / "a.csv", index=False)


def _machine_csv(folder: Path) -> None:
    pd.read_parquet(paths.sample() / "gcode/face_001.parquet").to_csv(folder / "face_001_aligned.csv", index=False)


def _pair(folder: Path) -> None:
    """One pair of the plume sample with its annotations."""
    sample = paths.sample() / "plume"
    pairs = pd.read_csv(sample / "paired_test_annotations.csv", dtype=str, keep_default_na=False)
    pairs = pairs[pairs["missing_modality"] == ""][:1]
    for name in (column for column in pairs if column.endswith(("_frame", "_mask"))):
        kind = "frame" if name.endswith("frame") else "mask"
        shutil.copy(sample / pairs[name].iloc[0], folder / f"{name[:3]}_{kind}.png")
        pairs[name] = f"{name[:3]}_{kind}.png"
    pairs.to_csv(folder / "paired_test_annotations.csv", index=False)


def _weights(folder: Path) -> None:
    for name in (checkpoint.FILE, checkpoint.MANIFEST):
        shutil.copy(checkpoint.find("odour") / name, folder / name)


def _scents(folder: Path) -> None:
    (folder / "smell_descriptions.json").write_bytes(document(random.Random(1)))


def _plan(folder: Path) -> None:
    (folder / "plan.yaml").write_text(
        "task: odour-encoder\nseeds: [1, 2]\ngrid:\n  gamma: [0, 1]\nfixed:\n  epochs: 3\n"
    )


def _substances(path: Path, report: Report) -> Any:
    smell = load_smell("odour")
    assert isinstance(smell, SubstanceSmell)
    return [row[3:] for row in recording_rows(path.name, path, smell, report=report)]


def _rows_of(path: Path, report: Report) -> Any:
    table = machine.read_one(path, report=report).drop(columns=["clock", "row"])
    return table.to_csv()


def _fingerprint(path: Path, report: Report) -> Any:
    smell = SubstanceSmell.load(path.parent)
    return checkpoint.fingerprint(smell.network), smell.classes, smell.confidence, smell.protocol


def _pictures(path: Path, report: Report) -> Any:
    return [part.tobytes() for part in plumes.read(path.parent, "test", size=(72, 96), report=report)[1:]]


MIXTURE_FILE = "Almond20_Orange80.csv"
KINDS = (
    Kind("a.csv", LINES | CLOCKS | UNITS | NOT_DATA, _board, _substances),
    Kind(
        MIXTURE_FILE,
        {name: fault for name, fault in (LINES | CLOCKS | NOT_DATA).items() if name != "not a number"},
        lambda folder: _copied(sorted((paths.sample() / "smellnet/mixture/test_seen").glob("*.csv"))[0], MIXTURE_FILE)(
            folder
        ),
        lambda path, report: mixtures.read_mixture(path, report=report).values.tobytes(),
    ),
    Kind("face_001.parquet", PARQUET, _copied(paths.sample() / "gcode/face_001.parquet", "face_001.parquet"), _rows_of),
    Kind(
        "face_001_aligned.csv",
        {
            name: LINES[name]
            for name in ("short row", "long row", "open quote", "text", "NUL", "blank line", "header only")
        }
        | NOT_DATA,
        _machine_csv,
        _rows_of,
    ),
    Kind("co2_frame.png", PICTURES, _pair, _pictures),
    Kind("co2_mask.png", PICTURES, _pair, _pictures),
    Kind(
        "smell_descriptions.json",
        BROKEN_JSON | NOT_DATA,
        _scents,
        lambda path, report: read_scents(path.parent, report=report),
    ),
    Kind(checkpoint.FILE, WEIGHTS, _weights, _fingerprint),
    Kind(checkpoint.MANIFEST, MANIFEST, _weights, _fingerprint),
    Kind("plan.yaml", YAML, _plan, lambda path, report: sweep.read(path)),
)


def outcome(kind: Kind, fault: str, folder: Path, clean: Any, *, chance: random.Random) -> tuple[str, str]:
    """Break one file in `folder` and read it: (refused, same, told, SILENT, TRACEBACK or UNNAMED; what was said)."""
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
    return ("told", "; ".join(what for _, what, _ in report.told)) if report.told else ("SILENT", "")


def run(count: int, *, seed: int = 7, progress: Callable[[str], object] = lambda _: None) -> Counter[str]:
    """Break `count` files, all kinds in turn and every fault of each before any again; return how many ended how.

    What went wrong is said by `progress`: file, fault, what happened.
    """
    ends: Counter[str] = Counter()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        ready = []
        for number, kind in enumerate(KINDS):
            folder = Path(root) / str(number)
            folder.mkdir()
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
    words = ", ".join(f"{ends[end]} {end}" for end in ("refused", "same", "told", "SILENT", "UNNAMED", "TRACEBACK"))
    click.echo(f"{count} files broken in {time.monotonic() - began:.0f} s: {words}")
    sys.exit(1 if ends["SILENT"] or ends["UNNAMED"] or ends["TRACEBACK"] else 0)


if __name__ == "__main__":
    main()
