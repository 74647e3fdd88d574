"""`smellkit doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
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
    return [*_tools(), *_ports(), *_data(), _disk(), *_extras()]


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


def _tools() -> list[Finding]:
    """Python, torch, and the programs that show pages."""
    from smellkit import site

    own = sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ
    place = sys.prefix if own else "the system's Python"
    quarto = site.find_quarto() or []
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    quartos = "`pip install quarto-cli`, or https://quarto.org, or QUARTO_PATH; the preview works without"
    browsers = "`apt-get install chromium`; only the browser tests need it"
    python = f"{platform.python_version()} on {platform.platform()}"
    newer = "Python 3.11 or newer, or `conda env create -f environment.yml`"
    return [
        _finding("Python", sys.version_info >= (3, 11), python, newer, lack="missing"),
        _finding("Environment", own, place, "`make run` makes a .venv of its own"),
        _torch(),
        _kernel(),
        _finding("Quarto", quarto, quarto[0] if quarto else "not found", quartos),
        _finding("Chromium", browser, browser or "not found", browsers),
    ]


def _kernel() -> Finding:
    """Which Python notebooks run in: `smellkit run` takes this one, JupyterLab what the kernelspec python3 says."""
    if importlib.util.find_spec("ipykernel") is None or importlib.util.find_spec("jupyter_client") is None:
        return Finding("Kernel", "optional", "ipykernel is not installed", "`pip install -e .`")
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    hint = (
        f"`{sys.executable} -m ipykernel install --sys-prefix`, or `jupyter kernelspec remove python3` for the old one"
    )
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
        program, place = spec.argv[0], f" ({spec.resource_dir})"
    except (NoSuchKernel, OSError, ValueError, KeyError, IndexError, TypeError) as why:
        return Finding("Kernel", "optional", f"python3 can't be read: {why}", hint)
    found = program if os.path.sep not in program else shutil.which(program)
    if found is None:
        return Finding("Kernel", "optional", f"python3 is {program}, which does not exist{place}", hint)
    own = os.path.sep not in program or Path(found).parent == Path(sys.executable).parent
    state = f"python3 is {program}{'' if own else ', another Python than this one'}{place}"
    return _finding("Kernel", own, state, hint)


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("torch", "missing", "not installed", "`pip install -e .`")
    import torch

    kind = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return Finding("torch", "good", f"{torch.__version__}, {kind}")


def _ports() -> list[Finding]:
    if importlib.util.find_spec("serial") is None:
        return [Finding("Serial", "missing", "pyserial is not installed", "`pip install -e .`")]
    from serial.tools import list_ports

    ports = [port for port in list_ports.comports() if port.vid is not None or os.name == "nt"]
    hint = "add yourself to the dialout group and log in again"
    findings = []
    for port in ports:
        usable = os.name == "nt" or os.access(port.device, os.R_OK | os.W_OK)
        findings.append(_finding("Serial", usable, f"{port.device} ({port.description})", hint))
    none = Finding("Serial", "optional", "no port of a USB device", "plug the player in; `virtual` needs none")
    return findings or [none]


def _data() -> list[Finding]:
    sample, raw = paths.sample(), paths.raw()
    files = sum(path.is_file() for path in sample.rglob("*"))
    sets = sorted(path.name for path in raw.glob("*/"))
    names = sorted(path.parent.name for path in paths.weights().glob("*/manifest.json"))
    fetch = "`smellkit data get smellnet`, or set SMELLKIT_DATA to the folder that holds smellnet/"
    train = "`git checkout data/weights`, or train: `smellkit run --profile full`"
    return [
        _finding("Sample", files, f"{files} files in {sample}", "`git checkout data/sample`", lack="missing"),
        _finding("Real data", "smellnet" in sets, f"{', '.join(sets) or 'nothing'} in {raw}", fetch),
        _finding("Weights", names, ", ".join(names) or "none", train),
    ]


def _disk() -> Finding:
    place = next(path for path in (paths.work(), *paths.work().parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    writable = os.access(place, os.W_OK)
    level = "missing" if not writable or free < 0.5 else "optional" if free < 5 else "good"
    state = f"{free:.1f} GB free at {paths.work()}" + ("" if writable else ", which can't be written")
    return Finding("Disk", level, state, "make room, or set SMELLKIT_WORK and SMELLKIT_RUNS to another disk")


def _extras() -> list[Finding]:
    findings = []
    for extra, (module, use) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        state = f"{module} {metadata.version(module)}: {use}" if there else f"{module} is not installed: {use}"
        findings.append(_finding(f"[{extra}]", there, state, f"`pip install -e '.[{extra}]'`"))
    return findings
