"""Figures of the odour encoder: what the sensors do, what the encoder confuses, and what the session gives away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import plots
from smellkit.odour.recordings import GAS, RATE
from smellkit.odour.windows import LabelledWindows, Protocol
from smellkit.study import evaluate
from smellkit.study.odour.smellnet import CATEGORIES, category, outcome
from smellkit.study.odour.survey import stuck

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def responses(table: pd.DataFrame, *, substances: Sequence[str], columns: Sequence[str] = GAS) -> Figure:
    """Change of each channel since the first second, one panel a substance, every recording a thin line."""
    figure, panels = _panels([name.replace("_", " ") for name in substances], across=2, height=1.9)
    colour = plots.colours(columns)
    for axes, substance in zip(panels, substances, strict=True):
        for _, rows in table[table["substance"] == substance].groupby("file"):
            change = rows[list(columns)].to_numpy() - rows[list(columns)].to_numpy()[0]
            for channel, name in enumerate(columns):
                axes.plot(np.arange(len(change)) / RATE, change[:, channel], color=colour[name], linewidth=0.9)
    handles = [panels[0].plot([], [], color=colour[name], label=name)[0] for name in columns]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(columns), columnspacing=1.0, handlelength=1.0)
    return figure


def inputs(values: NDArray, *, columns: Sequence[str] = GAS) -> Figure:
    """The same rows of one recording (rows, channels) as recorded, less their first row, and as differences."""
    protocol = Protocol(columns=tuple(columns))
    rows = np.asarray(values, np.float32)[None, : protocol.span]
    shown = {
        "as recorded": (0, rows[0]),
        "less the first row (level-free)": (0, Protocol("level-free", tuple(columns)).represent(rows)[0]),
        f"difference over {protocol.lag} s (strict)": (protocol.lag, protocol.represent(rows)[0]),
    }
    figure, panels = _panels(list(shown), across=1, height=1.57)
    for axes, (start, part) in zip(panels, shown.values(), strict=True):
        for name, colour in plots.colours(columns).items():
            axes.plot(start + np.arange(len(part)), part[:, list(columns).index(name)], color=colour, label=name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, handlelength=1.0)
    return figure


def rebuilt(values: NDArray, *, columns: Sequence[str] = GAS) -> Figure:
    """Rows of one recording (rows, channels) less their first, and the same rebuilt from their differences alone."""
    rows = np.asarray(values, np.float32)[None, : Protocol().span]
    kinds = {"recorded": "level-free", "rebuilt from differences": "rebuilt"}
    shown = {name: Protocol(kind, tuple(columns)).represent(rows)[0] for name, kind in kinds.items()}
    figure, panels = _panels(columns, across=3, height=1.7)
    colour = plots.colours(shown)
    for number, axes in enumerate(panels):
        for (name, part), width in zip(shown.items(), (3.0, 1.2), strict=True):
            axes.plot(part[:, number], color=colour[name], linewidth=width, label=name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def landscape(windows: LabelledWindows, *, method: str = "pca", seed: int = 0, most: int = 1500) -> Figure:
    """Windows in the plane, coloured by category: "pca" or "tsne" of their normal summary features."""
    import torch

    from smellkit.odour.features import QuantileNormalizer, describe

    chosen = np.random.default_rng(seed).permutation(len(windows))[:most]
    with torch.no_grad():
        x = describe(windows.values[chosen])
        z = QuantileNormalizer(x.shape[1]).fit(x)(x).numpy()
    kinds = [category(windows.classes[i]) for i in windows.target[chosen]]
    order = np.argsort([[*CATEGORIES, "other"].index(kind) for kind in kinds], kind="stable")
    return plots.scatter(_plane(z, method=method, seed=seed)[order], groups=[kinds[i] for i in order])


def confusion(scores: NDArray, windows: LabelledWindows) -> Figure:
    """Confusion matrix of log-probabilities (windows, classes), substances in order of their category."""
    order = sorted(range(len(windows.classes)), key=lambda i: _order(windows.classes[i]))
    matrix = np.zeros((len(order), len(order)))
    np.add.at(matrix, (windows.target, scores.argmax(1)), 1)
    names = [windows.classes[i].replace("_", " ") for i in order]
    return plots.confusion(matrix[np.ix_(order, order)], names=names)


def sniffing(scores: NDArray, windows: LabelledWindows, protocol: Protocol, *, most: int = 9) -> pd.DataFrame:
    """Accuracy after ever more seconds of sniffing, up to the shortest recording.

    One row for each answer, "first" or "among five": seconds, answer, value, and a 95 % interval low, high.
    """
    rows = []
    shortest = int(np.unique(windows.recording, return_counts=True)[1].min())
    for count in range(1, min(most, shortest) + 1):
        shares = evaluate.summarise([outcome(scores, windows, count)])
        seconds = (protocol.span + (count - 1) * protocol.stride) / RATE
        for answer, name in (("first", "top1"), ("among five", "top5")):
            rows.append({"seconds": seconds, "answer": answer, **shares[name]._asdict()})
    return pd.DataFrame(rows)


def sniffing_lines(table: pd.DataFrame) -> Figure:
    """The table of `sniffing` as lines with 95 % bands: bootstrap over recordings."""
    figure = _figure(height=3.4)
    axes = figure.subplots()
    for (answer, rows), colour in zip(table.groupby("answer", sort=False), plots.PALETTE, strict=False):
        axes.plot(rows["seconds"], rows["value"], color=colour, label=answer, marker="o", markersize=4)
        axes.fill_between(rows["seconds"], rows["low"], rows["high"], color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="seconds of sniffing", ylabel="share that was right", ylim=(0, 1.02))
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    return figure


def abstention(probabilities: NDArray, target: NDArray) -> Figure:
    """How often answers are right when only the surest share is answered, by the lead of the first over the second."""
    from smellkit.odour.confidence import margin

    order = np.argsort(-margin(probabilities), kind="stable")
    right = (probabilities.argmax(1) == target)[order]
    share = np.arange(1, len(right) + 1) / len(right)
    figure = _figure(height=3.2)
    axes = figure.subplots()
    axes.plot(share, np.cumsum(right) / np.arange(1, len(right) + 1), color=plots.PALETTE[0])
    axes.set(xlabel="share of windows that is answered", ylabel="share that was right", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(True)
    return figure


def confound(audited: dict[str, Any]) -> Figure:
    """What `audit.run` measured: top-1 within the session and on another day, input by input."""
    names = list(audited["windows"])
    figure = _figure(height=1.4 + 0.62 * len(names))
    axes = figure.subplots()
    rows = np.arange(len(names))
    parts = {"test split, same session": (audited["windows"], plots.PALETTE[0], -0.19)}
    if audited["other_session"]:
        parts["another session"] = (audited["other_session"], plots.PALETTE[1], 0.19)
    for label, (values, colour, shift) in parts.items():
        top = [values[name]["top1"] for name in names]
        spread = np.abs([[t["value"] - t["low"] for t in top], [t["high"] - t["value"] for t in top]])
        axes.barh(rows + shift, [t["value"] for t in top], height=0.36, color=colour, label=label, xerr=spread,
                  error_kw={"ecolor": plots.INK, "elinewidth": 1.2, "capsize": 2})  # fmt: skip
    axes.axvline(audited["chance_level"], color=plots.INK, linestyle=(0, (4, 3)), linewidth=1)
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set(xlabel="share of windows that was right", xlim=(0, 1.02))
    axes.grid(axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def surroundings(table: pd.DataFrame, *, most: int = 12) -> Figure:
    """The air in which each recording was made: medians of pressure and humidity, one colour a substance.

    Recordings whose environment sensor was stuck say nothing and are left out.
    """
    well = table[~table["file"].map(stuck(table))]
    means = well.groupby("file").agg({"substance": "first", "Pressure": "median", "Humidity": "median"})
    names = sorted(means["substance"].unique())[:most]
    figure = _figure(height=4.2)
    axes = figure.subplots()
    for name, colour in plots.colours(names).items():
        rows = means[means["substance"] == name]
        label = name.replace("_", " ")
        axes.scatter(rows["Pressure"], rows["Humidity"], s=34, color=colour, alpha=0.85, linewidth=0, label=label)
    axes.set(xlabel="pressure in hPa", ylabel="humidity in %")
    axes.grid(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, handletextpad=0.2)
    return figure


def _order(substance: str) -> tuple[int, str]:
    return ([*CATEGORIES, "other"].index(category(substance)), substance)


def _plane(z: NDArray, *, method: str, seed: int) -> NDArray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    first = PCA(min(30, *z.shape), random_state=seed).fit_transform(z)
    if method == "pca":
        return first[:, :2]
    return TSNE(perplexity=min(30, (len(z) - 1) / 3), init="pca", random_state=seed).fit_transform(first)


def _panels(titles: Sequence[str], *, across: int, height: float) -> tuple[Figure, list[Any]]:
    """A figure and its panels over seconds, `across` in a row of this height, one a title."""
    down = int(np.ceil(len(titles) / across))
    figure = _figure(height=height * down + 0.7)
    panels = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
    for axes in panels[-across:]:
        axes.set_xlabel("seconds")
    for axes in panels[len(titles) :]:
        axes.set_visible(False)
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title)
        axes.grid(axis="y")
    return figure, list(panels[: len(titles)])


def _figure(*, height: float) -> Figure:
    from matplotlib.figure import Figure

    plots.style()
    return Figure(figsize=(plots.WIDTH, height), layout="constrained")
