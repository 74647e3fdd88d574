"""A network as one ONNX file, checked against torch before it gets its name: what the three systems' exports share."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smellkit import paths
from smellkit.errors import OptionError, WeightsError

CLOSE = 1e-4  # how far an output may be from torch's
SAME = 0.9995  # share of whole numbers (tokens, classes of pixels) that must be the same: a tie may fall either way


def onnx(
    module: nn.Module, out: Path, *, examples: Sequence[tuple[Tensor, ...]], inputs: Sequence[str],
    outputs: Sequence[str], each: str, facts: Mapping[str, Any] | None = None, **how: Any,
) -> str:  # fmt: skip
    """Write `module` to `out` and say how near it is to torch, and how fast on one thread, in the median.

    The first of `examples` gives the shapes; ONNX Runtime must say of all of them what torch says, or it is a
    WeightsError and there is no file. `each` is the word for one, `facts` go into the file, `how` to torch.onnx.export.
    """
    try:
        import onnx as format
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as why:
        hint = "pip install 'smellkit[export]'"
        raise OptionError("Export needs onnx, onnxscript and onnxruntime", hint=hint) from why
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells everyone that torchvision is not there
    how |= {"input_names": list(inputs), "output_names": list(outputs), "external_data": False, "verbose": False}
    options, times, worst = onnxruntime.SessionOptions(), [], 0.0
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with paths.replacing(Path(out)) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, examples[0], str(part), dynamo=True, **how)
        if facts:
            model = format.load(str(part))
            format.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
            format.save(model, str(part))
        session = onnxruntime.InferenceSession(str(part), options, providers=["CPUExecutionProvider"])
        for example in examples:
            began = perf_counter()
            given = session.run(None, {name: tensor.numpy() for name, tensor in zip(inputs, example, strict=True)})
            times.append(perf_counter() - began)
            worst = max(worst, _distance(module, example, given))
        if not worst <= CLOSE:
            raise WeightsError(f"{out} does not agree with torch", hint="report it with the versions of torch and onnx")
        size = part.stat().st_size / 2**20
    near = f"agrees with torch on {len(examples)} {each}s, at most {worst:.0e} away"
    return f"{out}: {near}; {size:.1f} MiB, {1000 * float(np.median(times)):.2f} ms a {each} on one thread"


@torch.no_grad()
def _distance(module: nn.Module, example: tuple[Tensor, ...], given: Sequence[np.ndarray]) -> float:
    """How far `given` is from torch's outputs, as a share of those above 1; infinity where whole numbers are others."""
    worst = 0.0
    for one, tensor in zip(given, module(*example), strict=True):
        if tensor.is_floating_point():
            worst = max(worst, float(np.abs(one - tensor.numpy()).max() / max(1.0, float(tensor.abs().max()))))
        elif (one == tensor.numpy()).mean() < SAME:
            return float("inf")
    return worst
