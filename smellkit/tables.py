"""Tables for pages: means with intervals, and a winner only where there is one. They read on light and dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from great_tables import GT

QUIET = "rgba(127,127,127,0.35)"
CSS = ".gt_table, .gt_table * { color: inherit !important; background-color: transparent !important; }"
PAINTED = [f"{part}_background_color" for part in ("table", "heading", "column_labels", "source_notes")]
LINES = [f"{side}_color" for side in ("table_border_bottom", "heading_border_bottom", "table_body_hlines")]
LINES += [f"{part}_border_{side}_color" for part in ("column_labels", "table_body") for side in ("top", "bottom")]


def plain(table: pd.DataFrame, *, title: str = "", note: str = "", digits: int = 3) -> GT:
    """Return `table` as it is, in the house style: the page's own colours, font and width; floats with `digits`."""
    from great_tables import GT

    floats = [name for name in table.columns if table[name].dtype.kind == "f"]
    gt = GT(table.reset_index(drop=True)).fmt_number(columns=floats, decimals=digits)
    gt = gt.tab_header(title=title) if title else gt
    gt = gt.tab_source_note(note) if note else gt
    gt = gt.sub_missing(missing_text="–").tab_options(
        table_font_names="inherit",
        table_font_size="0.92em",
        table_margin_left="0",
        heading_align="left",
        heading_title_font_size="1em",
        heading_title_font_weight="600",
        column_labels_font_weight="600",
        table_border_top_style="none",
        data_row_padding="5px",
        **dict.fromkeys(PAINTED, "transparent"),  # type: ignore[arg-type]
        **dict.fromkeys(LINES, QUIET),  # type: ignore[arg-type]
    )
    return gt.opt_css(CSS, allow_duplicates=False)


def means(
    table: pd.DataFrame, *, name: str = "name", title: str = "", note: str = "", digits: int = 3, larger: bool = True
) -> GT:
    """Return a table of means with their intervals; the best is bold only when its interval stands clear of all others.

    `table` has the column `name`, `mean`, `low` and `high`, and perhaps more, which follow as they are.
    `larger` says whether a large value is good.
    """
    from great_tables import loc, style

    intervals = [f"{low:.{digits}f} to {high:.{digits}f}" if abs(high - low) < float("inf") else "–"
                 for low, high in zip(table["low"], table["high"], strict=True)]  # fmt: skip
    rest = [column for column in table.columns if column not in (name, "mean", "low", "high")]
    shown = table.assign(interval=intervals)[[name, "mean", "interval", *rest]]
    gt = plain(shown, title=title, note=note, digits=digits)
    if (best := winner(table, larger=larger)) is not None:
        gt = gt.tab_style(style=style.text(weight="bold"), locations=loc.body(rows=[best]))
    return gt.cols_label(interval="95 % interval").cols_align("right", columns=["mean", "interval"])


def winner(table: pd.DataFrame, *, larger: bool = True) -> int | None:
    """Position of the row whose interval stands clear of every other's; None when no row's does."""
    if len(table) < 2 or table[["mean", "low", "high"]].isna().to_numpy().any():
        return None
    mean, low, high = (table[name].to_numpy(float) for name in ("mean", "low", "high"))
    mean, low, high = (mean, low, high) if larger else (-mean, -high, -low)
    best = int(mean.argmax())
    return best if all(low[best] > high[row] for row in range(len(table)) if row != best) else None
