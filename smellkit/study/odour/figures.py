"""Figures of the odour system: what sensors do, what the encoder confuses, mixtures, and the fusion of the senses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import options, plots
from smellkit.odour.confidence import margin
from smellkit.odour.recordings import GAS, RATE, MixtureWindows
from smellkit.odour.scents import CATEGORIES, ODORANTS, SCENTS, category, to_channels
from smellkit.odour.windows import LabelledWindows, Protocol
from smellkit.study import evaluate
from smellkit.study.figures import grouped
from smellkit.study.odour.mixture_data import label
from smellkit.study.odour.smellnet import outcome
from smellkit.study.odour.survey import stuck

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from smellkit.device.playlist import Playlist

KINDS = [*CATEGORIES, "other"]
METHODS = ("pca", "tsne")  # of a landscape
SHADES = {name.replace("_", " "): shade for name, shade in zip(SCENTS, plots.TWELVE, strict=True)}  # of the scents
FIRST_FIVE = {"first": "top1", "among five": "top5"}
CHANGE = "change since the first row"
POINTS, ALL = 150, 12_000  # of a line in a small panel, and of all lines of a figure, about
Lines = Iterable[tuple[str, NDArray]]  # name and values over rows


def responses(
    table: pd.DataFrame, *, substances: Sequence[str], columns: Sequence[str] = GAS, rate: float | None = RATE
) -> Figure:
    """Change of each channel since the first row, one panel a substance, every recording a thin line.

    Over seconds at `rate` rows a second, or over rows where nobody knows it (None).
    """
    shown: dict[str, list] = {name.replace("_", " "): [] for name in substances}
    for (substance, _), rows in table[table["substance"].isin(substances)].groupby(["substance", "file"]):
        values = rows[list(columns)].to_numpy()
        shown[substance.replace("_", " ")] += zip(columns, (values - values[0]).T, strict=True)
    return _panels(shown, across=2, height=1.9, widths=dict.fromkeys(columns, 0.9), rate=rate, label=CHANGE)


def inputs(values: NDArray, *, columns: Sequence[str] = GAS) -> Figure:
    """The same rows of one recording (rows, channels) as recorded, less their first row, and as differences."""
    protocol = Protocol(columns=tuple(columns))
    rows = np.asarray(values, np.float32)[None, : protocol.span]
    differences = np.pad(protocol.represent(rows)[0], ((protocol.lag, 0), (0, 0)), constant_values=np.nan)
    shown = {
        "as recorded": rows[0],
        "less the first row (level-free)": Protocol("level-free", tuple(columns)).represent(rows)[0],
        f"difference over {protocol.lag} s (strict)": differences,
    }
    titled = {name: zip(columns, part.T, strict=True) for name, part in shown.items()}
    return _panels(titled, across=1, height=1.57, label="reading")


def rebuilt(values: NDArray, *, columns: Sequence[str] = GAS) -> Figure:
    """Rows of one recording (rows, channels) less their first, and the same rebuilt from their differences alone."""
    rows = np.asarray(values, np.float32)[None, : Protocol().span]
    kinds = {"recorded": "level-free", "rebuilt from differences": "rebuilt"}
    parts = {name: Protocol(kind, tuple(columns)).represent(rows)[0] for name, kind in kinds.items()}
    shown = {title: [(name, part[:, i]) for name, part in parts.items()] for i, title in enumerate(columns)}
    return _panels(shown, across=3, height=1.7, widths=dict(zip(kinds, (3.0, 1.2), strict=True)), label=CHANGE)


def landscape(windows: LabelledWindows, *, method: str = "pca", seed: int = 0, most: int = 1500) -> Figure:
    """Windows in the plane, coloured by category: "pca" or "tsne" of their normal summary features."""
    options.check([method], METHODS, "There is no way to draw a landscape called")
    import torch
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    from smellkit.odour.features import QuantileNormalizer, describe

    chosen = np.random.default_rng(seed).permutation(len(windows))[:most]
    with torch.no_grad():
        x = describe(windows.values[chosen])
        z = QuantileNormalizer(x.shape[1]).fit(x)(x).numpy()
    plane = PCA(min(30, *z.shape), random_state=seed).fit_transform(z)
    if method == "tsne":
        plane = TSNE(perplexity=min(30, (len(z) - 1) / 3), init="pca", random_state=seed).fit_transform(plane)
    kinds = [category(windows.classes[i]) for i in windows.target[chosen]]
    order = np.argsort([KINDS.index(kind) for kind in kinds], kind="stable")
    axes: Any = {"x_label": "first component", "label": "second component"} if method == "pca" else {}
    return plots.scatter(plane[order, :2], groups=[kinds[i] for i in order], **axes)


def confusion(scores: NDArray, windows: LabelledWindows) -> Figure:
    """Confusion matrix of log-probabilities (windows, classes), substances in order of their category."""
    from sklearn.metrics import confusion_matrix

    classes = windows.classes
    order = sorted(range(len(classes)), key=lambda i: (KINDS.index(category(classes[i])), classes[i]))
    matrix = confusion_matrix(windows.target, scores.argmax(1), labels=order)
    return plots.confusion(matrix, names=[classes[i].replace("_", " ") for i in order])


def sniffing(
    scores: NDArray,
    windows: LabelledWindows,
    protocol: Protocol,
    *,
    rate: float = RATE,
    answers: Mapping[str, str] = FIRST_FIVE,
    most: int = 9,
) -> pd.DataFrame:
    """Accuracy after ever more seconds of sniffing, up to the shortest recording.

    One row for each of `answers`, name -> measure: seconds, answer, value, and a 95 % interval low, high.
    """
    rows = []
    shortest = int(np.unique(windows.recording, return_counts=True)[1].min())
    for count in range(1, min(most, shortest) + 1):
        shares = evaluate.summarise([outcome(scores, windows, count)])
        seconds = (protocol.span + (count - 1) * protocol.stride) / rate
        rows += [{"seconds": seconds, "answer": answer, **shares[name]._asdict()} for answer, name in answers.items()]
    return pd.DataFrame(rows)


def sniffing_lines(table: pd.DataFrame, *, unit: str = "seconds") -> Figure:
    """The table of `sniffing` as lines with 95 % bands: bootstrap over recordings; rows where no rate is known."""
    words: Any = {"x_label": f"{unit} of sniffing", "label": "share that was right"}
    figure = plots.lines(table, x="seconds", y="value", group="answer", **words)
    for (_, rows), colour in zip(table.groupby("answer", sort=False), plots.PALETTE, strict=False):
        figure.axes[0].fill_between(rows["seconds"], rows["low"], rows["high"], color=colour, alpha=0.2, linewidth=0)
    figure.axes[0].set(ylim=(0, 1.02))
    return figure


def abstention(probabilities: NDArray, target: NDArray) -> Figure:
    """How often answers are right when only the surest share is answered, by the lead of the first over the second."""
    right = (probabilities.argmax(1) == target)[np.argsort(-margin(probabilities), kind="stable")]
    count = np.arange(1, len(right) + 1)
    table = pd.DataFrame({"share": count / len(right), "right": np.cumsum(right) / count})
    words: Any = {"x_label": "share of windows that is answered", "label": "share that was right"}
    figure = plots.lines(table, x="share", y="right", **words)
    figure.axes[0].set(xlim=(0, 1.01), ylim=(0, 1.02))
    return figure


def confound(audited: dict[str, Any]) -> Figure:
    """What `audit.run` measured: top-1 within the session and on another day, input by input."""
    splits = {"test split, same session": "windows", "another session": "other_session"}
    rows = [{"name": name, "part": split, "score": figures["top1"]["value"], **figures["top1"]}
            for split, key in splits.items() for name, row in audited["rows"].items()
            for figures in [row.get(key)] if figures]  # fmt: skip
    figure = grouped(pd.DataFrame(rows), label="share of windows that was right", limits=(0, 1.02))
    figure.axes[0].axvline(audited["about"]["chance_level"], color=plots.INK, linestyle=(0, (4, 3)), linewidth=1)
    return figure


def surroundings(table: pd.DataFrame) -> Figure:
    """The air in which each recording was made: medians of pressure and humidity, one colour a category.

    Lines lead from the recordings of a substance to their middle. Those whose environment sensor was stuck say nothing
    and are left out.
    """
    well = table[~table["file"].map(stuck(table))]
    air = ["Pressure", "Humidity"]
    means = well.groupby("file").agg({"substance": "first", **dict.fromkeys(air, "median")})
    figure, axes = plots.canvas(height=4.2)
    kinds = means["substance"].map(category)
    colour = plots.colours([kind for kind in KINDS if (kinds == kind).any()])
    for (kind, _), rows in means.groupby([kinds, "substance"]):
        middle = rows[air].mean()
        for point in rows[air].itertuples(index=False):
            axes.plot(*zip(point, middle, strict=True), color=colour[kind], linewidth=0.8, alpha=0.7)
    for kind, shade in colour.items():
        own = means[kinds == kind]
        axes.scatter(own["Pressure"], own["Humidity"], s=26, alpha=0.85, linewidth=0, color=shade, label=kind)
    axes.set(xlabel="pressure in hPa", ylabel="humidity in %")
    axes.locator_params(axis="x", nbins=6)
    axes.grid(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, handletextpad=0.2)
    return figure


def true_and_predicted(windows: MixtureWindows, ratios: NDArray, *, most: int = 12) -> Figure:
    """The true ratios of up to `most` mixtures beside the mean of what was predicted for their windows."""
    names = np.array([label(row) for row in windows.ratios])
    several = (windows.ratios > 0).sum(axis=1) > 1
    chosen = np.unique(names[several] if several.any() else names)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int)]
    labels = plots.wrapped(re.sub(r"(\d+) ", r" \1, ", re.sub(r"(\d+)$", r" \1", name)) for name in chosen)
    figure, axes = plots.canvas(1, 2, height=1.8 + 0.42 * len(chosen), sharey=True)
    shades = [plots.TWELVE[scent] for scent in to_channels(np.eye(len(ODORANTS))).argmax(axis=1)]  # those of playlists
    for side, values, title in zip(axes, (windows.ratios, ratios), ("true", "predicted"), strict=True):
        means = pd.DataFrame([values[names == name].mean(axis=0) for name in chosen], labels, list(ODORANTS))
        means.plot.barh(stacked=True, ax=side, width=0.7, legend=False, color=shades)
        side.set(title=title, xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"], xlabel="ratio")
        side.tick_params(axis="y", length=0)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def scores_beside(table: Mapping[str, Mapping[str, float]]) -> Figure:
    """Top-1@0.1 and dynamic top-k of several systems side by side, in percent: a good one needs both."""
    names = {"top1_at_0.1": "ratios within 0.1", "dynamic_top_k": "right components"}
    rows = [{"name": system, "part": word, "score": scores[key]}
            for system, scores in table.items() for key, word in names.items()]  # fmt: skip
    return grouped(pd.DataFrame(rows), label="%", limits=(0, 100), digits=0)


def all_subsets(accuracy: Mapping[str, float]) -> Figure:
    """The accuracy of all seven subsets of smell, picture and text, best first."""
    values = {name: 100 * accuracy[name] for name in sorted(accuracy, key=lambda name: -accuracy[name])}
    return plots.bars(values, label="% right", digits=0, highlight=[name for name in values if name.count("+") == 2])


def disagreement(table: Mapping[str, Mapping[str, float]]) -> Figure:
    """Which modality the model follows when one shows another scent than the two others."""
    rows = pd.DataFrame(table).T.rename(columns={"follows the others": "the others", "follows it": "the odd one"})
    rows = rows[["the others", "the odd one"]].assign(**{"a third scent": 1 - rows["the others"] - rows["the odd one"]})
    names = ["all agree" if odd == "none" else f"{odd} disagrees" for odd in rows.index]
    return plots.stacked(rows.set_axis(names), label="share of answers")


def slots(plan: Playlist) -> pd.DataFrame:
    """The slots of a playlist as rows of name, start, end, colour, by scent: what `plots.timeline` draws."""
    rows = [(SCENTS[i - 1].replace("_", " "), at, at + long, plots.TWELVE[i - 1]) for at, i, long in plan.slots]
    return pd.DataFrame(rows, columns=["name", "start", "end", "colour"]).sort_values("name", kind="stable")


def aired(table: pd.DataFrame) -> Figure:
    """What a player emitted beside what was planned, paler, each scent in its colour (`live.aired`)."""
    named = table.assign(name=table["name"].str.replace("_", " "))
    shades = [SHADES[name.split(",")[0]] for name in named["name"]]
    planned = named["name"].str.endswith("planned")
    return plots.timeline(named.assign(colour=shades, strength=np.where(planned, 0.3, 1.0)))


def belief(table: pd.DataFrame) -> Figure:
    """How the shares of scents move while more is sniffed, each scent in its colour (`Sniff.shares`)."""
    named = table.assign(scent=table["scent"].str.replace("_", " "))
    words: Any = {"x_label": "rows sniffed", "label": "share of belief"}
    return plots.lines(named, x="rows", y="share", group="scent", shades=SHADES, **words)


def most_mixed(windows: MixtureWindows, *, components: int = 2) -> int:
    """The first row of `windows` with at least `components` scents, for a worked example."""
    return int(((windows.ratios > 0).sum(axis=1) >= components).argmax())


def _panels(shown: Mapping[str, Lines], *, across: int, height: float, label: str, rate: float | None = RATE,
            widths: Mapping[str, float] | None = None) -> Figure:  # fmt: skip
    """Lines over seconds (rows without a `rate`), a panel a title, `across` in a row, and one legend for all."""
    down = -(-len(shown) // across)
    figure, panels = plots.canvas(down, across, height=height * down + 0.7, sharex=True, squeeze=False)
    panels, widths = panels.ravel(), widths or {}
    drawn = {title: list(lines) for title, lines in shown.items()}
    most = min(POINTS, ALL // max(1, sum(map(len, drawn.values()))))  # more would be slow on a page, and show no more
    colour, handles = plots.colours(name for lines in drawn.values() for name, _ in lines), {}
    for axes, (title, lines) in zip(panels, drawn.items(), strict=False):
        for name, values in lines:
            every = max(1, len(values) // most)
            seconds, width = np.arange(len(values))[::every] / (rate or 1), widths.get(name)
            (handles[name],) = axes.plot(seconds, values[::every], color=colour[name], linewidth=width)
        axes.set_title(title)
        axes.grid(axis="y")
    for axes in panels[-across:]:
        axes.set_xlabel("seconds" if rate else "rows")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    figure.supylabel(label, fontsize=12.5)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=6, handlelength=1.0, columnspacing=1.0)
    return figure
