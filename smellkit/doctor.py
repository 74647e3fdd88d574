"""`smellkit doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from smellkit import paths

MARKS = {"good": "✓", "optional": "·", "missing": "✗"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
EXTRAS = {  # extra -> (import name, what it is for)
    "site": ("nbconvert", "the preview of the site"),
    "sweep": ("distributed", "sweeps"),
    "vlm": ("transformers", "Qwen-VL as the scene encoder"),
    "export": ("onnxruntime", "ONNX export"),
    "peers": ("lightgbm", "classical peers"),
    "lab": ("jupyterlab", "notebooks and the live panel"),
    "dev": ("pytest", "the tests"),
}


@dataclass(frozen=True)
class Finding:
    """One line: `level` is good, optional (something can't be used) or missing (nothing works without it)."""

    what: str
    level: str
    state: str
    hint: str = ""


def examine() -> list[Finding]:
    """Look at everything that the kit needs or can use; nothing is changed and nothing is fetched."""
    return [*_tools(), *_ports(), *_data(), *_extras()]


def as_text(findings: list[Finding]) -> str:
    """One line a finding, with what to try below those that are not good."""
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]} {finding.what:<{width}}  {finding.state}")
        if finding.hint and finding.level != "good":
            lines.append(f"  {'':<{width}}  Try: {finding.hint}")
    wrong = [finding.what for finding in findings if finding.level == "missing"]
    lines += ["", "Missing: " + ", ".join(wrong) if wrong else "Everything that is required is here."]
    return "\n".join(lines)


def _finding(what: str, there: object, state: str, hint: str, *, lack: str = "optional") -> Finding:
    return Finding(what, "good" if there else lack, state, hint)


def _tools() -> Iterator[Finding]:
    """Python, torch, and the programs that show pages."""
    from smellkit import site

    python = f"{platform.python_version()} on {platform.platform()}"
    newer = "Python 3.11 or newer, or `conda env create -f environment.yml`"
    yield _finding("Python", sys.version_info >= (3, 11), python, newer, lack="missing")
    own = sys.prefix if sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ else ""
    yield _finding("Environment", own, own or "the system's Python", "`make run` makes a .venv of its own")
    if find_spec("torch"):
        import torch

        kind = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
        yield Finding("torch", "good", f"{torch.__version__}, {kind}")
    else:
        yield Finding("torch", "missing", "not installed", "`pip install -e .`")
    register = f"`{sys.executable} -m ipykernel install --sys-prefix`"
    yield _finding("Kernel", *_kernel(), f"{register}, or `jupyter kernelspec remove python3` for the old one")
    quarto = next(iter(site.find_quarto() or []), "")
    hint = "`pip install quarto-cli`, or https://quarto.org, or QUARTO_PATH; the preview works without"
    yield _finding("Quarto", quarto, quarto or "not found", hint)
    browser = next(filter(None, map(shutil.which, BROWSERS)), "")
    hint = "`apt-get install chromium`; only the browser tests need it"
    yield _finding("Chromium", browser, browser or "not found", hint)


def _kernel() -> tuple[bool, str]:
    """Whether JupyterLab's kernel python3 is this Python, and which it is; `smellkit run` always takes this one."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        spec = KernelSpecManager().get_kernel_spec("python3")
        program, place = spec.argv[0], f" ({spec.resource_dir})"
    except Exception as why:  # noqa: BLE001 - not installed, not there, or not a kernelspec: all are told
        return False, f"python3 can't be read: {why}"
    if os.path.sep not in program:
        return True, f"python3 is {program}{place}"
    if shutil.which(program) is None:
        return False, f"python3 is {program}, which does not exist{place}"
    own = Path(program).parent == Path(sys.executable).parent
    return own, f"python3 is {program}{'' if own else ', another Python than this one'}{place}"


def _ports() -> Iterator[Finding]:
    if not find_spec("serial"):
        yield Finding("Serial", "missing", "pyserial is not installed", "`pip install -e .`")
        return
    from serial.tools import list_ports

    ports = [port for port in list_ports.comports() if port.vid is not None or os.name == "nt"]
    for port in ports:
        usable = os.name == "nt" or os.access(port.device, os.R_OK | os.W_OK)
        hint = "add yourself to the dialout group and log in again"
        yield _finding("Serial", usable, f"{port.device} ({port.description})", hint)
    if not ports:
        yield Finding("Serial", "optional", "no port of a USB device", "plug the player in; `virtual` needs none")


def _data() -> Iterator[Finding]:
    """The sample, real recordings, weights, and room for what is made of them."""
    files = sum(path.is_file() for path in paths.sample().rglob("*"))
    again = "`git checkout data/sample`"
    yield _finding("Sample", files, f"{files} files in {paths.sample()}", again, lack="missing")
    sets = sorted(path.name for path in paths.raw().glob("*/"))
    hint = "`smellkit data get smellnet`, or set SMELLKIT_DATA to the folder that holds smellnet/"
    yield _finding("Real data", "smellnet" in sets, f"{', '.join(sets) or 'nothing'} in {paths.raw()}", hint)
    names = sorted(path.parent.name for path in paths.weights().glob("*/manifest.json"))
    hint = "`git checkout data/weights`, or train: `smellkit run --profile full`"
    yield _finding("Weights", names, ", ".join(names) or "none", hint)
    place = next(path for path in (paths.work(), *paths.work().parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    writable = os.access(place, os.W_OK)
    level = "missing" if not writable or free < 0.5 else "optional" if free < 5 else "good"
    state = f"{free:.1f} GB free at {paths.work()}" + ("" if writable else ", which can't be written")
    yield Finding("Disk", level, state, "make room, or set SMELLKIT_WORK and SMELLKIT_RUNS to another disk")


def _extras() -> Iterator[Finding]:
    for extra, (module, use) in EXTRAS.items():
        there = find_spec(module)
        state = f"{module} {metadata.version(module) if there else 'is not installed'}: {use}"
        yield _finding(f"[{extra}]", there, state, f"`pip install -e '.[{extra}]'`")
