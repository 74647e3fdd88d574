"""A line of G-code as tokens and back, without loss; and the published vocabulary of 668 tokens, rebuilt.

The published scheme splits a word with a number into two tokens, `X3.291` -> `X` `NUM_X_3291`, but leaves a word that
ends in a point whole (`Z0.`). Here the number token keeps every digit, `NUM_X_3.291`; `published` cuts it down.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smellkit.checks import fault
from smellkit.checks.report import content, decoded
from smellkit.errors import DataError

SPECIAL = ("PAD", "BOS", "EOS", "UNK", "MASK")
PAD, BOS, EOS, UNK, MASK = range(5)
LONGEST = 7  # tokens of a line, without EOS
TYPES = ("end", "command", "parameter", "number")
COMMANDS = ("G0", "G1", "G2", "G3", "G53", "M30")
PARAMETERS = ("X", "Y", "Z", "R", "F", "I", "J", "K", "S", "T")
WHOLE, FRACTION = 2, 4  # digits that the structured form has before and after the point
STEPS = dict.fromkeys("XYZABCPQ", 0.001) | dict.fromkeys("IJKRE", 0.0001) | {"F": 1.0, "S": 10.0}
CHARACTERS = 4  # that the published scheme keeps of a number, a minus sign among them
WORD = re.compile(r"([A-Z])([-+]?)(\d*)(\.?)(\d*)")


@dataclass(frozen=True)
class Token:
    """One token, taken apart: `type`, then what its type has. `str(token)` is the token again, to the letter."""

    type: str  # command, parameter or number; "other" for what is none of these
    command: str = ""  # G1
    parameter: str = ""  # X
    sign: str = ""  # "-", "+" or nothing
    whole: str = ""  # digits before the point
    point: str = ""  # "." or nothing
    fraction: str = ""  # digits after it

    @property
    def number(self) -> str:
        return f"{self.sign}{self.whole}{self.point}{self.fraction}"

    def __str__(self) -> str:
        if self.type == "number":
            fused = self.point and not self.fraction
            return f"{self.parameter}{self.number}" if fused else f"NUM_{self.parameter}_{self.number}"
        return self.command or self.parameter


def split(line: str) -> list[str]:
    """Tokens of a line: `G1 X3.275 Z0.` -> `G1`, `X`, `NUM_X_3.275`, `Z0.`; words are separated by spaces."""
    tokens = []
    for word in line.split():
        found = WORD.fullmatch(word)
        if not found or word[0] in "GMTN" or not (found[3] or found[5]) or (found[4] and not found[5]):
            tokens.append(word)
        else:
            tokens += [found[1], f"NUM_{found[1]}_{word[1:]}"]
    return tokens


def join(tokens: Iterable[str]) -> str:
    """The line that `split` took apart; special tokens are left out, words are joined by one space."""
    words: list[str] = []
    for token in tokens:
        if token in SPECIAL:
            continue
        if token.startswith("NUM_") and words and words[-1] == token[4:5]:
            words[-1] += token[6:]
        else:
            words.append(token[6:] if token.startswith("NUM_") else token)
    return " ".join(words)


def parse(token: str) -> Token:
    """The token taken apart: `NUM_X_-0.1254` -> number, X, "-", "0", ".", "1254"; `Z0.` is a number as well."""
    if token.startswith("NUM_"):
        found = WORD.fullmatch(token[4:5] + token[6:])
        if found:
            return Token("number", "", *found.groups())
    found = WORD.fullmatch(token)
    if found and token[0] not in "GMTN" and found[4] and not found[5] and found[3]:
        return Token("number", "", *found.groups())
    if found and not found[2] and not found[4] and not found[3]:
        return Token("parameter", parameter=token)
    if found and token[0] in "GM":
        return Token("command", command=token)
    return Token("other", command=token)


def structured(token: str) -> NDArray[np.int64] | None:
    """(type, command, parameter, sign, 2 + 4 digits) of a token as class numbers, -1 where its type has none.

    None for a token that the structured heads cannot say: an unknown command or letter, more digits, a `+`, or a
    number that is not printed in the canonical way (`1.50`, `X1` without a point).
    """
    row = np.full(4 + WHOLE + FRACTION, -1)
    if token == "EOS":
        row[0] = 0
        return row
    parts = parse(token)
    if parts.type == "command" and parts.command in COMMANDS:
        row[:2] = 1, COMMANDS.index(parts.command)
        return row
    if parts.parameter not in PARAMETERS:
        return None
    row[2] = PARAMETERS.index(parts.parameter)
    if parts.type == "parameter":
        row[0] = 2
        return row
    row[0], row[3] = 3, int(parts.sign == "-")
    whole, fraction = parts.whole.rjust(WHOLE, "0"), parts.fraction.ljust(FRACTION, "0")
    if len(whole) > WHOLE or len(fraction) > FRACTION:
        return None
    row[4:] = [int(digit) for digit in whole + fraction]
    return row if unstructured(row) == token else None


def unstructured(row: NDArray[np.int64]) -> str:
    """The token of class numbers (10,): the inverse of `structured`."""
    kind = TYPES[row[0]]
    if kind == "end":
        return "EOS"
    if kind == "command":
        return COMMANDS[row[1]]
    letter = PARAMETERS[row[2]]
    if kind == "parameter":
        return letter
    digits = "".join(str(digit) for digit in row[4:])
    whole, fraction = str(int(digits[:WHOLE])), digits[WHOLE:].rstrip("0")
    return str(Token("number", "", letter, "-" if row[3] else "", whole, ".", fraction))


def published(token: str) -> str:
    """The token of the published scheme: value / step, rounded, cut to 4 characters: `NUM_X_-0.1254` -> `NUM_X_-125`.

    A minus sign counts as a character, so -0.1254 and -1.2541 become one token.
    """
    if not token.startswith("NUM_"):
        return token
    steps = round(float(token[6:]) / STEPS.get(token[4], 1e-3))
    room = CHARACTERS - (steps < 0)
    return f"NUM_{token[4]}_{'-' if steps < 0 else ''}{str(abs(steps)).zfill(room)[:room]}"


class Vocabulary:
    """Token <-> number: the special tokens, then the rest; what it does not hold is UNK."""

    def __init__(self, tokens: Iterable[str]):
        self.tokens = tuple(tokens)
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        if self.tokens[: len(SPECIAL)] != SPECIAL or len(self.ids) != len(self.tokens):
            raise DataError("A vocabulary begins with PAD BOS EOS UNK MASK and has each token once", hint="rebuild it")

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def build(cls, lines: Iterable[str]) -> Vocabulary:
        """The published rule: special tokens, then the tokens of `lines`, frequent ones first, ties by name."""
        counts = Counter(published(token) for line in lines for token in split(line))
        return cls([*SPECIAL, *sorted(counts, key=lambda token: (-counts[token], token))])

    @classmethod
    def open(cls, lines: Iterable[str]) -> Vocabulary:
        """Every token of `lines` with all its digits, sorted."""
        return cls([*SPECIAL, *sorted({token for line in lines for token in split(line)})])

    def encode(self, line: str, *, length: int = LONGEST + 1) -> NDArray[np.int64]:
        """Numbers of the tokens of `line` and EOS, padded to `length` (published vocabulary; unknown ones are UNK)."""
        return self.numbers([published(token) for token in split(line)], length=length)

    def numbers(self, tokens: Iterable[str], *, length: int = LONGEST + 1) -> NDArray[np.int64]:
        """Numbers of `tokens` and EOS, padded to `length`; a longer line loses its end but not its EOS."""
        known = [self.ids.get(token, UNK) for token in tokens][: length - 1]
        return np.array([*known, EOS, *[PAD] * (length - 1 - len(known))])

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Tokens up to EOS, without padding."""
        tokens = []
        for number in numbers:
            if number == EOS:
                break
            if number not in (PAD, BOS):
                tokens.append(self.tokens[number])
        return tokens


def read_corpus(path: Path) -> list[str]:
    """Lines of a file of G-code, stripped; without empty ones."""
    text = decoded(Path(path), content(Path(path), limit=100_000_000))
    lines = [line.strip() for line in text.splitlines()]
    if not any(lines):
        raise fault(path, expected="lines of G-code", found="none", hint="is it the right file?")
    return [line for line in lines if line]


def default() -> Vocabulary:
    """The published vocabulary of 668 tokens, from the list that comes with the weights."""
    from smellkit import paths

    return Vocabulary(read_corpus(paths.weights() / "gcode" / "vocabulary.txt"))
