"""Two processes, two folders, one name: who writes is known, what was finished stays, a full disk loses nothing."""

import json
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from smellkit import batch, doctor, paths, runs
from smellkit.errors import DataError, OptionError, WriteError
from smellkit.task import Task, Tensors
from smellkit.train import Settings, fit

pytestmark = pytest.mark.usefixtures("own_folders")
HOLD = """
import sys, time
from smellkit import paths
from pathlib import Path
paths.lock(Path(sys.argv[1]), what="a test")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes in the folder `here`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "here")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(paths.HOME)}
    ) as child:
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, batch):
        return {"y": self.layer(batch["x"])}


def task(loss=lambda outputs, batch: (outputs["y"] - batch["t"]).square().mean()):
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    sides = {name: Tensors(x=x, t=x.sum(axis=1, keepdims=True)) for name in ("train", "valid", "test")}
    return Task(
        "line",
        lambda: sides,
        Line,
        loss,
        lambda outputs, batch: {"accuracy": -float((outputs["y"] - batch["t"]).abs().mean())},
    )


def test_a_folder_in_which_another_process_writes_is_refused_with_pid_and_host(tmp_path, holder):
    with pytest.raises(OptionError, match=rf"Another run is writing here.*process {holder.pid} on "):
        paths.lock(tmp_path / "here", what="a test")


def test_the_lock_of_a_process_that_is_gone_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    paths.lock(tmp_path / "here", what="a test")
    paths.lock(tmp_path / "here", what="the same process again")
    assert json.loads((tmp_path / "here/.lock").read_text())["pid"] == os.getpid()
    paths.unlock(tmp_path / "here")
    assert not (tmp_path / "here/.lock").exists()


@pytest.mark.parametrize("text", ['{"pid": 7, "host": "here", "since": "then"}', "", "[]", "half of a"])
def test_a_lock_that_cannot_be_understood_is_named_with_what_to_do(tmp_path, monkeypatch, text):
    monkeypatch.setattr(paths, "TRIES", 2)
    (tmp_path / ".lock").write_text(text)
    with pytest.raises(OptionError, match=rf"does not say who(.|\n)*delete {tmp_path}/.lock"):
        paths.lock(tmp_path, what="a test")
    assert (tmp_path / ".lock").read_text() == text


@pytest.mark.parametrize("stale", [False, True])
def test_of_several_processes_that_begin_at_once_one_gets_the_lock(tmp_path, stale):
    gone = json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "began": "1", "since": "then"})
    context = multiprocessing.get_context("fork")
    for number in range(10):
        (folder := tmp_path / str(number)).mkdir()
        if stale:
            (folder / ".lock").write_text(gone)
        begin, done, got = context.Barrier(4), context.Barrier(4), context.Queue()
        racers = [context.Process(target=_race, args=(folder, begin, done, got)) for _ in range(4)]
        for racer in racers:
            racer.start()
        assert sorted(got.get(timeout=20) for _ in racers) == ["busy", "busy", "busy", "mine"]
        for racer in racers:
            racer.join()


def _race(folder, begin, done, got):
    begin.wait()
    try:
        paths.lock(folder, what="a test")
        got.put("mine")
    except OptionError:
        got.put("busy")
    done.wait()  # who holds the lock lives until all have asked


def test_the_same_training_twice_at_once_is_refused_and_disturbs_nothing(tmp_path, holder):
    folder = tmp_path / "runs/line"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "here/.lock", folder / ".lock")
    with pytest.raises(OptionError, match="Another run is writing here"):
        fit(task(), Settings(epochs=1))
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_failing_training_brings_the_finished_run_of_that_name_back():
    before = fit(task(), Settings(epochs=1))
    files = {path.name: path.read_bytes() for path in before.folder.iterdir() if path.is_file()}
    for fault in (lambda outputs, batch: outputs["y"].sum() * float("nan"), lambda outputs, batch: outputs["z"]):
        with pytest.raises((OptionError, KeyError)):
            fit(task(fault), Settings(epochs=2))
        assert {path.name: path.read_bytes() for path in before.folder.iterdir() if path.is_file()} == files
    after = fit(task(), Settings(epochs=2))
    assert after.finished and not (after.folder / ".earlier").exists() and not (after.folder / ".lock").exists()


def test_a_fault_of_the_data_leaves_the_finished_run_alone():
    before = fit(task(), Settings(epochs=1)).scores

    def fault():
        raise DataError("No data", hint="some")

    with pytest.raises(DataError):
        fit(Task("line", fault, Line, task().loss, task().score), Settings(epochs=1))
    assert runs.latest("line").scores == before


def test_two_data_folders_of_one_name_have_sets_of_their_own(tmp_path):
    one, other = tmp_path / "a/nose", tmp_path / "b/nose"
    for place, folder in enumerate((one, other)):
        folder.mkdir(parents=True)
        (folder / "x.csv").write_text("1" * (place + 1))
    assert batch.set_name("quick", one).startswith("quick-nose-")
    assert batch.set_name("quick", one) != batch.set_name("quick", other)
    shutil.copytree(one, tmp_path / "moved/nose")
    assert batch.set_name("quick", tmp_path / "moved/nose") == batch.set_name("quick", one)


NOTEBOOK = {
    "cells": [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None,
               "source": "import sys; print(sys.executable)"}],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip


def stale(tmp_path, monkeypatch, program="/nowhere/python"):
    kernel = tmp_path / "jupyter/kernels/python3"
    kernel.mkdir(parents=True)
    spec = {
        "argv": [program, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "x",
        "language": "python",
    }
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # as outside of an environment


def test_notebooks_run_in_this_python_whatever_kernelspecs_there_are(tmp_path, monkeypatch):
    stale(tmp_path, monkeypatch)
    (tmp_path / "books").mkdir()
    (tmp_path / "books/01_odour_test.ipynb").write_text(json.dumps(NOTEBOOK))
    (result,) = batch.run(folder=tmp_path / "books")
    assert result.error is None and sys.executable in result.output.read_text()
    assert not (result.output.parent / ".lock").exists()


def test_a_batch_beside_another_of_its_set_is_refused(tmp_path, holder):
    (tmp_path / "books").mkdir()
    (tmp_path / "books/01_odour_test.ipynb").write_text(json.dumps(NOTEBOOK))
    batch.executed("quick").mkdir(parents=True)
    shutil.copy(tmp_path / "here/.lock", batch.executed("quick") / ".lock")
    with pytest.raises(OptionError, match="a batch of notebooks"):
        batch.run(folder=tmp_path / "books")


def test_the_doctor_names_a_stale_kernelspec(tmp_path, monkeypatch):
    stale(tmp_path, monkeypatch)
    (finding,) = [finding for finding in doctor.examine() if finding.what == "Kernel"]
    assert finding.level == "optional" and "/nowhere/python" in finding.state and "ipykernel install" in finding.hint


def test_a_disk_that_is_full_is_one_message_and_what_was_there_stays(tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("before")
    sample = str(paths.sample() / "smellnet/base/testing")
    command = [sys.executable, "-m", "smellkit", "predict", sample, "--weights", "odour", "--out", str(out)]

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    environment = {**os.environ, "PYTHONPATH": str(paths.HOME)}
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=full, env=environment, timeout=120)
    assert done.returncode == 1 and "Can't write" in done.stderr and "Traceback" not in done.stderr
    assert out.read_text() == "before" and [path.name for path in tmp_path.glob(".out*")] == []


def test_a_full_disk_in_training_is_an_error_that_leaves_the_finished_run():
    before = fit(task(), Settings(epochs=1))
    files = {path.name: path.read_bytes() for path in before.folder.iterdir() if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, limits[1]))
    try:
        with pytest.raises(WriteError, match="Can't write"):
            fit(task(), Settings(epochs=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in before.folder.iterdir() if path.is_file()} == files
