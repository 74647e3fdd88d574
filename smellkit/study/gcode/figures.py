"""Pictures of a milling machine: the path in its lines of G-code, what names it, and the protocols side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import plots
from smellkit.gcode.data import LENGTH
from smellkit.gcode.tokens import WORD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smellkit.gcode.data import Machine


def coordinates(lines: Sequence[str]) -> NDArray[np.float64]:
    """Where each line ends, (lines, 3) in inches: a coordinate that a line does not name stays what it was."""
    here, ends = np.full(3, np.nan), []
    for line in lines:
        for word in line.split():
            match = WORD.fullmatch(word)
            if match and word[0] in "XYZ" and "G53" not in line:
                here["XYZ".index(word[0])] = float(word[1:])
        ends.append(here.copy())
    return np.array(ends).reshape(-1, 3)


def executed(machine: Machine, recording: str) -> list[str]:
    """The lines that were executed in a recording, in order, each once."""
    table = machine.windows[machine.windows["recording"] == recording]
    codes = machine.row_lines[int(table["row"].min()) : int(table["row"].max()) + LENGTH]
    changed = np.concatenate([[True], codes[1:] != codes[:-1]])
    return [machine.lines[code] for code in codes[changed] if code >= 0]


def toolpaths(paths: Mapping[str, Sequence[str]]) -> Figure:
    """The paths that sequences of lines describe, from above, side by side: name -> lines in time order."""
    from matplotlib.figure import Figure

    plots.style()
    figure = Figure(figsize=(plots.WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, len(paths), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, lines), shade in zip(panels, paths.items(), plots.PALETTE, strict=False):
        points = coordinates(lines)
        axes.plot(points[:, 0], points[:, 1], ".-", color=shade, linewidth=1, markersize=4, alpha=0.8)
        axes.set(xlabel="X, inches", aspect="equal")
        axes.set_title(name, fontsize=10)
    panels[0].set_ylabel("Y, inches")
    return figure


def timeline(machine: Machine, recording: str, *, names: Sequence[str]) -> Figure:
    """Some channels of a recording over time, each in its own panel, since their units differ."""
    from matplotlib.figure import Figure

    from smellkit.gcode.recordings import CONTINUOUS, RATE

    plots.style()
    table = machine.windows[machine.windows["recording"] == recording]
    rows = slice(int(table["row"].min()), int(table["row"].max()) + LENGTH)
    figure = Figure(figsize=(plots.WIDTH, 1.1 + 1.1 * len(names)), layout="constrained")
    for axes, name, shade in zip(
        figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0], names, plots.PALETTE, strict=False
    ):
        values = machine.values[rows, CONTINUOUS.index(name)]
        axes.plot(np.arange(len(values)) / RATE, values, color=shade, linewidth=1.2)
        axes.set_ylabel(name.replace(".", "\n"), rotation=0, ha="right", va="center", fontsize=9)
    axes.set_xlabel("seconds")
    return figure


def protocols(results: Sequence[Mapping[str, Any]], *, measures: Sequence[str] = ("TF", "AR", "Num")) -> Figure:
    """Token measures of several bench results, per cent with 95 % intervals: one group of bars a result."""
    from matplotlib.figure import Figure

    plots.style()
    figure = Figure(figsize=(plots.WIDTH, 1.4 + 0.62 * len(results)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(measures)
    for number, (measure, shade) in enumerate(zip(measures, plots.PALETTE, strict=False)):
        values = 100 * np.array([result["tokens"][measure] for result in results], float)
        rows = np.arange(len(results)) + (number - (len(measures) - 1) / 2) * height
        axes.barh(rows, values[:, 0], height=height * 0.92, color=shade, label=measure)
        spread = np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0, None)
        axes.errorbar(values[:, 0], rows, xerr=spread, fmt="none", ecolor=plots.INK, elinewidth=1, capsize=2)
    axes.set_yticks(range(len(results)), [label(result) for result in results])
    axes.invert_yaxis()
    axes.set(xlabel="tokens right, %", xlim=(0, 100))
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=len(measures))
    return figure


def cases(rows: Sequence[Mapping[str, Any]], *, label: str) -> Figure:
    """Means of the cases of an ablation in per cent, with their intervals; the shade is the first case's interval."""
    from matplotlib.figure import Figure

    plots.style()
    figure = Figure(figsize=(plots.WIDTH, 1.0 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    mean, low, high = (100 * np.array([row[name] for row in rows], float) for name in ("mean", "low", "high"))
    positions = np.arange(len(rows))
    axes.axvspan(low[0], high[0], color=plots.PALETTE[0], alpha=0.12, linewidth=0)
    for number, row in enumerate(rows):
        shade = plots.PALETTE[1] if row["apart"] else plots.PALETTE[0]
        axes.errorbar(mean[number], number, xerr=[[mean[number] - low[number]], [high[number] - mean[number]]], fmt="o",
                      color=shade, ecolor=shade, capsize=3)  # fmt: skip
    axes.set_yticks(positions, [row["case"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    return figure


def label(result: Mapping[str, Any]) -> str:
    """Name of a bench result: protocol, system, channels."""
    system = "" if result["system"] == "decoder" else f"{result['system']}, "
    whole = ", whole recording" if result.get("context") == "recording" else ""
    return f"{result['protocol']}: {system}{result['channels']}{whole}"


def table(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a bench result: windows, operation accuracy, then the token measures, all in per cent."""
    rows = []
    for result in results:
        scores = {name: round(100 * value[0], 1) for name, value in result["tokens"].items()}
        operation = round(100 * result["operation"][0], 1) if result["protocol"] != "X" else np.nan
        rows.append({"": label(result), "windows": result["windows"], "operation": operation, **scores})
    return pd.DataFrame(rows).set_index("")
