"""`python -m smellkit.study.odour.page [RECORDING]`: what the site shows of the shipped network.

site/try/sample.json is the last layer that the page `try` judges its simulated samples with: the shipped network has
never smelled the simulated nose, and a discriminant fitted to the sample's training recordings (`Pipeline.fit`) tells
those substances apart. With a RECORDING of the twelve-column board, the pictures of the first page are drawn as well:
its curves, what it was recognised as on the way, and what is played.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from smellkit import checkpoint, paths
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import Pipeline, read_parts
from smellkit.odour.scents import SCENTS
from smellkit.odour.smell import SubstanceSmell
from smellkit.plots import PALETTE
from smellkit.study.pages import template

FILE = paths.HOME / "site" / "try" / "sample.json"
LOOKS = {
    "light": {"ink": "#1d2731", "soft": "#5b6875", "axis": "#d3dae1"},
    "dark": {"ink": "#e8edf2", "soft": "#a3b1bf", "axis": "#33414e"},
}
DRAWN, LASTS = 90, 7.0  # points of a curve; seconds of the drawing


def readout() -> dict[str, Any]:
    """The layer (classes x 50) with its offsets, class names, temperature and the ranges of the sample, for JSON."""
    smell = SubstanceSmell.load(checkpoint.find("odour-same-session")).fit()
    assert smell.ranges is not None
    head = smell.network.head
    weight, bias = ([float(f"{v:.8g}") for v in part.detach().flatten().tolist()] for part in (head.weight, head.bias))
    shape = {"classes": list(smell.classes), "inside": head.in_features, "weight": weight, "bias": bias}
    return {**shape, "temperature": smell.confidence.temperature, "ranges": smell.ranges.asdict()}


def animation(recording: Path, look: str) -> str:
    """An SVG that draws a recording and its early recognition once, and rests on the end; no script."""
    pipeline = Pipeline.load("odour-same-session")
    classes, columns = pipeline.smell.classes, pipeline.smell.columns
    rows, final = np.concatenate([part.values for part in read_parts(recording, pipeline.smell)]), pipeline(recording)
    recogniser = Recogniser(pipeline, columns=columns)
    answers = [(n / len(rows), answer) for n, row in enumerate(rows, 1) if (answer := recogniser.add(row))]
    every = np.unique(np.linspace(0, len(rows) - 1, DRAWN).astype(int))
    curves, likely = {}, []
    for place, name in enumerate(columns):
        x, y, values = 10 + 152 * (place % 2), 34 + 88 * (place // 2), rows[every, place]
        height = (values - values.min()) / max(np.ptp(values), 1e-9)
        curves[name] = list(zip(x + 138 * every / len(rows), y + 54 - 50 * height, strict=True))
    for best in sorted(range(len(classes)), key=lambda c: -final.probabilities[c])[:3]:
        points = [(350 + 290 * share, 264 - 226 * answer.probabilities[best]) for share, answer in answers]
        likely.append((f"{classes[best].replace('_', ' ')} {100 * final.probabilities[best]:.0f} %", points))
    shares = sorted(final.beta.items(), key=lambda one: -one[1])[:4]
    mixture = [(scent.replace("_", " "), share) for scent, share in shares]
    words = {"name": final.name, "number": SCENTS.index(final.name) + 1, "mixture": mixture, "likely": likely}
    words |= {"curves": curves, "seconds": len(rows), "first": answers[0][0], "lasts": LASTS, "palette": PALETTE}
    return template("sniff.svg.j2").render(**words, **LOOKS[look]) + "\n"


if __name__ == "__main__":
    paths.write_text(FILE, json.dumps(readout()) + "\n")
    for look in LOOKS if len(sys.argv) > 1 else ():
        drawn = animation(Path(sys.argv[1]), look)
        paths.write_text(paths.HOME / "site" / "images" / f"sniff-{look}.svg", drawn)
