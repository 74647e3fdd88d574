"""Real notebooks, real kernels: the batch runner on three tiny books in a folder of their own."""

import json

import nbformat
import psutil
import pytest
from click.testing import CliRunner

from smellkit import batch
from smellkit.cli.publish import run as command
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
    """A folder of two notebooks; runs go to a folder of their own."""
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(batch, "_inputs", lambda data: [("kit", b"1")])  # someone may be editing the real one
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder / "01_first.ipynb", FIRST, "print(epochs, rate, name, deep, data)")
    write(folder / "02_second.ipynb", "epochs: int = 1", "import os\nprint(os.environ['SMELLKIT_RUNS'])")
    return folder


def statuses(results):
    return [result.status for result in results]


def printed(result):
    return json.loads(result.output.read_text())["cells"][-1]["outputs"][0]["text"][0]


def test_parameters_are_read_without_running_anything(books):
    chosen = batch.find(books)
    assert [book.name for book in chosen] == ["01_first", "02_second"]
    assert chosen[0].defaults == {"epochs": 3, "rate": 0.5, "name": "lstm", "deep": False, "data": ""}


def test_notebooks_are_chosen_by_name_number_or_file(books):
    every = batch.find(books)
    for name in ("2", "02", "02_second", "notebooks/02_second.ipynb"):
        assert [book.name for book in batch.select(every, [name])] == ["02_second"]
    with pytest.raises(OptionError, match="02_second"):
        batch.select(every, ["02_secund"])


@pytest.mark.parametrize("line", ["epochs: int | None = f()", "a = b = 1", "a: list = [1]", "print(1)"])
def test_a_parameter_that_papermill_would_pass_over_is_refused(tmp_path, line):
    with pytest.raises(DataError, match="not a plain parameter"):
        batch.defaults(write(tmp_path / "01_x.ipynb", line))


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


def test_a_batch_runs_then_skips_then_runs_what_changed_and_what_follows(books):
    assert statuses(batch.run(folder=books)) == ["done", "done"]
    assert statuses(batch.run(folder=books)) == ["up to date", "up to date"]
    results = batch.run(given={"rate": "0.25"}, folder=books)
    assert statuses(results) == ["done", "done"]  # the second may read the first's run folder
    assert printed(results[0]) == "3 0.25 lstm False \n"
    assert "papermill" not in results[0].output.read_text()
    assert not list(results[0].output.parent.glob("unfinished/*"))
    assert not [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]


def test_profile_and_data_folder_have_files_of_their_own(books, tmp_path):
    (books / "profiles.yaml").write_text("full:\n  every: {epochs: 9}\n  01_first: {name: gru}\n")
    data = tmp_path / "recordings"
    data.mkdir()
    first, second = batch.run(profile="full", data=data, folder=books)
    assert printed(first) == f"9 0.5 gru False {data}\n"
    assert printed(second).strip() == str(tmp_path / "runs" / "full-recordings")
    assert first.output.parent.name == "full-recordings"


def test_each_system_gets_its_own_data_set(books, tmp_path):
    (books / "profiles.yaml").write_text("data: {0: smellnet, 1: milling}\n")
    table, sets = batch.profiles(books / "profiles.yaml")
    assert set(table) == {"quick"}
    nose, mill, results = (batch.Notebook(tmp_path / f"{name}.ipynb", {}) for name in ("01_a", "10_b", "30_c"))
    for name in ("root/smellnet", "root/milling", "mine"):
        (tmp_path / name).mkdir(parents=True)
    for folder, expected in {
        "root": ["root/smellnet", "root/milling", None],
        "root/smellnet": ["root/smellnet", None, None],
        "root/milling": [None, "root/milling", None],
        "mine": ["mine", None, None],
    }.items():
        got = [batch.data_for(book, tmp_path / folder, sets) for book in (nose, mill, results)]
        assert got == [str(tmp_path / name) if name else "" for name in expected], folder
    assert batch.data_for(mill, None, sets) == ""


def test_a_failure_names_notebook_cell_and_error_and_the_batch_resumes_there(books):
    good = (books / "02_second.ipynb").read_bytes()
    write(books / "02_second.ipynb", "epochs: int = 1", "x = 1", "#| label: b\ny = 0\nx / y")
    write(books / "03_third.ipynb", "epochs: int = 1", "x = 1")
    results = batch.run(folder=books)
    assert statuses(results) == ["done", "failed", "not reached"]
    assert "02_second.ipynb, code cell 3: `x / y`" in str(results[1].error)
    assert "ZeroDivisionError" in str(results[1].error)
    assert not (batch.executed("quick") / "02_second.ipynb").exists()
    (books / "02_second.ipynb").write_bytes(good)
    assert statuses(batch.run(folder=books)) == ["up to date", "done", "done"]


def test_progress_bars_are_quiet_on_pages_whatever_was_imported_first(books):
    write(books / "02_second.ipynb", "epochs: int = 1", "from tqdm.auto import tqdm\nfor _ in tqdm([1, 2]): pass\n1")
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
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    assert not [child for child in living if "ipykernel" in " ".join(child.cmdline())]
    assert not (batch.executed("quick") / "02_second.ipynb").exists()


def test_the_command_exits_with_1_and_a_short_message(books, monkeypatch):
    monkeypatch.setattr(batch.run, "__kwdefaults__", batch.run.__kwdefaults__ | {"folder": books})
    write(books / "02_second.ipynb", "epochs: int = 1", "raise ValueError('no such smell')")
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert "ValueError: no such smell" in result.output
    assert "Traceback" not in result.output
