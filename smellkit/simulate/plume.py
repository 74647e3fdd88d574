"""Write simulated videos of two gas cameras in the layout of the real set: frames, masks, annotations, pairs.

The truth that no camera tells (emission, contrast) is kept apart, in emission.csv, for the notebooks and the baselines.
"""

import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from smellkit.errors import DataError, OptionError
from smellkit.options import check
from smellkit.plume import CLASSES, GASES
from smellkit.plume import annotations as tables
from smellkit.plume.annotations import SPLITS
from smellkit.simulate import plume_physics as physics
from smellkit.simulate import plume_worlds as worlds

PH = {"Healthy": (6.5, 6.2), "Transitional": (5.9,), "Acidotic": (5.6, 5.3, 5.0)}
BOTH = "both"
# Shares of (class, gases that were filmed). The cells of `fume` follow from the published counts alone: 2,709 + 3,465
# + 84 pairs, 192 + 11 + 224 originals of 21 frames, and 81.5 % that the pattern alone gets right leave one solution.
MISSING: dict[str, dict[tuple[str, str], float]] = {
    "fume": {
        **{("Healthy", BOTH): 1911, ("Healthy", "co2"): 126, ("Healthy", "ch4"): 84, ("Transitional", "co2"): 231},
        **{("Acidotic", BOTH): 798, ("Acidotic", "co2"): 3108},
    },
    "none": {("Healthy", BOTH): 4032, ("Transitional", BOTH): 231, ("Acidotic", BOTH): 4704},
    "even": {(name, BOTH): 1 for name in CLASSES},
    "independent": {
        (name, gases): share * part
        for name, share in {"Healthy": 2121, "Transitional": 231, "Acidotic": 3906}.items()
        for gases, part in {BOTH: 2709, "co2": 3465, "ch4": 84}.items()
    },
}


class Plan(NamedTuple):
    """One video to be made."""

    name: str
    split: str
    health: str
    ph: float
    gases: tuple[str, ...]
    frames: int
    wide: bool
    world: str = ""  # a simulator of plume_worlds instead of plume_physics


def write(
    folder: str | Path, *, size: tuple[int, int] = (160, 120), seed: int = 7, progress: bool = False, **planned: Any
) -> pd.DataFrame:
    """Write pairs of frames of `size` (width, height) into the new `folder`; return their statistics.

    `planned` are keywords of `plan`: how many pairs, in which videos, with which gases. A pair is a moment of a video,
    and a video is in one split only.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} exists already", hint="name another folder, or delete this one")
    if not all(16 <= length <= 4096 for length in size):
        hint = "16 to 4096 pixels a side, for example 160x120"
        raise OptionError(f"A frame of {size[0]} x {size[1]}", hint=hint)
    plans = plan(seed=seed, **planned)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as half:
        pairs = _write_all(Path(half) / "whole", plans, size=size, seed=seed, progress=progress)
        if folder.exists():
            folder.rmdir()  # empty, or it would not be here
        (Path(half) / "whole").rename(folder)
    return tables.statistics(pairs)


def _write_all(
    folder: Path, plans: list[Plan], *, size: tuple[int, int], seed: int, progress: bool
) -> dict[str, pd.DataFrame]:
    """Write frames, masks, annotations and the truth of all planned videos; return the pairs of each split."""
    from tqdm.auto import tqdm

    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True)
    rows: dict[str, list[dict]] = {}
    moments: dict[str, list[dict]] = {}
    truth: list[dict] = []
    for number, video in enumerate(tqdm(plans, unit="video", disable=not progress, leave=False)):
        log_emission, made = film(video, number=number, size=size, seed=seed)
        health = {"ph_value": video.ph, "class_id": CLASSES.index(video.health), "class_name": video.health}
        missing = next((gas for gas in GASES if gas not in video.gases), "")
        for frame in range(video.frames):
            original = {"original_sample_id": video.name, "augmentation_id": frame}
            moment = {"video": video.name, "frame_number": frame}
            pair = dict.fromkeys(tables.PATHS, "") | health | {"is_paired": not missing, "missing_modality": missing}
            pair |= moment
            for index, gas in ((GASES.index(gas), gas) for gas in video.gases):
                for kind, pixels in (("frame", made.frames), ("mask", made.masks)):
                    pair[f"{gas}_{kind}"] = f"{kind}s/{video.name}_f{frame:02d}_{gas}.png"
                    Image.fromarray(pixels[frame, index]).save(folder / pair[f"{gas}_{kind}"], compress_level=4)
                paths = {"frame_path": pair[f"{gas}_frame"], "mask_path": pair[f"{gas}_mask"], "gas_type": gas}
                rows.setdefault(video.split, []).append(paths | health | original | moment)
                known = {"gas_type": gas, "log_emission": round(float(log_emission[index]), 4)}
                truth.append(original | known | {"contrast": float(f"{made.contrast[frame, index]:.4g}")})
            moments.setdefault(video.split, []).append(pair)
    pairs = {}
    for split, listed in rows.items():
        tables.write(pd.DataFrame(listed), tables.annotation_file(folder, split))
        table = pd.DataFrame(moments[split]).assign(alone=lambda table: table["co2_frame"] == "")
        table = table.sort_values(["ph_value", "class_name", "alone", "co2_frame", "ch4_frame"])
        pairs[split] = table[[*tables.PAIRED, *tables.VIDEO]]
        tables.write(pairs[split], tables.annotation_file(folder, split, paired=True))
    tables.write(pd.DataFrame(truth), folder / "emission.csv")
    return pairs


def film(video: Plan, *, number: int, size: tuple[int, int], seed: int) -> tuple[NDArray, physics.Video]:
    """Make one planned video, the `number`-th of its seed: ln Q of CO2 and CH4, and the video."""
    drawn = np.random.default_rng([seed, number])
    if video.world:
        chosen = tuple(GASES.index(gas) for gas in video.gases)
        how: dict[str, Any] = {"frames": video.frames, "size": size[::-1], "random": drawn, "gases": chosen}
        return worlds.film(video.world, video.ph, **how)
    scene = physics.scene(video.ph, frames=video.frames, random=drawn, wide=video.wide)
    noise = np.random.default_rng([seed, number, 1])
    return scene.log_emission, physics.render(scene, size=size, random=noise, gases=video.gases)


def plan(
    pairs: int = 300,
    *,
    seed: int = 7,
    frames: int = 5,
    missing: str = "fume",
    variety: float = 0.0,
    world: str = "",
    shares: Sequence[float] = (70, 15, 15),
) -> list[Plan]:
    """Which videos to make: classes, pH and gases by quota in each split, in an order that the seed decides.

    `frames` a video, `shares` of train, valid and test; `missing` is a row of MISSING; `variety` the share of videos
    with cameras and barns of physics.WIDE. `world` names simulators of `plume_worlds`
    that take turns, and "own" for this one: own,own,cone has a third of its videos from another.
    """
    check([missing], MISSING, "There is no pattern of missing gases called")
    abroad = ["" if name in ("", "own") else name for name in world.split(",")]
    check(filter(None, abroad), ["own", *worlds.WORLDS, "mixed"], "There is no simulator")
    if pairs < 1 or frames < 1:
        raise OptionError(f"{pairs} pairs in videos of {frames} frames", hint="1 or more of both")
    if len(shares) != 3 or min(shares) < 0 or sum(shares) <= 0:
        raise OptionError(f"The shares {list(shares)}", hint="three numbers, of train, valid and test: 70,15,15")
    if not 0 <= variety <= 1:
        raise OptionError(f"A variety of {variety}", hint="from 0 (one kind of camera) to 1 (all kinds)")
    random = np.random.default_rng(seed)
    videos: list[Plan] = []
    for split, count in zip(SPLITS, quotas(shares, pairs), strict=True):
        cells = MISSING[missing]
        number = -(-count // frames)
        drawn = [cell for cell, times in zip(cells, _each_class(cells, number), strict=True) for _ in range(times)]
        turns = {health: cycle(values) for health, values in PH.items()}
        for done, place in enumerate(random.permutation(number)):  # whose turn it is does not depend on the class
            health, gases = drawn[place]
            name, filmed = f"v{len(videos):04d}", GASES if gases == BOTH else (gases,)
            left, wide = min(frames, count - frames * done), bool(random.random() < variety)
            videos.append(
                Plan(name, split, health, next(turns[health]), filmed, left, wide, abroad[done % len(abroad)])
            )
    return videos


def quotas(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers that add up to `total`, as near to `shares` as can be (largest remainders)."""
    exact = np.array(shares, float) / sum(shares) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts.tolist()


def _each_class(cells: dict[tuple[str, str], float], total: int) -> list[int]:
    """Quotas of the cells with at least one video of each class, where there are three or more."""
    counts = dict(zip(cells, quotas(list(cells.values()), total), strict=True))
    for name in CLASSES:
        own = [cell for cell in cells if cell[0] == name]
        if total >= len(CLASSES) and not sum(counts[cell] for cell in own):
            counts[max(counts, key=lambda cell: counts[cell])] -= 1
            counts[max(own, key=lambda cell: cells[cell])] += 1
    return list(counts.values())


def numbers(text: str, mark: str, *, name: str, example: str) -> tuple[int, ...]:
    """As many whole numbers as the example has, from texts like `160x120` or `70,15,15`."""
    parts = text.lower().split(mark)
    if len(parts) != len(example.split(mark)) or not all(part.strip().isdecimal() for part in parts):
        raise OptionError(f"{name} {text!r}", hint=f"for example {example}")
    return tuple(int(part) for part in parts)
