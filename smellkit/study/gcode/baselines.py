"""What a window gives away without a network, and mostly without learning: the scores to beat."""

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from smellkit.gcode.data import Machine
from smellkit.gcode.recordings import POSITION_COLUMNS
from smellkit.gcode.tokens import EOS, PAD
from smellkit.gcode.window_decoder import summary_features
from smellkit.study.gcode.splits import Prepared

Numbers = NDArray[np.int64]
BY_LENGTH = "clock, length of recording"
SEES = {  # name -> what it sees: nothing, the position, or all channels in use
    "majority": "",
    "trie, no sensors": "",
    "trie + true program": "",
    "time since start + true program": "",
    BY_LENGTH: "",
    "1-NN on position": "position",
    "trees on lines": "channels",
    "trees on lines + true program": "channels",
}
SHOWN = ("1-NN on position", "trees on lines", BY_LENGTH)  # beside every system on the results page


def tokens_of(
    prepared: Prepared, *, mask: NDArray[np.bool_]
) -> dict[str, tuple[Numbers | None, Numbers, Numbers | None]]:
    """(forced, free) tokens of every baseline on the test part, learned from the training part; and the training
    windows whose lines they are, where they are whole lines.

    The trees see the channels of `mask`, the nearest path sees the position all the same, the others no sensor.
    """
    machine, (train, _, test) = prepared.machine, prepared.parts
    target = prepared.target
    known, wanted = target[train], target[test]
    most = np.full_like(wanted, Counter(known[known != PAD].tolist()).most_common(1)[0][0])
    program = programs(machine.windows["operation_id"].to_numpy())
    nothing = np.zeros_like(program)
    near, line = train[nearest(machine, train, test)], prepared.numbers[machine.windows["line"].to_numpy()[train]]
    lines, first = np.unique(line, return_index=True)  # every line of the grammar, and a window that has it
    probability = trees(prepared, mask=mask)
    of_program = np.zeros((program.max() + 1, len(lines)), bool)
    of_program[program[train], np.searchsorted(lines, line)] = True
    named, by_program = (
        train[first[p.argmax(axis=1)]] for p in (probability, (probability + 1e-9) * of_program[program[test]])
    )
    return {
        "majority": (most, most, None),
        "trie, no sensors": (*trie(known, wanted, nothing[train], nothing[test]), None),
        "trie + true program": (*trie(known, wanted, program[train], program[test]), None),
        "time since start + true program": (None, clock(machine, train, test, target, program[test]), None),
        BY_LENGTH: (None, clock(machine, train, test, target, program[train[_as_long(machine, train, test)]]), None),
        "1-NN on position": (None, target[near], near),
        "trees on lines": (None, target[named], named),
        "trees on lines + true program": (None, target[by_program], by_program),
    }


def programs(operation: Numbers) -> Numbers:
    """Operations that run the same program have the same number: damage* runs the *150025 programs."""
    return np.array([0, 1, 2, 3, 4, 5, 1, 3, 5])[operation]


def trie(train: Numbers, target: Numbers, train_of: Numbers, of: Numbers) -> tuple[Numbers, Numbers]:
    """(forced, free): the most frequent next token after each prefix, in training windows of the same program.

    A language model without sensors; after a prefix that was never seen comes EOS.
    """
    forced, free = np.full_like(target, PAD), np.full_like(target, PAD)
    for program in np.unique(of):
        counts: dict[tuple, Counter[int]] = defaultdict(Counter)
        for row in (train[train_of == program] if program in train_of else train).tolist():
            for step, token in enumerate(row[: row.index(EOS) + 1]):
                counts[tuple(row[:step])][token] += 1
        best = {prefix: min(c, key=lambda token: (-c[token], token)) for prefix, c in counts.items()}
        line: list[int] = []
        while len(line) < target.shape[1] and EOS not in line:
            line.append(best.get(tuple(line), EOS))
        own = np.flatnonzero(of == program)
        free[own, : len(line)] = line
        for window in own:
            row = target[window].tolist()
            forced[window] = [best.get(tuple(row[:step]), EOS) for step in range(len(row))]
    return forced, free


def nearest(machine: Machine, train: Numbers, test: Numbers) -> Numbers:
    """Which training window's 64 positions are nearest, for each of the windows `test`."""
    from sklearn.neighbors import NearestNeighbors

    paths = np.nan_to_num(machine.take(machine.windows["row"])[..., POSITION_COLUMNS]).reshape(len(machine), -1)
    model = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(paths[train])
    return model.kneighbors(paths[test], return_distance=False)[:, 0]


def _as_long(machine: Machine, train: Numbers, test: Numbers) -> Numbers:
    """For each of the windows `test`, a training window whose recording is as long as its own, or nearest to that."""
    recording = machine.windows["recording"]
    length = recording.map(recording.value_counts()).to_numpy()
    return np.abs(length[test][:, None] - length[train]).argmin(axis=1)


def clock(machine: Machine, train: Numbers, test: Numbers, target: Numbers, named: Numbers) -> Numbers:
    """Tokens of the training window of the `named` program nearest in start: no sensor, only the time since the start.

    Every recording is the same program from its beginning, so this shows what a model could gain from knowing when.
    """
    start, program = machine.windows["start"].to_numpy(), programs(machine.windows["operation_id"].to_numpy())
    tokens = np.full((len(test), target.shape[1]), PAD)
    for row, window in enumerate(test):
        same = train[program[train] == named[row]]
        same = same if len(same) else train
        off = np.abs(start[same] - start[window])
        tokens[row] = Counter(map(tuple, target[same[off == off.min()]].tolist())).most_common(1)[0][0]
    return tokens


def trees(prepared: Prepared, *, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probability of each line of the grammar, (test windows, lines), by random trees on summary features."""
    from sklearn.ensemble import ExtraTreesClassifier

    train, test = (prepared.windows(part, mask=prepared.mask & mask).tensors for part in ("train", "test"))
    model = ExtraTreesClassifier(300, random_state=0, n_jobs=-1)
    model.fit(summary_features(train["continuous"]).numpy(), train["line"].numpy())
    probability = np.zeros((len(test["line"]), len(prepared.grammar)))
    probability[:, model.classes_] = model.predict_proba(summary_features(test["continuous"]).numpy())
    return probability
