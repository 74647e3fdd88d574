"""How long two things that do the same work take: in turn, so that a busy machine is busy for both."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest import mock

import numpy as np

from smellkit import paths
from smellkit.errors import SmellkitError

Call = Callable[[], object]
Row = dict[str, Any]
WATCH = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


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
        seconds.append((timed(kit), timed(peer)))
    mine, theirs = np.array(seconds[1:]).T
    ratios = theirs / mine
    drawn = np.random.default_rng(0).choice(ratios, (2000, rounds))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    row = once(float(np.median(mine)), float(np.median(theirs)), rounds=rounds)
    return row | {"ratio": {"value": float(np.median(ratios)), "low": float(low), "high": float(high)}}


def timed(call: Call) -> float:
    """Seconds that `call` takes."""
    began = perf_counter()
    call()
    return perf_counter() - began


def once(mine: float, theirs: float, *, rounds: int = 1, **more: object) -> Row:
    """A row of seconds that are known, without an interval; `theirs` may be what is possible at best."""
    ratio = {"value": theirs / mine, "low": None, "high": None}
    return {"ratio": ratio, "seconds": mine, "peer": theirs, "rounds": rounds, **more}


def arithmetic(count: float) -> float:
    """Seconds that so many operations of a matrix product take here at best, on one thread."""
    import torch

    square = torch.rand(1024, 1024)
    return count / (2 * 1024**3 / min(timed(lambda: square @ square) for _ in range(9)))


def traffic(count: float) -> float:
    """Seconds that so many bytes take here at best, on one thread: a copy of 1.5 MB, which stays in the cache."""
    import torch

    source = torch.rand(3 * 2**17)
    out = torch.empty_like(source)
    return count / (2 * source.nbytes / min(timed(lambda: out.copy_(source)) for _ in range(99)))


def roofline(call: Call) -> float:
    """Seconds that the operators of torch in `call` take here at best: the longer of arithmetic and bytes of each.

    What is done in numpy beside counts as nothing.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    counted: list[tuple[float, int]] = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out, flops = func(*args, **(kwargs or {})), flop_registry.get(func._overloadpacket)
            if not func.is_view:
                tensors = [one for one in tree_leaves([args, kwargs, out]) if isinstance(one, torch.Tensor)]
                counted.append((flops(*args, out_val=out) if flops else 0, sum(one.nbytes for one in tensors)))
            return out

    with torch.no_grad(), Count():
        call()
    a_flop, a_byte = arithmetic(1), traffic(1)
    return sum(max(flops * a_flop, size * a_byte) for flops, size in counted)


def peak(*words: str) -> float:
    """Megabytes that a Python program with these arguments takes at most, on one thread.

    A small program starts it: a process counts as its own what the one that started it had.
    """
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WATCH, sys.executable, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=one, check=False)
    if done.returncode:
        raise SmellkitError(f"`python {' '.join(words)}` ended with {done.returncode}", hint="run it by itself")
    return int(done.stdout) / 1024


def session(file: Path) -> Any:
    """An ONNX model on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


@contextmanager
def own_work(folder: Path) -> Iterator[None]:
    """Kept tables and runs lie in `folder`."""
    with mock.patch.dict(os.environ, SMELLKIT_WORK=str(folder / "work"), SMELLKIT_RUNS=str(folder / "runs")):
        yield


def recordings(folder: Path, count: int) -> list[Path]:
    """`count` copies of recordings of the sample in `folder`, twice as long as there."""
    originals = sorted((paths.sample() / "smellnet/base/training").glob("*/*.csv"))
    files = []
    for number in range(count):
        head, *rows = originals[number % len(originals)].read_text(encoding="utf-8").splitlines()
        files.append(folder / f"kind{number % 50}" / f"recording{number}.csv")
        files[-1].parent.mkdir(exist_ok=True, parents=True)
        files[-1].write_text("\n".join([head, *rows, *rows]) + "\n", encoding="utf-8")
    return files
