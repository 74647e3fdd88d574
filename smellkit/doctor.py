"""`smellkit doctor`: what this machine has, what is missing, and how to get it."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from smellkit import paths, site

MARKS = {"good": "✓", "optional": "·", "missing": "✗"}
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
    return "\n".join([*lines, "", f"Missing: {', '.join(wrong)}" if wrong else "Everything that is required is here."])


def _finding(what: str, there: object, state: str, hint: str, *, lack: str = "optional") -> Finding:
    return Finding(what, "good" if there else lack, state, hint)


def _tools() -> Iterator[Finding]:
    """Python, torch, and the programs that show pages."""
    python = f"{platform.python_version()} on {platform.platform()}, {sys.prefix}"
    newer = "Python 3.11 or newer, or `conda env create -f environment.yml`"
    yield _finding("Python", sys.version_info >= (3, 11), python, newer, lack="missing")
    yield _package("torch", "torch", "`pip install -e .`", lack="missing")
    register = f"`{sys.executable} -m ipykernel install --sys-prefix`"
    hint = f"{register}, or `jupyter kernelspec remove python3` for the old one"
    yield _finding("Kernel", *_kernel(), hint)
    hint = "`pip install quarto-cli`, or https://quarto.org, or QUARTO_PATH; the preview works without"
    yield _finding("Quarto", quarto := site.find_quarto(), quarto or "not found", hint)


def _kernel() -> tuple[bool, str]:
    """Whether JupyterLab's kernel python3 is this Python, and which it is; `smellkit run` always takes this one."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
        program = Path(spec.argv[0])
    except (NoSuchKernel, OSError, ValueError) as why:
        return False, f"python3 can't be read: {why}"
    own = len(program.parts) == 1 or program.parent == Path(sys.executable).parent  # a bare name is this one
    return own, f"python3 is {program}{'' if own else ', another Python than this one'} ({spec.resource_dir})"


def _ports() -> Iterator[Finding]:
    if not find_spec("serial"):
        yield _package("Serial", "serial", "`pip install -e .`", lack="missing")
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
    free, writable = shutil.disk_usage(place).free / 1e9, os.access(place, os.W_OK)
    level = "missing" if not writable or free < 0.5 else "optional" if free < 5 else "good"
    state = f"{free:.1f} GB free at {paths.work()}" + ("" if writable else ", which can't be written")
    yield Finding("Disk", level, state, "make room, or set SMELLKIT_WORK and SMELLKIT_RUNS to another disk")


def _extras() -> Iterator[Finding]:
    for extra, (module, use) in EXTRAS.items():
        yield _package(f"[{extra}]", module, f"`pip install -e '.[{extra}]'`", use=f": {use}")


def _package(what: str, module: str, hint: str, *, use: str = "", lack: str = "optional") -> Finding:
    there = find_spec(module)
    return _finding(
        what, there, f"{module} {metadata.version(module) if there else 'is missing'}{use}", hint, lack=lack
    )
