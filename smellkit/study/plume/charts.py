"""Pictures of what models of plumes predict: scores side by side, uncertainty, and what happens when a camera fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import plots
from smellkit.plume import CLASSES, GASES
from smellkit.study.plume.figures import NAMES, SHADES, stretched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smellkit.plume.predict import PlumePrediction

MEASURES = {"miou": "mean IoU", "balanced": "balanced accuracy"}


def scores(table: Mapping[str, Mapping[str, Any]], measure: str, *, label: str) -> Figure:
    """Bars of a measure, a row of `bench` each that has it, best first, with intervals."""
    rows = {name: row[measure] for name, row in table.items() if measure in row}
    rows = dict(sorted(rows.items(), key=lambda item: -item[1]["value"]))
    value, low, high = ({name: row[key] for name, row in rows.items()} for key in ("value", "low", "high"))
    return plots.bars(value, low=low, high=high, highlight=["ours", "FUME"], label=label)


def learning(metrics: pd.DataFrame) -> Figure:
    """Mean IoU and balanced accuracy on validation pairs over the epochs of a run."""
    table = metrics.rename(columns=MEASURES).melt("epoch", list(MEASURES.values()), "score", "value")
    return plots.lines(table, x="epoch", y="value", group="score", label="validation")


def uncertainty(pictures: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Figure:
    """A pair of frames (2, H, W) above the probability at each pixel (2, H, W) that its class is another one."""
    from matplotlib.figure import Figure

    plots.style()
    figure = Figure(figsize=(plots.WIDTH, 0.76 * plots.WIDTH), layout="constrained")
    panels = figure.subplots(2, 2)
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
    from matplotlib.figure import Figure

    plots.style()
    figure = Figure(figsize=(plots.WIDTH, 3.2), layout="constrained")
    labels = {"miou": "mean IoU, frames there", "balanced_probability": "probability of the right class"}
    for axes, (name, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
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


def cases(tables: pd.DataFrame) -> Figure:
    """Means with intervals by case, mean IoU beside balanced accuracy: a table of `ablations.swept`."""
    from matplotlib.figure import Figure

    plots.style()
    names = list(dict.fromkeys(tables["case"]))
    figure = Figure(figsize=(plots.WIDTH, 1.3 + 0.36 * len(names)), layout="constrained")
    scores = list(dict.fromkeys(tables["score"]))
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores, strict=True):
        rows = tables[tables["score"] == score].set_index("case").reindex(names)
        known = np.isfinite(rows["low"].to_numpy(float))
        half = np.where(known, rows["mean"] - rows["low"], 0)
        axes.errorbar(rows["mean"], range(len(names)), xerr=half, fmt="o", color=plots.PALETTE[0], capsize=3)
        axes.set(xlabel=MEASURES[score.removeprefix("test.")], ylim=(len(names) - 0.5, -0.5), xlim=(0, 1))
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="x")
    return figure


def edges(predictions: Sequence[PlumePrediction], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The predicted masks as one array (pairs, 2, H, W), empty where there is no frame."""
    blank = np.zeros(shape, np.uint8)
    return np.stack([[blank if mask is None else mask for mask in one.masks] for one in predictions])
