"""Lines and tokens: nothing lost, and the published vocabulary to the letter."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smellkit import paths
from smellkit.checks import Report
from smellkit.errors import DataError
from smellkit.gcode import recordings, tokens

REAL = Path(os.environ.get("SMELLKIT_DATA", "")) / "gcode_fingerprint"
real = pytest.mark.skipif(not (REAL / "vocab_corpus.gcode").exists(), reason="SMELLKIT_DATA has no gcode_fingerprint")
WORD = st.from_regex(r"[A-Z][-+]?[0-9]{1,4}(\.[0-9]{0,5})?", fullmatch=True)


@given(st.lists(WORD, min_size=1, max_size=6))
def test_a_line_survives_its_tokens(words):
    line = " ".join(words)
    assert tokens.join(tokens.split(line)) == line


@given(st.sampled_from("XYZRF"), st.integers(-999_999, 999_999))
def test_a_canonical_number_survives_its_digits(letter, value):
    text = f"{value / 10_000:.4f}".rstrip("0")
    *_, number = tokens.split(f"{letter}{'0.' if text == '-0.' else text}")
    kind, _, parameter, sign, *digits = tokens.structured(number)
    assert (kind, tokens.PARAMETERS[parameter]) == (3, letter)
    assert int("".join(map(str, digits))) * (-1 if sign else 1) == value


def test_what_the_heads_cannot_express_is_refused_not_changed():
    for token in ("T2", "NUM_X_1.50", "NUM_S_12000", "NUM_X_+1.5", "NUM_X_1.23456", "UNK"):
        assert (tokens.structured(token) == -1).all()


def test_published_numbers_are_cut_to_four_characters_so_that_two_collide():
    assert tokens.published("NUM_X_-0.1254") == tokens.published("NUM_X_-1.2541") == "NUM_X_-125"
    assert tokens.published("NUM_R_0.083") == "NUM_R_0830" and tokens.published("NUM_F_7.3") == "NUM_F_0007"
    assert tokens.published("Z0.") == "Z0."


def test_an_unknown_token_becomes_unk_and_a_long_line_keeps_its_eos():
    vocabulary = built(["X1.5 Y2.5"])
    assert vocabulary.decode(vocabulary.encode("X1.5 Y9.9")) == ["X", "NUM_X_1500", "Y", "UNK"]
    assert vocabulary.encode("X1.5 Y2.5 " * 4)[-1] == tokens.EOS


def test_a_vocabulary_with_a_token_twice_is_refused():
    with pytest.raises(DataError, match="once"):
        tokens.Vocabulary([*tokens.SPECIAL, "X", "X"])


def test_the_vocabulary_that_comes_with_the_kit_has_the_published_size():
    assert len(tokens.default()) == 668


def built(lines):
    """The published rule: special tokens, then the tokens of `lines`, frequent ones first, ties by name."""
    counts = Counter(tokens.published(token) for line in lines for token in tokens.split(line))
    return tokens.Vocabulary([*tokens.SPECIAL, *sorted(counts, key=lambda token: (-counts[token], token))])


def corpus():
    lines = (REAL / "vocab_corpus.gcode").read_text().splitlines()
    return [text for text, _ in map(tokens.normalise, lines) if text]


@real
def test_the_published_vocabulary_is_rebuilt_exactly():
    rebuilt = built(corpus())
    theirs = json.loads((REAL / "vocabulary_4digit_hybrid.json").read_text())["vocab"]
    assert rebuilt.ids == theirs
    assert tokens.default().tokens == rebuilt.tokens


@real
def test_every_real_line_survives_its_tokens():
    lines = set(corpus())
    assert all(tokens.join(tokens.split(line)) == line for line in lines)
    assert all(tokens.structured(token)[0] >= 0 for line in lines for token in tokens.split(line))


def test_decoding_stops_at_eos():
    vocabulary = built(["G0 Z0."])
    assert vocabulary.decode(np.array([*vocabulary.encode("G0"), 5, 6])) == ["G0"]


SPELLINGS = {
    "g1x1.5": "G1 X1.5",
    "G01 X1.5": "G1 X1.5",
    "N10 G1 X1.5*71": "G1 X1.5",
    "G1 X1.5 (pass 2)": "G1 X1.5",
    "G1 X1.5 ; pass 2": "G1 X1.5",
    "(pass 2) g 1  x +1.50": "G1 X1.5",
    "/N0010G01X01.500M03": "G1 X1.5 M3",
    "X.5 Y-.25 Z-0.0": "X0.5 Y-0.25 Z0.",
    "G1 X2 F22 S12000. T02": "G1 X2. F22. S12000 T2",
    "G28.1 Z0.": "G28.1 Z0.",
    "%": "",
    "(only a comment": "",
    "; only a comment": "",
    "N20": "",
    "O0001": "O1",
    "#100 = 3": "#100 = 3",
}


@pytest.mark.parametrize("line", SPELLINGS)
def test_a_line_is_the_same_in_every_dialect(line):
    text, dialect = tokens.normalise(line)
    assert text == SPELLINGS[line] and tokens.normalise(text)[0] == text
    assert bool(dialect) == (text != line)


def test_a_recording_in_another_dialect_is_the_same_recording(tmp_path):
    path = tmp_path / "face_001.parquet"
    table = pd.read_parquet(paths.sample() / "gcode/face_001.parquet")
    table.to_parquet(path)
    expected = recordings.read_one(path)["line"]
    words = table["gcode_string"].dropna()
    numbers = pd.Series(words.index.astype(str), index=words.index)
    table["gcode_string"] = "n" + numbers + words.str.lower().str.replace("g", "g0").str.replace(" ", "") + "*7"
    table.to_parquet(path)
    report = Report()
    assert recordings.read_one(path, report=report)["line"].equals(expected)
    assert "lower case" in str(report) and "line numbers" in str(report) and "checksums" in str(report)
