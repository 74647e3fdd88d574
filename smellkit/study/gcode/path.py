"""Lines of G-code as the path of a tool, in millimetres: how far from the true path, and are two the same.

    lines -> moves (points of each line) -> distance to the true path, direction, length; or whether two programs agree

Coordinates are absolute and in inches, as in the recordings. A line in machine coordinates (G53) draws nothing.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 3), mm
WORD = re.compile(r"([A-Z])([-+]?(?:\d+\.?\d*|\.\d+))")
INCH = 25.4
SAGITTA = 0.005  # mm between an arc and the chords that it is drawn with
SPACING = 1.0  # mm between the points of a move whose distances are measured
AHEAD = 64  # points of a path within the tolerance of one point of another, at most


def draw(lines: Sequence[str]) -> list[Points]:
    """The points through which each line moves the tool, from where it stood: (n, 3) mm, one point for no move.

    The tool starts at zero; words that a line leaves out keep their values. An arc is a run of chords. Lines of windows
    leave lines out: an arc too wide for its radius is then drawn straight, and one without G2 or G3 turns as the last.
    """
    here, turn, drawn = np.zeros(3), "G3", []
    for line in lines:
        words = WORD.findall(line)
        codes = {f"G{float(value):g}" for letter, value in words if letter == "G"}
        values = {letter: INCH * float(value) for letter, value in words if letter != "G"}
        turn = next((code for code in ("G2", "G3") if code in codes), turn)
        goal = here.copy()
        if "G53" not in codes:
            goal = np.array([values.get(axis, old) for axis, old in zip("XYZ", here, strict=True)])
        if "R" in values or "I" in values or "J" in values:
            drawn.append(_arc(here, goal, values, clockwise=turn == "G2"))
        else:
            drawn.append(np.stack([here, goal]) if (goal != here).any() else here[None])
        here = goal
    return drawn


def _arc(start: Points, goal: Points, values: dict[str, float], *, clockwise: bool) -> Points:
    """Chords from start to goal around a centre at `I` `J` from the start, or at the distance `R`; Z changes evenly."""
    chord = goal[:2] - start[:2]
    span, radius = float(np.hypot(*chord)), values.get("R", math.hypot(values.get("I", 0), values.get("J", 0)))
    if "R" in values:
        if not 0 < span <= 2 * abs(radius) * 1.001:
            return np.stack([start, goal])
        height = math.sqrt(max(radius**2 - span**2 / 4, 0)) * (1 if (radius > 0) != clockwise else -1)
        centre = (start[:2] + goal[:2]) / 2 + height * np.array([-chord[1], chord[0]]) / span
    else:
        centre = start[:2] + [values.get("I", 0), values.get("J", 0)]
    first, last = (math.atan2(*(point[:2] - centre)[::-1]) for point in (start, goal))
    sweep = -((first - last) % math.tau or math.tau) if clockwise else (last - first) % math.tau or math.tau
    steps = max(1, math.ceil(abs(sweep) / (2 * math.acos(max(1 - SAGITTA / max(abs(radius), SAGITTA), 0)))))
    share = np.linspace(0, 1, steps + 1)
    angle = first + sweep * share
    flat = centre + abs(radius) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.column_stack([flat, start[2] + share * (goal[2] - start[2])])
    points[0], points[-1] = start, goal
    return points


def errors(true: Sequence[str], decoded: Sequence[str]) -> tuple[Points, Points, float]:
    """Of a recording whose windows are `true` and `decoded` lines in order of time: how wrong the decoded path is.

    (windows,) mm: the larger of two worst distances, from what a window draws to the true path, and from what it should
    have drawn to the decoded path. (windows,) degrees between the two moves, NaN where one stands still. And by how
    much of the true length the decoded length is off.
    """
    paths = draw(true), draw(decoded)
    whole = [np.concatenate(moves) for moves in paths]
    there = [
        [_distances(_even(move, SPACING), path).max() for move in moves]
        for moves, path in zip(paths, whole[::-1], strict=True)
    ]
    first, second = (np.array([move[-1] - move[0] for move in moves]) for moves in paths)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (first * second).sum(axis=1) / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))
    true_length, length = (np.linalg.norm(np.diff(path, axis=0), axis=1).sum() for path in whole)
    direction = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return np.max(there, axis=0), direction, abs(length - true_length) / max(true_length, 1e-9)


def measures(recording: NDArray, true: Sequence[str], decoded: Sequence[str]) -> dict[str, Any]:
    """Measures of a bench for windows of several `recording`s (n,), each in order of time.

    path_mean, path_median, path_95, path_worst in mm; within_0.2_mm, within_2_mm shares of windows; direction the mean
    in degrees; length the mean over recordings, in per cent.
    """
    off, direction, length = (np.full(len(recording), np.nan) for _ in range(3))
    for name in np.unique(recording):
        rows = np.flatnonzero(recording == name).tolist()
        one = errors([true[row] for row in rows], [decoded[row] for row in rows])
        off[rows], direction[rows], length[rows] = *one[:2], 100 * one[2]
    first = set(np.unique(recording, return_index=True)[1].tolist())

    def turned(rows: NDArray) -> float:
        known = direction[rows][~np.isnan(direction[rows])]
        return float(known.mean()) if len(known) else np.nan

    return {
        "path_mean": off,
        "path_median": lambda rows: float(np.median(off[rows])),
        "path_95": lambda rows: float(np.quantile(off[rows], 0.95)),
        "path_worst": lambda rows: float(off[rows].max()),
        "within_0.2_mm": off <= 0.2,
        "within_2_mm": off <= 2.0,
        "direction": turned,
        "length": lambda rows: float(np.mean([length[row] for row in rows.tolist() if row in first])),
    }


def _distances(points: Points, path: Points) -> Points:
    """The distance of each of the points (n, 3) from the path through (m, 3)."""
    begin, along = path[:-1], np.diff(path, axis=0)
    if not len(along):
        return np.linalg.norm(points - path[0], axis=1)
    square = np.maximum((along**2).sum(axis=1), 1e-12)
    share = np.clip((points @ along.T - (begin * along).sum(axis=1)) / square, 0, 1)
    return np.linalg.norm(points[:, None] - (begin + share[..., None] * along), axis=2).min(axis=1)


def _even(points: Points, spacing: float) -> Points:
    """The same path through more points, at most `spacing` mm apart, its corners among them."""
    parts = [points[:1]]
    for begin, end in zip(points[:-1], points[1:], strict=True):
        steps = max(1, math.ceil(np.linalg.norm(end - begin) / spacing))
        parts.append(begin + (end - begin) * np.arange(1, steps + 1)[:, None] / steps)
    return np.concatenate(parts)


def same(first: Sequence[str], second: Sequence[str], *, tolerance: float = 0.1) -> bool:
    """Whether two programs move the tool along the same path, in the same order, to within `tolerance` mm.

    Their texts may differ: arcs as chords, several lines merged into one, G0 for G1. Decided by the discrete Frechet
    distance of points half a tolerance apart: one walks along either path and never has to be further from the other.
    """
    one, other = (_even(np.concatenate(draw(lines)), tolerance / 2) for lines in (first, second))
    begin, reached = 0, np.array([True])  # which points of the other may have been reached, from number `begin` on
    for number, point in enumerate(one):
        window = other[begin : begin + len(reached) + AHEAD]
        near = np.linalg.norm(window - point, axis=1) <= tolerance
        before = np.zeros(len(window), bool)
        before[: len(reached)] = reached[: len(window)]
        if number:
            before[1:] |= before[:-1].copy()
        step = np.arange(len(window))
        gap, entry = (np.maximum.accumulate(np.where(mask, step, -1)) for mask in (~near, near & before))
        there = np.flatnonzero(near & (entry > gap))
        if not len(there):
            return False
        reached = (near & (entry > gap))[there[0] : there[-1] + 1]
        begin += int(there[0])
    return begin + len(reached) == len(other)
