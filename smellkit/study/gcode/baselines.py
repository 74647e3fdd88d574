"""What can be said of a window without a network, and mostly without learning: the floor to leave behind."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from smellkit.gcode import channels
from smellkit.gcode.data import Machine
from smellkit.gcode.summary import summarised
from smellkit.gcode.tokens import EOS, PAD

Numbers = NDArray[np.int64]
Prefix = tuple[int, ...]


class Trie:
    """The most frequent next token after each prefix of the training lines: a language model without sensors."""

    def __init__(self, target: Numbers):
        counts: dict[Prefix, Counter[int]] = defaultdict(Counter)
        for row in target.tolist():
            for place, token in enumerate(row):
                if token == PAD:
                    break
                counts[tuple(row[:place])][token] += 1
        self.best = {prefix: min(c, key=lambda token: (-c[token], token)) for prefix, c in counts.items()}

    def forced(self, target: Numbers) -> Numbers:
        """The next token after each true prefix; EOS where the prefix was never seen."""
        found = np.full_like(target, PAD)
        for row, tokens in enumerate(target.tolist()):
            for place in range(len(tokens)):
                found[row, place] = self.best.get(tuple(tokens[:place]), EOS)
        return found

    def free(self, length: int) -> list[int]:
        """The line that it says when it is left alone, with EOS, padded."""
        line: list[int] = []
        while len(line) < length and (not line or line[-1] != EOS):
            line.append(self.best.get(tuple(line), EOS))
        return line + [PAD] * (length - len(line))


def majority(train: Numbers, target: Numbers) -> Numbers:
    """The most frequent token, at every place."""
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
    paths = np.nan_to_num(values[..., channels.PLACES]).reshape(len(values), -1)
    model = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(paths[train])
    return target[train][model.kneighbors(paths[test], return_distance=False)[:, 0]]


def clock(machine: Machine, train: Numbers, test: Numbers, target: Numbers) -> Numbers:
    """Tokens of the training window of the true operation nearest in start: no sensor, only the time since the start.

    Every recording is the same program from its beginning, so this shows what a model could gain from knowing when.
    """
    table = machine.windows
    start, operation = table["start"].to_numpy(), table["operation_id"].to_numpy()
    own = programs(operation)
    found = np.full((len(test), target.shape[1]), PAD)
    for row, window in enumerate(test):
        same = train[own[train] == own[window]]
        same = same if len(same) else train
        near = same[np.abs(start[same] - start[window]) == np.abs(start[same] - start[window]).min()]
        found[row] = Counter(map(tuple, target[near].tolist())).most_common(1)[0][0]
    return found


def trees(train: Tensor, line: Numbers, test: Tensor, *, seed: int = 0) -> Numbers:
    """Lines of the windows `test` (n, 64, C) by random trees on their sums; of all baselines this alone learns."""
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(300, random_state=seed, n_jobs=-1)
    return model.fit(summarised(train).numpy(), line).predict(summarised(test).numpy())


def programs(operation: Numbers) -> Numbers:
    """Operations that run the same program have the same number: damage* runs the *150025 programs."""
    return np.array([0, 1, 2, 3, 4, 5, 1, 3, 5])[operation]
