"""Pictures of plumes: frames with their masks, videos as small animations, amounts against pH."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import plots
from smellkit.plume import GAS, GASES, TUBE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"co2": "CO2", "ch4": "CH4"}
SHADES = {"co2": plots.PALETTE[0], "ch4": plots.PALETTE[1]}
EDGES = {GAS: (plots.PALETTE[1], "gas"), TUBE: (plots.PALETTE[5], "tube")}


def frames(
    pictures: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    *,
    present: NDArray[np.bool_] | None = None,
    titles: Sequence[str] = (),
    predicted: NDArray[np.uint8] | None = None,
) -> Figure:
    """Pairs of frames (pairs, 2, rows, columns), CO2 above CH4, the edges of gas and tube drawn in.

    `present` (pairs, 2) says which frames there are; `predicted` are a model's masks, drawn dashed.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    plots.style()
    count, _, rows, columns = pictures.shape
    wide = plots.WIDTH / count
    figure = Figure(figsize=(plots.WIDTH, 1.9 * wide * rows / columns + 0.62), layout="constrained")
    panels = figure.subplots(2, count, squeeze=False)
    for gas, pair in product(range(len(NAMES)), range(count)):
        axes: Axes = panels[gas][pair]
        axes.set(xticks=[], yticks=[], xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
        if present is not None and not present[pair, gas]:
            axes.spines[:].set_visible(False)
            axes.text(0.5, 0.5, "no frame", transform=axes.transAxes, ha="center", va="center", fontsize=9)
            continue
        axes.imshow(stretched(pictures[pair, gas]), cmap="gray", vmin=0, vmax=255)
        _edges(axes, masks[pair, gas])
        if predicted is not None:
            _edges(axes, predicted[pair, gas], dashed=True)
    for first, name in zip(panels[:, 0], NAMES.values(), strict=True):
        first.set_ylabel(name)
    for top, title in zip(panels[0], titles, strict=False):
        top.set_title(title, fontsize=10, pad=4)
    handles = [Line2D([], [], color=shade, label=name) for shade, name in EDGES.values()]
    if predicted is not None:
        handles.append(Line2D([], [], color=plots.INK, linestyle=(0, (2, 1.5)), label="predicted"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _edges(axes: Axes, mask: NDArray[np.uint8], *, dashed: bool = False) -> None:
    for value, (shade, _) in EDGES.items():
        if (mask == value).any() and not (mask == value).all():
            axes.contour(
                mask == value, levels=[0.5], colors=shade, linewidths=1.3, linestyles=[(0, (2, 1.5)) if dashed else "-"]
            )


def stretched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame, or a video, whose greys fill the range from black to white but for 1 % at either end."""
    low, high = np.percentile(picture, [1, 99])
    return np.clip((picture - low) / max(high - low, 8.0) * 235 + 10, 0, 255).astype(np.uint8)


def movie(pictures: NDArray[np.uint8], masks: NDArray[np.uint8], *, alt: str, seconds: float = 0.22) -> str:
    """A video (frames, 2, rows, columns) with its masks as HTML: both gases side by side, CO2 on the left.

    The picture moves by itself, but stands still for readers who asked their system for less motion.
    """
    from PIL import Image

    shown = [Image.fromarray(np.concatenate(list(pair), axis=1)) for pair in _with_gap(coloured(pictures, masks))]
    moving, still = io.BytesIO(), io.BytesIO()
    shown[0].save(
        moving, "WEBP", save_all=True, append_images=shown[1:], duration=round(1000 * seconds), loop=0, quality=55
    )
    shown[0].save(still, "WEBP", quality=55)
    first, second = (base64.b64encode(each.getvalue()).decode() for each in (still, moving))
    return (
        '<figure class="smell-figure"><picture>'
        f'<source media="(prefers-reduced-motion: reduce)" srcset="data:image/webp;base64,{first}">'
        f'<img src="data:image/webp;base64,{second}" alt="{html.escape(alt)}" style="width:100%;max-width:640px">'
        "</picture></figure>"
    )


def _with_gap(pictures: NDArray[np.uint8], *, gap: int = 6) -> NDArray[np.uint8]:
    """The same with a grey gap on the right of each frame."""
    return np.pad(pictures, [(0, 0), (0, 0), (0, 0), (0, gap), (0, 0)], constant_values=128)


def coloured(pictures: NDArray[np.uint8], masks: NDArray[np.uint8], *, times: int = 2) -> NDArray[np.uint8]:
    """Frames (frames, 2, rows, columns) in RGB, enlarged, with the edges of gas and tube in their colours."""
    from matplotlib.colors import to_rgb

    large = [array.repeat(times, axis=-2).repeat(times, axis=-1) for array in (pictures, masks)]
    picture = np.stack([stretched(large[0][:, gas]) for gas in range(len(GASES))], axis=1)
    result = np.repeat(picture[..., None], 3, axis=-1)
    for value, (shade, _) in EDGES.items():
        inside = np.pad(large[1] == value, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
        whole = inside[..., 1:-1, 1:-1]
        core = inside[..., :-2, 1:-1] & inside[..., 2:, 1:-1] & inside[..., 1:-1, :-2] & inside[..., 1:-1, 2:]
        result[whole & ~core] = np.round(255 * np.array(to_rgb(shade))).astype(np.uint8)
    return result


def emission(table: pd.DataFrame) -> Figure:
    """Amounts of gas against pH, a point a frame: area of the plume, and the vessel's true emission where it is known.

    Columns of `survey.amounts`; points are spread a little to the side, lines join the medians.
    """
    from matplotlib.figure import Figure

    plots.style()
    known = [name for name in ("log_emission", "area") if name in table and table[name].notna().any()]
    labels = {"log_emission": "emission of the vessel, ln Q", "area": "gas, share of the frame"}
    figure = Figure(figsize=(plots.WIDTH, 3.3), layout="constrained")
    random = np.random.default_rng(1)
    for axes, name in zip(figure.subplots(1, len(known), squeeze=False)[0], known, strict=True):
        for place, (gas, rows) in enumerate(table.groupby("gas_type", sort=False)):
            gas, side = str(gas), (place - 0.5) * 0.09
            spread = rows["ph_value"] + side + random.uniform(-0.03, 0.03, len(rows))
            axes.scatter(spread, rows[name], s=9, alpha=0.4, color=SHADES[gas], linewidth=0)
            middle = rows.groupby("ph_value")[name].median()
            axes.plot(middle.index + side, middle, "o-", color=SHADES[gas], markersize=5, label=NAMES[gas])
        axes.set(xlabel="pH", ylabel=labels[name])
        axes.grid(axis="y")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure
