"""Every notebook, run: with another parameter its answers hold, and twice the same gives every output twice.

`make lessons` runs all of them, some minutes; `make test` the cheapest, `QUICK`. What hangs on a real clock no second
run gives again: such cells are tagged `nbval-ignore-output`.
"""

import os
import shutil
import subprocess
import sys

import pytest

from smellkit import batch

CHANGED = {  # one parameter of each notebook, and another value
    "00": {"substance": "garlic"},
    "01": {"method": "tsne"},
    "02": {"model": "summary-mlp"},
    "03": {"epochs": "4"},
    "04": {"strategy": "addition"},
    "05": {"seeds": "2"},
    "06": {"substance": "garlic"},
    "07": {"representation": "absolute"},
    "10": {"recording": "face_001"},
    "11": {"trees": "10"},
    "12": {"protocols": "X"},
    "13": {"seeds": "2"},
    "20": {"seed": "8"},
    "21": {"epochs": "4"},
    "22": {"rows": "gas-aware"},
    "23": {"pairs": "8"},
    "30": {"rows": "3"},
}
QUICK = ("30",)
PYTEST = "import sys; sys.modules['rfc3987_syntax'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
NUMBERS = [pytest.param(key, marks=() if key in QUICK else pytest.mark.lessons) for key in CHANGED]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The folder of the test's own runs; kernels are headless, and take as many threads as they are given."""
    own = {"SMELLKIT_RUNS": str(tmp_path / "runs"), "SMELLKIT_HEADLESS": "1", "TQDM_DISABLE": "1"}
    for name, value in {**dict.fromkeys(batch.THREADS, "1"), **own}.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "runs"


def test_there_is_another_parameter_for_every_notebook():
    assert list(CHANGED) == [path.name[:2] for path in sorted(batch.FOLDER.glob("*.ipynb"))]


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_notebook_runs_with_another_parameter_and_its_answers_hold(number, runs):
    (result,) = batch.run([number], given=CHANGED[number])
    assert result.status == batch.DONE, result.error
    assert next(runs.glob("*/*.svg")).exists() and next(runs.glob("*/*.pdf")).exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_notebook_gives_every_output_again(number, runs):
    (result,) = batch.run([number])
    assert result.status == batch.DONE, result.error
    for made in runs.iterdir():  # or a fit that is there already would be taken up
        if made != result.output.parents[1]:
            shutil.rmtree(made)
    asked = ["-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "--color", "no", "--rootdir", str(runs)]
    search = os.pathsep.join([str(batch.FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PYTEST, *asked, str(result.output)],
        capture_output=True, text=True, cwd=runs, env=os.environ | {"PYTHONPATH": search},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
