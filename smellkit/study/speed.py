"""`smellkit bench speed`: the kit beside what people would use instead, on this machine, one thread.

Every row is a ratio of two things that do the same work, run in turn so that a busy machine is busy for both: the
median over rounds of the peer's seconds by the kit's, with a 95 % bootstrap interval. "absent" is what can't be run.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from smellkit import batch, cluster, paths
from smellkit.errors import SmellkitError
from smellkit.options import check
from smellkit.plume import GASES
from smellkit.study import commands
from smellkit.study.timing import Row, machine, once, own_work, peak, recordings, roofline, session, timed, versus

RECORDINGS, HOUR = 300, 3600  # files to read; rows of an hour at 1 Hz


def run(
    parts: Sequence[str] = (),
    *,
    earlier: Mapping[str, Any] | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measure `parts` (all of `PARTS` by default): {"machine", "rows", "growth", "absent"}.

    A row: {"ratio": {"value", "low", "high"}, "seconds", "peer", "rounds"}, seconds being medians. Other rows of
    `earlier` are kept where they were measured on a machine like this.
    """
    import torch

    check(parts, PARTS, "There is no part")
    kept, here = dict(earlier or {}), machine()
    if any(kept.get("machine", here)[key] != here[key] for key in ("processor", "cores")):
        progress(f"measured on another machine, so left out: {', '.join(kept['rows'])}")
        kept = {}
    result: dict[str, Any] = {key: {**kept.get(key, {})} for key in ("rows", "growth", "absent")}
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
    return {"machine": here, **result}


def _said(row: Row) -> str:
    if "slope" in row:
        return f"grows as size to the {row['slope']:.2f}"
    ratio = row["ratio"]
    interval = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return f"{ratio['value']:.2f}{interval} times, {1000 * row['seconds']:.4g} ms"


def reading(folder: Path) -> Iterator[tuple[str, Row]]:
    """One table of 300 recordings: from files, from the cache, by pandas, by opensmell."""
    import pandas as pd

    from smellkit.odour.recordings import read_files

    files = recordings(folder / "recordings", RECORDINGS)
    for file in files:
        os.utime(file, (1e9, 1e9))
    kit, clear = partial(read_files, files, root=folder), partial(shutil.rmtree, folder / "work", ignore_errors=True)
    by_pandas = lambda: pd.concat([pd.read_csv(file) for file in files])  # noqa: E731
    with own_work(folder):
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
    """The shipped encoder on one window, as a live nose asks, on 50 one by one, and on 1,024, as a folder does.

    ONNX Runtime against torch, in turn: of one window alone each finds the processor's caches full of the other's work.
    1,024 windows by torch, 256 at a time, against what its operators take here at best.
    """
    import torch

    from smellkit.odour.export import Recorded, example, odour
    from smellkit.odour.smell import SubstanceSmell

    weights = paths.weights() / "odour"
    odour(weights, out=folder / "odour.onnx")
    smell = SubstanceSmell.load(weights)
    eager, onnx_model = Recorded(smell).eval(), session(folder / "odour.onnx")
    by_torch = lambda parts: [eager(part) for part in parts]  # noqa: E731
    by_onnx = lambda parts: [onnx_model.run(None, {"rows": part.numpy()}) for part in parts]  # noqa: E731
    with torch.no_grad():
        each, many = (example(smell.protocol, windows=count) for count in (50, 1024))
        for name, onnx, parts, rounds in (
            ("1 windows", each.split(1)[:1], each.split(1)[:1], 200),
            ("50 windows one by one", each.split(1), each.split(1), 20),
            ("1024 windows", many.split(1024), many.split(256), 9),
        ):
            row = versus(partial(by_onnx, onnx), partial(by_torch, parts), rounds=rounds)
            yield f"{name} by ONNX Runtime / torch", row
        all_of_them = partial(by_torch, parts)
        least, median = roofline(all_of_them), float(np.median([timed(all_of_them) for _ in range(2 * rounds)]))
        yield "1024 windows by torch / the least that its operators take", once(median, least, rounds=2 * rounds)


def gcode(folder: Path) -> Iterator[tuple[str, Row]]:
    """A line of G-code of a window, free-running: ONNX Runtime, torch, and the published two stages (untrained)."""
    import torch

    from smellkit.gcode import predict
    from smellkit.study.gcode.two_stage import MachineEncoder, SensorDecoder

    predict.onnx(paths.weights() / "gcode", out=folder / "gcode.onnx")
    predictor, model = predict.load(paths.weights() / "gcode"), session(folder / "gcode.onnx")
    eager, rows = predict.RawWindow(predictor).eval(), predict.example(predictor, np.random.default_rng(1))
    encoder = MachineEncoder(predictor.scaling).eval()
    decoder = SensorDecoder(memory=encoder.width, width=192, layers=4, dropout=0.0).eval()

    def claimed() -> torch.Tensor:
        continuous, categorical = predictor.scaling(rows)
        encoded = encoder({"continuous": continuous, "categorical": categorical})
        return decoder.free(encoded["memory"], encoded["operation"])

    with torch.inference_mode():
        onnx = partial(model.run, None, {"rows": rows.numpy()})
        yield "a line of G-code by ONNX Runtime / torch", versus(onnx, lambda: eager(rows), rounds=60)
        yield "a line of G-code / the claimed architecture", versus(lambda: eager(rows), claimed, rounds=60)


def plume(folder: Path) -> Iterator[tuple[str, Row]]:
    """The shipped model of a pair of frames against FUME as published (its time alone: untrained), both at one size.

    As it ships it looks at each frame mirrored, too; once is what FUME does.
    """
    import torch

    from smellkit.export import onnx
    from smellkit.plume import models, predict

    sized, fume = predict.PlumePredictor.load(paths.weights() / "plume").model, models.build("fume").eval()
    co2, ch4, present = predict.example(np.random.default_rng(0))
    pair = (*(models.to_size(frame, sized.size) for frame in (co2, ch4)), present)
    frames = {gas: models.normalise(frame / 255) for gas, frame in zip(GASES, pair, strict=False)}
    batch, whole = frames | {"present": present}, predict.Frames(sized).eval()
    given = dict(zip(predict.INPUTS, (part.numpy() for part in pair), strict=True))
    for name, sized.mirrored in (("a pair of plumes", True), ("a pair of plumes at one look", False)):
        file = folder / f"plume-{sized.mirrored}.onnx"
        onnx(whole, file, examples=[pair], inputs=predict.INPUTS, outputs=predict.OUTPUTS, each="pair")
        fast = partial(session(file).run, None, given)  # masks, not only logits
        with torch.inference_mode():
            yield f"{name} / FUME", versus(lambda: sized(batch), lambda: fume(batch), rounds=60)
            yield f"{name} by ONNX Runtime / FUME", versus(fast, lambda: fume(batch), rounds=60)


def driver(_: Path) -> Iterator[tuple[str, Row]]:
    """The player's driver against what carries it: a frame's time on the line, and the 100 ms a stop may take."""
    from smellkit.device import frames, link
    from smellkit.study.device import bench

    byte = 10 / link.BAUD  # seconds: eight bits, and where they begin and end
    yield "a play frame made / sent", once(bench.frame_seconds(), byte * len(frames.play(3, 10_000)), rounds=5)
    yield "a byte of replies parsed / sent", once(1 / bench.parser_rate(bench.streams()["mixed"]), byte, rounds=5)
    times = bench.stop_latencies(20)
    yield "stop to silence / 100 ms", once(float(np.median(times)), 0.1, rounds=len(times), worst=max(times))


def notebooks(folder: Path) -> Iterator[tuple[str, Row]]:
    """All notebooks side by side against papermill's one after another, once; run folders of their own."""
    import papermill

    def one_by_one() -> None:
        (folder / "papermill").mkdir()
        os.environ["SMELLKIT_HEADLESS"] = "1"
        for path in sorted(batch.FOLDER.glob("[0-9][0-9]_*.ipynb")):
            out = str(folder / "papermill" / path.name)
            papermill.execute_notebook(str(path), out, cwd=str(path.parent), kernel_name="python3", progress_bar=False)

    with own_work(folder / "kit"):
        mine = timed(lambda: batch.run(force=True))
    with own_work(folder / "peer"):
        (folder / "peer").mkdir()
        theirs = timed(one_by_one)
    yield "all notebooks / papermill", once(mine, theirs)


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
    """1, 4, 16 and 64 times as many recordings: slopes on log-log axes of seconds, and of the memory that naming takes.

    Seconds are of reading recordings, and of naming windows; peak memory is that of `smellkit predict` as a program.
    """
    from smellkit.odour.export import example
    from smellkit.odour.recordings import read_files
    from smellkit.odour.smell import SubstanceSmell

    smell, sizes = SubstanceSmell.load(paths.weights() / "odour"), (1, 4, 16, 64)
    grown: dict[str, list[float]] = {"reading": [], "naming": [], "memory": []}
    for size in sizes:
        files = recordings(folder / str(size), 6 * size)
        rows = example(smell.protocol, windows=64 * size).numpy()
        windows = smell.protocol.represent(rows)
        with own_work(folder / f"{size}-work"):
            grown["reading"].append(timed(partial(read_files, files, root=folder)))
        grown["naming"].append(min(timed(partial(smell.scores, windows)) for _ in range(3)))
        words = ["predict", str(folder / str(size)), "--weights", "odour", "--out", str(folder / "named.csv")]
        grown["memory"].append(peak("-m", "smellkit", *words))
    for name, values in grown.items():
        slope = float(np.polyfit(np.log(sizes[1:]), np.log(values[1:]), 1)[0])  # the first is mostly the start
        unit = "megabytes" if name == "memory" else "seconds"
        yield name, {"slope": slope, unit: dict(zip(map(str, sizes), values, strict=True))}


def of_training(name: str) -> Callable[[Path], Iterator[tuple[str, Row]]]:
    """A part that loads torch, so that whoever asks what there is does not wait for it."""

    def part(folder: Path) -> Iterator[tuple[str, Row]]:
        from smellkit.study.odour import training_speed

        return getattr(training_speed, name)(folder)

    return part


PARTS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    "reading": reading, "features": features, "learning": of_training("learning"), "epoch": of_training("epoch"),
    "window": window, "gcode": gcode, "plume": plume, "driver": driver,
    "sweep": sweep, "growth": growth, "notebooks": notebooks,
}  # fmt: skip


bench = commands.bench(
    "speed",
    "speed:run",
    "Measure the kit's speed beside what people would use instead: ratios, one thread, in turn.",
    commands.several("--part", "parts", f"Only this: {', '.join(PARTS)}."),
)
