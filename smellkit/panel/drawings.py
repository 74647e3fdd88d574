"""What the panel shows, as HTML that follows the page's colours and width. Text in, text out: no widget, no state.

Drawn without a library, so that nothing has to come from a network and a picture costs a millisecond.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from smellkit.odour.pipeline import Evidence
from smellkit.plots import PALETTE

BLUE, AMBER, GREEN, RED = PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3]
SYMBOLS = {"ppm": "ppm", "celsius": "°C", "hectopascal": "hPa", "pascal": "Pa", "percent": "%", "ohm": "Ω",
           "kilo-ohm": "kΩ", "volt": "V", "metre": "m"}  # fmt: skip  # of the units of a nose
FINE = 'stroke-linejoin="round" vector-effect="non-scaling-stroke"'  # as thick in any width


def chrome() -> str:
    """What the panel needs of a page: style.css, which only reaches what is inside of `.smell`, and page.js."""
    here = Path(__file__)
    style, code = (here.with_name(name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    colours = f".smell {{ --blue: {BLUE}; --amber: {AMBER}; --red: {RED}; }}"
    run = escape("const mark = this;" + code, quote=True)  # a page runs no script tag that comes later, but handlers
    return f'<style>{colours}\n{style}</style><img alt="" src="data:," style="display:none" onerror="{run}">'


def pulse(count: int, *, live: bool) -> str:
    """A sign of life for the page, which counts on another one soon while `live`."""
    return f'<i class="smell-pulse" data-count="{count}" data-live="{"yes" if live else ""}"></i>'


def now(
    what: str, *, detail: str = "", states: Iterable[tuple[str, str]] = (), share: float | None = None, alert: str = ""
) -> str:
    """What is recognised at this moment: a word, its confidence, what the devices do; read out on change.

    A state is (words, colour of its dot); the words alone say it all.
    """
    dot = '<span class="smell-chip"><i style="background:{}" aria-hidden="true"></i>{}</span>'
    chips = "".join(dot.format(colour, escape(text)) for text, colour in states)
    meter = "" if share is None else f'<div class="smell-meter"><i style="width:{100 * share:.0f}%"></i></div>'
    warning = f'<div class="smell-alert" role="alert">{escape(alert)}</div>' if alert else ""
    return (
        f'<div class="smell-now" role="status"><b>{escape(what)}</b><span>{escape(detail)}</span>'
        f"{chips}</div>{meter}{warning}"
    )


def traces(
    names: Sequence[str], rows: Sequence[Sequence[float]], *, drawn: Sequence[str], span: int, units: Sequence[str] = ()
) -> str:
    """Return a small chart for each of the `drawn` sensors over the last `span` rows, and the others as numbers."""
    charts, facts = [], []
    for index, name in enumerate(names):
        values, words = [row[index] for row in rows], escape(_words(name))
        latest = f"{_short(values[-1])} {SYMBOLS.get(units[index], '') if units else ''}" if values else "&nbsp;"
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


def evidence(senses: Mapping[str, Evidence], *, best: int = 3) -> str:
    """What each sense says: the `best` largest of its shares that count, and how far it is trusted, or why not."""
    rows = []
    for sense, own in senses.items():
        largest = sorted(own.shares.items(), key=lambda item: -item[1])[:best]
        words = ", ".join(f"{escape(_words(name))} {100 * share:.0f} %" for name, share in largest if share >= 0.01)
        rows.append(
            f"<dt>{escape(sense)}</dt><dd>{f'left out: {escape(own.why)}' if own.why else words}"
            f"<em>trust {100 * own.trust:.0f} %</em>"
            f'<span class="smell-meter"><i style="width:{100 * own.trust:.0f}%"></i></span></dd>'
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
    about, drawn = 'aria-hidden="true"', ""
    if len(values) > 1:
        low, high = min(values), max(values)
        heights = [38 - 36 * (value - low) / (high - low) if high > low else 20.0 for value in values]
        points = [f"{100 - 100 * age / (span - 1):.1f},{y:.1f}" for age, y in enumerate(reversed(heights))]
        label = escape(f"{_words(name)}: from {_short(low)} to {_short(high)}, now {_short(values[-1])}")
        about = f'role="img" aria-label="{label}"'
        drawn = f'<polyline points="{" ".join(points)}" fill="none" stroke="{BLUE}" stroke-width="1.8" {FINE}/>'
    ground = f'<path d="M0 39.5H100" stroke="var(--line)" {FINE}/>'
    return f'<svg viewBox="0 0 100 40" preserveAspectRatio="none" {about}>{ground}{drawn}</svg>'


def _words(name: str) -> str:
    return {"Gas_Resistance": "Resistance", "C2H5OH": "C₂H₅OH", "NO2": "NO₂"}.get(name, name.replace("_", " "))


def _short(value: float) -> str:
    if value >= 2**32 - 1:  # what the board prints when its estimate does not fit
        return "overflow"
    if abs(value) >= 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 and value % 1 else f"{value:.0f}"
