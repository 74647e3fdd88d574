"""`smellkit bench speed`: the kit beside what people would use instead, on this machine, one thread.

Every row is a ratio of two things that do the same work, run in turn so that a busy machine is busy for both: the
median over rounds of the peer's seconds by the kit's, with a 95 % bootstrap interval. "absent" is what can't be run.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np

from smellkit import batch, cluster, paths
from smellkit.errors import OptionError, SmellkitError
from smellkit.study.commands import FOLDER, keep
from smellkit.study.evaluate import earlier

RECORDINGS, HOUR = 300, 3600  # files to read; rows of an hour at 1 Hz
Call = Callable[[], object]
Row = dict[str, Any]


def run(
    parts: Sequence[str] = (),
    *,
    kept: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure `parts` (all of `PARTS` by default), keeping `kept` rows: {"machine", "rows", "growth", "absent"}.

    A row: {"ratio": {"value", "low", "high"}, "seconds", "peer", "rounds"}, seconds being medians.
    """
    import torch

    for name in parts:
        if name not in PARTS:
            raise OptionError(f"There is no part {name!r}", hint=f"one of {', '.join(PARTS)}")
    result: dict[str, Any] = {key: {**(kept or {}).get(key, {})} for key in ("rows", "growth", "absent")}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for part in parts or PARTS:
        result["absent"].pop(part, None)
        try:
            with tempfile.TemporaryDirectory() as folder:
                for name, row in PARTS[part](Path(folder)):
                    result["growth" if part == "growth" else "rows"][name] = row
                    progress(f"{name}: {_said(row)}")
        except (ImportError, SmellkitError) as why:
            result["absent"][part] = str(why).partition("\n")[0]
            progress(f"{part}: {result['absent'][part]}")
    torch.set_num_threads(before)
    return {"machine": machine(), **result}


def machine() -> dict[str, Any]:
    """What the figures are of, with how busy it was in the last minute (processes that want a core)."""
    names = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(": ")[2] for line in names if line.startswith("model name")), platform.processor())
    return {"processor": model, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "threads": 1}


def versus(kit: Call, peer: Call, *, rounds: int, before: Call = lambda: None) -> Row:
    """`peer` and `kit` in turn, after one of each that is not counted; `before` every call of the kit, not timed."""
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        before()
        seconds.append((_timed(kit), _timed(peer)))
    mine, theirs = np.array(seconds[1:]).T
    ratios = theirs / mine
    drawn = np.random.default_rng(0).choice(ratios, (2000, rounds))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    ratio = {"value": float(np.median(ratios)), "low": float(low), "high": float(high)}
    return {"ratio": ratio, "seconds": float(np.median(mine)), "peer": float(np.median(theirs)), "rounds": rounds}


def _timed(call: Call) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def _said(row: Row) -> str:
    if "slope" in row:
        return f"time grows as size to the {row['slope']:.2f}"
    ratio = row["ratio"]
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] times, {1000 * row['seconds']:.2f} ms"


@contextmanager
def _own_work(folder: Path) -> Iterator[None]:
    """Kept tables and runs lie in `folder`."""
    names = {"SMELLKIT_WORK": str(folder / "work"), "SMELLKIT_RUNS": str(folder / "runs")}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


def _files(folder: Path, count: int) -> list[Path]:
    """`count` copies of recordings of the sample, twice as long as there."""
    originals = sorted((paths.sample() / "smellnet/base/training").glob("*/*.csv"))
    files = []
    for number in range(count):
        head, *rows = originals[number % len(originals)].read_text(encoding="utf-8").splitlines()
        files.append(folder / f"kind{number % 50}" / f"recording{number}.csv")
        files[-1].parent.mkdir(exist_ok=True, parents=True)
        files[-1].write_text("\n".join([head, *rows, *rows]) + "\n", encoding="utf-8")
    return files


def reading(folder: Path) -> Iterator[tuple[str, Row]]:
    """One table of 300 recordings: from files, from the cache, by pandas, by opensmell."""
    import pandas as pd

    from smellkit.odour.recordings import read_files

    files = _files(folder / "recordings", RECORDINGS)
    for file in files:
        os.utime(file, (1e9, 1e9))
    kit, clear = partial(read_files, files, root=folder), partial(shutil.rmtree, folder / "work", ignore_errors=True)
    by_pandas = lambda: pd.concat([pd.read_csv(file) for file in files])  # noqa: E731
    with _own_work(folder):
        yield f"{RECORDINGS} recordings read anew / pandas", versus(kit, by_pandas, rounds=5, before=clear)
        yield f"{RECORDINGS} recordings from the cache / pandas", versus(kit, by_pandas, rounds=9)
        kept = next((folder / "work").rglob("*.checked"))
        row = versus(kit, kept.read_bytes, rounds=9)
        yield f"{RECORDINGS} recordings from the cache / its bytes alone", row | {"bytes": kept.stat().st_size}
        import opensmell

        other = lambda: [opensmell.load_recording(str(file)) for file in files]  # noqa: E731
        yield f"{RECORDINGS} recordings from the cache / opensmell", versus(kit, other, rounds=3)


def features(_: Path) -> Iterator[tuple[str, Row]]:
    """Summary features of the windows of an hour, together and one by one, and opensmell's of as many windows."""
    import torch

    from smellkit.odour.features import summarise

    rows = np.random.default_rng(7).normal(0, 1, (HOUR, 6)).cumsum(0).astype(np.float32) + 500
    windows = torch.from_numpy(rows.reshape(-1, 100, 6))
    kit = partial(summarise, windows)
    one_by_one = lambda: [summarise(window) for window in windows.split(1)]  # noqa: E731
    yield "features of an hour / window by window", versus(kit, one_by_one, rounds=15)
    import opensmell  # noqa: F401

    from smellkit.study.odour.peers import described

    yield "features of an hour / opensmell", versus(kit, partial(described, rows, absolute=False), rounds=3)


def window(folder: Path) -> Iterator[tuple[str, Row]]:
    """The shipped encoder on one window and on 1,024: ONNX Runtime against torch; arithmetic at this machine's rate."""
    import torch

    from smellkit.odour.export import Recorded, example, odour
    from smellkit.odour.smell import SubstanceSmell

    weights = paths.weights() / "odour"
    odour(weights, out=folder / "odour.onnx")
    smell = SubstanceSmell.load(weights)
    eager, session = Recorded(smell).eval(), _session(folder / "odour.onnx")
    square = torch.rand(1024, 1024)
    rate = 2 * 1024**3 / min(_timed(lambda: square @ square) for _ in range(9))  # operations a second
    for count, rounds in ((1, 200), (1024, 5)):
        rows = example(smell.protocol, windows=count)
        onnx = partial(session.run, None, {"rows": rows.numpy()})
        with torch.inference_mode():
            from torch.utils.flop_counter import FlopCounterMode

            yield f"{count} windows by ONNX Runtime / torch", versus(onnx, partial(eager, rows), rounds=rounds)
            with FlopCounterMode(display=False) as counted:
                eager(rows)
            bound = counted.get_total_flops() / rate
            median = float(np.median([_timed(onnx) for _ in range(rounds)]))
        share = {"value": bound / median, "low": None, "high": None}
        name = f"{count} windows by ONNX Runtime / their arithmetic at this machine's rate"
        yield name, {"ratio": share, "seconds": median, "peer": bound, "rounds": rounds}


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def gcode(folder: Path) -> Iterator[tuple[str, Row]]:
    """A line of G-code of a window, free-running: ONNX Runtime against torch."""
    import torch

    from smellkit.gcode import export, predict

    export.gcode(paths.weights() / "gcode", out=folder / "gcode.onnx")
    predictor, session = predict.load(paths.weights() / "gcode"), _session(folder / "gcode.onnx")
    eager, rows = export.RawWindow(predictor).eval(), export._example(predictor, np.random.default_rng(1))
    with torch.inference_mode():
        onnx = partial(session.run, None, {"rows": rows.numpy()})
        yield "a line of G-code by ONNX Runtime / torch", versus(onnx, lambda: eager(rows), rounds=60)


def plume(_: Path) -> Iterator[tuple[str, Row]]:
    """The shipped model of a pair of frames against FUME as published (its time alone: untrained)."""
    import torch

    from smellkit.plume import models
    from smellkit.plume.predict import PlumePredictor

    predictor = PlumePredictor.load(paths.weights() / "plume")
    frames = np.random.default_rng(0).integers(0, 255, (2, 240, 320), np.uint8)
    batch = predictor._batch([(frames[0], frames[1])])
    fume = models.build("fume").eval()
    with torch.inference_mode():
        yield "a pair of plumes / FUME", versus(lambda: predictor.model(batch), lambda: fume(batch), rounds=15)


def notebooks(folder: Path) -> Iterator[tuple[str, Row]]:
    """All notebooks side by side against papermill's one after another, once; run folders of their own."""
    import papermill

    def one_by_one() -> None:
        (folder / "papermill").mkdir()
        os.environ["SMELLKIT_HEADLESS"] = "1"
        for path in sorted(batch.FOLDER.glob("[0-9][0-9]_*.ipynb")):
            out = str(folder / "papermill" / path.name)
            papermill.execute_notebook(str(path), out, cwd=str(path.parent), kernel_name="python3", progress_bar=False)

    with _own_work(folder / "kit"):
        mine = _timed(lambda: batch.run(force=True))
    with _own_work(folder / "peer"):
        (folder / "peer").mkdir()
        theirs = _timed(one_by_one)
    ratio = {"value": theirs / mine, "low": None, "high": None}
    yield "all notebooks / papermill", {"ratio": ratio, "seconds": mine, "peer": theirs, "rounds": 1}


def sweep(_: Path) -> Iterator[tuple[str, Row]]:
    """What 1,000 tasks that do nothing cost on two workers, against a pool of two processes of Python's own."""
    from concurrent.futures import Executor, ProcessPoolExecutor

    with cluster.workers(count=2) as pool, ProcessPoolExecutor(2) as plain:

        def thousand(pool: Executor) -> list[int]:
            return [one.result() for one in [pool.submit(os.getpid) for _ in range(1000)]]

        yield (
            "1,000 trivial tasks / a pool of processes",
            versus(partial(thousand, pool), partial(thousand, plain), rounds=3),
        )


def growth(folder: Path) -> Iterator[tuple[str, Row]]:
    """1, 4, 16 and 64 times as many recordings: seconds of reading and of naming windows, slope on log-log axes."""
    from smellkit.odour.export import example
    from smellkit.odour.recordings import read_files
    from smellkit.odour.smell import SubstanceSmell

    smell, sizes = SubstanceSmell.load(paths.weights() / "odour"), (1, 4, 16, 64)
    seconds: dict[str, list[float]] = {"reading": [], "naming": []}
    for size in sizes:
        files = _files(folder / str(size), 6 * size)
        rows = example(smell.protocol, windows=64 * size).numpy()
        windows = smell.protocol.represent(rows)
        with _own_work(folder / f"{size}-work"):
            seconds["reading"].append(_timed(partial(read_files, files, root=folder)))
        seconds["naming"].append(min(_timed(partial(smell.scores, windows)) for _ in range(3)))
    for name, times in seconds.items():
        slope = float(np.polyfit(np.log(sizes[1:]), np.log(times[1:]), 1)[0])  # the first is mostly the start
        yield name, {"slope": slope, "seconds": dict(zip(map(str, sizes), times, strict=True))}


PARTS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    "reading": reading, "features": features, "window": window, "gcode": gcode, "plume": plume,
    "sweep": sweep, "growth": growth, "notebooks": notebooks,
}  # fmt: skip


@click.command()
@click.option("--part", "parts", multiple=True, help=f"Only this: {', '.join(PARTS)}.")
@click.option("--json", "out", type=FOLDER, help="Write the figures there; other parts stay.")
def bench(parts, out):
    """Measure the kit's speed beside what people would use instead: ratios, one thread, in turn."""
    keep(run(parts, kept=earlier(out), progress=click.echo), out, "smellkit bench speed")
