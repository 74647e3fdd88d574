"""A line of G-code as tokens and back without loss, the published vocabulary of 668 tokens, and what a line may be.

The published scheme splits a word with a number into two tokens, `X3.291` -> `X` `NUM_X_3291`, but leaves a word that
ends in a point whole (`Z0.`). Here the number token keeps every digit, `NUM_X_3.291`; `published` cuts it down.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit import paths
from smellkit.checks.report import content, decoded
from smellkit.errors import DataError

Numbers = NDArray[np.int64]
SPECIAL = ("PAD", "BOS", "EOS", "UNK", "MASK")
PAD, BOS, EOS, UNK = range(4)
STEPS = 8  # tokens of the longest line, and its EOS
COMMANDS = ("G0", "G1", "G2", "G3", "G53", "M30")
PARAMETERS = ("X", "Y", "Z", "R", "F", "I", "J", "K", "S", "T")
HEADS = {"type": 4, "command": len(COMMANDS), "parameter": len(PARAMETERS), "sign": 2} | {
    f"digit{number}": 10 for number in range(6)
}  # the structured heads and their classes; types are end, command, parameter, number
SIZES = list(HEADS.values())
OUTPUTS = sum(SIZES)  # 82
RESOLUTION = dict.fromkeys("XYZABCPQ", 0.001) | dict.fromkeys("IJKRE", 0.0001) | {"F": 1.0, "S": 10.0}
CHARACTERS = 4  # that the published scheme keeps of a number, a minus sign among them
NUMBERED = re.compile(r"([A-FH-LO-SU-Z])([-+]?(?:\d*\.)?\d+)")  # a word that is two tokens
CANONICAL = re.compile(r"([XYZRFIJKS])(-?)(0|[1-9]\d?)\.((?:\d{0,3}[1-9])?)")  # what the digits can express
PLAIN = re.compile(r"(?:[A-Z]\s*[-+]?\s*(?:\d+\.?\d*|\.\d+)\s*)+")  # a line of words, in any spelling
SPELLED = re.compile(r"([A-Z])\s*([-+]?)\s*(\d*)\.?(\d*)")
CODES = "GMTSNOHDLP"  # letters of whole numbers, which have no point
DIALECT = {  # what a program may hold beside its words -> what it looks like
    "comments": re.compile(r"\([^)]*\)?|;.*"),
    "checksums": re.compile(r"\*\s*\d+\s*$"),
    "block deletes": re.compile(r"^\s*/\d?"),
    "line numbers": re.compile(r"^\s*[Nn]\s*\d+(?=\s|[A-Za-z]|$)"),
    "per cent signs": re.compile(r"^\s*%.*"),
}


def normalise(line: str) -> tuple[str, tuple[str, ...]]:
    """A line as the kit spells it, and what of its dialect went on the way: `n10 g01x.50*71` -> `G1 X0.5`.

    Words are upper case with one space between them, codes without leading zeros, other numbers with a point and
    without zeros that say nothing. Comments, line numbers, checksums and `%` go. What is no line of words stays.
    """
    text, dialect = line.strip(), []
    for name, pattern in DIALECT.items():
        text, count = pattern.subn(" ", text)
        dialect += [name] * bool(count)
    upper = text.upper().strip()
    if not upper or not PLAIN.fullmatch(upper):
        return (line.strip(), ()) if upper else ("", tuple(dialect))
    spelled = " ".join(_spelled(*word) for word in SPELLED.findall(upper))
    dialect += ["lower case"] * (text.strip() != upper)
    if spelled != upper:
        dialect.append("blanks" if spelled.replace(" ", "") == upper.replace(" ", "") else "numbers")
    return spelled, tuple(dialect)


def _spelled(letter: str, sign: str, whole: str, fraction: str) -> str:
    """One word: `G`, ``, `01`, `` -> `G1`; `X`, `-`, ``, `50` -> `X-0.5`."""
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    minus = "-" if sign == "-" and (whole, fraction) != ("0", "") else ""
    point = "" if letter in CODES and not fraction else "."
    return f"{letter}{minus}{whole}{point}{fraction}"


def split(line: str) -> list[str]:
    """Tokens of a line: `G1 X3.275 Z0.` -> `G1`, `X`, `NUM_X_3.275`, `Z0.`; words are separated by spaces."""
    tokens: list[str] = []
    for word in line.split():
        match = NUMBERED.fullmatch(word)
        tokens += [match[1], f"NUM_{match[1]}_{match[2]}"] if match else [word]
    return tokens


def join(tokens: Iterable[str]) -> str:
    """The line that `split` took apart; special tokens are left out, words are joined by one space."""
    line = " ".join(token for token in tokens if token not in SPECIAL)
    return re.sub("NUM_[A-Z]_", "", re.sub(r"\b([A-Z]) (?=NUM_\1_)", r"\1", line))


def structured(token: str) -> Numbers:
    """(type, command, parameter, sign, 2 + 4 digits) of a token as class numbers, -1 where its type has none.

    Nothing but -1 for a token that the structured heads can't express: an unknown command or letter, more digits, a
    `+`, or a number that is not printed in the canonical way (`1.50`, `X1` without a point).
    """
    row = np.full(len(HEADS), -1)
    if token == "EOS":
        row[0] = 0
    elif token in COMMANDS:
        row[:2] = 1, COMMANDS.index(token)
    elif token in PARAMETERS:
        row[[0, 2]] = 2, PARAMETERS.index(token)
    elif match := CANONICAL.fullmatch(re.sub("NUM_(.)_", r"\1", token)):
        letter, minus, whole, fraction = match.groups()
        digits = [int(digit) for digit in whole.rjust(2, "0") + fraction.ljust(4, "0")]
        row[[0, 2, 3]], row[4:] = (3, PARAMETERS.index(letter), bool(minus)), digits
    return row


def published(token: str) -> str:
    """The token of the published scheme: value / step, rounded, cut to 4 characters: `NUM_X_-0.1254` -> `NUM_X_-125`.

    A minus sign counts as a character, so -0.1254 and -1.2541 become one token.
    """
    if not token.startswith("NUM_"):
        return token
    steps = round(float(token[6:]) / RESOLUTION.get(token[4], 1e-3))
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

    def encode(self, line: str) -> Numbers:
        """Numbers (8,) of the tokens of `line` as published, and of EOS, padded; unknown tokens are UNK."""
        return self.numbers(map(published, split(line)))

    def numbers(self, tokens: Iterable[str]) -> Numbers:
        """Numbers (8,) of `tokens` and EOS, padded; a longer line loses its end but not its EOS."""
        known = [self.ids.get(token, UNK) for token in tokens][: STEPS - 1]
        return np.array([*known, EOS, *[PAD] * (STEPS - 1 - len(known))])

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Tokens up to EOS, without padding."""
        line = takewhile(lambda number: number != EOS, numbers)
        return [self.tokens[number] for number in line if number not in (PAD, BOS)]


@cache
def default() -> Vocabulary:
    """The published vocabulary of 668 tokens, from the list that comes with the weights."""
    path = paths.weights() / "gcode" / "vocabulary.txt"
    return Vocabulary(decoded(path, content(path)).split())


class Grammar(nn.Module):
    """Known lines as tables, walked like a trie.

    `tokens` (L, 8) are the open tokens of each line, `fields` (V, 10) class numbers of the structured heads (-1: this
    head says nothing of the token), `one_hot_fields` (V, 82) the same as ones and zeros, `published` (V,) numbers in
    the published vocabulary.
    """

    def __init__(self, lines: Sequence[str]):
        super().__init__()
        self.texts = tuple(lines)
        self.vocabulary = Vocabulary([*SPECIAL, *sorted({token for line in lines for token in split(line)})])
        names = self.vocabulary.tokens
        table = torch.as_tensor(np.array([self.vocabulary.numbers(split(line)) for line in lines])).view(-1, STEPS)
        fields = torch.as_tensor(np.array([structured(name) for name in names]))
        heads = zip(fields.T, SIZES, strict=True)
        ones = [F.one_hot(own.clamp(min=0), size) * (own >= 0)[:, None] for own, size in heads]
        known = torch.tensor([default().ids.get(published(name), UNK) for name in names])
        tables = [nn.Buffer(t, persistent=False) for t in (table, fields, torch.cat(ones, dim=1).float(), known)]
        self.tokens, self.fields, self.one_hot_fields, self.published = tables

    def __len__(self) -> int:
        return len(self.texts)

    def head_log_probs(self, logits: Tensor) -> Tensor:
        """Log-probability of every token, (..., V), from structured heads (..., 82): the sum over the heads it has."""
        pieces = torch.split(logits, SIZES, dim=-1)
        return torch.cat([piece.log_softmax(dim=-1) for piece in pieces], dim=-1) @ self.one_hot_fields.T

    def published_tokens(self, tokens: Tensor) -> Tensor:
        """Numbers in the published vocabulary of open tokens (..., 8); padding stays padding."""
        return torch.where(tokens == PAD, PAD, self.published[tokens])

    def texts_of(self, tokens: Tensor) -> list[str]:
        """The text of decoded open tokens (batch, 8)."""
        return [join(self.vocabulary.decode(row)) for row in tokens.tolist()]
