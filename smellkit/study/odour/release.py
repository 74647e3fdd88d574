"""Make the weights that come with the kit: one network, its protocol and its calibration, in one folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from smellkit import checkpoint, runs
from smellkit.odour import recordings
from smellkit.odour.encoder import make
from smellkit.odour.smell import SubstanceSmell
from smellkit.odour.windows import cut
from smellkit.study import ranges
from smellkit.study.odour import calibrated, smellnet, systems
from smellkit.study.odour.encoder_task import RECIPES
from smellkit.study.odour.survey import other_sessions

PRECISION = 0.9  # of what is answered at all: a scent that is a coin toss must not be played
SHIPPED = "confounded/conductance"  # the system whose network comes with the kit
WHY = (
    "Chosen on training recordings alone: best of the inputs tried on the second session of the four substances that "
    "have one, and on a held-out recording of the same session far better than inputs without levels. It sees the "
    "levels of four channels, so its test accuracy is recognition within a session; see other_session for another day."
)


def make_weights(
    data: str | Path,
    folder: Path,
    *,
    system: str = SHIPPED,
    seed: int = 1,
    progress: Callable[[str], object] = lambda _: None,
) -> str:
    """Train the network of `system` on the training split of `data`, write it to `folder`, and return its scores.

    Calibrated on recordings of the training split that a second fit did not see; the test split is scored once, at the
    end, for the manifest.
    """
    chosen = systems.named(system)
    (model,) = chosen.members
    training = recordings.read_recordings(data, "training")
    inside = cut(training, chosen.protocol, stride=chosen.stride)
    progress(f"calibrating {model} on held-out recordings")
    learnt = calibrated.learn(chosen, inside, name="ship", seed=seed, precision=PRECISION)
    progress(f"training {model} on all {training['file'].nunique()} recordings")
    train = inside.every(chosen.train_stride)
    systems.fit(chosen, train, seed=seed, name="ship")
    tensors, _ = checkpoint.load(runs.latest(f"ship/{model}").folder)
    described = asdict(chosen.protocol) | {"columns": list(chosen.protocol.columns)}
    manifest = {
        "kind": "odour",
        "model": model,
        "options": {},
        "protocol": described,
        "classes": list(train.classes),
        "calibration": learnt.asdict(),
        "why": WHY if system == SHIPPED else "",
        "made_by": {
            "system": system,
            "seed": seed,
            "settings": asdict(replace(RECIPES[model], seed=seed)),
            "command": "smellkit bench smellnet-base --data DIR --save data/weights/odour",
            "data": "SmellNet, training split, github.com/MIT-MI/SmellNet ea940d686c67e411c9cf396f844e7be8ca2b6424",
            "revision": runs.revision(),
        },
    }
    network = make(model, train.values.shape[1:], classes=len(train.classes))
    checkpoint.fill(network, tensors)
    smell = SubstanceSmell(network.eval(), chosen.protocol, train.classes, learnt)
    manifest["scores"] = scores(smell, data)
    manifest["ranges"] = ranges.odour(data, columns=chosen.protocol.columns).asdict()
    checkpoint.save(folder, tensors, runs.plain(manifest))
    return f"{folder}: {manifest['scores']}"


def scores(smell: SubstanceSmell, data: str | Path) -> dict[str, Any]:
    """Top-1, top-5 of windows and recordings on the test split and on other sessions, and how the calibration holds."""
    figures: dict[str, Any] = {}
    away = other_sessions(data)
    tables = {"test": recordings.read_recordings(data, "testing"), "other_session": away}
    for name, table in tables.items():
        if table is None:
            continue
        windows = cut(table, smell.protocol, classes=smell.classes)
        values = smell.scores(windows.values)
        figures[name] = {
            level: {k: round(smellnet.at_level([values], windows, count)[k]["value"], 4) for k in ("top1", "top5")}
            for level, count in (("window", 1), ("recording", 0))
        }
        held = calibrated.holds([values], windows, smell.confidence)
        figures[name] |= {k: round(held[k], 4) for k in ("expected_calibration_error", "set_size")}
        figures[name]["coverage"] = round(held["coverage"]["value"], 4)
        figures[name]["selective"] = {k: round(v, 4) for k, v in held["selective"].items()}
    return figures
