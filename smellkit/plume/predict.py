"""Segment the plumes in recorded frames and name the rumen's health: a mask for each frame, a row for each pair.

Where the annotations say which frames are a video, each is seen beside others of it, and a video has one class.
`smellkit export plume --onnx FILE` writes the same model as one file: co2, ch4 (1, 1, 240, 320) grey from 0 to 255;
present (1, 2), 1 where there is a frame --> co2_mask, ch4_mask (1, 240, 320) of 0 background, 1 tube, 2 gas;
probability (1, 3) of Healthy, Transitional, Acidotic. It sees single frames.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit import checkpoint, export, paths
from smellkit.checks import Report
from smellkit.checks.ranges import Ranges, outside
from smellkit.errors import DataError, OptionError, SmellkitError, WeightsError
from smellkit.plume import CLASSES, GASES, models
from smellkit.plume import annotations as tables
from smellkit.plume.annotations import FEATURES, Rule, features
from smellkit.plume.layers import resize
from smellkit.plume.models import Sized, normalise, to_size
from smellkit.plume.video import agreed, motion, others_of, spread
from smellkit.task import Batch

COLUMNS = ("co2_frame", "ch4_frame", "class", "p0", "p1", "p2", "co2_mask", "ch4_mask")
TABLE, MASKS = "predictions.csv", "masks"  # what is written
BATCH = 16  # pairs that the model sees at a time
LONGEST = 160  # pairs of a video that are held in memory at a time; of a longer one each part is a video
SIZE = (240, 320)  # of the frames that the ONNX file takes
INPUTS, OUTPUTS = (*GASES, "present"), (*(f"{gas}_mask" for gas in GASES), "probability")
MOTION = tuple(f"{gas}_motion" for gas in GASES)
MADE_BY = "python -m smellkit.study.plume.release RUN FOLDER"
Frame = NDArray[np.uint8]
Pair = tuple[str, str]  # of CO2 and CH4: frames as the annotations call them, or their masks; "" is a missing one


class PlumePrediction(NamedTuple):
    """Of one pair: a mask (H, W) for each frame that is there, and the probabilities of the classes (3,).

    `single` where no other frame of a video helped: there is none, or none of the same view.
    """

    masks: tuple[Frame | None, Frame | None]
    probability: NDArray[np.float32]
    single: bool = True

    @property
    def health(self) -> int:
        """The likeliest class: 0 Healthy, 1 Transitional, 2 Acidotic."""
        return int(self.probability.argmax())


@dataclass(frozen=True)
class PlumePredictor:
    """Frames of any size in, masks and health out.

    >>> PlumePredictor.load(checkpoint.find("plume")).predict([(co2, ch4), (co2, None)])
    """

    model: Sized
    ranges: Ranges | None = None  # of the frames in training
    videos: bool = False  # whether it has learned from videos: without, all frames are single ones

    @classmethod
    def load(cls, folder: Path) -> PlumePredictor:
        """The predictor in `folder`; WeightsError when there is none."""
        tensors, manifest = checkpoint.load(folder, made_by=MADE_BY)
        try:
            other = manifest["kind"] != "plume" or list(manifest["classes"]) != list(CLASSES)
            height, width = (int(length) for length in manifest["size"])
            mirrored, videos = (manifest.get(name, False) is True for name in ("mirrored", "videos"))
            network = models.build(manifest["model"], **({"videos": True} if videos else {}))
            model = Sized(network, (height, width), mirrored=mirrored)
        except (KeyError, TypeError, ValueError, AttributeError, SmellkitError) as why:
            raise WeightsError(f"{folder} holds no model of plumes: {why}", hint=MADE_BY) from why
        if other:
            raise WeightsError(f"{folder} tells other classes apart", hint="train it again")
        checkpoint.fill(model, tensors, where=str(folder)).eval()
        torch.nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)  # faster on processors
        return cls(model, Ranges.of(manifest), videos)

    @torch.no_grad()
    def predict(
        self, pairs: Sequence[tuple[Frame | None, Frame | None]], *, videos: Sequence[str] = ()
    ) -> list[PlumePrediction]:
        """Masks and class of each pair of grey frames of 8 bits and any size; None is a missing frame.

        `videos` names the video of each pair, "" for none, those of one in order of time: a frame is seen beside
        others of it, and the class is that of the whole video. DataError where its frames differ in size.
        """
        if not pairs:
            return []
        names = list(videos) if videos and self.videos else [""] * len(pairs)
        _refuse_sizes(pairs, names)
        logits: list[Tensor] = []
        rows: list[tuple[tuple[Frame | None, Frame | None], bool]] = []
        for batch in self._batches(pairs, names):
            outputs, moved = self.model(batch), [batch[name] for name in MOTION if name in batch]
            logits.append(outputs["class_logits"].log_softmax(dim=1))
            for row in range(len(batch["present"])):
                shown = zip(GASES, pairs[len(rows)], strict=True)
                co2, ch4 = (_mask(outputs[f"{gas}_logits"][row, None], frame) for gas, frame in shown)
                rows.append(((co2, ch4), not any(x[row].any() for x in moved)))
        probability = agreed(torch.cat(logits), names).exp().numpy()
        return [PlumePrediction(masks, p, single) for (masks, single), p in zip(rows, probability, strict=True)]

    @torch.no_grad()
    def uncertainty(self, co2: Frame, ch4: Frame) -> NDArray[np.float32]:
        """The probability (2, H, W) that a pixel of each frame is of another class than the likeliest one."""
        outputs = self.model(self._batch([(co2, ch4)]))
        logits = [resize(outputs[f"{gas}_logits"], frame.shape) for gas, frame in zip(GASES, (co2, ch4), strict=True)]
        return torch.cat([1 - one.softmax(dim=1).amax(dim=1) for one in logits]).numpy()

    def _batches(self, pairs: Sequence[tuple[Frame | None, Frame | None]], videos: Sequence[str]) -> Iterator[Batch]:
        """The pairs, BATCH at a time, with what moves in them where there are videos."""
        frames, others = self._batch(pairs), torch.as_tensor(spread(videos))
        for rows in torch.arange(len(pairs)).split(BATCH):
            batch = {name: x[rows] for name, x in frames.items()}
            if (others[rows] >= 0).any():
                batch |= {f"{gas}_motion": motion(batch[gas], others_of(frames[gas], others[rows])) for gas in GASES}
            yield batch

    def _batch(self, pairs: Sequence[tuple[Frame | None, Frame | None]]) -> Batch:
        frames = zip(GASES, zip(*pairs, strict=True), strict=True)
        batch = {gas: torch.cat([self._scaled(frame) for frame in column]) for gas, column in frames}
        return batch | {"present": torch.tensor([[float(frame is not None) for frame in pair] for pair in pairs])}

    def _scaled(self, frame: Frame | None) -> Tensor:
        if frame is None:
            return torch.zeros(1, 1, *self.model.size)
        if frame.dtype != np.uint8 or frame.ndim != 2 or not frame.size:
            hint = "grey levels from 0 to 255 as uint8, (rows, columns)"
            raise DataError(f"A frame of {frame.dtype} with the shape {frame.shape}", hint=hint)
        return to_size(normalise(torch.as_tensor(frame.copy())[None, None].float() / 255), self.model.size)


def plume(
    folder: Path, *, weights: Path, out: Path, split: str = "", mirrored: bool = True, videos: bool = True
) -> str:
    """Write predictions.csv and masks/ into the folder `out`, for every pair of DIR's paired annotations.

    The paths of the masks (8-bit PNG: 0 background, 1 tube, 2 gas) are those of the frames, below `out`/masks; see
    `mask_names`. All is written or nothing, in place of an earlier prediction; what else is in `out` stays. `split` is
    train, valid or test; all that are there without. Weights that look at frames mirrored, too, look once if not
    `mirrored`: in half the time, for up to a point of masks (mean IoU) less. Frames that the annotations say are a
    video are looked at as one, unless not `videos`.
    """
    folder, out = tables.find(folder), Path(out)
    predictor = PlumePredictor.load(weights)
    asked, looks = pairs(folder, split=split, videos=videos and predictor.videos)
    names = mask_names(asked)
    _refuse_loss(out, folder=folder, frames=[name for pair in asked for name in pair if name])
    predictor.model.mirrored &= mirrored
    rule, report = Rule.of(folder), Report()
    table: list[list[str]] = [[]] * len(asked)
    count: Counter[str] = Counter()

    def read(name: str) -> Frame | None:
        return _frame(tables.located(folder, name), rule, predictor.ranges, report) if name else None

    with _all_or_nothing(out) as part:
        for video, rows in looks:
            shown = [(read(co2), read(ch4)) for co2, ch4 in (asked[row] for row in rows)]
            for row, one in zip(rows, predictor.predict(shown, videos=[video] * len(rows)), strict=True):
                for name, mask in zip(names[row], one.masks, strict=True):
                    if mask is not None:
                        (part / name).parent.mkdir(parents=True, exist_ok=True)
                        Image.fromarray(mask).save(part / name)
                probabilities = (f"{p:.4f}" for p in one.probability)
                table[row] = [*map(paths.cell, asked[row]), str(one.health), *probabilities, *names[row]]
                count.update({CLASSES[one.health]: 1, "filmed": bool(video), "seen": not one.single})
        with (part / TABLE).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *table])
    return f"{out / TABLE}: {len(asked)} pairs ({_counted(count)}), masks in {out / MASKS}"


def pairs(folder: Path, *, split: str = "", videos: bool = True) -> tuple[list[Pair], list[tuple[str, list[int]]]]:
    """The pairs in paired_*_annotations.csv of `folder`, and which rows are looked at together, each under a name.

    Those are a video, in order of time, or "", some single frames: all of them without `videos`. No mask and no class
    need be known. A row whose missing_modality names a gas has no frame of it, whatever stands there.
    """
    splits = [split] if split else tables.splits_in(folder, paired=True) or tables.splits_in(folder)
    table = pd.concat([tables.read_pairs(folder, name, labels=False).assign(split=name) for name in splits])
    table = table.reset_index(drop=True)
    looks: list[tuple[str, list[int]]] = []
    filmed = table[table["video"] != ""].sort_values("frame_number") if videos else table[:0]
    for (_, video), some in filmed.groupby(["split", "video"], sort=False):
        looks += [(video, part.tolist()) for part in np.split(some.index, range(LONGEST, len(some), LONGEST))]
    alone = table.index.difference(filmed.index)
    looks += [("", alone[start : start + BATCH].tolist()) for start in range(0, len(alone), BATCH)]
    return list(zip(table["co2_frame"], table["ch4_frame"], strict=True)), looks


def mask_names(asked: Sequence[Pair]) -> list[Pair]:
    """Where the masks of each pair go, "" for a missing frame: `f/a.bmp` has its mask in masks/f/a.png.

    Where several masks would have that name (`f/a.png` is another frame, or `f/a.bmp` is in several pairs), the pair's
    row in the table and the gas are added to each of them: masks/f/a_3_co2.png.
    """
    usual = [[(Path(MASKS) / name).with_suffix(".png").as_posix() if name else "" for name in pair] for pair in asked]
    taken = Counter(name.casefold() for pair in usual for name in pair)  # a disk may not tell A from a
    for row, pair in enumerate(usual, start=1):
        for index, gas in enumerate(GASES):
            if pair[index] and taken[pair[index].casefold()] > 1:
                stem = f"{pair[index].removesuffix('.png')}_{row}_{gas}"
                while f"{stem}.png".casefold() in taken:
                    stem += "_"
                pair[index] = f"{stem}.png"
                taken[pair[index].casefold()] = 1
    return [(co2, ch4) for co2, ch4 in usual]


def _counted(count: Counter[str]) -> str:
    """How often each class was named, and how many pairs were seen beside others of their video."""
    classes = ", ".join(f"{count[name]} {name}" for name in CLASSES)
    seen = f"; {count['seen']} of {count['filmed']} pairs of videos beside others of the same view"
    return classes + (seen if count["filmed"] else "")


def _mask(logits: Tensor, frame: Frame | None) -> Frame | None:
    """The likeliest class of each pixel of a frame, from logits (1, 3, h, w)."""
    return None if frame is None else resize(logits, frame.shape)[0].argmax(dim=0).byte().numpy()


def _refuse_sizes(pairs: Sequence[tuple[Frame | None, Frame | None]], videos: Sequence[str]) -> None:
    """Refuse a video whose frames of a gas differ in size."""
    sizes: dict[tuple[str, str], tuple[int, ...]] = {}
    for pair, video in zip(pairs, videos, strict=True):
        for gas, frame in zip(GASES, pair, strict=True):
            if video and frame is not None and (size := sizes.setdefault((video, gas), frame.shape)) != frame.shape:
                what = f"{gas} frames of the video {video!r} are of {size} and of {frame.shape} pixels"
                raise DataError(what, hint="give each part a name, or look at all frames singly: --set videos=false")


def _frame(path: Path, rule: Rule, ranges: Ranges | None, report: Report) -> Frame:
    """A frame; one with its picture in a few grey levels is refused, and what is unlike training otherwise is told."""
    frame = rule.read_frame(path, report=report)
    measured = features(frame)
    if ranges is not None and (why := outside(measured, ranges)):
        contrast = FEATURES.index("contrast")
        if 0 < measured[0, contrast] < ranges.low[contrast] / 2:
            hint = "was it exported with the camera's whole range on a few grey levels? Stretch it as in training"
            raise DataError(f"{path}: {why}", hint=hint)
        report.tell(path, why)
    return frame


def _refuse_loss(out: Path, *, folder: Path, frames: Sequence[str]) -> None:
    """Refuse an `out` that is not a folder, where the frames come from, or whose masks no prediction has written."""
    file = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None)
    if file:
        raise OptionError(f"--out {out}: {file} is a file", hint="name a folder")
    read = {tables.located(folder, name).resolve() for name in frames}
    if folder.resolve() == out.resolve() or any(path.is_relative_to((out / MASKS).resolve()) for path in read):
        raise OptionError(f"--out {out} would overwrite what is in {folder}", hint="name another folder")
    earlier = _earlier(out / TABLE)
    for path in [*out.glob(MASKS), *(out / MASKS).rglob("*")]:
        plain_folder = path.is_dir() and not path.is_symlink()
        if not plain_folder and path.relative_to(out).as_posix() not in earlier:
            raise OptionError(f"{path} is not a mask of an earlier prediction", hint="name another folder for --out")


def _earlier(table: Path) -> set[str]:
    """The masks that an earlier prediction says it has written."""
    if not table.exists():
        return set()
    try:
        with table.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != COLUMNS:
            raise ValueError(f"other columns: {header}")
        return {name for row in rows for name in row[-len(GASES) :]}
    except (OSError, ValueError, csv.Error) as why:
        raise OptionError(f"{table} is not an earlier prediction: {why}", hint="name another folder for --out") from why


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """Yield an empty folder; its table and its masks take their places in `out` only when the block succeeds.

    Where a file there is held fast, all stays as it was.
    """
    beside = out if out.is_dir() else out.parent  # a folder that is there may be all that can be written to
    beside.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".predictions.", dir=beside))
    try:
        (part / MASKS).mkdir()
        yield part
        out.mkdir(exist_ok=True)
        masks, old = out / MASKS, part / "earlier"
        if masks.exists():
            masks.rename(old)
        try:
            (part / TABLE).replace(out / TABLE)
        except BaseException:  # Ctrl-C, too
            if old.exists():
                old.rename(masks)
            raise
        (part / MASKS).rename(masks)
    finally:
        shutil.rmtree(part, ignore_errors=True)


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


def onnx(weights: Path, *, out: Path) -> str:
    """Write the model in the folder `weights` as ONNX to `out`, checked on pairs with and without a missing gas."""
    random = np.random.default_rng(0)
    examples = [example(random, present=present) for present in ((1, 1), (1, 0), (0, 1)) * 4]
    module = Frames(PlumePredictor.load(weights).model).eval()
    return export.onnx(module, out, examples=examples, inputs=INPUTS, outputs=OUTPUTS, each="pair")


def example(random: np.random.Generator, *, present: tuple[int, int] = (1, 1)) -> tuple[Tensor, Tensor, Tensor]:
    """Two noisy grey frames with soft bright and dark places, and which of them are there."""
    soft = F.interpolate(torch.as_tensor(random.normal(110, 40, (2, 1, 5, 6))), SIZE, mode="bicubic")
    noisy = (soft + torch.as_tensor(random.normal(0, 3, soft.shape))).clamp(0, 255).round().float()
    return noisy[:1], noisy[1:], torch.tensor([present], dtype=torch.float32)
