"""House style and generic charts on seaborn: colours for everyone, readable on light and dark pages and on a phone.

Every chart takes plain data and returns a matplotlib `Figure`. Text and axes are drawn in `INK`, a grey that reads on
both pages in a PNG; `svg` turns it into the page's own text colour.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
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
HOVER = "told: "  # begins the id of a shape that says the rest of it to who points at it
WIDTH = 6.4  # inches; the text stays readable when a phone shows this at 360 pixels
PHONE, READABLE = 360, 8.4  # pixels: the width of a figure on a phone, and the size of the smallest letters


def style() -> None:
    """Set the house style for every figure that follows, also for those made with matplotlib or seaborn directly."""
    from matplotlib import style

    style.use(Path(__file__).with_name("house.mplstyle"))


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return one colour a name, in the order given: twelve of the palette, or evenly spaced hues for more names."""
    names = list(dict.fromkeys(names))
    if len(names) <= len(TWELVE):
        return dict(zip(names, TWELVE, strict=False))
    import seaborn

    return dict(zip(names, seaborn.husl_palette(len(names), s=0.75, l=0.6).as_hex(), strict=True))


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
    points: Mapping[str, Sequence[float]] | None = None,
    label: str = "",
    highlight: Sequence[str] = (),
    digits: int = 2,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Horizontal bars, one a name, top to bottom as given, with intervals from `low` to `high` where known.

    Bars not in `highlight` are paler when it is not empty. `points` are single values, drawn as rings below their bar.
    """
    names, heights = list(values.keys()), np.array([values[name] for name in values.keys()], float)  # noqa: SIM118
    figure, axes = _rows(names, label=label)
    ends = (
        np.empty((2, 0))
        if low is None or high is None
        else np.array([[side[n] for n in names] for side in (low, high)])
    )
    errors = np.clip([heights - ends[0], ends[1] - heights], 0, None) if ends.size else None
    shades = [(PALETTE[0], 0.9) if not highlight or name in highlight else (INK, 0.45) for name in names]
    whiskers: Any = {"ecolor": INK, "elinewidth": 1.4, "capsize": 3}
    drawn = axes.barh(range(len(names)), np.nan_to_num(heights), 0.66, color=shades, xerr=errors, error_kw=whiskers)
    for name, single in (points or {}).items():
        axes.plot(single, [names.index(name) + 0.42] * len(single), "o", mfc="none", color=PALETTE[1], markersize=4.5)
        axes.set_ylim(bottom=len(names) - 0.4)  # rings of the last bar are clear of the axis
    texts = ["n/a" if np.isnan(height) else f"{height:.{digits}f}" for height in heights]
    axes.bar_label(drawn, texts, padding=5, fontsize=11.5)
    axes.margins(x=0.12)
    if limits or np.nanmin(heights, initial=0) >= 0:
        axes.set_xlim(*(limits or (0, None)))
    if ends.size:
        show_ends(axes, ends)
    return figure


def show_ends(axes: Axes, ends: np.ndarray) -> None:
    """Widen the axes until both ends of every interval, `ends`, can be seen, those at zero apart from the axis, too."""
    known = ends[np.isfinite(ends)]
    left, right = axes.get_xlim()
    room = 0.015 * (right - left)
    axes.set_xlim(min(known.min(initial=right) - room, left), max(known.max(initial=left) + room, right))


def wrapped(names: Iterable[Any], width: int = 28) -> list[str]:
    """Names in lines of so many characters, so that on a phone half of a figure is left for what it shows."""
    return [textwrap.fill(str(name), width) for name in names]


def confusion(matrix: np.ndarray, *, names: Sequence[str]) -> Figure:
    """Confusion matrix: rows are the truth, columns the prediction; numbers in the cells up to 12 names.

    `matrix` holds counts, (names, names); each row is divided by its sum. On a page a cell says what it is.
    """
    from matplotlib.patches import Rectangle

    shares = np.asarray(matrix, float) / np.clip(np.sum(matrix, axis=1, keepdims=True), 1e-12, None)
    side = float(np.clip(1.6 + 0.3 * len(names), 3.4, 6.3))
    size = (min(WIDTH + 0.6, side + 1.2), side)
    figure = heat(shares, rows=names, columns=names, label="share of a row", numbers=len(names) <= 12, size=size)
    figure.axes[0].set(ylabel="truth", xlabel="prediction", aspect="equal")
    figure.set_layout_engine("compressed")  # knows of squares
    for row, column in zip(*np.nonzero(shares), strict=True):
        words = f"{names[row]}, taken for {names[column]}: {shares[row, column]:.0%}"
        figure.axes[0].add_patch(Rectangle((column, row), 1, 1, alpha=0, gid=HOVER + words))
    return figure


def heat(
    values: np.ndarray,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    label: str = "",
    numbers: bool = False,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Heat map of `values`, (rows, columns), in inches of `size`, with `numbers` in the cells."""
    import seaborn

    values = np.asarray(values, float)
    width, height = size or (WIDTH, float(np.clip(1.2 + 0.3 * len(values), 2.6, 9)))
    figure, axes = canvas(height=height, width=width)
    bar = {"label": label, "shrink": 0.7, "pad": 0.02, "aspect": 22, "fraction": 0.06}
    names = {"xticklabels": list(columns) or "auto", "yticklabels": list(rows) or "auto"}
    cells = {"annot": numbers, "fmt": ".2f", "annot_kws": {"fontsize": 9}, "rasterized": True, "cbar_kws": bar}
    seaborn.heatmap(values, ax=axes, cmap=ramp(), **names, **cells)
    if numbers:
        shades = np.asarray(axes.collections[0].get_facecolor())[~np.isnan(values).ravel()]
        for text, (*_, alpha) in zip(axes.texts, shades, strict=True):
            text.set_color(INK if alpha < 0.4 else text.get_color())  # the page shows through
    long = max(map(len, map(str, columns)), default=0) > 3
    sides: Any = (("y", len(rows), 0), ("x", len(columns), 60 if long else 0))
    for side, many, turn in sides:
        fitting = 12 if many <= 16 else 8 if many <= 30 else 6.4  # so many names fit side by side
        axes.tick_params(axis=side, labelsize=fitting, rotation=90 if turn and many > 30 else turn, length=0)
    for tick in axes.get_xticklabels() if long and len(columns) <= 30 else []:
        tick.set(ha="right", rotation_mode="anchor")
    return figure


def reliability(confidence: np.ndarray, correct: np.ndarray, *, bins: int = 10) -> Figure:
    """Reliability diagram: accuracy of the answers against their confidence; a bar's strength is its share of answers.

    `confidence` holds the probability of the chosen answer, (answers,); `correct` whether it was right, (answers,).
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    figure, axes = canvas(height=4.4, width=4.8)
    position = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(position, minlength=bins)
    accuracy = np.bincount(position, weights=correct, minlength=bins) / np.clip(counts, 1, None)
    shades = [(PALETTE[0], 0.25 + 0.7 * count / max(counts.max(), 1)) for count in counts]
    axes.bar(np.arange(bins) / bins, accuracy, width=0.94 / bins, align="edge", color=shades)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=1, label="calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axes.grid(True)
    _legend(axes, 1)
    return figure


def lines(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    group: str | None = None,
    label: str = "",
    x_label: str = "",
    shades: Mapping[str, str] | None = None,
) -> Figure:
    """Lines of `y` over `x`, one a `group`; several rows at one `x` give their mean with a 95 % band.

    The interval of n rows is 1.96 standard errors of the mean (n of 3 or more); fewer rows draw no band. `shades` are
    the colours of groups that have one elsewhere.
    """
    import seaborn
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas()
    names = [] if group is None else list(table[group].drop_duplicates())
    shades = shades or dict(zip(names, colours(map(str, names)).values(), strict=True))
    look: dict[str, Any] = {"hue": group, "palette": shades} if names else {"color": PALETTE[0]}

    def band(values: pd.Series) -> tuple[float, float]:
        half = 1.96 * values.sem() if len(values) >= 3 else np.nan
        return values.mean() - half, values.mean() + half

    look["errorbar"] = band if table.duplicated([x, *([group] if group else [])]).any() else None
    seaborn.lineplot(table, x=x, y=y, err_kws={"alpha": 0.2, "linewidth": 0}, ax=axes, **look)
    if table[x].dtype.kind in "iu":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set(xlabel=x_label or x, ylabel=textwrap.fill(label or y, 28))
    axes.grid(axis="y")
    axes.margins(x=0.01)
    if names:
        _legend(axes, len(names))
    return figure


def signals(values: np.ndarray, *, names: Sequence[str], rate: float = 1.0, label: str = "reading") -> Figure:
    """Sensor channels over time: `values` (steps, channels), `rate` in samples a second."""
    import pandas as pd

    table = pd.DataFrame(np.asarray(values, float), columns=list(names))
    table["seconds"] = np.arange(len(table)) / rate
    return lines(table.melt("seconds", var_name="name"), x="seconds", y="value", group="name", label=label)


def stacked(table: pd.DataFrame, *, label: str = "share") -> Figure:
    """Stacked horizontal bars: one row of `table` a bar, one column a part, each part named in the legend."""
    figure, axes = _rows(table.index, label=label, room=1.5)
    axes.grid(False)
    left = np.zeros(len(table))
    for (name, values), shade in zip(table.fillna(0.0).items(), colours(map(str, table.columns)).values(), strict=True):
        axes.barh(range(len(table)), values, left=left, color=shade, height=0.7, label=str(name))
        left = left + values.to_numpy(float)
    axes.margins(x=0)
    _legend(axes, table.shape[1])
    return figure


def timeline(table: pd.DataFrame) -> Figure:
    """What happened when: rows of `name`, `start`, `end` in seconds, perhaps `strength` from 0 to 1, and `colour`."""
    colour = colours(map(str, table["name"]))
    if "colour" in table:
        colour = dict(zip(table["name"], table["colour"], strict=True))
    figure, axes = _rows(colour, label="seconds")
    strength = table["strength"].clip(0, 1) if "strength" in table else np.ones(len(table))
    rows = [list(colour).index(str(name)) for name in table["name"]]
    shades = [(colour[str(name)], 0.3 + 0.7 * strong) for name, strong in zip(table["name"], strength, strict=True)]
    axes.barh(rows, table["end"] - table["start"], left=table["start"], height=0.62, color=shades)
    return figure


def scatter(points: np.ndarray, *, groups: Sequence[str], label: str = "", x_label: str = "") -> Figure:
    """Points in the plane, (points, 2), one colour a group: a map of an embedding, whose units say nothing."""
    import seaborn

    figure, axes = canvas(height=4.4)
    shades = colours(groups)
    x, y = np.asarray(points, float).T
    seaborn.scatterplot(x=x, y=y, hue=list(groups), palette=shades, s=16, alpha=0.75, linewidth=0, ax=axes)
    axes.set(xticks=[], yticks=[], xlabel=x_label, ylabel=label)
    axes.spines[:].set_visible(False)
    _legend(axes, len(shades))
    return figure


def svg(figure: Figure, *, alt: str = "") -> str:
    """Return the figure as one `<svg>` element that takes its text colour from the page it is shown on."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    body = text.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"\s*<(metadata|style)[^>]*>.*?</\1>", "", body, flags=re.DOTALL)  # a style holds for the whole page
    body = re.sub(r'<g id="[a-z0-9]+_\d+"', "<g", body)  # equal in all figures of a page, and nothing refers to them
    body = re.sub(rf'<g id="{HOVER}([^"]*)"[^>]*>', r'<g pointer-events="all"><title>\1</title>', body)
    body = re.sub(r' (width|height)="[^"]*"', "", body, count=2).replace(INK, "currentColor")  # those of <svg>
    label = f' aria-label="{escape(alt)}"' if alt else ""
    look = f"width:100%;max-width:{figure.get_figwidth() * 108:.0f}px;height:auto;stroke-linejoin:round"
    if (least := _least_width(figure)) > PHONE:
        look += f";min-width:{least / 16:.0f}rem"  # many names: scrolled rather than made small
    return body.replace("<svg", f'<svg style="{look}" role="img"{label}', 1)


def _least_width(figure: Figure) -> float:
    """The width in pixels of a page below which the names beside axes could not be read."""
    ticks = [tick for axes in figure.axes for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    smallest = min((float(tick.get_fontsize()) for tick in ticks if tick.get_text()), default=12.0)  # points, 1/72 inch
    return figure.get_figwidth() * 72 * READABLE / smallest


def canvas(*panels: int, height: float = 3.6, width: float = WIDTH, **shared: Any) -> tuple[Figure, Any]:
    """Return a new figure in the house style, and its axes; an array of them for so many `panels` down and across."""
    from matplotlib.figure import Figure

    style()
    figure = Figure(figsize=(width, height), layout="constrained")  # not pyplot's: nothing to close, shown only once
    return figure, figure.subplots(*panels, **shared)


def _rows(names: Iterable[Any], *, label: str, room: float = 1.1) -> tuple[Figure, Axes]:
    """Return a figure for horizontal bars at 0, 1, ..., named from top to bottom, and its axes."""
    names = wrapped(names)
    figure, axes = canvas(height=room + (0.45 if any("\n" in name for name in names) else 0.36) * len(names))
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return figure, axes


def _legend(axes: Axes, entries: int) -> None:
    """Put the legend below the axes, where a narrow page has room for it."""
    handles, labels = axes.get_legend_handles_labels()
    if old := axes.get_legend():
        old.remove()
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": min(entries, 4)}
    axes.get_figure(root=True).legend(handles, labels, columnspacing=1.2, handlelength=1.2, **place)  # type: ignore[union-attr]
