"""Anybody's predictions on the official split: complete, scored by recording, and beside them another session."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from smellkit.cli import cli
from smellkit.errors import DataError
from smellkit.study import evaluate
from smellkit.study.odour import leaderboard


def table(path, *, windows=True, right=1.0, splits=("testing",), drop=()):
    """Predictions for every recording of `splits`: the first share `right` of them names the substance."""
    rows = []
    known = leaderboard.known()
    for split in splits:
        own, count = known[known["split"] == split], leaderboard.WINDOWS[split] * windows
        for number, (name, one) in enumerate(own.iterrows()):
            first = one["substance"] if number < right * len(own) else "nothing"
            for window in [*range(count // len(own) + (number < count % len(own))), -1]:
                rows.append((f"{one['substance']}/{name}", window, first, "a", "b", "c", one["substance"]))
    made = pd.DataFrame(rows, columns=["file", "window", *leaderboard.RANKS]).drop(columns=list(drop))
    made.to_csv(path, index=False)
    return path


def test_predictions_are_scored_by_window_and_by_recording_with_intervals(tmp_path):
    scores = leaderboard.score(table(tmp_path / "a.csv", right=0.5, splits=("testing", "online_spices")))
    scores = {split: evaluate.scores([one]) for split, one in scores.items()}
    whole = scores["test, recording"]
    assert whole["top1"]["value"] == pytest.approx(0.5)
    assert whole["top1"]["low"] < 0.5 < whole["top1"]["high"]
    assert whole["top5"]["value"] == 1 and scores["test, window"]["answers"] == 502
    assert scores["other_session, recording"]["top1"]["value"] == pytest.approx(7 / 13)


def test_recordings_alone_are_enough(tmp_path):
    scores = leaderboard.score(table(tmp_path / "a.csv", windows=False, drop=["window", "top5"]))
    assert set(scores) == {"test, recording"} and set(scores["test, recording"].measures) == {"top1"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[rows["file"] != rows["file"][0]], "1 of 50 recordings have no"),
        (lambda rows: rows[~((rows["file"] == rows["file"][0]) & (rows["window"] == 1))], "501 windows of testing"),
        (lambda rows: rows[rows["window"] < 5], "250 windows of testing, where there are 502"),
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "each window once"),
        (
            lambda rows: rows.assign(file=["a/b.csv", *rows["file"][1:]]),
            "line 2, column 'file': .*a recording of SmellNet",
        ),
        (lambda rows: rows.assign(window=["x", *rows["window"][1:]]), "line 2, column 'window'"),
        (lambda rows: rows.drop(columns="top1"), "top1"),
    ],
)
def test_what_is_missing_unknown_or_twice_is_named(tmp_path, change, said):
    path = table(tmp_path / "a.csv")
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(DataError, match=said):
        leaderboard.score(path)


def test_a_submission_stands_on_the_leaderboard_and_nobody_replaces_another_s(tmp_path):
    out, file = tmp_path / "board.json", str(table(tmp_path / "a.csv"))
    how = ["submit", file, "--json", str(out), "--name", "mine"]
    done = CliRunner().invoke(cli, [*how, "--by", "me"], catch_exceptions=False)
    assert "test, window: top1 100.0" in done.output and "another session" in done.output
    row = json.loads(out.read_text())["rows"]["mine"]
    assert row["settings"]["by"] == "me" and len(row["settings"]["sha256"]) == 64
    with pytest.raises(DataError, match="by me"):
        CliRunner().invoke(cli, [*how, "--by", "you"], catch_exceptions=False)
