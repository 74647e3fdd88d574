"""`smellkit export plume --onnx FILE`: the model as one ONNX file, checked against torch before it gets its name.

co2, ch4 (1, 1, 240, 320) grey from 0 to 255; present (1, 2), 1 where there is a frame --> co2_mask, ch4_mask
(1, 240, 320) of 0 background, 1 tube, 2 gas; probability (1, 3) of Healthy, Transitional, Acidotic
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit import paths
from smellkit.errors import SmellkitError, WeightsError
from smellkit.plume import GASES
from smellkit.plume.models import Sized, normalise
from smellkit.plume.predict import PlumePredictor

SIZE = (240, 320)  # of the frames that the file takes
INPUTS = (*GASES, "present")
OUTPUTS = (*(f"{gas}_mask" for gas in GASES), "probability")
CLOSE = 1e-4  # how far a probability may be from torch's
SAME = 0.9995  # share of pixels that must be the same: a tie may fall either way


class Frames(nn.Module):
    """A model that takes grey frames from 0 to 255 and gives masks and probabilities."""

    def __init__(self, model: Sized):
        super().__init__()
        self.model = model

    def forward(self, co2: Tensor, ch4: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        there = present[:, :, None, None, None]
        frames = {"co2": normalise(co2 / 255) * there[:, 0], "ch4": normalise(ch4 / 255) * there[:, 1]}
        outputs = self.model(frames | {"present": present})
        masks = [outputs[f"{gas}_logits"].argmax(dim=1) for gas in GASES]
        return (*masks, outputs["class_logits"].softmax(dim=1))


def plume(weights: Path, *, out: Path) -> str:
    """Write `out`, check it against torch on pairs with and without a missing gas, and say how fast it is."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as why:
        raise SmellkitError("ONNX needs onnx, onnxscript and onnxruntime", hint="pip install smellkit[export]") from why
    module = Frames(PlumePredictor.load(weights).model).eval()
    random = np.random.default_rng(0)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells everyone that torchvision is not there
    names: dict[str, Any] = {"input_names": list(INPUTS), "output_names": list(OUTPUTS)}
    options, times = onnxruntime.SessionOptions(), []
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with paths.replacing(Path(out)) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example(random), str(part), dynamo=True, external_data=False, verbose=False, **names)
        session = onnxruntime.InferenceSession(str(part), options)
        for present in ((1, 1), (1, 0), (0, 1)) * 4:
            pair = example(random, present=present)
            begin = perf_counter()
            outputs = session.run(None, {name: tensor.numpy() for name, tensor in zip(INPUTS, pair, strict=True)})
            times.append(perf_counter() - begin)
            with torch.no_grad():
                *masks, probability = (tensor.numpy() for tensor in module(*pair))
            same = min(float((one == other).mean()) for one, other in zip(outputs, masks, strict=False))
            if same < SAME or np.abs(outputs[2] - probability).max() > CLOSE:
                hint = "report it with the versions of torch and onnx"
                raise WeightsError(f"{out} does not agree with torch", hint=hint)
    speed = f"{1000 * float(np.median(times)):.1f} ms a pair of {SIZE[1]}x{SIZE[0]} on one thread"
    return f"{out}: agrees with torch on {len(times)} pairs, {speed}"


def example(random: np.random.Generator, *, present: tuple[int, int] = (1, 1)) -> tuple[Tensor, Tensor, Tensor]:
    """Two noisy grey frames with soft bright and dark places, and which of them are there."""
    soft = F.interpolate(torch.as_tensor(random.normal(110, 40, (2, 1, 5, 6))), SIZE, mode="bicubic")
    noisy = (soft + torch.as_tensor(random.normal(0, 3, soft.shape))).clamp(0, 255).round().float()
    return noisy[:1], noisy[1:], torch.tensor([present], dtype=torch.float32)
