"""The third cell of every notebook: seeds, style and a run folder, and nothing more than needed."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from smellkit import notebook, plots, runs
from smellkit.errors import OptionError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path))
    return tmp_path


def test_the_import_loads_neither_torch_nor_matplotlib():
    code = "import sys, smellkit.notebook; print(sorted({'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_seed_makes_python_numpy_and_torch_repeat():
    import torch

    def draw():
        notebook.start("seeds", seed=3)
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    assert draw() == draw()


def test_a_wrong_seed_is_refused_with_its_range():
    with pytest.raises(OptionError, match="from 0 to 4294967295"):
        notebook.start("seeds", seed=-1)


def test_where_nobody_watches_no_bar_is_drawn_and_in_a_kernel_there_is_one(monkeypatch):
    from tqdm.notebook import tqdm_notebook

    monkeypatch.setattr(tqdm_notebook, "__init__", tqdm_notebook.__init__)  # put back after the test
    monkeypatch.setenv("SMELLKIT_HEADLESS", "0")
    notebook.start("bars")
    assert not tqdm_notebook(range(3), display=False).disable
    monkeypatch.setenv("SMELLKIT_HEADLESS", "1")
    notebook.start("bars")
    assert tqdm_notebook(range(3), disable=False).disable


def test_an_error_of_the_kit_is_told_in_a_notebook_without_the_way_that_led_there():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell(colors="nocolor")
    with capture_output() as seen:
        shell.run_cell(
            "from smellkit import options\noptions.check(['bananna'], ['banana'], 'There is no recording of')"
        )
    message = "OptionError: There is no recording of 'bananna'\n  Try: did you mean banana?"
    assert seen.stdout.strip() == message


def test_parameters_and_scores_are_in_the_run_folder_which_is_named(folder, capsys):
    run = notebook.start("odour/first", seed=1, epochs=2)
    run.finish({"accuracy": np.float64(0.5)})
    assert str(folder / "odour/first") in capsys.readouterr().out
    assert json.loads((folder / "odour/first/params.json").read_text()) == {"seed": 1, "epochs": 2}
    assert runs.latest("odour/first").scores == {"accuracy": 0.5}


def test_a_figure_is_saved_sharp_and_transparent_and_as_drawings(folder):
    run = notebook.start("figures")
    run.figure(plots.bars({"apple": 0.8, "pear": 0.2}, label="share"), "shares")
    image = Image.open(folder / "figures/shares.png")
    assert image.width >= 1200
    assert image.mode == "RGBA"
    assert image.getpixel((2, 2))[3] == 0
    assert (folder / "figures/shares.pdf").read_bytes().startswith(b"%PDF")
    assert "</svg>" in (folder / "figures/shares.svg").read_text()


def test_a_pyplot_figure_is_closed_so_that_it_is_shown_once():
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    run = notebook.start("figures")
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    run.figure(figure, "line")
    assert not plt.get_fignums()


def test_progress_bars_are_quiet_when_nobody_watches(monkeypatch):
    monkeypatch.setenv("SMELLKIT_HEADLESS", "1")
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    notebook.start("quiet")
    assert notebook.os.environ.pop("TQDM_DISABLE") == "1"
    monkeypatch.setenv("SMELLKIT_HEADLESS", "0")
    assert not notebook.headless()
