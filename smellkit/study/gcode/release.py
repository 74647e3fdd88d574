"""A trained run of the window decoder as weights that `smellkit.gcode.predict` reads.

smellkit train gcode-window-decoder --set data=DIR --set protocol=all --name gcode-all
python -m smellkit.study.gcode.release gcode-all data/weights/gcode
"""

import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from smellkit import checkpoint, runs
from smellkit.errors import WeightsError
from smellkit.gcode.hmm import ProgramHMM
from smellkit.gcode.predict import HMM, LinePredictor
from smellkit.gcode.recordings import CONTINUOUS, OPERATIONS
from smellkit.gcode.window_decoder import Shape
from smellkit.options import task_of
from smellkit.runs import Run
from smellkit.study import ranges
from smellkit.study.gcode.splits import Prepared
from smellkit.study.gcode.task import WindowDecoderTask, model_of

LARGE = 10_000  # numbers in a matrix from which it is kept in half precision


def program_hmm(prepared: Prepared) -> ProgramHMM:
    """The lines and operations of the training recordings, window after window."""
    table = prepared.machine.windows.iloc[prepared.parts.train]
    line, first = prepared.numbers[table["line"]], table["recording"] != table["recording"].shift()
    return ProgramHMM(*(torch.tensor(np.asarray(column)) for column in (line, table["operation_id"], first)))


def from_run(run: Run) -> LinePredictor:
    """The predictor of a finished run of `gcode-window-decoder`."""
    prepared = task_of(WindowDecoderTask, run.params).prepared
    model = model_of(WindowDecoderTask, run)
    return LinePredictor(model, prepared.scaling, prepared.mask, program_hmm(prepared))


def save(run: Run, folder: Path) -> Path:
    """Write the predictor of a finished run of `gcode-window-decoder` into `folder`, with what it was trained on."""
    task = task_of(WindowDecoderTask, run.params)
    if task.channels not in ("all", "no-position"):
        raise WeightsError(
            f"The run {run.name!r} standardises whole recordings, which a stream can't", hint="channels=all"
        )
    one, prepared = from_run(run), task.prepared
    tensors = {
        f"model.{name}": tensor.half() if tensor.numel() >= LARGE and name.endswith("weight") else tensor
        for name, tensor in one.model.state_dict().items()
    }
    if one.model.path_knn is not None:
        tensors["model.path_knn.keys"] = (100 * one.model.path_knn.keys).round().to(torch.int16)
        tensors["model.path_knn.line"] = one.model.path_knn.line.to(torch.int16)
    tensors |= {"scaling.centre": one.scaling.centre, "scaling.spread": one.scaling.spread}
    tensors |= {f"hmm.{name}": getattr(one.hmm, name).to(torch.int16) for name in HMM}
    table = prepared.machine.windows.iloc[prepared.parts.train]
    manifest = {
        "kind": "gcode",
        "model": {field.name: getattr(task, field.name) for field in fields(Shape)},
        "channels": CONTINUOUS,
        "used": prepared.mask.astype(int).tolist(),
        "operations": OPERATIONS,
        "categories": one.scaling.categories,
        "lines": one.model.grammar.texts,
        "trained_on": {
            "protocol": task.protocol,
            "windows": len(table),
            "recordings": table["recording"].nunique(),
            "scores": run.scores,
        },
        "made": run.stamp,
        "ranges": ranges.gcode(task.data).asdict(),
    }
    return checkpoint.save(folder, tensors, runs.plain(manifest))


if __name__ == "__main__":
    print(save(runs.latest(sys.argv[1]), Path(sys.argv[2])))
