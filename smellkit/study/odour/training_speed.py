"""How long an encoder learns, and how good it is then, beside boosted trees, random kernels and a plain loop."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np

from smellkit import paths
from smellkit.odour.recordings import read_recordings
from smellkit.odour.windows import LabelledWindows, cut
from smellkit.study.odour import systems
from smellkit.study.timing import Row, arithmetic, once, own_work, versus

BEST = "ensemble"  # of `smellkit bench smellnet-base`
WINDOWS, STEPS, WIDTH, CLASSES = 4096, 100, 6, 50  # of an epoch
KERNELS = """
import json, sys, time
import numpy as np
from aeon.classification.convolution_based import MiniRocketClassifier
train, target, held, answer = np.load(sys.argv[1]).values()
MiniRocketClassifier(random_state=0).fit(train[:100], target[:100])  # compiles its kernels
began = time.process_time()
model = MiniRocketClassifier(random_state=1).fit(train, target)
print(json.dumps([time.process_time() - began, float((model.predict(held) == answer).mean())]))
"""


def learning(folder: Path) -> Iterator[tuple[str, Row]]:
    """The best encoder of SmellNet's substances against LightGBM and MiniRocket: core-seconds and scores.

    A recording of each substance of the training split is left out and scored; no test is looked at. MiniRocket runs
    where aeon is: in the Python that `SMELLKIT_AEON` names, or in this one.
    """
    table = read_recordings(paths.raw() / "smellnet", "training")
    with own_work(folder):
        seconds, score = _learnt(BEST, *_parts(BEST, table))
        for name, learn in {"LightGBM": partial(_learnt, "lightgbm"), "MiniRocket": partial(_kernels, folder)}.items():
            peer_seconds, peer_score = learn(*_parts("lightgbm", table))
            row = once(seconds, peer_seconds, score=score, peer_score=peer_score)
            yield f"learning 50 substances / {name}", row


def _parts(name: str, table) -> tuple[LabelledWindows, LabelledWindows]:
    """Windows to learn from, and those of the recordings left out, as the system `name` sees them."""
    system = systems.named(name)
    windows = cut(table, system.protocol, stride=system.stride)
    held = windows.fold == windows.fold.max()
    return windows[~held].every(system.train_stride), windows[held].every(system.protocol.stride)


def _learnt(name: str, train: LabelledWindows, held: LabelledWindows) -> tuple[float, float]:
    """Core-seconds of learning, and the share of the windows left out that are named rightly."""
    began = process_time()
    scorer = systems.fit(systems.named(name), train, name="bench/speed")
    seconds = process_time() - began
    return seconds, float((scorer(held.values).argmax(axis=1) == held.target).mean())


def _kernels(folder: Path, train: LabelledWindows, held: LabelledWindows) -> tuple[float, float]:
    """MiniRocket on windows in standard units, in another Python; ImportError where it lacks aeon."""
    mean, deviation = train.values.mean(axis=(0, 1)), train.values.std(axis=(0, 1))
    windows = [((part.values - mean) / deviation).transpose(0, 2, 1) for part in (train, held)]
    np.savez(file := folder / "windows.npz", windows[0], train.target, windows[1], held.target)
    python = os.environ.get("SMELLKIT_AEON", sys.executable)
    one = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run([python, "-c", KERNELS, str(file)], capture_output=True, text=True, env=one, check=False)
    if done.returncode:
        raise ImportError(f"MiniRocket: {done.stderr.strip().splitlines()[-1]}; SMELLKIT_AEON names a Python with aeon")
    seconds, score = json.loads(done.stdout)
    return seconds, score


def epoch(folder: Path) -> Iterator[tuple[str, Row]]:
    """One epoch of the LSTM by `smellkit.train` against a plain loop of torch, and against its arithmetic here."""
    random = np.random.default_rng(0)
    values = random.normal(0, 1, (WINDOWS, STEPS, WIDTH)).astype(np.float32)
    number = np.arange(WINDOWS)
    target, names = number % CLASSES, tuple(map(str, range(CLASSES)))
    windows = LabelledWindows(values, target, number, 0 * number, 0 * number, names)
    kit = partial(systems.trained, "lstm", windows, seed=1, name="bench/speed", epochs=1)
    with own_work(folder):
        row = versus(kit, partial(_plain_epoch, windows), rounds=5)
    yield "an epoch of the LSTM / a plain loop", row
    hidden = 96
    forward = WINDOWS * STEPS * 2 * 4 * hidden * (WIDTH + hidden)  # and twice as much backward
    yield "an epoch of the LSTM / its arithmetic", once(row["seconds"], arithmetic(3 * forward))


def _plain_epoch(windows: LabelledWindows) -> None:
    """What the original does: batches of a TensorDataset, cross-entropy, one optimiser's step each."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from smellkit.odour.encoder import make

    network = make("lstm", windows.values.shape[1:], classes=CLASSES).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    pairs = TensorDataset(torch.from_numpy(windows.values), torch.from_numpy(windows.target))
    for x, target in DataLoader(pairs, batch_size=128, shuffle=True):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network({"window": x})["logits"], target).backward()
        optimiser.step()
