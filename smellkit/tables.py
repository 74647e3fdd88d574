"""Tables for pages: means with intervals, and a winner only where there is one. They read on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from great_tables import GT


def plain(table: pd.DataFrame, *, title: str = "", note: str = "", digits: int = 3) -> GT:
    """Return `table` as it is, in the house style; floats with `digits` decimals."""
    from great_tables import GT

    gt = GT(table.reset_index(drop=True))
    floats = [name for name in table.columns if table[name].dtype.kind == "f"]
    if floats:
        gt = gt.fmt_number(columns=floats, decimals=digits).sub_missing(missing_text="–")
    return _house(gt, title=title, note=note)


def means(
    table: pd.DataFrame,
    *,
    name: str = "name",
    title: str = "",
    note: str = "",
    digits: int = 3,
    larger: bool = True,
    labels: Mapping[str, str] | None = None,
) -> GT:
    """Return a table of means with their intervals; the best is bold only when its interval stands clear of all others.

    `table` has the column `name`, `mean`, `low` and `high`, and perhaps more, which follow as they are.
    `larger` says whether a large value is good; `labels` renames columns.
    """
    from great_tables import GT, loc, style

    rest = [column for column in table.columns if column not in (name, "mean", "low", "high")]
    shown = table.reset_index(drop=True)
    shown = shown.assign(interval=[_interval(row.low, row.high, digits) for row in shown.itertuples()])
    gt = GT(shown[[name, "mean", "interval", *rest]]).fmt_number(columns="mean", decimals=digits)
    floats = [column for column in rest if table[column].dtype.kind == "f"]
    if floats:
        gt = gt.fmt_number(columns=floats, decimals=digits)
    best = winner(table, larger=larger)
    if best is not None:
        gt = gt.tab_style(style=style.text(weight="bold"), locations=loc.body(rows=[best]))
    names = {"interval": "95 % interval"} | dict(labels or {})
    gt = gt.cols_label(**names).cols_align("right", columns=["mean", "interval"])  # type: ignore[arg-type]
    return _house(gt.sub_missing(missing_text="–"), title=title, note=note)


def winner(table: pd.DataFrame, *, larger: bool = True) -> int | None:
    """Position of the row whose interval stands clear of every other's; None when no row's does."""
    if len(table) < 2 or table[["mean", "low", "high"]].isna().to_numpy().any():
        return None
    mean = table["mean"].to_numpy(float)
    best = int(mean.argmax() if larger else mean.argmin())
    others = [row for row in range(len(table)) if row != best]
    if larger:
        clear = table["low"].iloc[best] > table["high"].iloc[others].max()
    else:
        clear = table["high"].iloc[best] < table["low"].iloc[others].min()
    return best if clear else None


def _interval(low: float, high: float, digits: int) -> str:
    known = low == low and high == high and abs(low) != float("inf")
    return f"{low:.{digits}f} to {high:.{digits}f}" if known else "–"


def _house(gt: GT, *, title: str, note: str) -> GT:
    """Take the page's own colours and font, and as much width as the page gives."""
    if title:
        gt = gt.tab_header(title=title)
    if note:
        gt = gt.tab_source_note(note)
    quiet = "rgba(127,127,127,0.35)"
    gt = gt.tab_options(
        table_background_color="transparent",
        table_font_names="inherit",
        table_font_size="0.92em",
        table_margin_left="0",
        heading_align="left",
        heading_title_font_size="1em",
        heading_title_font_weight="600",
        heading_background_color="transparent",
        column_labels_background_color="transparent",
        column_labels_font_weight="600",
        table_border_top_style="none",
        table_border_bottom_color=quiet,
        heading_border_bottom_color=quiet,
        column_labels_border_top_color=quiet,
        column_labels_border_bottom_color=quiet,
        table_body_hlines_color=quiet,
        table_body_border_top_color=quiet,
        table_body_border_bottom_color=quiet,
        source_notes_background_color="transparent",
        data_row_padding="5px",
    )
    css = ".gt_table, .gt_table * { color: inherit !important; background-color: transparent !important; }"
    return gt.opt_css(css, allow_duplicates=False)
