"""Every chart draws what it was given, on any page, for every reader."""

import io

import numpy as np
import pandas as pd
import pytest

from smellkit import plots
from smellkit.study import published

RNG = np.random.default_rng(0)
NAMES = ["apple", "pear", "mandarin orange"]
CURVE = pd.DataFrame([(e, 1 / (e + 1) + s / 50, m) for e in range(5) for s in range(3) for m in ("lstm", "gru")],
                     columns=["epoch", "loss", "model"])  # fmt: skip
LOW, HIGH = dict.fromkeys(NAMES, 0.1), dict.fromkeys(NAMES, 0.6)
SHARES = pd.DataFrame(RNG.dirichlet(np.ones(12), 2), columns=[f"scent {n}" for n in range(12)])
SLOTS = pd.DataFrame({"name": NAMES, "start": [0, 1, 2], "end": [1, 2, 4], "strength": [1, 0, 2]})
CHARTS = {
    "bars": lambda: plots.bars(pd.Series([0.5, 0.2, np.nan], NAMES), low=LOW, high=HIGH, label="share"),
    "confusion": lambda: plots.confusion(np.eye(3, dtype=int) * 4 + 1, names=NAMES),
    "confusion of many": lambda: plots.confusion(np.eye(50), names=[f"substance {n}" for n in range(50)]),
    "heat": lambda: plots.heat(RNG.normal(size=(3, 2)), rows=NAMES, columns=["a", "b"], numbers=True),
    "reliability": lambda: plots.reliability(RNG.random(99), RNG.random(99) < 0.5),
    "lines": lambda: plots.lines(CURVE, x="epoch", y="loss", group="model"),
    "signals": lambda: plots.signals(RNG.normal(size=(60, 3)), names=NAMES, rate=10),
    "stacked": lambda: plots.stacked(SHARES),
    "timeline": lambda: plots.timeline(SLOTS),
    "scatter": lambda: plots.scatter(RNG.normal(size=(9, 2)), groups=NAMES * 3),
}


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_is_saved_and_takes_the_page_s_text_colour(chart):
    figure = CHARTS[chart]()
    figure.savefig(io.BytesIO())
    text = plots.svg(figure, alt='a "chart" < b')
    assert text.startswith("<svg")
    assert "currentColor" in text
    assert plots.INK not in text
    assert "<style" not in text  # it would hold for the whole page
    assert 'aria-label="a &quot;chart&quot; &lt; b"' in text
    assert figure.get_figwidth() <= 7.1


def test_a_dollar_in_a_name_begins_no_formula():
    figure = plots.bars({"tea 2 $ or 3 $": 1.0, r"$\frac$": 2.0})
    plots.svg(figure)
    assert not any(label.get_parse_math() for label in figure.axes[0].get_yticklabels())


def test_both_ends_of_every_interval_are_seen_apart_from_the_axis():
    low, high = {"none": 0.0, "below": -0.05, "all": 0.9}, {"none": 0.4, "below": 0.1, "all": 1.0}
    axes = plots.bars({"none": 0.1, "below": 0.0, "all": 1.0}, low=low, high=high, limits=(0, 1)).axes[0]
    left, right = axes.get_xlim()
    assert left < -0.05 and right > 1.0
    one = plots.bars({"none": 0.1}, low={"none": 0.0}, high={"none": 0.4}).axes[0]
    assert one.get_xlim()[0] < 0


def test_long_names_leave_half_of_a_chart_for_its_bars():
    figure = plots.bars({"temperature, pressure, humidity, altitude": 1.0, "pressure": 0.5})
    figure.savefig(io.BytesIO())
    assert figure.axes[0].get_position().width > 0.5
    assert [text.get_text().count("\n") for text in figure.axes[0].get_yticklabels()] == [1, 0]


def test_the_same_figure_is_the_same_text():
    assert plots.svg(CHARTS["lines"]()) == plots.svg(CHARTS["lines"]())


def contrast(one, other):
    def light(colour):
        part = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
        return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    high, low = sorted([light(one), light(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#14191f"])
def test_text_and_colours_read_on_light_and_dark_pages(page):
    assert contrast(plots.INK, page) > 4
    assert min(contrast(colour, page) for colour in plots.TWELVE) > 1.8
    assert min(contrast(plots.PALETTE[place], page) for place in (0, 2, 3)) > 3


def test_every_name_has_a_colour_of_its_own():
    for count in (1, 8, 12, 50):
        names = [f"n{n}" for n in range(count)]
        assert len(set(plots.colours(names).values())) == count


def table(*rows, **how):
    """A table of one column: name, value, low and high a row."""
    return published.Table("T", "case", ("mean",), tuple((name, (figure,)) for name, *figure in rows), **how)


def test_the_best_is_bold_only_when_its_interval_stands_clear():
    clear = ("lstm", 0.8, 0.75, 0.85), ("gru", 0.6, 0.5, 0.7)
    near = ("lstm", 0.8, 0.65, 0.85), ("gru", 0.6, 0.5, 0.7)
    unknown = ("lstm", 0.8, None, None), ("gru", 0.6, 0.5, 0.7)
    assert "| lstm | **0.800** [" in published.markdown(table(*clear))
    assert "| gru | **0.600** [" in published.markdown(table(*clear, smaller=("mean",)))
    assert all("**0" not in published.markdown(table(*rows)) for rows in (near, unknown))


def test_a_table_shows_intervals_where_there_are_some():
    text = published.markdown(table(("lstm", 0.8, 0.75, 0.85), ("one seed", 0.6, None, None), note="Five seeds"))
    lines = text.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert lines[0] == "**T**" and lines[-1] == "Five seeds"
    rows = ["| lstm | 0.800 [0.750, 0.850] |", "| one seed | 0.600 |"]
    assert lines[2:-2] == ["| case | mean |", "|---|---:|", *rows]


def test_a_plain_table_rounds_floats_and_leaves_the_rest():
    table = pd.DataFrame({"name": ["a|b", "c"], "value": [0.12345, float("nan")], "count": [7, 1234]})
    assert published.plain(table).data.splitlines()[2:] == ["| a\\|b | 0.123 | 7 |", "| c | – | 1,234 |"]
