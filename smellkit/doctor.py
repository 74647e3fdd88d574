"""`smellkit doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata

from smellkit import paths

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
    return [
        _python(), _environment(), _torch(), _quarto(), _browser(), *_ports(), *_data(), _weights(), _disk(), *_extras()
    ]  # fmt: skip


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


def as_json(findings: list[Finding]) -> str:
    """The findings as a JSON list."""
    return json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False)


def _python() -> Finding:
    level = "good" if sys.version_info >= (3, 11) else "missing"
    hint = "Python 3.11 or newer, or `conda env create -f environment.yml`"
    return Finding("Python", level, f"{platform.python_version()} on {platform.platform()}", hint)


def _environment() -> Finding:
    own = sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ
    hint = "`make run` makes a .venv of its own"
    return Finding("Environment", "good" if own else "optional", sys.prefix if own else "the system's Python", hint)


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("torch", "missing", "not installed", "`pip install -e .`")
    import torch

    kind = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return Finding("torch", "good", f"{torch.__version__}, {kind}")


def _quarto() -> Finding:
    from smellkit import site

    command = site.find_quarto()
    if command:
        return Finding("Quarto", "good", command[0])
    hint = "`pip install quarto-cli`, or https://quarto.org, or QUARTO_PATH; the preview works without"
    return Finding("Quarto", "optional", "not found", hint)


def _browser() -> Finding:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((path for name in names if (path := shutil.which(name))), "")
    hint = "`apt-get install chromium`; only the browser tests need it"
    return Finding("Chromium", "good" if browser else "optional", browser or "not found", hint)


def _ports() -> list[Finding]:
    if importlib.util.find_spec("serial") is None:
        return [Finding("Serial", "missing", "pyserial is not installed", "`pip install -e .`")]
    from serial.tools import list_ports

    ports = [port for port in list_ports.comports() if port.vid is not None or os.name == "nt"]
    if not ports:
        hint = "plug the scent player in; the port `virtual` needs none"
        return [Finding("Serial", "optional", "no port of a USB device", hint)]
    hint = "add yourself to the dialout group and log in again"
    findings = []
    for port in ports:
        usable = os.name == "nt" or os.access(port.device, os.R_OK | os.W_OK)
        state = f"{port.device} ({port.description})"
        findings.append(Finding("Serial", "good" if usable else "optional", state, hint))
    return findings


def _data() -> list[Finding]:
    sample, raw = paths.sample(), paths.raw()
    files = sum(path.is_file() for path in sample.rglob("*")) if sample.exists() else 0
    level, hint = "good" if files else "missing", "`git checkout data/sample`"
    first = Finding("Sample", level, f"{files} files in {sample}", hint)
    sets = sorted(path.name for path in raw.iterdir() if path.is_dir()) if raw.exists() else []
    hint = "`smellkit data get smellnet`, or set SMELLKIT_DATA to the folder that holds smellnet/"
    level = "good" if "smellnet" in sets else "optional"
    return [first, Finding("Real data", level, f"{', '.join(sets) or 'nothing'} in {raw}", hint)]


def _weights() -> Finding:
    names = sorted(path.parent.name for path in paths.weights().glob("*/manifest.json"))
    hint = "`git checkout data/weights`, or train: `smellkit run --profile full`"
    return Finding("Weights", "good" if names else "optional", ", ".join(names) or "none", hint)


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
        findings.append(Finding(f"[{extra}]", "good" if there else "optional", state, f"`pip install -e '.[{extra}]'`"))
    return findings
