"""The reader as two ONNX models that take raw sensor rows: one for the window, one for each token."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from smellkit import paths
from smellkit.errors import SmellkitError, WeightsError
from smellkit.gcode import decode, shipping
from smellkit.gcode.channels import CATEGORICAL, CONTINUOUS, PLACES
from smellkit.gcode.data import CLIP, LENGTH
from smellkit.gcode.grammar import STEPS
from smellkit.gcode.layers import Layer
from smellkit.gcode.shipping import Reader
from smellkit.gcode.tokens import BOS, EOS

WINDOW = ("operation", "line", "context", "memory")


class Window(nn.Module):
    """Raw rows (1, 64, 155) and (1, 64, 4), NaN where nothing was -> operation, p(line), context, memory's keys."""

    centre: Tensor
    spread: Tensor
    mask: Tensor
    place: Tensor
    known: Tensor
    number: Tensor

    def __init__(self, reader: Reader):
        super().__init__()
        self.model = reader.model
        scaling = reader.scaling
        place = torch.zeros(len(CONTINUOUS), dtype=torch.bool)
        place[PLACES] = True
        widest = max(len(known) for known in scaling.categories)
        known = torch.full((len(CATEGORICAL), widest), float("inf"))
        for row, values in enumerate(scaling.categories):
            known[row, : len(values)] = torch.tensor(values)
        self.register_buffer("centre", torch.as_tensor(scaling.centre))
        self.register_buffer("spread", torch.as_tensor(scaling.spread))
        self.register_buffer("mask", torch.as_tensor(reader.mask))
        self.register_buffer("place", place)
        self.register_buffer("known", known)
        self.register_buffer("number", torch.arange(1, widest + 1, dtype=torch.float32))

    def forward(self, values: Tensor, states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scaled = (values - self.centre) / self.spread
        scaled = torch.where(self.place, scaled, scaled.clamp(-CLIP, CLIP))
        scaled = torch.where(torch.isnan(scaled) | ~self.mask, torch.zeros_like(scaled), scaled)
        codes = ((states[..., None] == self.known).to(scaled.dtype) * self.number).sum(dim=-1).long()
        memory, outputs = self.model.encode(scaled, codes)
        keys = torch.stack([torch.stack(pair) for pair in self.model.decoder.remember(memory)])
        return outputs["operation"].softmax(dim=1), outputs["line"].softmax(dim=1), outputs["context"], keys


class Step(nn.Module):
    """One token: the last token and what is kept -> the next token and what is kept. All shapes are fixed.

    `past` (layers, 2, 1, heads, 8, width / heads) keeps keys and values by place, `alive` (1, L) the lines left.
    """

    follows: Tensor

    def __init__(self, reader: Reader, *, weight: float = decode.WEIGHT):
        super().__init__()
        self.model, self.decoder, self.grammar = reader.model, reader.model.decoder, reader.model.grammar
        self.weight = weight
        follows = nn.functional.one_hot(self.grammar.lines, len(self.grammar.vocabulary))  # (L, 8, V)
        self.register_buffer("follows", follows.transpose(0, 1).to(torch.float32).contiguous())  # (8, L, V)

    def forward(
        self, token: Tensor, step: Tensor, line: Tensor, alive: Tensor, context: Tensor, memory: Tensor, past: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = self.decoder.embed(token)[:, None] + self.decoder.place[step][:, None] + context[:, None]
        here = torch.arange(STEPS) == step
        hidden = torch.where(torch.arange(STEPS) <= step, 0.0, -1e9)
        kept = []
        for number, layer in enumerate(cast(Iterable[Layer], self.decoder.layers)):
            query, key, value = (layer.apart(part) for part in layer.own(layer.norms[0](x)).chunk(3, dim=-1))
            keys = torch.where(here[None, None, :, None], key, past[number, 0])
            values = torch.where(here[None, None, :, None], value, past[number, 1])
            x = x + layer.own_out(layer.together(_attend(query, keys, values, hidden)))
            query = layer.apart(layer.ask(layer.norms[1](x)))
            x = x + layer.ask_out(layer.together(_attend(query, memory[number, 0], memory[number, 1], None)))
            x = x + layer.feed(layer.norms[2](x))
            kept.append(torch.stack([keys, values]))
        x = self.decoder.norm(x)[:, 0]
        score = self.model.scored(self.decoder.parts(x), self.decoder.token(x)).log_softmax(dim=1)
        follows = self.follows[step[0]]
        chance = (line + 1e-9) * alive
        prior = ((chance / chance.sum(dim=1, keepdim=True).clamp(min=1e-12)) @ follows).clamp(min=1e-13).log()
        chosen = (self.weight * score + prior).argmax(dim=1)
        return chosen, alive * follows[:, chosen[0]][None], torch.stack(kept)


def _attend(query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> Tensor:
    score = query @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5
    return (score if hidden is None else score + hidden).softmax(dim=-1) @ values


class OnnxReader:
    """The two models in ONNX Runtime: one raw window in, operation and line out. One thread unless told otherwise."""

    def __init__(self, file: Path, reader: Reader, *, threads: int = 1):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 3
        made = [onnxruntime.InferenceSession(str(path), options) for path in (file, step_file(file))]
        self.window, self.step = made
        self.grammar = reader.model.grammar
        self.empty = np.zeros(reader.model.decoder.kept, np.float32)

    def read(self, values: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Probabilities of the operations (9,) and the open tokens, for (64, 155) and (64, 4)."""
        operation, line, context, memory = self.window.run(None, {"values": values[None], "states": states[None]})
        feed = {"line": line, "context": context, "memory": memory}
        token, alive, past = np.array([BOS]), np.ones_like(line), self.empty
        found: list[int] = []
        for step in range(STEPS):
            kept = {"token": token, "step": np.array([step]), "alive": alive, "past": past}
            token, alive, past = self.step.run(None, feed | kept)
            found.append(int(token[0]))
            if found[-1] == EOS:
                break
        return operation[0], found


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
    reader = shipping.unpack(weights)
    model, random = reader.model.eval(), np.random.default_rng(0)
    values, states = _example(reader, random)
    window, step = Window(reader).eval(), Step(reader).eval()
    with torch.no_grad():
        operation, line, context, memory = window(values, states)
    past = torch.zeros(model.decoder.kept)
    token, first = torch.tensor([BOS]), torch.tensor([0])
    _save(window, (values, states), Path(out), ["values", "states"], list(WINDOW))
    _save(
        step,
        (token, first, line, torch.ones_like(line), context, memory, past),
        step_file(out),
        ["token", "step", "line", "alive", "context", "memory", "past"],
        ["next", "left", "kept"],
    )
    other = OnnxReader(out, reader)
    times = []
    for _ in range(30):
        values, states = _example(reader, random)
        begin = perf_counter()
        said, tokens = other.read(values[0].numpy(), states[0].numpy())
        times.append(perf_counter() - begin)
        true, logits = decode.decode(model, *reader.inputs(values.numpy(), states.numpy()))
        if np.abs(said - logits.softmax(1)[0].numpy()).max() > 1e-4 or tokens != [t for t in true[0].tolist() if t]:
            raise WeightsError(f"{out} does not agree with torch", hint="report it with the versions of torch and onnx")
    speed = f"{1000 * float(np.median(times)):.2f} ms a window on one thread"
    return f"{out} and {step_file(out).name}: agree with torch on {len(times)} windows, {speed}"


def _example(reader: Reader, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A raw window of plausible values, some of them missing."""
    values = reader.scaling.centre + reader.scaling.spread * random.normal(0, 1, (1, LENGTH, len(CONTINUOUS)))
    values[..., random.random(len(CONTINUOUS)) < 0.2] = np.nan
    states = np.array([[random.choice(known or (0.0,)) for known in reader.scaling.categories]] * LENGTH)
    return torch.as_tensor(values, dtype=torch.float32), torch.as_tensor(states[None], dtype=torch.float32)


def _save(module: nn.Module, example: tuple, out: Path, inputs: list[str], outputs: list[str]) -> None:
    with paths.replacing(out) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            str(part),
            input_names=inputs,
            output_names=outputs,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
