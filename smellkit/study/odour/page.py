"""`python -m smellkit.study.odour.page [RECORDING]`: what the site shows of the shipped network.

site/try/sample.json is the last layer that the page `try` judges its simulated samples with: the shipped network has
never smelled the simulated nose, and a discriminant fitted to the sample's training recordings (`Pipeline.fit`) tells
those substances apart. With a RECORDING of the twelve-column board, the pictures of the first page are drawn as well:
its curves, what it was recognised as on the way, and what is played.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smellkit import checkpoint, paths
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import Mixture, Pipeline, read_parts
from smellkit.odour.scents import SCENTS
from smellkit.odour.smell import SubstanceSmell
from smellkit.plots import PALETTE

FILE = paths.HOME / "site" / "try" / "sample.json"
LOOKS = {"light": ("#1d2731", "#5b6875", "#d3dae1"), "dark": ("#e8edf2", "#a3b1bf", "#33414e")}  # ink, soft, lines
DRAWN, LASTS = 90, 7.0  # points of a curve; seconds of the drawing
STYLE = """
polyline { fill: none; stroke-width: 2.4; stroke-linejoin: round; stroke-dasharray: 1; stroke-dashoffset: 0; }
@media (prefers-reduced-motion: no-preference) {
  polyline { animation: draw %(lasts)ss linear backwards; animation-delay: var(--wait, 0s); }
  .late { animation: show .6s ease-out backwards; animation-delay: var(--wait, 0s); }
  .air { animation: rise 2.4s ease-out 4 backwards; animation-delay: var(--wait, 0s); }
}
@keyframes draw { from { stroke-dashoffset: 1; } }
@keyframes show { from { opacity: 0; } }
@keyframes rise { from { opacity: 0; transform: translateY(26px); } 50%% { opacity: 1; } }
"""


def readout() -> dict[str, Any]:
    """The layer (classes x 50) with its offsets, class names, temperature and the ranges of the sample, for JSON."""
    smell = SubstanceSmell.load(checkpoint.find("odour-same-session")).fit()
    assert smell.ranges is not None
    head = smell.network.head
    weight, bias = ([float(f"{v:.8g}") for v in part.detach().flatten().tolist()] for part in (head.weight, head.bias))
    shape = {"classes": list(smell.classes), "inside": head.in_features}
    return {**shape, "weight": weight, "bias": bias, "temperature": smell.confidence.temperature,
            "ranges": smell.ranges.asdict()}  # fmt: skip


def animation(recording: Path, look: str) -> str:
    """An SVG that draws a recording and its early recognition once, and rests on the end; no script."""
    pipeline = Pipeline.load("odour-same-session")
    rows = np.concatenate(read_parts(recording, pipeline.smell))
    recogniser = Recogniser(pipeline, columns=pipeline.smell.columns)
    answers = [(n, answer) for n, row in enumerate(rows, 1) if (answer := recogniser.add(row))]
    return _svg(rows, pipeline.smell.columns, answers, pipeline(recording), pipeline.smell.classes, LOOKS[look])


def _svg(rows, columns, answers: Sequence[tuple[int, Mixture]], final: Mixture, classes, look) -> str:
    ink, soft, line = look
    every = np.unique(np.linspace(0, len(rows) - 1, DRAWN).astype(int))
    parts = [f"<style>{STYLE % {'lasts': LASTS}}</style>"]
    for place, name in enumerate(columns):
        x, y = 10 + 152 * (place % 2), 34 + 88 * (place // 2)
        values = rows[every, place]
        height = (values - values.min()) / max(np.ptp(values), 1e-9)
        points = zip(x + 138 * every / len(rows), y + 54 - 50 * height, strict=True)
        axes = f'<path d="M{x} {y}v56h138" fill="none" stroke="{line}"/>'
        parts += [_text(x, y - 8, name, 15, soft), axes, _line(points, PALETTE[place])]
    best = sorted(range(len(classes)), key=lambda c: -final.probabilities[c])[:3]
    parts += [_text(350, 26, "probability while it sniffs", 15, soft),
              f'<path d="M350 34v232h290" fill="none" stroke="{line}"/>', _text(350, 288, "0 s", 14, soft),
              _text(640, 288, f"{len(rows)} s", 14, soft, anchor="end")]  # fmt: skip
    first = answers[0][0] / len(rows)
    for rank, number in enumerate(best):
        told = [(350 + 290 * n / len(rows), 264 - 226 * answer.probabilities[number]) for n, answer in answers]
        parts.append(_line(told, PALETTE[rank], wait=first * LASTS, lasts=(1 - first) * LASTS))
        words, y = f"{classes[number].replace('_', ' ')} {100 * final.probabilities[number]:.0f} %", 130 + 24 * rank
        mark = f'<rect x="618" y="{y - 11}" width="12" height="12" rx="3" fill="{PALETTE[rank]}"/>'
        parts.append(_late(_text(612, y, words, 16, ink, weight=650, anchor="end") + mark, 0.97))
    for place, (name, share) in enumerate(sorted(final.beta.items(), key=lambda one: -one[1])[:4]):
        y = 52 + 34 * place
        parts += [_late(_text(680, y, name.replace("_", " "), 16, ink), 1),
                  _late(f'<rect x="832" y="{y - 12}" width="{max(2, 150 * share):.0f}" height="13" rx="4" '
                        f'fill="{PALETTE[0]}"/>', 1)]  # fmt: skip
    played = f"scent {SCENTS.index(final.name) + 1} of 12 is played"
    parts += [_text(680, 26, "mixture for the player", 15, soft), _late(_text(680, 254, played, 15, soft), 1.02)]
    parts.append(_late(_text(680, 226, f"▶ {final.name.replace('_', ' ')}", 26, ink, weight=700), 1.02))
    parts += [f'<circle class="air" style="--wait:{1.05 * LASTS + 0.3 * n:.1f}s" cx="{912 + 22 * n}" '
              f'cy="{214 - 12 * (n % 2)}" r="{7 + 2 * (n % 2)}" fill="{PALETTE[1]}" fill-opacity=".75"/>'
              for n in range(4)]  # fmt: skip
    label = f"A recording is drawn, recognised on the way as {final.name}, and played"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 300" role="img" aria-label="{label}" '
        f"font-family=\"Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\">\n"
        + "\n".join(parts) + "\n</svg>\n"
    )  # fmt: skip


def _line(points: Iterable[tuple[float, float]], colour: str, *, wait: float = 0.0, lasts: float = LASTS) -> str:
    told = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = f"--wait:{wait:.2f}s;animation-duration:{lasts:.2f}s"
    return f'<polyline pathLength="1" style="{style}" points="{told}" stroke="{colour}"/>'


def _text(x: float, y: float, words: str, size: int, colour: str, *, weight: int = 400, anchor: str = "start") -> str:
    look = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {look}>{words}</text>'


def _late(part: str, share: float) -> str:
    return f'<g class="late" style="--wait:{share * LASTS:.2f}s">{part}</g>'


if __name__ == "__main__":
    paths.write_text(FILE, json.dumps(readout()) + "\n")
    for look in LOOKS if len(sys.argv) > 1 else ():
        drawn = animation(Path(sys.argv[1]), look)
        paths.write_text(paths.HOME / "site" / "images" / f"sniff-{look}.svg", drawn)
