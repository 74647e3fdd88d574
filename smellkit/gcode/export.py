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
    """Rows (1, 64, 159), NaN where nothing was -> p(operation) (1, 9), open tokens (1, 8)."""

    def __init__(self, predictor: LinePredictor):
        super().__init__()
        self.model, self.scaling = predictor.model, predictor.scaling
        self.mask = nn.Buffer(torch.as_tensor(predictor.mask))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scaled, codes = self.scaling(rows)
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
    with paths.replacing(Path(out)) as part:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names: dict[str, Any] = {"input_names": ["rows"], "output_names": ["operation", "tokens"]}
            example = (_example(predictor, random),)
            torch.onnx.export(whole, example, str(part), **names, dynamo=True, external_data=False, verbose=False)
        options, times = onnxruntime.SessionOptions(), []
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(part), options)
        for rows in (_example(predictor, random) for _ in range(CHECKED)):
            begin = perf_counter()
            operation, tokens = session.run(None, {"rows": rows.numpy()})
            times.append(perf_counter() - begin)
            wanted, line = (output.detach().numpy() for output in whole(rows))
            if np.abs(operation - wanted).max() > 1e-4 or not np.array_equal(tokens, line):
                hint = "report it with the versions of torch and onnx"
                raise WeightsError(f"{out} does not agree with torch", hint=hint)
    speed = f"{1000 * float(np.median(times)):.2f} ms a window on one thread"
    return f"{out}: agrees with torch on {CHECKED} windows, {speed}"


def _example(predictor: LinePredictor, random: np.random.Generator) -> Tensor:
    """A raw window (1, 64, 159) of plausible values, some of them missing."""
    scaling = predictor.scaling
    values = scaling.centre.numpy() + scaling.spread.numpy() * random.normal(0, 1, (LENGTH, len(CONTINUOUS)))
    values[:, random.random(len(CONTINUOUS)) < 0.2] = np.nan
    states = [[random.choice(known or (0.0,)) for known in scaling.categories]] * LENGTH
    return torch.as_tensor(np.hstack([values, states])[None], dtype=torch.float32)
