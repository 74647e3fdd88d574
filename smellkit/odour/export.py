"""`smellkit export odour --onnx FILE`: the encoder as one ONNX file, checked against torch before it gets its name.

    rows (batch, 125, 6), as recorded --- protocol, network, temperature ---> z (batch, 50), probabilities (batch, 50)

The file needs nothing else: differences, scaling and calibration are inside. Class names and columns are its metadata.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smellkit import paths
from smellkit.errors import OptionError, SmellkitError
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import Protocol
from smellkit.sensors import FULL

CLOSE = 1e-4  # how far an output may be from torch's


class Recorded(nn.Module):
    """An encoder that takes rows as they were recorded (batch, span, channels) and does all the rest itself."""

    def __init__(self, smell: SubstanceSmell):
        super().__init__()
        self.network = smell.network
        self.protocol = smell.protocol
        self.temperature = smell.confidence.temperature

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network({"window": self.protocol.represent(rows)})
        scores = outputs["logits"].log_softmax(1) / self.temperature
        return outputs["z"], scores.softmax(1)


def odour(weights: Path, *, out: Path, opset: int = 18) -> str:
    """Write the encoder in the folder `weights` as ONNX to `out`; SmellkitError when ONNX Runtime disagrees."""
    try:
        import onnx
        import onnxruntime
    except ImportError as why:
        raise OptionError("Export needs ONNX", hint="pip install smellkit[export]") from why
    smell = SubstanceSmell.load(weights)
    module = Recorded(smell).eval()
    rows = example(smell.protocol, windows=3)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells everyone that torchvision is not there
    with paths.replacing(Path(out)) as part:
        write(module, rows, part, opset=opset)
        model = onnx.load(str(part))
        facts = {"columns": smell.protocol.columns, "classes": smell.classes, "rate_hz": smell.nose.rate}
        onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
        onnx.save(model, str(part))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(part), options, providers=["CPUExecutionProvider"])
        worst = difference(module, session, smell.protocol)
        if not worst <= CLOSE:
            raise SmellkitError(f"ONNX Runtime is {worst:.1e} away from torch", hint="another opset, or report it")
        milliseconds = duration(session, smell.protocol)
    size = Path(out).stat().st_size / 2**20
    return f"{out}: {size:.1f} MiB, at most {worst:.0e} from torch, {milliseconds:.2f} ms a window on one core"


def write(module: nn.Module, rows: Tensor, path: Path, *, opset: int) -> None:
    """Write `module` as ONNX to `path`, for any number of windows at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (rows,),
            str(path),
            input_names=["rows"],
            output_names=["z", "probabilities"],
            dynamic_shapes={"rows": {0: torch.export.Dim("batch", min=1, max=4096)}},
            opset_version=opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def difference(module: nn.Module, session, protocol: Protocol) -> float:
    """Largest distance between the outputs of torch and ONNX Runtime, as a share of an output above 1."""
    worst = 0.0
    for windows in (1, 7):
        rows = example(protocol, windows=windows, seed=windows)
        with torch.no_grad():
            expected = [value.numpy() for value in module(rows)]
        given = session.run(None, {"rows": rows.numpy()})
        worst = max(
            [worst]
            + [
                float((np.abs(a - b) / np.maximum(1, np.abs(a).max())).max())
                for a, b in zip(expected, given, strict=True)
            ]
        )
    return worst


def duration(session, protocol: Protocol, *, rounds: int = 50) -> float:
    """Milliseconds that one window takes, the median of `rounds`."""
    rows, times = example(protocol).numpy(), []
    for _ in range(rounds):
        began = time.perf_counter()
        session.run(None, {"rows": rows})
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def example(protocol: Protocol, *, windows: int = 1, seed: int = 0) -> Tensor:
    """Rows as a sensor board sends them, (windows, span, channels): slow walks in whole counts."""
    random = np.random.default_rng(seed)
    steps = random.normal(0, 2, (windows, protocol.span, len(protocol.columns))).cumsum(1)
    return torch.from_numpy((200 + steps).round().clip(0, FULL).astype(np.float32))
