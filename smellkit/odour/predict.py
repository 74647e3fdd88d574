"""`smellkit predict DIR --weights odour`: the likeliest substances of every window and every recording, as CSV.

Columns: file, window, start, top1..top5, p1..p5. `window` counts from 0, `start` is its first row in the file, p are
calibrated probabilities. Window -1 stands for the whole recording (start 0). With `answer` there is one more column:
top1, or "abstain" where the distribution is too flat to act upon.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from smellkit import checkpoint as weights
from smellkit import paths
from smellkit.checks import read_table
from smellkit.errors import DataError, SmellkitError, WeightsError
from smellkit.odour.confidence import ABSTAIN, Confidence, decide
from smellkit.odour.encoder import Encoder, make, renamed
from smellkit.odour.recordings import SPANS
from smellkit.odour.windows import Protocol

log = logging.getLogger(__name__)
SHOWN = 5


@dataclass(frozen=True)
class Recogniser:
    """A trained encoder with all that it needs: protocol, class names, calibration."""

    network: Encoder
    protocol: Protocol
    classes: tuple[str, ...]
    calibration: Confidence

    @classmethod
    def load(cls, folder: Path | None = None) -> Recogniser:
        """From a folder of weights, by default those that come with the kit; WeightsError when they do not fit."""
        folder = Path(folder) if folder is not None else paths.weights() / "odour"
        tensors, manifest = weights.load(folder)
        try:
            described = manifest["protocol"]
            protocol = Protocol(**{**described, "columns": tuple(described["columns"])})
            classes = tuple(manifest["classes"])
            shape = (protocol.steps, len(protocol.columns))
            network = make(manifest["model"], shape, classes=len(classes), **manifest.get("options", {}))
            learnt = Confidence.of(manifest["calibration"])
        except (KeyError, TypeError, AttributeError) as why:
            raise WeightsError(
                f"{folder} / manifest.json does not describe an odour encoder: {why}", hint="use data/weights/odour"
            ) from why
        weights.fill(network, renamed(tensors), where=str(folder))
        return cls(network.eval(), protocol, classes, learnt)

    def recognise(self, values: NDArray, *, stride: int = 0) -> NDArray[np.float64]:
        """Calibrated probabilities (windows, classes) of a recording `values` (rows, channels of the protocol)."""
        return self.probabilities(self.scores(self.protocol.windows(values, stride=stride)))

    @torch.no_grad()
    def scores(self, windows: NDArray, *, batch: int = 512) -> NDArray[np.float64]:
        """Log-probabilities (windows, classes), not yet calibrated, of what `Protocol.windows` made."""
        parts = torch.from_numpy(np.asarray(windows, np.float32)).split(batch)
        found = [self.network({"window": part})["logits"].log_softmax(1) for part in parts if len(part)]
        return torch.cat(found).double().numpy() if found else np.zeros((0, len(self.classes)))

    def probabilities(self, scores: NDArray) -> NDArray[np.float64]:
        """Calibrated probabilities of log-probabilities."""
        return softmax(scores / self.calibration.temperature, axis=-1)

    @torch.no_grad()
    def channels(self, values: NDArray, *, stride: int = 0) -> NDArray[np.float64]:
        """The odour channels z (windows, 50) of a recording, for the stages that follow."""
        windows = torch.from_numpy(self.protocol.windows(values, stride=stride))
        return self.network({"window": windows})["z"].double().numpy()


def odour(folder: Path, *, weights: Path, out: Path, stride: int = 50, answer: bool = False) -> str:
    """Predict every CSV under `folder` into the CSV `out`, windows every `stride` rows, and return what happened.

    A file that can't be read, or is too short for a window, is left out and named in the answer. DataError when there
    is no CSV, or none can be used.
    """
    if stride < 1:
        raise DataError(f"A stride of {stride} rows", hint="at least 1; the protocol's is 50")
    recogniser = Recogniser.load(weights)
    rows, refused = [], {}
    files = _files(Path(folder))
    for name, path in files:
        try:
            rows += list(_rows(name, _values(path, recogniser.protocol), recogniser, stride))
        except SmellkitError as why:
            refused[name] = why.what
            log.warning("%s is left out: %s", path, why.what)
    if not rows:
        first = next(iter(refused.items()))
        raise DataError(f"None of {len(files)} CSV files can be used; {first[0]}: {first[1]}", hint="mend the files")
    table = pd.DataFrame(rows, columns=_columns(len(recogniser.classes)))
    silent = int((table["answer"][table["window"] == -1] == "abstain").sum())
    if not answer:
        table = table.drop(columns="answer")
    with paths.replacing(Path(out)) as part:
        table.to_csv(part, index=False, float_format="%.6f")
    whole = table[table["window"] == -1]
    text = f"{out}: {len(table) - len(whole)} windows of {len(whole)} recordings; {silent} recordings too flat to name"
    return text + "".join(f"\n  left out {name}: {why}" for name, why in refused.items())


def _rows(name: str, values: NDArray, recogniser: Recogniser, stride: int) -> Iterator[list]:
    scores = recogniser.scores(recogniser.protocol.windows(values, stride=stride))
    limits = recogniser.calibration.thresholds
    whole = scores.mean(0, keepdims=True)
    for number, part in enumerate(np.concatenate([scores, whole])):
        window, start = (number, number * stride) if number < len(scores) else (-1, 0)
        p = recogniser.probabilities(part[None])
        best = np.argsort(-p[0], kind="stable")[:SHOWN]
        answer = int(decide(p, limits)[0])
        names = [recogniser.classes[i] for i in best]
        yield [name, window, start, *names, *p[0][best], "abstain" if answer == ABSTAIN else recogniser.classes[answer]]


def _values(path: Path, protocol: Protocol) -> NDArray:
    spans = {name: SPANS[name] for name in protocol.columns}
    values = read_table(path, columns=spans, first_row="drop")[list(protocol.columns)].to_numpy(np.float32)
    if len(values) < protocol.span:
        raise DataError(f"{len(values)} rows are fewer than the {protocol.span} of one window", hint="record longer")
    return values


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Name and path of every CSV below `folder`, sorted; a single file is its own list."""
    if folder.is_file():
        return [(folder.name, folder)]
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", hint="a folder with CSV recordings in it, at any depth")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".csv" and path.is_file())
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not found:
        raise DataError(f"No CSV file in {folder}", hint="recordings as CSV, at any depth")
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def _columns(classes: int) -> list[str]:
    ranks = range(1, min(SHOWN, classes) + 1)
    return ["file", "window", "start", *(f"top{i}" for i in ranks), *(f"p{i}" for i in ranks), "answer"]
