"""Faults of files, put there on purpose and by seed: tables, pictures and JSON, and changes that must not matter.

A fault makes of the bytes of a clean file those of a broken one.
"""

from __future__ import annotations

import functools
import io
import json
import random
import re
from collections.abc import Callable

import numpy as np
from PIL import Image

Fault = Callable[[bytes, random.Random], bytes]
COLUMNS = ["NO2", "C2H5OH", "VOC", "CO", "Temperature"]


def table(chance: random.Random, *, columns=COLUMNS, rows=40) -> bytes:
    """A clean CSV file: counts, and one column with decimals."""
    counts = [[str(chance.randint(1, 900)) for _ in columns[1:]] for _ in range(rows)]
    cells = [[*row, f"{chance.uniform(20, 30):.2f}"] for row in counts]
    return "".join(",".join(row) + "\n" for row in (columns, *cells)).encode()


def _row(change: Callable[[str, random.Random], str], *, at: int | None = None) -> Fault:
    """A change of one random row below the header, or of row `at`."""

    def apply(data: bytes, chance: random.Random) -> bytes:
        lines = data.decode().splitlines()
        place = chance.randrange(1, len(lines)) if at is None else at
        lines[place] = change(lines[place], chance)
        return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")

    return apply


def _cells(change: Callable[[list[str], random.Random], list[str]], *, at: int | None = None) -> Fault:
    """A change of the cells of one row."""
    return _row(lambda line, chance: ",".join(change(line.split(","), chance)), at=at)


def _cell(*texts: str) -> Fault:
    """Another text in one random cell."""
    return _cells(lambda cells, chance: _with(cells, chance.randrange(len(cells)), chance.choice(texts)))


def _with(cells: list[str], at: int, text: str) -> list[str]:
    return [*cells[:at], text, *cells[at + 1 :]]


def _typo(names: list[str], chance: random.Random) -> list[str]:
    at = chance.randrange(len(names))
    return _with(names, at, chance.choice([names[at].lower() + "x", names[at][:-1], "_" + names[at]]))


def _without_column(data: bytes, chance: random.Random) -> bytes:
    lines = [line.split(b",") for line in data.splitlines()]
    at = chance.randrange(len(lines[0]))
    return b"\n".join(b",".join(line[:at] + line[at + 1 :]) for line in lines) + b"\n"


def _delimiter(data: bytes, chance: random.Random) -> bytes:
    mark = chance.choice([b";", b"\t", b"|", b" "])
    data = data.replace(b",", mark)
    return data.replace(b".", b",") if mark == b";" and chance.random() < 0.5 else data


REFUSED: dict[str, Fault] = {  # of a table
    "empty": lambda data, chance: chance.choice([b"", b"\n", b"  \r\n", b"\xef\xbb\xbf", b"\0\0\0\0"]),
    "UTF-16": lambda data, chance: data.decode().encode(chance.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32"])),
    "Latin-1": _cell("caf\udce9"),
    "header only": lambda data, chance: data.split(b"\n")[0] + chance.choice([b"", b"\n", b"\n\n"]),
    "missing column": _without_column,
    "misnamed column": _cells(_typo, at=0),
    "duplicate column": _cells(lambda names, chance: [*names[:-1], chance.choice(names[:-1])], at=0),
    "delimiter": _delimiter,
    "decimal comma": lambda data, chance: data.replace(b".", b","),
    "decimal comma in quotes": _cell('"3,5"', '"0,25"'),
    "thousands": _cell('"1,000"', "1,000"),
    "long row": _row(lambda line, chance: line + ",7" * chance.randint(1, 4)),
    "first row too long": _row(lambda line, chance: line + ",1" * chance.randint(1, 3), at=1),
    "short row": _row(lambda line, chance: line.rsplit(",", 1)[0]),
    "blank line": _row(lambda line, chance: "\n" + line),
    "open quote": _row(lambda line, chance: '"' + line if chance.random() < 0.5 else line.replace(",", ',"', 1)),
    "text": _cell("abc", "12a", "--", "True", "0x10", "1_0", "#N/A!", "1 2", "４２"),
    "NUL": _cell("\0", "4\0"),
    "not a number": _cell("nan", "NaN", "", "NA", "null"),
    "infinite": _cell("inf", "-inf", "1e999", "Infinity"),
    "out of range": _cell("1e308", "-70", "4096", "99999999999999999999", "4294967295"),
}
ACCEPTED: dict[str, Fault] = {  # of a table, and harmless
    "as it was": lambda data, chance: data,
    "byte order mark": lambda data, chance: b"\xef\xbb\xbf" + data,
    "CRLF": lambda data, chance: data.replace(b"\n", b"\r\n"),
    "CR": lambda data, chance: data.replace(b"\n", b"\r"),
    "no last newline": lambda data, chance: data.rstrip(b"\n"),
    "more last newlines": lambda data, chance: data + b"\n\n",
    "padded header": _cells(lambda names, chance: [f" {name}  " for name in names], at=0),
    "quoted header": _cells(lambda names, chance: [f'"{name}"' for name in names], at=0),
    "quoted number": _row(lambda line, chance: re.sub(r"^(\d+)", r'"\1"', line)),
}


def surrogate_safe(data: bytes) -> bytes:
    """The byte 0xe9 alone for the half character that stands for it."""
    return data.replace("\udce9".encode("utf-8", "surrogatepass"), b"\xe9")


def picture(chance: random.Random, *, form: str, size=(48, 40)) -> bytes:
    """A clean picture with some content."""
    pixels = np.random.default_rng(chance.randrange(2**32)).integers(0, 255, (size[1] // 4, size[0] // 4, 3))
    return _saved(Image.fromarray(np.kron(pixels, np.ones((4, 4, 1))).astype(np.uint8)), form)


def _saved(image: Image.Image, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


@functools.cache
def bomb(side: int) -> bytes:
    """A picture of few bytes and `side` x `side` pixels."""
    return _saved(Image.new("1", (side, side)))


BOMBS = (5_001, 10_000, 20_000)  # sides, in pixels
BROKEN_PICTURES: dict[str, Fault] = {
    "zero bytes": lambda data, chance: b"",
    "text": lambda data, chance: chance.choice([b"not a picture", b"<svg></svg>", b"%PDF-1.4", b"\x89PNG\r\n"]),
    "truncated": lambda data, chance: data[: int(len(data) * chance.uniform(0.05, 0.85))],
    "too large": lambda data, chance: bomb(chance.choice(BOMBS)),
    "a table": lambda data, chance: table(chance),
}


def document(chance: random.Random) -> bytes:
    """A clean smell_descriptions.json of three scents."""
    texts = {name: "smells of " + "words " * chance.randint(1, 9) for name in ("banana", "pear", "apple")}
    scents = [
        {"id": n, "name": name, "key_molecules": ["x"], "long_description": text}
        for n, (name, text) in enumerate(texts.items(), 1)
    ]
    return json.dumps({"odors": scents}).encode()


def _swap(old: str, *new: str) -> Fault:
    return lambda data, chance: data.decode().replace(old, chance.choice(new), 1).encode("utf-8", "surrogatepass")


BROKEN_JSON: dict[str, Fault] = {
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
