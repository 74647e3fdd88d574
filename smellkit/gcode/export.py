"""The window decoder as two ONNX models that take raw sensor rows: one for the window, one for each token."""

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
from smellkit.gcode.tokens import BOS, EOS, STEPS
from smellkit.gcode.window_decoder import choose, decode

WINDOW_INPUTS, WINDOW_OUTPUTS = ["values", "states"], ["operation", "line", "context", "memory"]
STEP_INPUTS = ["token", "step", "line", "valid_lines", "context", "memory", "cache"]
STEP_OUTPUTS = ["next_token", "next_valid_lines", "next_cache"]


class Window(nn.Module):
    """Raw rows (1, 64, 155) and (1, 64, 4), NaN where nothing was -> operation, p(line), context, memory's keys."""

    mask: Tensor

    def __init__(self, predictor: LinePredictor):
        super().__init__()
        self.model, self.scaling = predictor.model, predictor.scaling
        self.register_buffer("mask", torch.as_tensor(predictor.mask))

    def forward(self, values: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scaled, codes = self.scaling(values, states)
        memory, outputs = self.model.encode(scaled * self.mask, codes)
        keys = self.model.decoder.remember(memory)
        return outputs["operation"].softmax(dim=1), outputs["line"].softmax(dim=1), outputs["context"], keys


class Step(nn.Module):
    """One token: the last token and what is kept -> the next token and what is kept. All shapes are fixed.

    `cache` (layers, 2, 1, heads, 8, width / heads) holds keys and values by position, `valid_lines` (1, L) the lines
    that are left.
    """

    def __init__(self, predictor: LinePredictor):
        super().__init__()
        self.model, self.grammar = predictor.model, predictor.model.grammar

    def forward(
        self,
        token: Tensor,
        step: Tensor,
        line: Tensor,
        valid_lines: Tensor,
        context: Tensor,
        memory: Tensor,
        cache: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        structured, flat, cache = self.model.decoder.next(token, step, context, memory, cache)
        chosen = choose(self.grammar, self.model.token_scores(structured, flat), line, valid_lines, step[0])
        return chosen, self.grammar.filter_lines(valid_lines, chosen, step[0]), cache


class OnnxPredictor:
    """The two models in ONNX Runtime: one raw window in, operation and line out. One thread by default."""

    def __init__(self, file: Path, predictor: LinePredictor, *, threads: int = 1):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        sessions = [onnxruntime.InferenceSession(str(path), options) for path in (file, step_file(file))]
        self.window, self.step = sessions
        self.empty = np.zeros(predictor.model.decoder.cache_shape, np.float32)

    def predict(self, values: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Probabilities of the operations (9,) and the open tokens, for (64, 155) and (64, 4)."""
        operation, line, context, memory = self.window.run(None, {"values": values[None], "states": states[None]})
        fixed = {"line": line, "context": context, "memory": memory}
        token, valid_lines, cache = np.array([BOS]), np.ones_like(line), self.empty
        tokens: list[int] = []
        for step in range(STEPS):
            state = {"token": token, "step": np.array([step]), "valid_lines": valid_lines, "cache": cache}
            token, valid_lines, cache = self.step.run(None, fixed | state)
            tokens.append(int(token[0]))
            if tokens[-1] == EOS:
                break
        return operation[0], tokens


def step_file(file: Path) -> Path:
    """Where the second model lies: `gcode.onnx` -> `gcode-step.onnx`."""
    return Path(file).with_name(f"{Path(file).stem}-step{Path(file).suffix}")


def gcode(weights: Path, *, out: Path) -> str:
    """Write `out` (the window) and `out`-step (one token), check them against torch, and say how fast they are."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as why:
        raise SmellkitError("ONNX needs onnx, onnxscript and onnxruntime", hint="pip install smellkit[export]") from why
    predictor = predict.load(weights)
    random = np.random.default_rng(0)
    values, states = _example(predictor, random)
    window, step = Window(predictor).eval(), Step(predictor).eval()
    with torch.no_grad():
        _, line, context, memory = window(values, states)
    first = (torch.tensor([BOS]), torch.tensor([0]), line, torch.ones_like(line), context, memory)
    cache = torch.zeros(predictor.model.decoder.cache_shape)
    _save(window, (values, states), Path(out), WINDOW_INPUTS, WINDOW_OUTPUTS)
    _save(step, (*first, cache), step_file(out), STEP_INPUTS, STEP_OUTPUTS)
    windows = [_example(predictor, random) for _ in range(30)]
    speed = f"{_checked(out, predictor, windows):.2f} ms a window on one thread"
    return f"{out} and {step_file(out).name}: agree with torch on {len(windows)} windows, {speed}"


def _checked(out: Path, predictor: LinePredictor, windows: list[tuple[Tensor, Tensor]]) -> float:
    """Median milliseconds a window in ONNX Runtime; WeightsError where it does not agree with torch."""
    exported, times = OnnxPredictor(out, predictor), []
    for values, states in windows:
        begin = perf_counter()
        operation, tokens = exported.predict(values[0].numpy(), states[0].numpy())
        times.append(perf_counter() - begin)
        wanted, logits = decode(predictor.model, *predictor.inputs(values.numpy(), states.numpy()))
        off = np.abs(operation - logits.softmax(1)[0].numpy()).max()
        if off > 1e-4 or tokens != [token for token in wanted[0].tolist() if token]:
            raise WeightsError(f"{out} does not agree with torch", hint="report it with the versions of torch and onnx")
    return 1000 * float(np.median(times))


def _example(predictor: LinePredictor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A raw window of plausible values, some of them missing."""
    scaling = predictor.scaling
    values = scaling.centre.numpy() + scaling.spread.numpy() * random.normal(0, 1, (1, LENGTH, len(CONTINUOUS)))
    values[..., random.random(len(CONTINUOUS)) < 0.2] = np.nan
    states = np.array([[random.choice(known or (0.0,)) for known in scaling.categories]] * LENGTH)
    return torch.as_tensor(values, dtype=torch.float32), torch.as_tensor(states[None], dtype=torch.float32)


def _save(module: nn.Module, example: tuple, out: Path, inputs: list[str], outputs: list[str]) -> None:
    names: dict[str, Any] = {"input_names": inputs, "output_names": outputs}
    with paths.replacing(out) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, str(part), **names, dynamo=True, external_data=False, verbose=False)
