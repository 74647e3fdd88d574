"""What the panel shows, as HTML that follows the page's colours and width. Text in, text out: no widget, no state.

Drawn without a library, so that nothing has to come from a network and a picture costs a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from smellkit.plots import PALETTE

BLUE, AMBER, GREEN, RED = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]
UNITS = {"Alcohol": "ppm", "LPG": "ppm", "Benzene": "ppm", "Temperature": "°C", "Pressure": "hPa", "Humidity": "%",
         "Gas_Resistance": "kΩ", "Altitude": "m"}  # fmt: skip


def style() -> str:
    """The style sheet, which only reaches what is inside an element of class `smell`."""
    colours = f".smell {{ --blue: {BLUE}; --amber: {AMBER}; --red: {RED}; }}"
    return f"<style>{colours}\n{Path(__file__).with_name('style.css').read_text(encoding='utf-8')}</style>"


def script() -> str:
    """What the page does by itself: see page.js."""
    code = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    return f'<img alt="" src="data:," style="display:none" onerror="{escape("const mark = this;" + code, quote=True)}">'


def pulse(count: int, *, live: bool) -> str:
    """A sign of life for the page, which counts on another one soon while `live`."""
    return f'<i class="smell-pulse" data-count="{count}" data-live="{"yes" if live else ""}"></i>'


def title(text: str) -> str:
    """A small heading."""
    return f"<h3>{escape(text)}</h3>"


def chip(text: str, *, colour: str) -> str:
    """A state in words with a dot of colour; the words alone say it all."""
    return f'<span class="smell-chip"><i style="background:{colour}" aria-hidden="true"></i>{escape(text)}</span>'


def now(what: str, *, detail: str = "", chips: Iterable[str] = (), share: float | None = None, alert: str = "") -> str:
    """What is recognised at this moment: a word, its confidence, the states of both devices; read out on change."""
    meter = "" if share is None else f'<div class="smell-meter"><i style="width:{100 * share:.0f}%"></i></div>'
    warning = f'<div class="smell-alert" role="alert">{escape(alert)}</div>' if alert else ""
    return (
        f'<div class="smell-now" role="status"><b>{escape(what)}</b><span>{escape(detail)}</span>'
        f"{''.join(chips)}</div>{meter}{warning}"
    )


def traces(names: Sequence[str], rows: Sequence[Sequence[float]], *, drawn: Sequence[str], span: int) -> str:
    """Return a small chart for each of the `drawn` sensors over the last `span` rows, and the others as numbers."""
    charts, facts = [], []
    for index, name in enumerate(names):
        values, words = [row[index] for row in rows], escape(_words(name))
        latest = _measured(name, values[-1]) if values else "&nbsp;"
        if name in drawn:
            charts.append(f"<div><p>{words}<span>{latest}</span></p>{_line(values, span, name)}</div>")
        elif values:
            facts.append(f"<span>{words} <b>{latest}</b></span>")
    below = f'<p class="smell-facts">{" ".join(facts)}</p>' if facts else ""
    return f'<div class="smell-traces">{"".join(charts)}</div>{below}'


def bars(names: Sequence[str], shares: Sequence[float] | None, *, playing: int = 0, keep: int = 4) -> str:
    """Return one bar a scent, numbered from 1: the `keep` largest in blue, the one in the air in amber and bold."""
    kept = set(sorted(range(len(names)), key=lambda n: -(shares or [0] * 12)[n])[:keep])
    cells = []
    for n, name in enumerate(names):
        share = shares[n] if shares else 0.0
        number = f"{100 * share:.0f} %" if shares else ""
        state = "on" if n + 1 == playing else ""
        cells.append(
            f'<span class="{state}">{n + 1} {escape(_words(name))}{" ▶" if state else ""}</span>'
            f'<span class="track {"kept" if n in kept else "rest"}"><i style="width:{100 * share:.1f}%"></i></span>'
            f"<em>{number}</em>"
        )
    return f'<div class="smell-bars">{"".join(cells)}</div>'


def evidence(said: Mapping[str, tuple[Sequence[tuple[str, float]], float, str]]) -> str:
    """What each sense says: its largest shares as (scent, share), how far it is trusted, or why it is left out."""
    rows = []
    for sense, (largest, trust, why) in said.items():
        words = ", ".join(f"{escape(_words(name))} {100 * share:.0f} %" for name, share in largest)
        rows.append(
            f"<dt>{escape(sense)}</dt><dd>{f'left out: {escape(why)}' if why else words}"
            f"<em>trust {100 * trust:.0f} %</em>"
            f'<span class="smell-meter"><i style="width:{100 * trust:.0f}%"></i></span></dd>'
        )
    return f'<dl class="smell-evidence">{"".join(rows)}</dl>' if rows else ""


def slots(playlist: Sequence[tuple[float, int, float]], *, at: float | None) -> str:
    """Return the slots of a playlist as a strip of scent numbers; `at` is the second that is being played."""
    if not playlist:
        return ""
    cells = []
    for start, scent, seconds in playlist:
        state = "" if at is None or at < start else "now" if at < start + seconds else "past"
        cells.append(f'<i class="{state}" title="scent {scent} at {start:.1f} s">{scent}</i>')
    return f'<div class="smell-slots" role="img" aria-label="order of the scents">{"".join(cells)}</div>'


def log(lines: Iterable[str]) -> str:
    """Return lines of text, the newest first, in a box that can be scrolled with the keyboard."""
    return f'<pre tabindex="0" aria-label="device log">{escape(chr(10).join(lines)) or "nothing yet"}</pre>'


def _line(values: Sequence[float], span: int, name: str) -> str:
    """Return an SVG of `values`, the newest at the right edge, from its own least to its own largest value."""
    ground = '<path d="M0 39.5H100" stroke="var(--line)" vector-effect="non-scaling-stroke"/>'
    if len(values) < 2:
        return f'<svg viewBox="0 0 100 40" preserveAspectRatio="none" aria-hidden="true">{ground}</svg>'
    low, high = min(values), max(values)
    heights = [38 - 36 * (value - low) / (high - low) if high > low else 20.0 for value in values]
    points = [f"{100 - 100 * age / (span - 1):.1f},{y:.1f}" for age, y in enumerate(reversed(heights))]
    label = f"{_words(name)}: from {_short(low)} to {_short(high)}, now {_short(values[-1])}"
    return (
        f'<svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'{ground}<polyline points="{" ".join(points)}" fill="none" stroke="{BLUE}" stroke-width="1.8" '
        f'stroke-linejoin="round" vector-effect="non-scaling-stroke"/></svg>'
    )


def _words(name: str) -> str:
    return {"Gas_Resistance": "Resistance", "C2H5OH": "C₂H₅OH", "NO2": "NO₂"}.get(name, name.replace("_", " "))


def _measured(name: str, value: float) -> str:
    if value >= 2**32 - 1:  # what the board prints when its estimate does not fit
        return "overflow"
    return f"{_short(value)} {UNITS.get(name, '')}"


def _short(value: float) -> str:
    if abs(value) >= 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 and value % 1 else f"{value:.0f}"
