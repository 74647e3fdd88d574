"""Figures of mixtures and of the fusion: true and predicted ratios, alpha's channels, disagreeing modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import plots
from smellkit.odour.mixtures import MixtureWindows
from smellkit.odour.scents import ODORANTS, SCENTS
from smellkit.study.odour.mixture_data import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from smellkit.device.playlist import Playlist


def true_and_predicted(windows: MixtureWindows, ratios: NDArray, *, most: int = 12) -> Figure:
    """Draw the true ratios of up to `most` mixtures beside the mean of what was predicted for their windows."""
    import matplotlib.pyplot as plt

    names = np.array([label(row) for row in windows.ratios])
    several = (windows.ratios > 0).sum(axis=1) > 1
    chosen = np.unique(names[several] if several.any() else names)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int)]
    figure, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 1.8 + 0.34 * len(chosen)), sharey=True)
    colour = plots.colours(ODORANTS)
    for side, values, title in zip(axes, (windows.ratios, ratios), ("true", "predicted"), strict=True):
        means = np.stack([values[names == name].mean(axis=0) for name in chosen])
        left = np.zeros(len(chosen))
        for number, odorant in enumerate(ODORANTS):
            if means[:, number].max() >= 0.02:
                side.barh(range(len(chosen)), means[:, number], left=left, height=0.7, color=colour[odorant])
            left += means[:, number]
        side.set(title=title, xlim=(0, 1), xlabel="ratio")
        side.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(chosen)), chosen)
    axes[0].invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour[odorant]) for odorant in ODORANTS]
    figure.legend(handles, ODORANTS, loc="outside lower center", ncols=3, frameon=False)
    return figure


def scores_beside(table: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw Top-1@0.1 and dynamic top-k of several systems side by side, in percent: a good one needs both."""
    names = {"top1_at_0.1": "ratios within 0.1", "dynamic_top_k": "right components"}
    rows = [
        {"name": system, "measure": word, "score": scores[key]}
        for system, scores in table.items()
        for key, word in names.items()
    ]
    return grouped(pd.DataFrame(rows), of="measure", label="%", limits=(0, 100))


def grouped(
    table: pd.DataFrame, *, of: str, label: str = "", limits: tuple[float, float] | None = None, digits: int = 0
) -> Figure:
    """Draw horizontal bars of "score", one group for each "name" and in it one bar for each value of column `of`."""
    import matplotlib.pyplot as plt

    names, kinds = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table[of]))
    colour = plots.colours(map(str, kinds))
    height = 0.8 / len(kinds)
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 1.4 + 0.26 * len(names) * len(kinds)))
    for turn, kind in enumerate(kinds):
        part = table[table[of] == kind].set_index("name")["score"].reindex(names)
        rows = np.arange(len(names)) + (turn - (len(kinds) - 1) / 2) * height
        axes.barh(rows, part, height=0.9 * height, color=colour[str(kind)], label=str(kind))
        for row, value in zip(rows, part, strict=True):
            if np.isfinite(value):
                axes.annotate(f"{value:.{digits}f}", (value, row), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    if limits:
        axes.set_xlim(*limits)
    figure.legend(loc="outside upper center", ncols=min(len(kinds), 4), frameon=False)
    return figure


def channel_correlations(z: Tensor, ratios: NDArray, weights: Tensor, *, most: int = 16) -> Figure:
    """Draw how the strongest channels of alpha answer to each scent: the correlation of z_i with the scent's ratio.

    `z` (windows, 50), `ratios` (windows, 12), `weights` (50,) from `AlphaSum.weights`.
    """
    strongest = np.argsort(-weights.numpy())[:most]
    centred = z.numpy()[:, strongest] - z.numpy()[:, strongest].mean(axis=0)
    truth = ratios - ratios.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)[None, :] * np.linalg.norm(truth, axis=0)[:, None]
    values = truth.T @ centred / np.maximum(size, 1e-9)
    columns = [f"{channel + 1}" for channel in strongest]
    figure = plots.heat(values, rows=ODORANTS, columns=columns, centre=0.0, label="correlation")
    figure.axes[0].set_xlabel("channel z, the strongest first")
    return figure


def all_subsets(table: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw the accuracy of all seven subsets of smell, picture and text, best first."""
    values = {name: 100 * scores["accuracy"] for name, scores in table.items()}
    order = sorted(values, key=lambda name: -values[name])
    whole = [name for name in order if name.count("+") == 2]
    return plots.bars({name: values[name] for name in order}, label="% right", digits=0, highlight=whole)


def disagreement(table: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw which modality the model follows when one shows another scent than the two others."""
    words = {
        "none": "all agree",
        "smell": "smell disagrees",
        "picture": "picture disagrees",
        "text": "text disagrees",
    }
    rows = {}
    for odd, shares in table.items():
        follows, others = shares["follows it"], shares["follows the others"]
        rows[words[odd]] = {"the others": others, "the odd one": follows, "a third scent": 1 - others - follows}
    return plots.stacked(pd.DataFrame(rows).T, label="share of answers")


def slots(plan: Playlist) -> pd.DataFrame:
    """Return the slots of a playlist as rows of name, start, end: what `plots.timeline` draws."""
    return pd.DataFrame([{"name": SCENTS[scent - 1], "start": at, "end": at + long} for at, scent, long in plan.slots])


def most_mixed(windows: MixtureWindows, *, components: int = 2) -> int:
    """Return the first row of `windows` with at least `components` scents, for a worked example."""
    rows = np.flatnonzero((windows.ratios > 0).sum(axis=1) >= components)
    return int(rows[0]) if len(rows) else 0
