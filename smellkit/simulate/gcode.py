"""A small simulated milling machine: a program, the path it takes, and what sensors on the frame make of it.

program (lines) -> trajectory (mm, every 0.257 s) -> 155 channels: motion, vibration, field, current, session
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from smellkit import paths
from smellkit.errors import DataError
from smellkit.gcode.recordings import CONTINUOUS, CURRENT, NODES, OPERATIONS, POSITION, RATE, modality, node

INCH = 25.4
RAPID = 45.0  # mm a second
ABSENT = ("frame_b2", "spindle1", "xa_motor", "y_bed__1", "y_bed__2")  # never there; of the others one a recording
Sense = Callable[[np.ndarray], tuple[np.ndarray | float, float, int]]  # gains -> value, noise, digits
Move = tuple[str, float, float, float, float]  # line, x, y, z in inches, mm a second


def machine(folder: Path, *, recordings: int = 4, damaged: int = 3, rows: int = 128, seed: int = 7) -> int:
    """Write simulated recordings in the columns of the real ones into the new `folder`; return how many there are.

    Each of the six nominal operations has `recordings`, each `damage*` has `damaged`, of at most `rows` rows.
    """
    if Path(folder).exists() and any(Path(folder).iterdir()):
        raise DataError(f"{folder} exists already", hint="name another folder, or delete this one")
    random = np.random.default_rng(seed)
    body = _body(np.random.default_rng(1))
    count = 0
    for number, operation in enumerate(OPERATIONS):
        for take in range(1, (damaged if operation.startswith("damage") else recordings) + 1):
            table = record(operation, session=number // 2, take=take, rows=rows, body=body, random=random)
            with paths.replacing(Path(folder) / f"{operation}_{take:03d}.parquet") as part:
                _write(table, part)
            count += 1
    return count


def program(operation: str) -> list[Move]:
    """The moves of an operation: coordinates in inches and at most 4 decimals, as the real programs print them."""
    name = operation.removeprefix("damage")
    wide = 1.35 if "150025" in operation or operation.startswith("damage") else 1.0
    moves: list[Move] = [("G0 Z0.6", 0.0, 0.0, 0.6, RAPID), ("G0 Z0.2", 0.0, 0.0, 0.2, RAPID)]
    if name.startswith("face"):
        for number in range(10):
            side = (2.2 if number % 2 == 0 else -0.1254) * wide
            y = 0.15 * number * wide
            moves.append((f"G1 X{_text(side)}", side, y, 0.0, 26.0))
            turn = "G3" if number % 2 == 0 else "G2"
            moves.append((f"{turn} X{_text(side)} Y{_text(y + 0.15)} R0.083", side, y + 0.15 * wide, 0.0, 13.0))
    elif name.startswith("pocket"):
        for number in range(8):
            size = (0.3 + 0.09 * number) * wide
            for line, x, y in (("X", size, -size), ("Y", size, size), ("X", -size, size), ("Y", -size, -size)):
                value = x if line == "X" else y
                moves.append((f"G1 {line}{_text(1.5 + value)}", 1.5 + x, 1.5 + y, -0.05 * number, 16.0))
    else:
        for step in range(220):
            angle, radius = step * 0.45, (0.12 + 0.0012 * step) * wide
            x, y, z = 1.55 + radius * math.cos(angle), 1.6 + radius * math.sin(angle), 0.1 - 0.001 * step
            moves.append((f"X{_text(x)} Y{_text(y)} Z{_text(z)}", x, y, z, 9.0))
    return [*moves, ("G53 G0 Z0.", 0.0, 0.0, 0.6, RAPID), ("M30", 0.0, 0.0, 0.6, RAPID)]


def trajectory(moves: list[Move], *, rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Where the machine is at every row: x y z in inches, speed in mm/s, the line being executed and its number."""
    step = 1 / RATE
    rows_of_path: list[tuple] = []
    here, over = np.array([0.0, 0.0, 0.6]), 0.0
    for number, (line, *target, speed) in enumerate(moves):
        goal = np.array(target)
        seconds = max(float(np.abs(goal - here).max()) * INCH / speed, 0.3)
        while over < seconds and len(rows_of_path) < rows:
            rows_of_path.append((*(here + (goal - here) * over / seconds), speed, line, number + 10))
            over += step * (1 + 0.01 * random.standard_normal())
        over, here = over - seconds, goal
    return pd.DataFrame(rows_of_path, columns=["x", "y", "z", "speed", "line", "number"])


def record(
    operation: str, *, session: int, take: int, rows: int, body: dict, random: np.random.Generator
) -> pd.DataFrame:
    """One recording: the program of `operation`, run in `session` (its offset, pressure and temperature)."""
    path = trajectory(program(operation), rows=rows, random=random)
    n, offset = len(path), np.array([44.0 + 1.5 * session, 13.0 + session, -27.0 + 0.5 * session])
    place = path[["x", "y", "z"]].to_numpy() * INCH + offset
    velocity = np.gradient(place, axis=0) * RATE
    push = np.gradient(velocity, axis=0) * RATE
    harsh = 1.6 if operation.startswith("damage") else 1.0
    absent = set(ABSENT) | set(random.choice([name for name in NODES if name not in ABSENT], size=1))
    begin = 36000 + 600 * take + 3600 * session
    table = {
        "t_console": [_clock(begin + row / RATE) for row in range(n)],
        "stat": np.full(n, 5),
        "line": path["number"],
        **{name: np.round(place[:, axis], 3) for axis, name in enumerate(POSITION)},
        "unit": np.zeros(n, int),
        "dist": np.zeros(n, int),
        "coor": np.full(n, 2),
    }
    drive = np.column_stack([np.ones(n), np.abs(velocity)]) @ body["drive"]
    for axis, name in enumerate(CURRENT):
        table[name] = _noisy(drive[:, axis], 0.01, 3, random)
    sensed: dict[str, Sense] = {
        "accelerometer": lambda gain: (gain[0] + 0.002 * harsh * push @ gain[1:4], 0.004 * harsh, 3),
        "gyroscope": lambda gain: (0.02 * velocity @ gain[1:4], 0.15 * harsh, 2),
        "magnetometer": lambda gain: (20 * gain[0] + 0.3 * place @ gain[1:4], 0.4, 1),
        "pressure": lambda gain: (99.0 + 0.4 * session + 0.02 * take, 0.05, 1),
        "temperature": lambda gain: (24 + session + np.arange(n) * 0.003, 0.05, 1),
        "proximity": lambda gain: (120 + 0.5 * place @ gain[1:4], 1.0, 0),
        "microphone": lambda gain: (20 + 0.5 * harsh * np.linalg.norm(velocity, axis=1), 3.0, 0),
        "colour": lambda gain: (40 + 10 * gain[0], 1.0, 0),
    }
    for channel in CONTINUOUS:
        if node(channel) in NODES and node(channel) not in absent:
            value, noise, digits = sensed[modality(channel)](body[channel])
            table[channel] = _noisy(value + np.zeros(n), noise, digits, random)
    table["gcode_string"] = path["line"]
    return pd.DataFrame(table)


def _write(table: pd.DataFrame, path: Path) -> None:
    """Parquet without what only large files need: half the size here."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(stored, path, compression="zstd", compression_level=19, write_statistics=False, store_schema=False)


def _body(random: np.random.Generator) -> dict[str, np.ndarray]:
    """How each channel hears the machine; the same in every recording."""
    body: dict[str, np.ndarray] = {channel: random.normal(0, 1, 4) for channel in CONTINUOUS}
    body["drive"] = np.abs(random.normal(0.2, 0.1, (4, 4)))
    body["drive"][1:] *= 0.02
    return body


def _noisy(value: np.ndarray, noise: float, digits: int, random: np.random.Generator) -> np.ndarray:
    return np.round(value + noise * random.standard_normal(len(value)), digits).astype(np.float32)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes) // 60:02d}:{int(minutes) % 60:02d}:{rest:06.3f}"


def _text(value: float) -> str:
    """A coordinate with at most four decimals, and always a point."""
    text = f"{value:.4f}".rstrip("0")
    return "0." if text in ("-0.", "0.") else text
