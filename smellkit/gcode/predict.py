"""Name what a machine was doing in recorded files, and while it runs.

Trained weights are read by `load`; `smellkit/study/gcode/release.py` makes them of a run.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smellkit import checkpoint, export, options, paths
from smellkit.checks import Report
from smellkit.checks.ranges import Ranges, outside
from smellkit.errors import DataError, OptionError, WeightsError
from smellkit.gcode import data, recordings
from smellkit.gcode.data import LENGTH, STRIDE, Scaling
from smellkit.gcode.hmm import ProgramHMM
from smellkit.gcode.recordings import CATEGORICAL, CHANNELS, CONTINUOUS, FROZEN, OPERATIONS, POSITION_COLUMNS
from smellkit.gcode.tokens import Grammar, default
from smellkit.gcode.window_decoder import PathKNN, Shape, WindowDecoder

BATCH = 128  # windows at once
CHECKED = 30  # windows on which ONNX Runtime must say what torch says
HMM = ("line", "operation", "first")
GAP = 8  # rows: 2 seconds
UNITS = "bring the channels to the units of the training recordings"
MADE_BY = "python -m smellkit.study.gcode.release RUN FOLDER"


@dataclass(frozen=True)
class LinePrediction:
    """What one window was: the operation, its probability, the line with all its digits, its tokens as published."""

    operation: str
    p: float
    line: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class LinePredictor:
    """Sensor rows in, operation and line out: a model with all it needs to read a new recording."""

    model: WindowDecoder
    scaling: Scaling
    mask: np.ndarray  # (155,) channels in use
    hmm: ProgramHMM  # of the training recordings
    ranges: Ranges | None = None  # of the channels in them

    @torch.no_grad()
    def predict(self, windows: np.ndarray, *, context: str = "window") -> list[LinePrediction]:
        """One prediction a window, from raw rows (n, 64, 159) with NaN where nothing was.

        With the `context` "recording" all are of one recording, and judged together; with "run" that is one whole run.
        """
        if not len(windows):
            return []
        blocks = []
        for block in torch.as_tensor(with_whole_positions(windows)).split(BATCH):
            scaled, codes = self.scaling(block)
            blocks.append(self.model.eval().encode(scaled * torch.as_tensor(self.mask), codes))
        line, operation = (torch.cat([one[name] for one in blocks]).softmax(dim=1) for name in ("line", "operation"))
        if context != "window":
            seen = torch.cat([one["seen"] for one in blocks])
            line, operation = self.hmm(line, operation, seen=seen, run=context == "run")
        grammar, likeliest, best = self.model.grammar, line.argmax(dim=1), operation.max(dim=1)
        tokens = grammar.published_tokens(grammar.tokens[likeliest]).tolist()
        names = [OPERATIONS[number] for number in best.indices.tolist()]
        lines = [grammar.texts[number] for number in likeliest.tolist()]
        return list(
            map(LinePrediction, names, best.values.tolist(), lines, [tuple(default().decode(t)) for t in tokens])
        )

    def without(self, channel_set: str) -> LinePredictor:
        """The same predictor, blind to what a channel set leaves out."""
        return replace(self, mask=self.mask & recordings.channel_mask(channel_set))


def with_whole_positions(windows: np.ndarray) -> np.ndarray:
    """The windows (n, 64, 159) with a position in each row or in none: half of one names the wrong line.

    Up to `GAP` rows in a row that lack an axis are interpolated; with more of them the window's position is hidden.
    """
    windows = np.array(windows, np.float32)
    gone = np.isnan(windows[..., POSITION_COLUMNS]).any(axis=2)
    for window in np.flatnonzero(gone.any(axis=1)):
        known = np.flatnonzero(~gone[window])
        hidden = np.diff([-1, *known, LENGTH]).max() > GAP + 1
        for column in POSITION_COLUMNS:
            values = windows[window, :, column]
            values[:] = np.nan if hidden else np.interp(np.arange(LENGTH), known, values[known])
    return windows


def gcode(
    folder: Path, *, weights: Path, out: Path, channels: str = "all", context: str = "recording", skip: bool = False
) -> str:
    """Write one row a window of 64 rows, every 16: file, start (row), operation, p, line, tokens; say what happened.

    `line` has all its digits; `tokens` are those of the published vocabulary, UNK where it has none, without EOS.
    `channels=no-position` hides the machine position. The windows of a recording are judged together, as one run of a
    known program, or with `context=run` as one whole run of it, first line to last, which its length gives away; with
    `context=window` each by itself, as a stream has to. `skip` leaves out what can't be read.
    """
    options.check([context], ["window", "recording", "run"], "There is no context")
    if channels in ("no-position-z", "centred"):
        raise OptionError(f"The weights read raw channels, not {channels!r}", hint="all or no-position")
    predictor, report = load(weights).without(channels), Report()
    machine = data.load(folder, labels=False, skip=skip, report=report)
    machine = _known(machine, predictor.ranges, skip=skip, report=report)
    names = {recordings.name_of(path): path.name for path in recordings.files(recordings.find(folder))}
    _tell_gaps(machine, names, report)
    with paths.replacing(Path(out)) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "start", "operation", "p", "line", "tokens"])
        for (name, _), rows in machine.windows.groupby(["recording", "part"], sort=True):
            predictions = predictor.predict(machine.take(rows["row"]), context=context)
            for start, one in zip(rows["file_row"], predictions, strict=True):
                tokens = " ".join(one.tokens)
                writer.writerow([paths.cell(names[str(name)]), start, one.operation, f"{one.p:.4f}", one.line, tokens])
    short = len(names) - len(report.skipped) - machine.windows["recording"].nunique()
    left = f"; {len(report.skipped)} files skipped" if report.skipped else ""
    left += f"; {short} recordings shorter than {LENGTH} rows" if short else ""
    return f"{out}: {len(machine)} windows of {machine.windows['recording'].nunique()} recordings{left}"


def _tell_gaps(machine: data.Machine, names: dict[str, str], report: Report) -> None:
    """Say in which files windows hold rows without any sensor, or without a whole position."""
    rows = machine.windows["row"].to_numpy()[:, None] + np.arange(LENGTH)
    axes = np.isnan(machine.values[:, POSITION_COLUMNS])[rows]  # (windows, 64, 3)
    half = axes.any(axis=(1, 2)) & (not axes.all())
    for what, mask in (
        ("windows with rows that have no sensor: their answers say little", ~machine.windows["has_sensors"]),
        (f"windows with rows that lack a position: filled in, or hidden beyond {GAP} rows", half),
    ):
        for name, count in machine.windows.loc[mask, "recording"].value_counts(sort=False).items():
            report.tell(names[str(name)], what, count)


def _known(machine: data.Machine, ranges: Ranges | None, *, skip: bool, report: Report) -> data.Machine:
    """Without recordings in another unit than those of training, which are refused, or with `skip` left out."""
    names = machine.windows["recording"]
    for name, rows in machine.windows.groupby("recording"):
        values = machine.values[rows["row"].min() : rows["row"].max() + LENGTH, : len(CONTINUOUS)]
        if what := outside(values, ranges):
            why = DataError(f"{name}: {what}", hint=UNITS)
            if not skip:
                raise why
            report.skip(str(name), why)
    if names.isin(report.skipped).all():
        raise DataError("No recording can be used", hint="; ".join(report.skipped.values())[:300])
    return machine.chosen(~names.isin(report.skipped))


class Stream:
    """Rows in, one `LinePrediction` out every 16 rows once 64 have been seen; memory does not grow.

    >>> stream = Stream(load(paths.weights() / "gcode"))
    >>> for row in machine:  # a dict by channel name, or 155 continuous and 4 categorical values
    ...     prediction = stream.push(row)
    """

    def __init__(self, predictor: LinePredictor, *, stride: int = STRIDE):
        self.predictor, self.stride, self.seen = predictor, stride, 0
        # the last rows as they came: a window, and before it what tells a dead node
        self._rows = np.full((FROZEN + LENGTH, len(CHANNELS)), np.nan, np.float32)

    def push(self, row: dict[str, float] | Sequence[float]) -> LinePrediction | None:
        """Take one row; what is absent or not a number is missing. Every `stride` rows, judge the last 64."""
        self._rows = np.vstack([self._rows[1:], _row(row)])
        self.seen += 1
        if self.seen < LENGTH or (self.seen - LENGTH) % self.stride:
            return None
        rows = self._rows.copy()
        recordings.mark_frozen(rows)
        if what := outside(rows[FROZEN:, : len(CONTINUOUS)], self.predictor.ranges):
            raise DataError(f"Row {self.seen}: {what}", hint=UNITS)
        return self.predictor.predict(rows[None, FROZEN:])[0]


def _row(row: dict[str, float] | Sequence[float]) -> np.ndarray:
    if isinstance(row, dict):
        options.check(list(row)[: not row.keys() & set(CHANNELS)], CHANNELS, "None of the channels is known, such as")
        row = [row.get(name, np.nan) for name in CHANNELS]
    if len(row) != len(CHANNELS):
        raise DataError(f"A row of {len(row)} values", hint=f"{len(CONTINUOUS)} channels and {len(CATEGORICAL)} states")
    try:
        values = np.array([np.nan if value is None else value for value in row], dtype=np.float32)
    except (TypeError, ValueError) as why:
        raise DataError(f"A row holds a cell that is not a number: {why}", hint="leave absent channels out") from why
    values[~np.isfinite(values)] = np.nan
    return values


def load(folder: Path) -> LinePredictor:
    """The predictor in `folder`; WeightsError when it is not one, or one for other channels."""
    tensors, manifest = checkpoint.load(folder, made_by=MADE_BY)
    tensors = {name: tensor.float() if tensor.dtype == torch.half else tensor for name, tensor in tensors.items()}
    try:
        used = np.array(manifest["used"], dtype=bool)
        known = tuple(manifest["channels"]), tuple(manifest["operations"]), used.shape
        if known != (CONTINUOUS, OPERATIONS, (len(CONTINUOUS),)):
            raise WeightsError(f"{folder} reads other channels or operations", hint="train it again")
        scaling = Scaling(tensors.pop("scaling.centre"), tensors.pop("scaling.spread"), manifest["categories"])
        hmm = ProgramHMM(*(tensors.pop(f"hmm.{name}") for name in HMM))
        state = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        grammar, keys, path_knn = Grammar(manifest["lines"]), state.get("path_knn.keys"), None
        if keys is not None:  # as many empty paths, to be filled; kept in hundredths of a mm
            state["path_knn.keys"] = keys / 100
            none = torch.zeros(len(keys)).long()
            path_knn = PathKNN(torch.zeros(len(keys), LENGTH, 3), none, none.bool())
        model = WindowDecoder(grammar, scaling, Shape(**manifest["model"]), path_knn=path_knn)
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        raise WeightsError(f"{folder} holds no decoder of G-code: {why!r}", hint=MADE_BY) from why
    checkpoint.fill(model, state, where=str(folder)).eval()
    return LinePredictor(model, scaling, used, hmm, Ranges.of(manifest))


class RawWindow(nn.Module):
    """Rows (1, 64, 159), NaN where nothing was -> p(operation) (1, 9), open tokens (1, 8)."""

    def __init__(self, predictor: LinePredictor):
        super().__init__()
        self.model, self.scaling = predictor.model, predictor.scaling
        self.mask = nn.Buffer(torch.as_tensor(predictor.mask))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scaled, codes = self.scaling(rows)
        outputs = self.model.encode(scaled * self.mask, codes)
        return outputs["operation"].softmax(dim=1), self.model.grammar.tokens[outputs["line"].argmax(dim=1)]


def onnx(weights: Path, *, out: Path) -> str:
    """Write the decoder in the folder `weights` as ONNX to `out`; see `export`."""
    predictor, random = load(weights), np.random.default_rng(0)
    examples = [(example(predictor, random),) for _ in range(CHECKED)]
    whole = RawWindow(predictor).eval()
    return export.onnx(whole, out, examples=examples, inputs=["rows"], outputs=["operation", "tokens"], each="window")


def example(predictor: LinePredictor, random: np.random.Generator) -> Tensor:
    """A raw window (1, 64, 159) of plausible values, some of them missing."""
    scaling = predictor.scaling
    values = scaling.centre.numpy() + scaling.spread.numpy() * random.normal(0, 1, (LENGTH, len(CONTINUOUS)))
    values[:, random.random(len(CONTINUOUS)) < 0.2] = np.nan
    states = [[random.choice(known or (0.0,)) for known in scaling.categories]] * LENGTH
    return torch.as_tensor(np.hstack([values, states])[None], dtype=torch.float32)
