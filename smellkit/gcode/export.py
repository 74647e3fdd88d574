"""The window decoder as one ONNX model: raw sensor rows of a window in, operation and tokens out."""

from __future__ import annotations

import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smellkit import paths
from smellkit.errors import SmellkitError, WeightsError
from smellkit.gcode import predict
from smellkit.gcode.data import LENGTH
from smellkit.gcode.predict import LinePredictor
from smellkit.gcode.recordings import CONTINUOUS

CHECKED = 30  # windows on which ONNX Runtime must say what torch says


class RawWindow(nn.Module):
    """Rows (1, 64, 155) and states (1, 64, 4), NaN where nothing was -> p(operation) (1, 9), open tokens (1, 8)."""

    def __init__(self, predictor: LinePredictor):
        super().__init__()
        self.model, self.scaling = predictor.model, predictor.scaling
        self.mask = nn.Buffer(torch.as_tensor(predictor.mask))

    def forward(self, values: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        scaled, codes = self.scaling(values, states)
        outputs = self.model.encode(scaled * self.mask, codes)
        return outputs["operation"].softmax(dim=1), self.model.decode(outputs)


def gcode(weights: Path, *, out: Path) -> str:
    """Write `out`, check it against torch, and say how fast it is on one thread."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as why:
        raise SmellkitError("ONNX needs onnx, onnxscript and onnxruntime", hint="pip install smellkit[export]") from why
    predictor, random = predict.load(weights), np.random.default_rng(0)
    whole = RawWindow(predictor).eval()
    names: dict[str, Any] = {"input_names": ["values", "states"], "output_names": ["operation", "tokens"]}
    with paths.replacing(Path(out)) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = _example(predictor, random)
        torch.onnx.export(whole, example, str(part), **names, dynamo=True, external_data=False, verbose=False)
    options, times = onnxruntime.SessionOptions(), []
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(out), options)
    for window in (_example(predictor, random) for _ in range(CHECKED)):
        begin = perf_counter()
        operation, tokens = session.run(None, dict(zip(names["input_names"], map(Tensor.numpy, window), strict=True)))
        times.append(perf_counter() - begin)
        wanted, line = whole(*window)
        if np.abs(operation - wanted.detach().numpy()).max() > 1e-4 or tokens.tolist() != line.tolist():
            raise WeightsError(f"{out} does not agree with torch", hint="report it with the versions of torch and onnx")
    speed = f"{1000 * float(np.median(times)):.2f} ms a window on one thread"
    return f"{out}: agrees with torch on {CHECKED} windows, {speed}"


def _example(predictor: LinePredictor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A raw window of plausible values, some of them missing."""
    scaling = predictor.scaling
    values = scaling.centre.numpy() + scaling.spread.numpy() * random.normal(0, 1, (1, LENGTH, len(CONTINUOUS)))
    values[..., random.random(len(CONTINUOUS)) < 0.2] = np.nan
    states = np.array([[random.choice(known or (0.0,)) for known in scaling.categories]] * LENGTH)
    return torch.as_tensor(values, dtype=torch.float32), torch.as_tensor(states[None], dtype=torch.float32)
