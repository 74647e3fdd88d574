"""What a window gives away without a network, and mostly without learning: the scores to beat."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from smellkit.gcode.data import Machine
from smellkit.gcode.recordings import POSITION_COLUMNS
from smellkit.gcode.tokens import EOS, PAD
from smellkit.gcode.window_decoder import summary_features
from smellkit.study.gcode.splits import Prepared

Numbers = NDArray[np.int64]
Prefix = tuple[int, ...]


class Trie:
    """The most frequent next token after each prefix of the training lines: a language model without sensors."""

    def __init__(self, target: Numbers):
        counts: dict[Prefix, Counter[int]] = defaultdict(Counter)
        for row in target.tolist():
            for position, token in enumerate(row):
                if token == PAD:
                    break
                counts[tuple(row[:position])][token] += 1
        self.best = {prefix: min(c, key=lambda token: (-c[token], token)) for prefix, c in counts.items()}

    def forced(self, target: Numbers) -> Numbers:
        """The next token after each true prefix; EOS where the prefix was never seen."""
        following = np.full_like(target, PAD)
        for row, tokens in enumerate(target.tolist()):
            for position in range(len(tokens)):
                following[row, position] = self.best.get(tuple(tokens[:position]), EOS)
        return following

    def free(self, length: int) -> list[int]:
        """The line that it generates by itself, with EOS, padded."""
        line: list[int] = []
        while len(line) < length and (not line or line[-1] != EOS):
            line.append(self.best.get(tuple(line), EOS))
        return line + [PAD] * (length - len(line))


def majority(train: Numbers, target: Numbers) -> Numbers:
    """The most frequent token, at every position."""
    return np.full_like(target, Counter(train[train != PAD].tolist()).most_common(1)[0][0])


def trie(train: Numbers, target: Numbers, *, train_of: Numbers | None = None, of: Numbers | None = None):
    """(forced, free) tokens by prefix; with the true operations `train_of` and `of`, one trie for each."""
    train_of = np.zeros(len(train), int) if train_of is None else train_of
    of = np.zeros(len(target), int) if of is None else of
    forced, free = np.full_like(target, PAD), np.full_like(target, PAD)
    for operation in np.unique(of):
        chosen = of == operation
        known = train[train_of == operation]
        model = Trie(known if len(known) else train)
        forced[chosen] = model.forced(target[chosen])
        free[chosen] = model.free(target.shape[1])
    return forced, free


def nearest(machine: Machine, train: Numbers, test: Numbers, target: Numbers) -> Numbers:
    """Tokens of the training window whose 64 positions are nearest, `target` (all windows, 8) being their labels."""
    from sklearn.neighbors import NearestNeighbors

    values, _ = machine.take(machine.windows["row"].to_numpy())
    paths = np.nan_to_num(values[..., POSITION_COLUMNS]).reshape(len(values), -1)
    model = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(paths[train])
    return target[train][model.kneighbors(paths[test], return_distance=False)[:, 0]]


def clock(machine: Machine, train: Numbers, test: Numbers, target: Numbers) -> Numbers:
    """Tokens of the training window of the true operation nearest in start: no sensor, only the time since the start.

    Every recording is the same program from its beginning, so this shows what a model could gain from knowing when.
    """
    table = machine.windows
    start, operation = table["start"].to_numpy(), table["operation_id"].to_numpy()
    own = programs(operation)
    tokens = np.full((len(test), target.shape[1]), PAD)
    for row, window in enumerate(test):
        same = train[own[train] == own[window]]
        same = same if len(same) else train
        near = same[np.abs(start[same] - start[window]) == np.abs(start[same] - start[window]).min()]
        tokens[row] = Counter(map(tuple, target[near].tolist())).most_common(1)[0][0]
    return tokens


def trees(train: Tensor, line: Numbers, test: Tensor, *, seed: int = 0) -> Numbers:
    """Lines of the windows `test` (n, 64, C) by random trees on their summary features; this alone learns."""
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(300, random_state=seed, n_jobs=-1)
    return model.fit(summary_features(train).numpy(), line).predict(summary_features(test).numpy())


def programs(operation: Numbers) -> Numbers:
    """Operations that run the same program have the same number: damage* runs the *150025 programs."""
    return np.array([0, 1, 2, 3, 4, 5, 1, 3, 5])[operation]


def tokens_of(prepared: Prepared, *, mask: NDArray[np.bool_]) -> dict[str, tuple[Numbers | None, Numbers]]:
    """(forced, free) tokens of every baseline on the test part; `train` is the training part.

    The trees see the channels of `mask`, the nearest path sees the position all the same, the others no sensor.
    """
    machine, (train, _, test) = prepared.machine, prepared.parts
    target = machine.encode(prepared.vocabulary)
    program = programs(machine.windows["operation_id"].to_numpy())
    most = majority(target[train], target[test])
    return {
        "majority": (most, most),
        "trie, no sensors": trie(target[train], target[test]),
        "trie + true program": trie(target[train], target[test], train_of=program[train], of=program[test]),
        "time since start + true program": (None, clock(machine, train, test, target)),
        "1-NN on position": (None, nearest(machine, train, test, target)),
        "trees on lines": (None, _tokens_of_trees(prepared, mask, target)),
    }


def _tokens_of_trees(prepared: Prepared, mask: NDArray[np.bool_], target: Numbers) -> Numbers:
    train = prepared.parts.train
    known, asked = (
        prepared.windows(part, mask=prepared.mask & mask).tensors["continuous"] for part in ("train", "test")
    )
    line = prepared.machine.windows["line"].to_numpy()[train]
    first = dict(zip(line[::-1].tolist(), train[::-1].tolist(), strict=True))  # a training window with each line
    return target[[first[label] for label in trees(known, line, asked).tolist()]]
