"""A trained model with all it needs to read frames of any size: packed into a folder of weights, and unpacked.

The kit's own weights, trained on simulated cameras of many kinds (three quarters of them far from the task's):

smellkit data simulate plume --out DIR --pairs 1400 --frames 1 --shares 1200,100,100 --seed 31
    --missing none --variety 0.75
smellkit train plume --name plume-wide --set data=DIR --set model=plumenet --set alpha=1,1,1 --set ph=0.5
    --set invert=0.15 --set dropout=0.3 --set epochs=12 --set batch=16 --set learning_rate=0.002
    --set weight_decay=0.0001 --set warmup=0.05 --set seed=1
python -m smellkit.plume.shipping plume-wide data/weights/plume
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smellkit import checkpoint as weights
from smellkit import runs
from smellkit.errors import SmellkitError, WeightsError
from smellkit.plume import models
from smellkit.plume.annotations import CLASSES
from smellkit.plume.augment import averaged
from smellkit.plume.data import normalise
from smellkit.plume.encoders import resize
from smellkit.plume.fume import GASES, Sized, to_size
from smellkit.runs import Run
from smellkit.study.plume import bench
from smellkit.task import Batch

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """What a pair of frames says: a mask (H, W) for each frame that is there, and the chances of the classes (3,)."""

    masks: tuple[Frame | None, Frame | None]
    chance: NDArray[np.float32]

    @property
    def health(self) -> int:
        """The likeliest class: 0 Healthy, 1 Transitional, 2 Acidotic."""
        return int(self.chance.argmax())


@dataclass(frozen=True)
class Watcher:
    """Frames in, masks and health out."""

    model: Sized

    @torch.no_grad()
    def look(self, pairs: Sequence[tuple[Frame | None, Frame | None]], *, steady: bool = False) -> list[Seen]:
        """What each pair of grey frames of 8 bits says; None is a missing frame, and frames may have any size.

        `steady` averages over three views of each frame, as FUME does in testing.
        """
        batch = self._batch(pairs)
        outputs = averaged(self.model, batch) if steady else self.model(batch)
        chance = outputs["class_logits"].softmax(dim=1).numpy()
        found = []
        for row, pair in enumerate(pairs):
            masks = [_mask(outputs[f"{gas}_logits"][row], frame) for gas, frame in zip(GASES, pair, strict=True)]
            found.append(Seen((masks[0], masks[1]), chance[row]))
        return found

    @torch.no_grad()
    def doubt(self, co2: Frame, ch4: Frame) -> NDArray[np.float32]:
        """The chance (2, H, W) that a pixel of each frame is of another class than the likeliest one."""
        outputs = self.model(self._batch([(co2, ch4)]))
        logits = [resize(outputs[f"{gas}_logits"], frame.shape) for gas, frame in zip(GASES, (co2, ch4), strict=True)]
        return torch.cat([1 - one.softmax(dim=1).amax(dim=1) for one in logits]).numpy()

    def _batch(self, pairs: Sequence[tuple[Frame | None, Frame | None]]) -> Batch:
        frames = zip(GASES, zip(*pairs, strict=True), strict=True)
        batch = {gas: torch.cat([self._scaled(frame) for frame in column]) for gas, column in frames}
        return batch | {"present": torch.tensor([[float(frame is not None) for frame in pair] for pair in pairs])}

    def _scaled(self, frame: Frame | None) -> Tensor:
        if frame is None:
            return torch.zeros(1, 1, *self.model.size)
        return to_size(normalise(torch.as_tensor(frame.copy())[None, None].float() / 255), self.model.size)


def of(run: Run) -> Watcher:
    """The watcher of a finished run of the task `plume`."""
    return Watcher(bench.model_of(run))


def pack(run: Run, folder: Path) -> Path:
    """Write the model of a finished run of the task `plume` into `folder`, with what it was trained on."""
    model = bench.model_of(run)
    name = run.params.get("model", "fume")
    if run.params.get("fusion") or not run.params.get("shared", True) or model.log_variance is not None:
        raise WeightsError(f"The run {run.name!r} is of a variant, which has no name", hint="train a plain model")
    manifest = {
        "kind": "plume",
        "model": name,
        "size": list(model.size),
        "gases": list(GASES),
        "classes": list(CLASSES),
        "trained_on": {"pairs": bench.about(run.params.get("data", ""), "train"), "scores": run.scores},
        "made": run.stamp,
    }
    return weights.save(folder, model.state_dict(), runs.plain(manifest))


def unpack(folder: Path) -> Watcher:
    """The watcher in `folder`; WeightsError when there is none."""
    tensors, manifest = weights.load(folder, made_by="python -m smellkit.plume.shipping RUN FOLDER")
    try:
        if manifest["kind"] != "plume" or list(manifest["classes"]) != list(CLASSES):
            raise WeightsError(f"{folder} tells other classes apart", hint="train it again")
        height, width = (int(length) for length in manifest["size"])
        model = Sized(models.build(manifest["model"]), (height, width))
    except WeightsError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, SmellkitError) as why:
        raise WeightsError(
            f"{folder} holds no model of plumes: {why}", hint="python -m smellkit.plume.shipping"
        ) from why
    weights.fill(model, tensors, where=str(folder)).eval()
    return Watcher(model)


def _mask(logits: Tensor, frame: Frame | None) -> Frame | None:
    if frame is None:
        return None
    return resize(logits[None], frame.shape)[0].argmax(dim=0).byte().numpy()


if __name__ == "__main__":
    print(pack(runs.latest(sys.argv[1]), Path(sys.argv[2])))
