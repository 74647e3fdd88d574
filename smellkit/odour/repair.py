"""`smellkit calibrate` for an own nose: a few references of today make weights for today out of those of another day.

    old z -- moved by what the references' classes moved on the whole --> old z of today \\
                                                                          discriminant --> read-out of the same encoder
    references of today -- encoder --> z, together as heavy as all of the old ------------/
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from smellkit import checkpoint
from smellkit.checks import Report
from smellkit.errors import DataError, OptionError
from smellkit.odour import readers
from smellkit.odour.confidence import fit_temperature
from smellkit.odour.smell import SubstanceSmell, _discriminant
from smellkit.odour.windows import LabelledWindows, cut
from smellkit.options import alike

SPARE = "references."  # tensors beside the network: z of training windows and their classes


def repair(folder: Path, *, labels: Path | None = None, out: Path, using: Path) -> str:
    """Write the weights `using`, made fit for today by the references in `folder`, to `out`; say what they gain.

    References lie as recordings do: a folder for each class, or its name in that of the file. DataError where one is of
    a class that the weights don't know.
    """
    if labels is not None:
        raise OptionError("--labels is for mixtures", hint="references in a folder for each class tell theirs")
    smell, (tensors, manifest) = SubstanceSmell.load(using), checkpoint.load(using)
    windows = read(folder, smell)
    old = tensors.get(f"{SPARE}z", torch.zeros(0, smell.network.head.in_features)).double().numpy()
    old_target = tensors.get(f"{SPARE}target", torch.zeros(0, dtype=torch.long)).numpy()
    z = smell.channels(windows.values)

    def fit(chosen: NDArray) -> SubstanceSmell:
        head = read_out(old, old_target, z[chosen], windows.target[chosen], classes=len(smell.classes))
        network = copy.deepcopy(smell.network)
        network.head = head
        return replace(smell, network=network.eval())

    held = held_out(windows, fit)
    repaired, graded = fit(np.ones(len(z), bool)), np.isfinite(held).all(1)
    confidence = smell.confidence.asdict()
    if graded.any():
        confidence["temperature"] = fit_temperature(held[graded], windows.target[graded])
    count = {name: int(len(np.unique(windows.recording[windows.target == i]))) for i, name in enumerate(smell.classes)}
    about = {"calibration": confidence, "references": {name: n for name, n in count.items() if n}}
    spare = {name: tensor for name, tensor in tensors.items() if name.startswith(SPARE)}
    checkpoint.save(out, {**repaired.network.state_dict(), **spare}, {**manifest, **about})
    text = f"{sum(count.values())} references of {sum(n > 0 for n in count.values())} classes, {len(z)} windows"
    if graded.any():
        before, target = smell.scores(windows.values)[graded].argmax(1), windows.target[graded]
        after = held[graded].argmax(1)
        text += f"; windows of references left out: {np.mean(before == target):.0%} right before, "
        text += f"{np.mean(after == target):.0%} now"
    return f"{text}.\n{out}"


def read(folder: Path, smell: SubstanceSmell) -> LabelledWindows:
    """Windows of the references in `folder`, classes as the weights have them."""
    _, table = readers.read_folder(folder, smell.nose, report=Report())
    for name in sorted(set(table["substance"]) - set(smell.classes)):
        near = alike(name, smell.classes) or list(smell.classes)[:5]
        raise DataError(f"{folder}: these weights know no {name!r}", hint=f"they know {', '.join(near)}")
    return cut(table, smell.protocol, classes=smell.classes)


def read_out(old: NDArray, old_target: NDArray, new: NDArray, target: NDArray, *, classes: int) -> torch.nn.Linear:
    """A discriminant (50 -> classes) of old z, moved to today, and of new z that weigh as much together."""
    if len(old):
        both = np.intersect1d(old_target, target)
        old = old + np.mean([new[target == c].mean(0) - old[old_target == c].mean(0) for c in both], axis=0)
        times = max(1, round(len(old) / len(new)))
        new, target = (
            np.concatenate([old, np.repeat(new, times, 0)]),
            np.concatenate([old_target, np.repeat(target, times)]),
        )
    known = np.unique(target)
    if len(known) < 2:
        raise DataError("References of a single class", hint="at least two classes, better a few of each")
    fitted = _discriminant(new, np.searchsorted(known, target))
    layer = torch.nn.Linear(new.shape[1], classes)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(-1e3)  # of what there was no example
        layer.weight[known], layer.bias[known] = fitted.weight, fitted.bias
    return layer


def held_out(windows: LabelledWindows, fit) -> NDArray:
    """Scores (windows, classes) by fits without a reference's number in its class; NaN where a class has no other."""
    scores = np.full((len(windows), len(windows.classes)), np.nan)
    for number in np.unique(windows.fold):
        out = windows.fold == number
        rest = ~out & np.isin(windows.target, np.unique(windows.target[out]))
        if set(windows.target[out]) <= set(windows.target[rest]):
            scores[out] = fit(~out).scores(windows.values[out])
    return scores
