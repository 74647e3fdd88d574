"""What all tests share."""

import contextlib
import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import settings

from smellkit import paths
from smellkit.cli import cli

# jsonschema would make itself a parser of IRIs, in one second a process; nothing here has any.
sys.modules.setdefault("rfc3987_syntax", None)

settings.register_profile("kit", deadline=None)  # no test is timed: a busy machine is not wrong
settings.load_profile("kit")

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that: tests that press Ctrl-C would
# wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


TURNS = {"player": ("test_device", "test_enose"), "panel": ("test_panel", "test_browser")}  # files that measure seconds
LOOK = "import os; hasattr(os, 'nice') and os.nice(5); from smellkit import Pipeline; Pipeline.fit().fused"
BEHIND = 5  # niceness of all other tests that run beside them
CROWDS = ("test_batch", "test_no_terminals", "test_sweep")  # start processes of their own: late, when no turn is left


def turn(name):
    """Whose turn the tests of a file (its path, or a test's whole name) take, or "" where no seconds are measured."""
    stem = Path(name.split("::")[0]).stem
    return next((turn for turn, starts in TURNS.items() if stem.startswith(starts)), "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file is done by one worker, and so is a turn: pytest-xdist's own groups are lost with pytest 9.2.

    Whoever asks for another `--dist` than the default gets it.
    """
    from xdist.scheduler import LoadFileScheduling

    class Turns(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return turn(nodeid) or super()._split_scope(nodeid)

        def _reschedule(self, node):
            """Whoever has a turn does nothing else: what computes is left to as many workers as there are cores."""
            if len(self.nodes) <= len(TURNS) or not TURNS.keys() & self.assigned_work[node].keys():
                super()._reschedule(node)
            elif not node.shutting_down:
                node.shutdown()  # once it has done what it has

    return Turns(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """A worker for each core, and one for each turn, since what measures seconds mostly waits."""
    return (os.cpu_count() or 1) + len(TURNS)


def pytest_collection_modifyitems(config, items):
    """What has its turn comes first, then files of long or many tests, before short ones those that are crowds.

    Whole notebooks only where `-m` asks.
    """
    if "lessons" not in config.option.markexpr:
        items[:] = [item for item in items if not item.get_closest_marker("lessons")]
    weight = Counter()
    for item in items:
        weight[item.path] += 30 if item.get_closest_marker("slow") else 1
    late = {path: 20 for path in weight if path.stem in CROWDS}
    items.sort(key=lambda item: (not turn(item.nodeid), -late.get(item.path, weight[item.path])))


def pytest_runtest_setup(item):
    """Side by side, whatever measures no seconds lets the others go before it."""
    if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "nice") and not turn(item.nodeid):
        os.nice(max(0, BEHIND - os.nice(0)))


@pytest.fixture(scope="session", autouse=True)
def own_work(request, tmp_path_factory):
    """Workers side by side keep their runs, and build pages, in folders of their own.

    What they read of data, and what pictures and texts look like, is kept by content: that they have in common. Beside
    the tests that look at all of the sample's pictures and texts, a companion of the first worker does it before.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    kept = tmp_path_factory.getbasetemp().parent / "kept"
    with tempfile.TemporaryDirectory(prefix="smell-work-") as folder:
        own = {"SMELLKIT_WORK": f"{folder}/work", "SMELLKIT_RUNS": f"{folder}/runs"}
        os.environ.update(own)
        share(Path(folder) / "work", kept, "scene", "tables")
        with looking(request.session.items):
            yield
        for name in own:
            del os.environ[name]


@contextlib.contextmanager
def looking(items):
    """Beside tests that look at all of the sample's pictures and texts, a process that does it before them."""
    if os.environ["PYTEST_XDIST_WORKER"] != "gw0" or not any(turn(item.nodeid) == "panel" for item in items):
        yield
        return
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", LOOK], **quiet) as process:
        yield
        process.terminate()


def share(work, kept, *names):
    """Let the folder `work` have the folders called `names` from `kept`, where the system has links for everybody."""
    for name in names:
        (kept / name).mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            (work / name).symlink_to(kept / name, target_is_directory=True)


@pytest.fixture(scope="session", autouse=True)
def own_sockets():
    """A stop that a test orders reaches the programs of this worker alone: their sockets lie in a folder of its own."""
    before = os.environ.get("XDG_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="smell-") as folder:  # short: a socket's name has 107 characters at most
        os.environ["XDG_RUNTIME_DIR"] = folder
        yield
    os.environ.pop("XDG_RUNTIME_DIR")
    os.environ.update({"XDG_RUNTIME_DIR": before} if before else {})


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """The kit's folders of runs and of kept tables lie below `tmp_path`."""
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))


@pytest.fixture
def looked_at(tmp_path):
    """A new folder for what is computed, in which the sample's pictures and texts have been looked at."""
    share(tmp_path / "work", paths.work(), "scene")
    return tmp_path / "work"


@pytest.fixture(scope="session")
def recording():
    """A simulated recording of the twelve columns: its file."""
    return sorted((paths.sample() / "smellnet/base/testing").glob("*/*.csv"))[0]


@pytest.fixture
def board(recording):
    """A simulated recording of the twelve columns, as a table."""
    return pd.read_csv(recording)


@pytest.fixture
def predict(tmp_path):
    """`smellkit predict` of a file or folder into out.csv: the exit code, and all that was said."""

    def run(source, weights="odour"):
        asked = ["predict", str(source), "--weights", weights, "--out", str(tmp_path / "out.csv")]
        done = CliRunner().invoke(cli, asked)
        return done.exit_code, done.output + str(done.exception or "")

    return run


@pytest.fixture(scope="session")
def serving():
    """A folder as pages for this machine alone: `with serving(folder) as address`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    @contextlib.contextmanager
    def serve(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

    return serve


@pytest.fixture(scope="module")
def chromium():
    """A real Chromium, driven by Playwright; skips where either is absent."""
    play = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    names = ("chromium", "chromium-browser", "google-chrome")
    if not (program := next(filter(None, map(shutil.which, names)), None)):
        pytest.skip("needs Chromium: apt install chromium")
    with play.sync_playwright() as playing:
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = playing.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()
