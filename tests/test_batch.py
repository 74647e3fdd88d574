"""Real notebooks, real kernels: the batch runner on three tiny books in a folder of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import nbformat
import psutil
import pytest
from click.testing import CliRunner

from smellkit import batch, cluster, plan
from smellkit.cli.commands import run as command
from smellkit.errors import DataError, OptionError

FIRST = "epochs: int = 3  # passes\nrate: float = 0.5\nname: str = 'lstm'\ndeep: bool = False\ndata: str = ''"


def write(path, *sources, tag="parameters"):
    """A notebook whose first code cell is tagged."""
    cells = [nbformat.v4.new_markdown_cell("# Question?")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    cells[1].metadata["tags"] = [tag]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.fixture
def books(tmp_path, monkeypatch):
    """A folder of two notebooks, executed one after another; runs go to a folder of their own."""
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(batch.run, "__kwdefaults__", batch.run.__kwdefaults__ | {"workers": 1})
    monkeypatch.setattr(batch, "_inputs", lambda data: "kit")  # someone may be editing the real one
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder / "01_first.ipynb", FIRST, "print(epochs, rate, name, deep, data)")
    write(folder / "02_second.ipynb", "epochs: int = 1", "import os\nprint(os.environ['SMELLKIT_RUNS'])")
    return folder


def reading(folder):
    """Let the second notebook read a run of the first one."""
    write(folder / "01_first.ipynb", FIRST, "print(epochs, rate, name, deep, data)", 'None and start("one")')
    write(folder / "02_second.ipynb", "epochs: int = 1", "print('one')")


def statuses(results):
    return [result.status for result in results]


def printed(result):
    return json.loads(result.output.read_text())["cells"][-1]["outputs"][0]["text"][0]


def until(true, *, seconds=90):
    """Whether `true()` becomes so within `seconds`."""
    end = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return now


def kernels(folder):
    """The processes that run in `folder`."""
    processes = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.info["cwd"] == str(folder) and "ipykernel" in " ".join(process.info["cmdline"] or []):
            processes.append(process)
    return processes


def test_parameters_are_read_without_running_anything(books):
    chosen = plan.find(books)
    assert [book.name for book in chosen] == ["01_first", "02_second"]
    assert chosen[0].defaults == {"epochs": 3, "rate": 0.5, "name": "lstm", "deep": False, "data": ""}


def test_notebooks_are_chosen_by_name_number_or_file(books):
    every = plan.find(books)
    for name in ("2", "02", "02_second", "notebooks/02_second.ipynb"):
        assert [book.name for book in plan.select(every, [name])] == ["02_second"]
    with pytest.raises(OptionError, match="02_second"):
        plan.select(every, ["02_secund"])


@pytest.mark.parametrize("line", ["epochs: int | None = f()", "a = b = 1", "a: list = [1]", "print(1)"])
def test_a_parameter_that_papermill_would_pass_over_is_refused(tmp_path, line):
    with pytest.raises(DataError, match="not a plain parameter"):
        plan.read(write(tmp_path / "01_x.ipynb", line))


@pytest.mark.parametrize(
    ("given", "words"),
    [({"epoch": "3"}, "epochs"), ({"epochs": "three"}, "not int"), ({"epochs": "1.5"}, "int"), ({"deep": "x"}, "bool")],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(books, given, words):
    with pytest.raises(OptionError, match=words):
        batch.run(given=given, folder=books)
    assert not batch.executed("quick").exists()


def test_a_wrong_profile_is_refused_before_anything_runs(books):
    with pytest.raises(OptionError, match="quick"):
        batch.run(profile="quik", folder=books)
    (books / "profiles.yaml").write_text("full:\n  01_first: {epoch: 3}\n")
    with pytest.raises(OptionError, match="epochs"):
        batch.run(profile="full", folder=books)
    (books / "profiles.yaml").write_text("full:\n  01_frist: {epochs: 3}\n")
    with pytest.raises(OptionError, match="01_first"):
        batch.run(profile="full", folder=books)


@pytest.mark.slow
def test_a_batch_runs_then_skips_then_runs_what_changed(books):
    before = set(psutil.Process().children())  # a worker does other files, too
    assert statuses(batch.run(folder=books)) == ["done", "done"]
    assert statuses(batch.run(folder=books)) == ["up to date", "up to date"]
    results = batch.run(given={"rate": "0.25"}, folder=books)
    assert statuses(results) == ["done", "up to date"]
    assert not [one for one in set(psutil.Process().children()) - before if one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_a_batch_runs_what_follows_from_what_changed(books):
    before = set(psutil.Process().children())
    reading(books)
    results = batch.run(given={"rate": "0.25"}, folder=books)
    results = batch.run(given={"rate": "0.125"}, folder=books)
    assert statuses(results) == ["done", "done"]  # the second reads the first's run folder
    assert json.loads(results[0].output.read_text())["cells"][-2]["outputs"][0]["text"][0] == "3 0.125 lstm False \n"
    assert "papermill" not in results[0].output.read_text()
    assert not list(results[0].output.parent.glob("unfinished/*"))
    assert not [one for one in set(psutil.Process().children()) - before if one.status() != psutil.STATUS_ZOMBIE]


def test_profile_and_data_folder_have_files_of_their_own(books, tmp_path):
    (books / "profiles.yaml").write_text("full:\n  every: {epochs: 9}\n  01_first: {name: gru}\n")
    data = tmp_path / "recordings"
    data.mkdir()
    first, second = batch.run(profile="full", data=data, folder=books)
    assert printed(first) == f"9 0.5 gru False {data}\n"
    own = batch.set_name("full", data)
    assert own.startswith("full-recordings-") and first.output.parent.name == own
    assert printed(second).strip() == str(tmp_path / "runs" / own)


def test_each_system_gets_its_own_data_set(tmp_path):
    for name in ("root/smellnet", "root/milling", "mine"):
        (tmp_path / name).mkdir(parents=True)
    for folder, expected in {
        "root": {0: "root/smellnet", 1: "root/milling"},
        "root/smellnet": {0: "root/smellnet"},
        "root/milling": {1: "root/milling"},
        "mine": {0: "mine"},
    }.items():
        folders = plan.data_folders(tmp_path / folder, {0: "smellnet", 1: "milling"})
        assert folders == {decade: {"data": str(tmp_path / name)} for decade, name in expected.items()}
    assert plan.data_folders(None, {0: "smellnet"}) == {}


def test_a_notebook_reads_the_runs_that_its_code_names_and_the_results_read_all(books):
    reading(books)
    write(books / "03_third.ipynb", "epochs: int = 1", "'another'")
    write(books / "30_results.ipynb", "epochs: int = 1", "1")
    first, second, third = "01_first", "02_second", "03_third"
    needs = {first: set(), second: {first}, third: set(), "30_results": {first, second, third}}
    assert plan.upstream(plan.find(books)) == needs


def failing(books):
    """Three notebooks of which the first fails and the second reads its run; what the first was before."""
    reading(books)
    good = (books / "01_first.ipynb").read_bytes()
    write(books / "01_first.ipynb", FIRST, "x = 1; None and start('one')", "#| label: b\ny = 0\nx / y", 'start("one")')
    write(books / "03_third.ipynb", "epochs: int = 1", "x = 1")
    return good


@pytest.mark.slow
def test_a_failure_names_notebook_cell_and_error_and_the_batch_resumes_there(books):
    good = failing(books)
    results = batch.run(folder=books)
    assert statuses(results) == ["failed", "not reached", "done"]
    assert "01_first.ipynb, code cell 3: `x / y`" in str(results[0].error)
    assert "ZeroDivisionError" in str(results[0].error)
    assert not (batch.executed("quick") / "01_first.ipynb").exists()
    (books / "01_first.ipynb").write_bytes(good)
    assert statuses(batch.run(folder=books)) == ["done", "done", "up to date"]


@pytest.mark.slow
def test_a_batch_that_is_to_stop_does_so_at_the_first_failure(books):
    failing(books)
    assert statuses(batch.run(folder=books, stop=True)) == ["failed", "not reached", "not reached"]


@pytest.fixture
def one_worker(monkeypatch):
    """A cluster of a single worker, which is started again when it dies."""
    monkeypatch.setattr(cluster, "workers", partial(lambda start, scheduler, count: start(count=1), cluster.workers))


def killing(folder, tmp_path, *, again):
    """Let the first notebook kill the worker that runs it: the first time, or every time."""
    first = f"import os, signal, time\nfrom pathlib import Path\nmark = Path('{tmp_path}/killed')\n"
    first += f"kill = {again} or not mark.exists()"
    then = "mark.touch()\nif kill:\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(60)"
    write(folder / "01_first.ipynb", FIRST, first, then, "print('alive')")


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_of_a_notebook_costs_that_notebook_a_second_run(books, tmp_path):
    killing(books, tmp_path, again=False)
    said = []
    results = batch.run(folder=books, workers=2, progress=said.append)
    assert (tmp_path / "killed").exists() and statuses(results) == ["done", "done"]
    assert printed(results[0]) == "alive\n"
    assert {line.split()[0] for line in said} == {"01_first", "02_second"}
    assert until(lambda: not kernels(books))


@pytest.mark.slow
def test_a_notebook_that_kills_every_worker_is_named(books, tmp_path, one_worker):
    killing(books, tmp_path, again=True)
    (result,) = batch.run(["1"], folder=books, workers=2)
    assert result.status == "failed" and "01_first: its workers died" in str(result.error)
    assert until(lambda: not kernels(books))


@pytest.mark.slow
def test_ctrl_c_ends_all_notebooks_that_run_side_by_side(books, tmp_path):
    for number in (1, 2):
        wait = f"import pathlib, time\npathlib.Path('{tmp_path}/{number}').touch()\ntime.sleep(60)"
        write(books / f"0{number}_wait.ipynb", "epochs: int = 1", wait)
    (books / "01_first.ipynb").unlink()
    (books / "02_second.ipynb").unlink()
    code = "import sys, pathlib\nfrom smellkit import batch\n"
    code += "if __name__ == '__main__': batch.run(folder=pathlib.Path(sys.argv[1]), workers=2)"
    (tmp_path / "both.py").write_text(code)
    command = [sys.executable, str(tmp_path / "both.py"), str(books)]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as running:
        assert until(lambda: (tmp_path / "1").exists() and (tmp_path / "2").exists())
        assert len(kernels(books)) == 2
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        assert running.wait(60) != 0
    assert until(lambda: not kernels(books))
    assert not list(batch.executed("quick").glob("*.ipynb"))


def test_without_dask_notebooks_run_one_after_another_and_that_is_said(books, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = []
    assert statuses(batch.run(folder=books, workers=2, progress=said.append)) == ["done", "done"]
    assert "smellkit[sweep]" in said[0]


def test_notebooks_run_on_the_workers_of_a_scheduler(books, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")  # dask sets it for good, which is nothing for the next test
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as away:
        results = batch.run(["2"], folder=books, scheduler=away.scheduler_address)
    assert statuses(results) == ["done"] and printed(results[0]).strip() == os.environ["SMELLKIT_RUNS"]


def test_a_scheduler_that_is_not_there_is_named(books):
    with pytest.raises(OptionError, match="tcp://127.0.0.1:9"):
        batch.run(folder=books, scheduler="tcp://127.0.0.1:9")


def test_progress_bars_are_quiet_on_pages_whatever_was_imported_first(books):
    begin = "from smellkit import notebook\nrun = notebook.start('quiet')"
    bars = "from tqdm.auto import tqdm\nfor _ in tqdm([1, 2]): pass\n1"
    write(books / "02_second.ipynb", "epochs: int = 1", begin, bars)
    (result,) = batch.run(["2"], folder=books)
    (output,) = json.loads(result.output.read_text())["cells"][-1]["outputs"]
    assert output["data"] == {"text/plain": ["1"]}
    assert "TQDM_DISABLE" not in batch.os.environ


def test_a_cell_that_takes_too_long_is_named(books):
    write(books / "02_second.ipynb", "epochs: int = 1", "import time\ntime.sleep(60)")
    results = batch.run(["2"], folder=books, timeout=1)
    assert "code cell 2: `import time`" in str(results[0].error)
    assert "--timeout" in str(results[0].error)


def test_a_kernel_that_dies_is_named_and_leaves_nothing(books):
    write(books / "02_second.ipynb", "epochs: int = 1", "import os\nos._exit(9)")
    results = batch.run(["2"], folder=books)
    assert "02_second.ipynb, code cell 2: `import os`\n  DeadKernelError" in str(results[0].error)
    assert not results[0].output.with_suffix(".json").exists()


def test_ctrl_c_leaves_no_kernel_and_no_result(books):
    write(
        books / "02_second.ipynb",
        "epochs: int = 1",
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)",
    )
    with pytest.raises(KeyboardInterrupt):
        batch.run(["2"], folder=books)
    assert not kernels(books)
    assert not (batch.executed("quick") / "02_second.ipynb").exists()


def test_the_command_exits_with_1_and_a_short_message(books, monkeypatch):
    monkeypatch.setattr(batch.run, "__kwdefaults__", batch.run.__kwdefaults__ | {"folder": books})
    write(books / "02_second.ipynb", "epochs: int = 1", "raise ValueError('no such smell')")
    result = CliRunner().invoke(command, ["--workers", "1"])
    assert result.exit_code == 1
    assert "ValueError: no such smell" in result.output
    assert "Traceback" not in result.output
