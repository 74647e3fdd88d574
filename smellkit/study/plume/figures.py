"""Pictures of plumes: frames with their masks, videos as small animations, amounts, and what models predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import plots
from smellkit.plume import CLASSES, GAS, GASES, TUBE
from smellkit.study.figures import WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from smellkit.plume.predict import PlumePrediction

NAMES = {"co2": "CO2", "ch4": "CH4"}
SHADES = {"co2": plots.PALETTE[0], "ch4": plots.PALETTE[1]}
DASHED = (0, (2, 1.5))
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
    from matplotlib.lines import Line2D

    count, _, rows, columns = pictures.shape
    figure, panels = plots.canvas(2, count, height=1.9 * plots.WIDTH / count * rows / columns + 0.62, squeeze=False)
    for gas, pair in product(range(len(NAMES)), range(count)):
        axes: Axes = panels[gas][pair]
        axes.set(xticks=[], yticks=[], xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
        if present is not None and not present[pair, gas]:
            axes.spines[:].set_visible(False)
            axes.text(0.5, 0.5, "no frame", transform=axes.transAxes, ha="center", va="center", fontsize=9)
            continue
        axes.imshow(stretched(pictures[pair, gas]), cmap="gray", vmin=0, vmax=255)
        _edges(axes, masks[pair, gas], line="-")
        if predicted is not None:
            _edges(axes, predicted[pair, gas], line=DASHED)
    for first, name in zip(panels[:, 0], NAMES.values(), strict=True):
        first.set_ylabel(name)
    for top, title in zip(panels[0], titles, strict=False):
        top.set_title(title, fontsize=10, pad=4)
    handles = [Line2D([], [], color=shade, label=name) for shade, name in EDGES.values()]
    if predicted is not None:
        handles.append(Line2D([], [], color=plots.INK, linestyle=DASHED, label="predicted"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _edges(axes: Axes, mask: NDArray[np.uint8], *, line: Any) -> None:
    for value, (shade, _) in EDGES.items():
        if 0 < (mask == value).mean() < 1:
            axes.contour(mask == value, levels=[0.5], colors=shade, linewidths=1.3, linestyles=[line])


def stretched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame, or a video, whose greys fill the range from black to white but for 1 % at either end."""
    low, high = np.percentile(picture, [1, 99])
    return np.clip((picture - low) / max(high - low, 8.0) * 235 + 10, 0, 255).astype(np.uint8)


def emission(table: pd.DataFrame) -> Figure:
    """Amounts of gas against pH, a point a frame: area of the plume, and the vessel's true emission where it is known.

    Columns of `survey.amounts`; points are spread a little to the side, lines join the medians.
    """
    import seaborn

    labels = {"log_emission": "emission of the vessel, ln Q", "area": "gas, share of the frame"}
    known = [name for name in labels if name in table and table[name].notna().any()]
    figure, panels = plots.canvas(1, len(known), height=3.3, squeeze=False)
    palette = {NAMES[gas]: shade for gas, shade in SHADES.items()}
    look: dict[str, Any] = {"data": table.replace({"gas_type": NAMES}), "hue": "gas_type", "palette": palette}
    look |= {"x": "ph_value", "native_scale": True}
    for axes, name in zip(panels[0], known, strict=True):
        seaborn.stripplot(**look, y=name, ax=axes, dodge=True, size=3, alpha=0.4, legend=False)
        seaborn.pointplot(**look, y=name, ax=axes, dodge=0.4, estimator="median", errorbar=None, linewidth=1.5)
        axes.set(xlabel="pH", ylabel=labels[name])
        axes.grid(axis="y")
        handles = axes.get_legend_handles_labels()
        axes.get_legend().remove()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    return figure


def scores(table: Mapping[str, Mapping[str, Any]], measure: str, *, label: str) -> Figure:
    """Bars of a measure, a row of `bench` each that has it, best first, with intervals."""
    rows = {name: row[measure] for name, row in table.items() if measure in row}
    rows = dict(sorted(rows.items(), key=lambda item: -item[1]["value"]))
    value, low, high = ({name: row[key] for name, row in rows.items()} for key in ("value", "low", "high"))
    return plots.bars(value, low=low, high=high, highlight=["ours", "FUME", "weights as shipped"], label=label)


def learning(metrics: pd.DataFrame) -> Figure:
    """Mean IoU and balanced accuracy on validation pairs over the epochs of a run."""
    table = metrics.rename(columns=WORDS).melt("epoch", list(WORDS.values()), "score", "value")
    return plots.lines(table, x="epoch", y="value", group="score", label="validation")


def uncertainty(pictures: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Figure:
    """A pair of frames (2, H, W) above the probability at each pixel (2, H, W) that its class is another one."""
    figure, panels = plots.canvas(2, 2, height=0.76 * plots.WIDTH)
    for place, name in enumerate(NAMES.values()):
        panels[0, place].imshow(stretched(pictures[place]), cmap="gray", vmin=0, vmax=255)
        panels[0, place].set_title(name)
        drawn = panels[1, place].imshow(probabilities[place], cmap=plots.ramp(), vmin=0, vmax=0.6)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=panels[1], label="probability of another class", shrink=0.9)
    return figure


def failing(table: pd.DataFrame) -> Figure:
    """Mean IoU and probability of the right class, as a camera fails more often: columns of `ablations.failing`."""
    figure, panels = plots.canvas(1, 2, height=3.2)
    labels = {"miou": "mean IoU, frames there", "balanced_probability": "mean p of the true class"}
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        for gas in GASES:
            rows = table[table["failing"] == gas]
            axes.plot(100 * rows["share"], rows[name], "o-", color=SHADES[gas], label=f"no {NAMES[gas]}")
        axes.set(xlabel="pairs in which it fails, %", title=label, ylim=(0, 1))
        axes.title.set_fontsize(11)
        axes.grid(axis="y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def health(probabilities: Mapping[str, NDArray[np.float32]], *, truth: str) -> Figure:
    """Probabilities of the three classes as stacked bars, one a name."""
    table = pd.DataFrame(np.stack(list(probabilities.values())), index=list(probabilities), columns=list(CLASSES))
    return plots.stacked(table, label=f"probability (it is {truth})")


def edges(predictions: Sequence[PlumePrediction], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The predicted masks as one array (pairs, 2, H, W), empty where there is no frame."""
    blank = np.zeros(shape, np.uint8)
    return np.stack([[blank if mask is None else mask for mask in one.masks] for one in predictions])


def maps(images: Mapping[str, NDArray], *, label: str, level: float) -> Figure:
    """Amounts in the plane side by side, name -> (rows, columns), on one scale; a line where they pass `level`."""
    from matplotlib.lines import Line2D

    figure, panels = plots.canvas(1, len(images), height=2.9, squeeze=False)
    most = max(float(image.max()) for image in images.values())
    for axes, (name, image) in zip(panels[0], images.items(), strict=True):
        drawn = axes.imshow(image, cmap=plots.ramp(), vmin=0, vmax=most)
        axes.contour(image, levels=[level], colors=plots.PALETTE[1], linewidths=1.3)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=10)
    figure.colorbar(drawn, ax=panels[0], label=label, shrink=0.8)
    line = Line2D([], [], color=plots.PALETTE[1], label=f"edge of the mask, {level:g} {label}")
    figure.legend(handles=[line], loc="outside lower center")
    return figure


def overlap(pairs: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> Figure:
    """Two masks laid over each other, name -> (truth, prediction): what both have, and what only one has."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    names = ("only the truth", "only the prediction", "both")
    shades = [plots.PALETTE[1], plots.PALETTE[4], plots.PALETTE[0]]
    figure, panels = plots.canvas(1, len(pairs), height=2.4, squeeze=False)
    for axes, (name, (truth, prediction)) in zip(panels[0], pairs.items(), strict=True):
        parts = truth + 2 * prediction.astype(int)
        axes.imshow(np.ma.masked_equal(parts, 0), cmap=ListedColormap(shades), vmin=1, vmax=3, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=10)
    handles = [Patch(color=shade, label=name) for shade, name in zip(shades, names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def attention(pictures: NDArray[np.uint8], weights: NDArray, *, at: tuple[int, int]) -> Figure:
    """A place `at` (row, column) of the CO2 frame, and how much it attends to each place of the CH4 frame.

    `pictures` (2, H, W); `weights` (rows, columns) of places, over the whole of the frame.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, panels = plots.canvas(1, 2, height=2.9, squeeze=False)
    rows, columns = pictures.shape[1:]
    whole = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    for axes, picture, name in zip(panels[0], pictures, NAMES.values(), strict=True):
        axes.imshow(stretched(picture), cmap="gray", vmin=0, vmax=255, extent=whole)
        axes.set(xticks=[], yticks=[], title=name)
    tall, wide = rows / weights.shape[0], columns / weights.shape[1]
    panels[0, 0].plot((at[1] + 0.5) * wide, (at[0] + 0.5) * tall, "o", markersize=11, color=plots.PALETTE[3])
    strong = np.sqrt(weights / weights.max())  # the frame shows through where there is little
    panels[0, 1].imshow(weights, cmap="plasma", alpha=strong, extent=whole, vmin=0)
    scale = ScalarMappable(Normalize(0, float(weights.max())), "plasma")
    figure.colorbar(scale, ax=panels[0], label="attention", shrink=0.75)
    return figure
