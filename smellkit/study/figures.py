"""Drawings that studies of several systems share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from smellkit import plots

WORDS = {"miou": "mean IoU", "balanced": "balanced accuracy"}  # of scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def grouped(table: pd.DataFrame, *, label: str, limits: tuple[float, float], digits: int | None = None) -> Figure:
    """Horizontal bars of "score", one group for each "name" and in it one bar for each "part".

    With intervals where there are columns "low" and "high", and the number at its end with so many `digits`.
    """
    names, kinds = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["part"]))
    wide = table.pivot(index="name", columns="part").reindex(names)
    figure, axes = plots.canvas(height=1.4 + 0.28 * len(names) * len(kinds))
    look: dict[str, Any] = {"ecolor": plots.INK, "error_kw": {"elinewidth": 1.2, "capsize": 2}, "legend": False}
    if "low" in table:
        ends = [wide["score"] - wide["low"], wide["high"] - wide["score"]]
        look["xerr"] = np.stack([np.stack([end[kind] for end in ends]) for kind in kinds])
    wide["score"][kinds].plot.barh(ax=axes, width=0.8, color=plots.colours(kinds), **look)
    for bars, kind in zip(axes.containers if digits is not None else (), kinds, strict=False):
        labels = [f"{value:.{digits}f}" if np.isfinite(value) else "" for value in wide["score"][kind]]
        axes.bar_label(bars, labels, padding=4)
    axes.set_yticks(range(len(names)), plots.wrapped(names))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set(xlabel=label, ylabel="", xlim=limits)
    plots.show_ends(axes, table[[end for end in ("low", "high") if end in table]].to_numpy(float))
    axes.grid(axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(kinds), 4))
    return figure


def cases(tables: pd.DataFrame) -> Figure:
    """Means with intervals by case, a panel for each score: a table of `ablations.tidy`."""
    names, scores = (list(dict.fromkeys(tables[column])) for column in ("case", "score"))
    figure, panels = plots.canvas(1, len(scores), height=1.3 + 0.36 * len(names), sharey=True, squeeze=False)
    for axes, score in zip(panels[0], scores, strict=True):
        rows = tables[tables["score"] == score].set_index("case").reindex(names)
        known = np.isfinite(rows["low"].to_numpy(float))
        half = np.where(known, rows["mean"] - rows["low"], 0)
        least, most = (rows["mean"] - half).min() - 0.02, (rows["mean"] + half).max() + 0.02
        axes.errorbar(rows["mean"], range(len(names)), xerr=half, fmt="o", color=plots.PALETTE[0], capsize=3)
        axes.set(xlabel=WORDS.get(score, score), ylim=(len(names) - 0.5, -0.5))
        axes.set(xlim=(max(least, 0), min(most, 1)))
        axes.locator_params(axis="x", nbins=4)
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="x")
    return figure
