"""House style and generic charts: colours for everyone, readable on light and dark pages and on a phone.

Every chart takes plain data, returns a matplotlib `Figure`, and draws into `axes` instead when one is given. Text and
axes are drawn in `INK`, a grey that reads on both pages in a PNG; `svg` turns it into the page's own text colour.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

# Okabe and Ito (2008), https://jfly.uni-koeln.de/color: distinct for every common colour vision, without its black and
# with its yellow darkened, since both would vanish on one of the two pages.
PALETTE = ("#0f84c4", "#e69f00", "#00a37a", "#d9600f", "#cc79a7", "#56b4e9", "#b8a800", "#8a84d6")
TWELVE = (*PALETTE, "#8c5a3c", "#8fce7e", "#4b5fa5", "#7d8894")  # enough for the scents of one player
INK = "#7b7c7e"  # contrast 4.2 on a white page and 4.2 on a dark one
GOOD, BAD = PALETTE[2], PALETTE[3]
WIDTH = 6.4  # inches; the text stays readable when a phone shows this at 360 pixels

STYLE: dict[str, Any] = {
    "figure.figsize": (WIDTH, 3.6),
    "figure.dpi": 100,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "savefig.dpi": 200,
    "font.size": 11.5,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 11.5,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "lines.linewidth": 1.8,
    "patch.linewidth": 0,
    "svg.fonttype": "path",
    "svg.hashsalt": "smellkit",
    "image.cmap": "viridis",
}


def style() -> None:
    """Set the house style for every figure that follows, also for those made with matplotlib or seaborn directly."""
    import matplotlib as mpl
    from cycler import cycler

    settings: Any = STYLE | {"axes.prop_cycle": cycler(color=PALETTE)}
    mpl.rcParams.update(settings)


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return one colour a name, in the order given: twelve of the palette, or evenly spaced hues for more names."""
    names = list(dict.fromkeys(names))
    if len(names) <= len(TWELVE):
        return dict(zip(names, TWELVE, strict=False))
    import seaborn

    many = seaborn.husl_palette(len(names), s=0.75, l=0.6).as_hex()
    return dict(zip(names, many, strict=True))


def ramp() -> LinearSegmentedColormap:
    """Return the colour map of amounts: from next to nothing, so that the page shows through, to strong blue."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    weak, strong = to_rgb(PALETTE[0]), to_rgb("#0a76b4")
    return LinearSegmentedColormap.from_list("smellkit", [(*weak, 0.05), (*weak, 0.7), (*strong, 1.0)])


def bars(
    values: Mapping[str, float] | pd.Series,
    *,
    low: Mapping[str, float] | pd.Series | None = None,
    high: Mapping[str, float] | pd.Series | None = None,
    label: str = "",
    reference: float | None = None,
    reference_name: str = "chance",
    highlight: Sequence[str] = (),
    digits: int = 2,
    limits: tuple[float, float] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Horizontal bars, one a name, top to bottom as given, with intervals from `low` to `high` where known.

    `reference` draws a dashed line, say at chance; bars not in `highlight` are paler when it is not empty.
    """
    names, heights = (
        list(map(str, values.keys())),
        np.array(list(values.values() if isinstance(values, Mapping) else values), float),
    )
    figure, axes = _axes(axes, height=1.1 + 0.36 * len(names))
    strong = [PALETTE[0] if not highlight or name in highlight else INK for name in names]
    rows = np.arange(len(names))
    drawn = axes.barh(rows, heights, color=strong, height=0.66)
    for bar, name in zip(drawn, names, strict=True):
        bar.set_alpha(0.9 if not highlight or name in highlight else 0.45)
    ends = heights.copy()
    if low is not None and high is not None:
        below = np.array([_at(low, key) for key in values.keys()], float)  # noqa: SIM118 - a Series iterates over values
        above = np.array([_at(high, key) for key in values.keys()], float)  # noqa: SIM118
        spread = np.clip([heights - below, above - heights], 0, None)
        axes.errorbar(heights, rows, xerr=spread, fmt="none", ecolor=INK, elinewidth=1.4, capsize=3)
        ends = np.fmax(ends, above)
    for row, (end, height) in enumerate(zip(ends, heights, strict=True)):
        text = "n/a" if np.isnan(height) else f"{height:.{digits}f}"
        axes.annotate(text, (np.nan_to_num(end), row), (5, 0), textcoords="offset points", va="center", fontsize=10.5)
    if reference is not None:
        axes.axvline(reference, color=INK, linestyle=(0, (4, 3)), linewidth=1)
        axes.annotate(reference_name, (reference, 1), (3, 2), xycoords=("data", "axes fraction"),
                      textcoords="offset points", fontsize=9.5)  # fmt: skip
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    axes.grid(axis="x")
    if limits:
        axes.set_xlim(*limits)
    elif np.nanmin(heights, initial=0) >= 0:
        axes.set_xlim(left=0)
    return figure


def confusion(
    matrix: np.ndarray,
    *,
    names: Sequence[str],
    label: str = "share of a row",
    normalise: bool = True,
    axes: Axes | None = None,
) -> Figure:
    """Confusion matrix: rows what it was, columns what was said; numbers in the cells up to 12 names.

    `matrix` holds counts, (names, names); each row is divided by its sum unless `normalise` is off.
    """
    matrix = np.asarray(matrix, float)
    if normalise:
        matrix = matrix / np.clip(matrix.sum(axis=1, keepdims=True), 1e-12, None)
    size = float(np.clip(1.6 + 0.3 * len(names), 3.4, 6.2))
    figure, axes = _axes(axes, height=size, width=min(WIDTH + 0.6, size + 1.2))
    heat(matrix, rows=names, columns=names, label=label, numbers=len(names) <= 12, axes=axes)
    axes.set(ylabel="was", xlabel="said", aspect="equal")
    return figure


def heat(
    values: np.ndarray,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    label: str = "",
    centre: float | None = None,
    numbers: bool = False,
    digits: int = 2,
    axes: Axes | None = None,
) -> Figure:
    """Heat map of `values`, (rows, columns); blue to orange around `centre` when given, one colour ramp otherwise."""
    values = np.asarray(values, float)
    figure, axes = _axes(axes, height=float(np.clip(1.2 + 0.3 * len(values), 2.6, 9)))
    if centre is None:
        image = axes.imshow(values, cmap=ramp(), aspect="auto", interpolation="nearest")
    else:
        reach = float(np.nanmax(np.abs(values - centre))) or 1.0
        image = axes.imshow(
            values, cmap="RdBu_r", vmin=centre - reach, vmax=centre + reach, aspect="auto", interpolation="nearest"
        )
    if len(rows):
        axes.set_yticks(range(len(rows)), rows, fontsize=_fitting(len(rows)))
    if len(columns):
        long = max(map(len, map(str, columns))) > 3
        turn: dict[str, Any] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks(range(len(columns)), columns, fontsize=_fitting(len(columns)), **turn)
    if numbers:
        shades = image.to_rgba(values)
        bright = _luminance(shades) > 0.35
        for (row, column), value in np.ndenumerate(values):
            text = "" if np.isnan(value) else f"{value:.{digits}f}"
            colour = INK if shades[row, column, 3] < 0.4 else "black" if bright[row, column] else "white"
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02, label=label, aspect=22, fraction=0.06)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def reliability(confidence: np.ndarray, correct: np.ndarray, *, bins: int = 10, axes: Axes | None = None) -> Figure:
    """Reliability diagram: how often the answer was right against how sure it was; a bar's strength is its share.

    `confidence` holds the probability of the chosen answer, (answers,); `correct` whether it was right, (answers,).
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    figure, axes = _axes(axes, height=4.4, width=4.8)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    right = np.bincount(place, weights=correct, minlength=bins) / np.clip(counts, 1, None)
    share = counts / max(counts.max(), 1)
    for left, height, strength, count in zip(edges, right, share, counts, strict=False):
        if count:
            bar = axes.bar(left, height, width=0.94 / bins, align="edge", color=PALETTE[0])
            bar[0].set_alpha(0.25 + 0.7 * strength)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate("as sure as right", (0.97, 0.97), (-4, 0), textcoords="offset points", ha="right", fontsize=9.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share that was right", aspect="equal")
    axes.grid(True)
    return figure


def lines(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    group: str | None = None,
    label: str = "",
    x_label: str = "",
    axes: Axes | None = None,
) -> Figure:
    """Lines of `y` over `x`, one a `group`; several rows at one `x` give their mean with a 95 % band.

    The interval of n rows is 1.96 standard errors of the mean (n of 3 or more); fewer rows draw no band.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(axes)
    parts = [("", table)] if group is None else list(table.groupby(group, sort=False, observed=True))
    colour = colours(str(name) for name, _ in parts)
    for name, part in parts:
        by_x = part.groupby(x)[y]
        mean, count = by_x.mean(), by_x.count()
        axes.plot(mean.index, mean, color=colour[str(name)], label=str(name) or None)
        if (count >= 3).any():
            half = (1.96 * by_x.std() / np.sqrt(count)).where(count >= 3, 0.0)
            axes.fill_between(mean.index, mean - half, mean + half, color=colour[str(name)], alpha=0.2, linewidth=0)
    if table[x].dtype.kind in "iu":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=x_label or x, ylabel=label or y)
    axes.grid(axis="y")
    axes.margins(x=0.01)
    if group is not None:
        _legend(axes, len(parts))
    return figure


def signals(
    values: np.ndarray, *, names: Sequence[str], rate: float = 1.0, label: str = "reading", axes: Axes | None = None
) -> Figure:
    """Sensor channels over time: `values` (steps, channels), `rate` in samples a second."""
    figure, axes = _axes(axes)
    seconds = np.arange(len(values)) / rate
    colour = colours(names)
    for channel, name in zip(np.asarray(values, float).T, names, strict=True):
        axes.plot(seconds, channel, color=colour[name], label=name)
    axes.set(xlabel="seconds", ylabel=label)
    axes.grid(axis="y")
    axes.margins(x=0.01)
    _legend(axes, len(names))
    return figure


def stacked(table: pd.DataFrame, *, label: str = "share", axes: Axes | None = None) -> Figure:
    """Stacked horizontal bars: one row of `table` a bar, one column a part, each part named in the legend."""
    figure, axes = _axes(axes, height=1.5 + 0.38 * len(table))
    colour = colours(map(str, table.columns))
    left = np.zeros(len(table))
    for part in table.columns:
        width = table[part].to_numpy(float)
        axes.barh(range(len(table)), width, left=left, color=colour[str(part)], height=0.7, label=str(part))
        left += width
    axes.set_yticks(range(len(table)), list(map(str, table.index)))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0)
    _legend(axes, table.shape[1])
    return figure


def timeline(table: pd.DataFrame, *, label: str = "seconds", axes: Axes | None = None) -> Figure:
    """What happened when: rows of `name`, `start`, `end` in seconds, and perhaps `strength` from 0 to 1."""
    names = list(dict.fromkeys(map(str, table["name"])))
    figure, axes = _axes(axes, height=1.2 + 0.36 * len(names))
    colour = colours(names)
    strength = table["strength"] if "strength" in table else [1.0] * len(table)
    for name, start, end, strong in zip(table["name"].astype(str), table["start"], table["end"], strength, strict=True):
        bar = axes.barh(names.index(name), end - start, left=start, height=0.62, color=colour[name])
        bar[0].set_alpha(0.3 + 0.7 * float(np.clip(strong, 0, 1)))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(axis="x")
    return figure


def scatter(points: np.ndarray, *, groups: Sequence[str], label: str = "", axes: Axes | None = None) -> Figure:
    """Points in the plane, (points, 2), one colour a group: a map of an embedding."""
    figure, axes = _axes(axes, height=4.4)
    colour, groups = colours(groups), np.asarray(groups)  # type: ignore[assignment]
    for name, shade in colour.items():
        chosen = np.asarray(points, float)[groups == name]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=16, color=shade, alpha=0.75, linewidth=0, label=name)
    axes.set(xticks=[], yticks=[], title=label)
    axes.spines[:].set_visible(False)
    _legend(axes, len(colour))
    return figure


def svg(figure: Figure, *, alt: str = "") -> str:
    """Return the figure as one `<svg>` element that takes its text colour from the page it is shown on."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    body = text.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"\s*<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # it would hold for the whole page
    body = re.sub(r'<g id="[a-z0-9]+_\d+"', "<g", body)  # equal in all figures of a page, and nothing refers to them
    body = body.replace(INK, "currentColor")
    label = f' role="img" aria-label="{_escape(alt)}"' if alt else ' role="img"'
    width = re.search(r'width="([\d.]+)pt"', body)
    limit = f"{float(width[1]) * 1.5:.0f}px" if width else "100%"
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    look = f"width:100%;max-width:{limit};height:auto;stroke-linejoin:round"
    return body.replace("<svg", f'<svg style="{look}"{label}', 1)


def _axes(axes: Axes | None, *, height: float = 3.6, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return the figure and axes to draw into: those given, or new ones in the house style."""
    if axes is not None:
        return axes.figure, axes  # type: ignore[return-value]
    from matplotlib.figure import Figure

    style()
    figure = Figure(figsize=(width, height), layout="constrained")  # not pyplot's: nothing to close, shown only once
    return figure, figure.subplots()


def _legend(axes: Axes, entries: int) -> None:
    """Put the legend below the axes, where a narrow page has room for it."""
    figure = axes.get_figure(root=True)
    shape: dict[str, Any] = {"columnspacing": 1.2, "handlelength": 1.2}
    if figure is not None and figure.get_layout_engine() and len(figure.axes) == 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(entries, 4), **shape)
    else:
        axes.legend(ncols=2, **shape)


def _fitting(names: int) -> float:
    """Size of tick labels at which that many names fit side by side."""
    return 11 if names <= 16 else 8 if names <= 30 else 5


def _at(values: Mapping | pd.Series, key: Any) -> float:
    return float(values[key])


def _luminance(rgba: np.ndarray) -> np.ndarray:
    linear = np.where(rgba[..., :3] <= 0.04045, rgba[..., :3] / 12.92, ((rgba[..., :3] + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
