"""Pictures of a milling machine: the path in its lines of G-code, what names it, and the protocols side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from smellkit import plots
from smellkit.gcode.data import LENGTH
from smellkit.gcode.recordings import CONTINUOUS, RATE, modality
from smellkit.study.figures import grouped
from smellkit.study.gcode.path import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smellkit.gcode.data import Machine


ENDS = {"score": "value", "low": "low", "high": "high"}  # a column of a table: its key in a figure
UNITS = {"position": ", mm", "current": ", A"}  # of channels that are shown by name


def rows_of(machine: Machine, recording: str) -> slice:
    """The rows of a recording, from its first window to its last."""
    first = machine.windows.loc[machine.windows["recording"] == recording, "row"]
    return slice(int(first.min()), int(first.max()) + LENGTH)


def executed(machine: Machine, recording: str) -> list[str]:
    """The lines that were executed in a recording, in order, each once."""
    codes = pd.Series(machine.row_lines[rows_of(machine, recording)])
    return [machine.lines[code] for code in codes[codes != codes.shift()] if code >= 0]


def toolpaths(paths: Mapping[str, Sequence[str]], *, true: Sequence[str] = ()) -> Figure:
    """The paths that sequences of lines describe, from above, side by side: name -> lines in order of time.

    With `true` lines their path lies below each, wide and pale, so that what is decoded wrongly stands out.
    """
    figure, panels = plots.canvas(1, len(paths), height=3.4, sharex=True, sharey=True, squeeze=False)
    for axes, (name, lines), shade in zip(panels[0], paths.items(), plots.PALETTE, strict=False):
        for drawn, look in ((true, {"color": plots.INK, "linewidth": 5, "alpha": 0.25, "label": "true"}),
                            (lines, {"color": shade, "linewidth": 1.2, "label": name})):  # fmt: skip
            if len(drawn):
                x, y, _ = np.concatenate(draw(drawn)[1:]).T  # without the way from zero to where the first line ends
                axes.plot(x, y, solid_capstyle="round", **look)
        axes.set(xlabel="X, mm", aspect="equal")
        axes.set_title(name, fontsize=10)
    panels[0, 0].set_ylabel("Y, mm")
    if len(true):
        figure.legend(*(part[:1] for part in axes.get_legend_handles_labels()), loc="outside lower center")
    return figure


def timeline(machine: Machine, recording: str, *, names: Sequence[str]) -> Figure:
    """Some channels of a recording over time, each in its own panel, since their units differ."""
    values = machine.values[rows_of(machine, recording)]
    figure, panels = plots.canvas(len(names), 1, height=1.1 + 1.1 * len(names), sharex=True, squeeze=False)
    for axes, name, shade in zip(panels[:, 0], names, plots.PALETTE, strict=False):
        axes.plot(np.arange(len(values)) / RATE, values[:, CONTINUOUS.index(name)], color=shade, linewidth=1.2)
        unit = UNITS.get(modality(name), "")
        axes.set_ylabel(name.replace(".", "\n") + unit, rotation=0, ha="right", va="center", fontsize=11)
    panels[-1, 0].set_xlabel("seconds")
    return figure


def protocols(rows: Mapping[str, Mapping], *, measures: Sequence[str] = ("TF", "AR", "Num")) -> Figure:
    """Token measures of rows of a bench, per cent with 95 % intervals: one group of bars a row."""
    each = [{"name": name, "part": measure, **{end: 100 * row[measure][key] for end, key in ENDS.items()}}
            for name, row in rows.items() for measure in measures]  # fmt: skip
    return grouped(pd.DataFrame(each), label="tokens right, %", limits=(0, 100))
