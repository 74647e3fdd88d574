"""A trained reader with all it needs to read a new recording: weights, scaling, lines, channels; packed and unpacked.

smellkit train gcode-reader --set data=DIR --set protocol=all --name gcode-all
python -m smellkit.gcode.shipping gcode-all data/weights/gcode
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smellkit import checkpoint as weights
from smellkit import runs
from smellkit.errors import WeightsError
from smellkit.gcode import channels, decode, samples, tasks
from smellkit.gcode.channels import OPERATIONS
from smellkit.gcode.data import Scaling
from smellkit.gcode.grammar import Grammar
from smellkit.gcode.hmm import Courses
from smellkit.gcode.tokens import Vocabulary, default
from smellkit.gcode.window_decoder import MachineReader, Recall
from smellkit.options import accepted
from smellkit.runs import Run
from smellkit.study.gcode import protocols as bench

BATCH = 128  # windows at once
LARGE = 10_000  # numbers in a matrix from which it is kept in half precision
COURSES = ("line", "operation", "first")
SHAPE = ("width", "layers", "waves", "structure", "sums")  # options of the task that decide which tensors there are


@dataclass(frozen=True)
class Read:
    """What one window says: the operation, how sure, the line with all its digits, its tokens as published."""

    operation: str
    p: float
    line: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """Sensor rows in, operation and line out."""

    model: MachineReader
    scaling: Scaling
    vocabulary: Vocabulary
    mask: np.ndarray  # (155,) channels in use
    courses: Courses  # of the training recordings

    def inputs(self, values: np.ndarray, categories: np.ndarray) -> tuple[Tensor, Tensor]:
        """Scaled windows (n, 64, 155) and category numbers (n, 64, 4) from raw ones with NaN where nothing was."""
        scaled = self.scaling(values) * self.mask.astype(np.float32)
        return torch.as_tensor(scaled), torch.as_tensor(self.scaling.codes(categories))

    @torch.no_grad()
    def read(self, values: np.ndarray, categories: np.ndarray, *, context: str = "window") -> list[Read]:
        """One `Read` a window; with the `context` "recording" they are all of one recording, and judged together."""
        blocks = [
            self.inputs(values[at : at + BATCH], categories[at : at + BATCH]) for at in range(0, len(values), BATCH)
        ]
        if not blocks:
            return []
        outputs = [self.model.eval().encode(*block)[1] for block in blocks]
        line, operation = (torch.cat([one[name] for one in outputs]).softmax(dim=1) for name in ("line", "operation"))
        if context == "recording":
            line, operation = self.courses(line, operation)
        told = line.split(BATCH)
        rows = torch.cat(
            [decode.decode(self.model, *block, line=own)[0] for block, own in zip(blocks, told, strict=True)]
        )
        texts = decode.lines(self.model.grammar, rows)
        return [
            Read(OPERATIONS[int(chance.argmax())], float(chance.max()), text, self._published(row))
            for row, text, chance in zip(rows, texts, operation, strict=True)
        ]

    def without(self, channel_set: str) -> Reader:
        """The same reader, blind to what a channel set leaves out."""
        return replace(self, mask=self.mask & channels.keep(channel_set))

    def _published(self, row: Tensor) -> tuple[str, ...]:
        numbers = [int(n) for n in torch.where(row == 0, 0, self.model.grammar.published[row])]
        return tuple(self.vocabulary.decode(numbers))


def of(run: Run) -> Reader:
    """The reader of a finished run of `gcode-reader`."""
    options = {name: value for name, value in run.params.items() if name in accepted(tasks.reader)}
    prepared = prepared_of(options)
    return Reader(bench.model_of(run), prepared.scaling, prepared.vocabulary, prepared.mask, prepared.courses())


def pack(run: Run, folder: Path) -> Path:
    """Write the reader of a finished run of `gcode-reader` into `folder`, with what it was trained on."""
    options = {name: value for name, value in run.params.items() if name in accepted(tasks.reader)}
    if options.get("channels", "all") not in ("all", "no-position"):
        raise WeightsError(
            f"The run {run.name!r} standardises whole recordings, which a stream can't", hint="channels=all"
        )
    model = bench.model_of(run)
    prepared = prepared_of(options)
    tensors = {
        f"model.{name}": tensor.half() if tensor.numel() >= LARGE and name.endswith("weight") else tensor
        for name, tensor in model.state_dict().items()
    }
    tensors |= {
        "scaling.centre": torch.as_tensor(prepared.scaling.centre),
        "scaling.spread": torch.as_tensor(prepared.scaling.spread),
    }
    courses = prepared.courses()
    tensors |= {f"courses.{name}": getattr(courses, name).to(torch.int16) for name in COURSES}
    shape = {name: options[name] for name in SHAPE if name in options}
    table = prepared.machine.windows.iloc[prepared.parts.train]
    manifest = {
        "kind": "gcode",
        "model": shape,
        "channels": channels.CONTINUOUS,
        "used": prepared.mask.astype(int).tolist(),
        "operations": OPERATIONS,
        "categories": prepared.scaling.categories,
        "lines": model.grammar.texts,
        "trained_on": {
            "protocol": options.get("protocol", "G"),
            "windows": len(table),
            "recordings": table["recording"].nunique(),
            "scores": run.scores,
        },
        "made": run.stamp,
    }
    return weights.save(folder, tensors, runs.plain(manifest))


def prepared_of(options: dict[str, Any]) -> samples.Prepared:
    """The data of a run of `gcode-reader`, from its options."""
    return samples.prepare(
        options.get("data", ""),
        protocol=options.get("protocol", "G"),
        fold=options.get("fold", 0),
        seed=options.get("split_seed", 7),
        channel_set=options.get("channels", "all"),
        without=options.get("without", ""),
        thin=options.get("thin", 1),
    )


def unpack(folder: Path) -> Reader:
    """The reader in `folder`; WeightsError when it is not one, or one for other channels."""
    tensors, manifest = weights.load(folder, made_by="python -m smellkit.gcode.shipping RUN FOLDER")
    where = str(folder)
    try:
        if tuple(manifest["channels"]) != channels.CONTINUOUS or tuple(manifest["operations"]) != OPERATIONS:
            raise WeightsError(f"{where} reads other channels or operations", hint="train it again")
        categories = tuple(tuple(known) for known in manifest["categories"])
        scaling = Scaling(tensors.pop("scaling.centre").numpy(), tensors.pop("scaling.spread").numpy(), categories)
        courses = Courses(*(tensors.pop(f"courses.{name}") for name in COURSES))
        state = {
            name.removeprefix("model."): tensor.float() if tensor.dtype == torch.half else tensor
            for name, tensor in tensors.items()
        }
        vocabulary = default()
        grammar = Grammar(manifest["lines"], vocabulary)
        keys = state.get("recall.keys")
        recall = None
        if keys is not None:
            recall = Recall(torch.zeros(len(keys), 64, 3), torch.zeros(len(keys), dtype=torch.long), lines=len(grammar))
        spread = scaling.spread[channels.PLACES].tolist()
        model = MachineReader(
            grammar, cardinalities=scaling.cardinalities, spread=spread, recall=recall, **manifest["model"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        raise WeightsError(
            f"{where} holds no reader of G-code: {why!r}", hint="python -m smellkit.gcode.shipping"
        ) from why
    weights.fill(model, state, where=where).eval()
    return Reader(model, scaling, vocabulary, np.array(manifest["used"], dtype=bool), courses)


if __name__ == "__main__":
    print(pack(runs.latest(sys.argv[1]), Path(sys.argv[2])))
