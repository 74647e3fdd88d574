"""As on Windows: no pseudo-terminal, no termios, fcntl or resource, no fork. Everything goes over TCP and works."""

import os
import subprocess
import sys

import pytest

from smellkit import paths

HIDE = """
import os, sys
import psutil, serial  # both have a part of their own for Windows; this one is the machine's
HIDDEN = {"pty", "tty", "termios", "fcntl", "resource"}
class Hide:
    def find_spec(name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide)
for name in HIDDEN:
    sys.modules.pop(name, None)
for name in ("fork", "forkpty", "openpty"):
    delattr(os, name)
"""
NOTEBOOK = """
import json, pathlib, sys
from smellkit import notebook
notebook.NotebookRun.figure = lambda *_, **about: None  # drawing asks nothing of the machine
space = {"__name__": "__main__"}
for cell in json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code" and "panel.show(" not in "".join(cell["source"]):  # PANEL shows it
        code = "".join(cell["source"]).replace("seconds: float = 6.0", "seconds: float = 2.5")
        code = code.replace("speed: float = 100.0", "speed: float = 300.0")
        code = code.replace("stop_latencies(5)", "stop_latencies(2)").replace("wait(player, 3)", "wait(player, 1)")
        exec(compile(code, sys.argv[1], "exec"), space)
print("finished")
"""
PANEL = """
import time
from smellkit import panel
shown = panel.show()
shown.controls["rate"].value = 50.0
shown.controls["connect"].click()
def wait(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, shown.session.message
        time.sleep(0.01)
wait(lambda: shown.session.connected and not shown.session.busy)
assert shown.session.player.virtual and shown.session.board.port.startswith("socket://")
shown.controls["scent"].value = 7
shown.controls["play"].click()
air = shown.session.player.virtual
wait(lambda: air.emitting == 7)
shown.controls["stop"].click()
wait(lambda: not air.emitting)
shown.close()
print("finished")
"""
LEFT = """
import sys
from smellkit.device.neckwear import NeckWear
neck = NeckWear.open("virtual", link=sys.argv[1])
with neck:
    neck.wake()
    neck.play(3, seconds=30)
    while not neck.virtual.emitting:
        pass
assert not neck.virtual.emitting and HIDDEN.isdisjoint(sys.modules)
print("finished")
"""


def run(code, *arguments, folder):
    environment = os.environ | {
        "SMELLKIT_RUNS": str(folder / "runs"), "SMELLKIT_WORK": str(folder / "work"), "SMELLKIT_HEADLESS": "1",
        "MPLBACKEND": "Agg",
    }  # fmt: skip
    command = [sys.executable, "-c", HIDE + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
    assert done.stdout.endswith("finished\n"), done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["00_start", "03_odour_mixture", "06_odour_live"])
def test_a_notebook_runs_without_terminals_and_forks(name, tmp_path, looked_at):
    run(NOTEBOOK, str(paths.HOME / "notebooks" / f"{name}.ipynb"), folder=tmp_path)


def test_the_panel_runs_without_terminals_and_forks(tmp_path):
    run(PANEL, folder=tmp_path)


@pytest.mark.parametrize("link", ["handset", "direct"])
def test_a_player_is_silent_at_the_end_without_terminals_and_forks(link, tmp_path):
    run(LEFT, link, folder=tmp_path)
