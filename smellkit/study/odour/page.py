"""`python -m smellkit.study.odour.page`: the last layer that the page `site/try` judges its simulated samples with.

The shipped network has never smelled the simulated nose; its 50 channels tell those substances apart all the same, once
a discriminant is fitted to the sample's training recordings (`Pipeline.fit`).
"""

from __future__ import annotations

import json
from typing import Any

from smellkit import paths
from smellkit.odour.pipeline import Pipeline
from smellkit.odour.smell import SubstanceSmell

FILE = paths.HOME / "site" / "try" / "sample.json"


def readout() -> dict[str, Any]:
    """The layer (classes x 50) with its offsets, class names, temperature and the ranges of the sample, for JSON."""
    smell = Pipeline.fit().smell
    assert isinstance(smell, SubstanceSmell) and smell.ranges is not None
    head = smell.network.head
    weight, bias = (
        [float(f"{value:.8g}") for value in part.detach().flatten().tolist()] for part in (head.weight, head.bias)
    )
    return {
        "classes": list(smell.classes),
        "inside": head.in_features,
        "weight": weight,
        "bias": bias,
        "temperature": smell.confidence.temperature,
        "ranges": smell.ranges.asdict(),
    }


if __name__ == "__main__":
    paths.write_text(FILE, json.dumps(readout()) + "\n")
