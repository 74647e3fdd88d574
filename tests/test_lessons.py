"""What the notebooks share: skipping, figures to play with, a player that nobody waits for, the glossary."""

import json
import shutil
import time

import nbformat
import numpy as np
import pandas as pd
import pytest

from smellkit import batch, notebook, paths, plots
from smellkit.errors import DataError
from smellkit.study import lessons
from smellkit.study.odour import figures

BEGIN = """from smellkit import notebook
from smellkit.study import lessons
run = notebook.start("lesson", data=data)
lessons.needs(run, data, "mixtures", "pictures")"""


@pytest.fixture
def partly(tmp_path):
    """A data folder that has the recordings of substances and nothing else."""
    shutil.copytree(paths.sample() / "smellnet" / "base", tmp_path / "mine" / "base")
    return tmp_path / "mine"


def test_a_part_is_absent_where_none_of_its_folders_is_there(partly):
    assert lessons.lacking(str(partly), *lessons.PARTS) == [*lessons.PARTS][2:]
    assert lessons.lacking("", *lessons.PARTS) == []
    with pytest.raises(DataError, match="not a folder"):
        lessons.lacking(str(partly / "nothing"), "mixtures")


def test_what_a_folder_lacks_is_skipped_and_said_and_the_batch_goes_on(partly, tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    cells = [nbformat.v4.new_code_cell(text) for text in ("data: str = ''", BEGIN, "1 / 0", "print('seen')")]
    cells[0].metadata["tags"] = ["parameters"]
    (tmp_path / "books").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "books" / "01_x.ipynb")
    (result,) = batch.run(given={"data": str(partly)}, folder=tmp_path / "books")
    assert result.status == batch.DONE, result.error
    outputs = [cell["outputs"] for cell in json.loads(result.output.read_text())["cells"]]
    said = "".join(outputs[3][0]["data"]["text/markdown"])
    assert "Skipped" in said and "mine has no mixtures, no pictures" in said
    assert not outputs[4], "one word is enough"
    assert "no mixtures" in json.loads((tmp_path / "runs/lesson/scores.json").read_text())["skipped"]


def draw(height):
    return plots.bars({"apple": height}, label="share")


SLIDERS, STATES = {"height": (0.0, 1.0, 0.5)}, {"low": {"height": 0.1}, "high": {"height": 0.9}}


def test_a_page_without_a_kernel_shows_every_state_and_no_widget(monkeypatch):
    monkeypatch.setenv("SMELLKIT_HEADLESS", "1")
    text = lessons.explore(draw, SLIDERS, STATES, alt="a bar").data
    assert text.count("<details") == text.count("<svg") == 2 and text.count(" open>") == 1
    assert "0.10" in text and "0.90" in text and "<script" not in text


def test_a_slider_redraws_the_figure(monkeypatch):
    monkeypatch.setenv("SMELLKIT_HEADLESS", "0")
    slider, picture = lessons.explore(draw, SLIDERS, STATES, alt="a bar").children
    assert "0.50" in picture.value
    slider.value = 0.25
    assert "0.25" in picture.value


PLAYED = {"01_odour_data": ("film", "film-play"), "03_odour_mixture": ("explore",)}


@pytest.fixture(params=PLAYED)
def played(request):
    """What the cells of a notebook give that a reader plays with: run them, and get what is shown."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    book = json.loads((paths.HOME / "notebooks" / f"{request.param}.ipynb").read_text(encoding="utf-8"))
    sources = {cell["id"]: "".join(cell["source"]) for cell in book["cells"]}
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.push({"np": np, "pd": pd, "plots": plots, "lessons": lessons, "figures": figures})
    return lambda: [shell.run_cell(sources[name]) for name in PLAYED[request.param]][-1].result


def test_the_sliders_of_a_notebook_move_its_figure(played, monkeypatch):
    monkeypatch.setenv("SMELLKIT_HEADLESS", "0")
    *sliders, picture = played().children
    assert len(sliders) >= 3
    for slider in sliders:
        before = picture.value
        slider.value = slider.min if slider.value != slider.min else slider.max
        assert picture.value != before, f"{slider.description} moves nothing"


def test_a_page_of_the_notebook_shows_its_states_beforehand(played, monkeypatch):
    monkeypatch.setenv("SMELLKIT_HEADLESS", "1")
    text = played().data
    assert text.count("<summary>") == text.count("<svg") >= 3 and text.count(" open>") == 1
    assert len(set(text.split("<svg")[1:])) == text.count("<svg"), "two states look the same"


def test_nobody_waits_for_a_virtual_player_where_nobody_watches(monkeypatch):
    monkeypatch.setenv("SMELLKIT_HEADLESS", "1")
    began = time.monotonic()
    with lessons.player("virtual") as neck:
        neck.play(5, seconds=600)
        neck.wait()
        (piece,) = neck.virtual.air
    assert piece.scent == 5 and piece.end - piece.start == pytest.approx(600, abs=0.1)
    assert time.monotonic() - began < 10


def test_terms_are_taken_where_they_are_first_and_with_their_sentence(tmp_path):
    cells = [
        "# What is it?",
        "A <dfn>nose</dfn> has 1.5 sensors. It is [here](01_a.ipynb).",
        "No <dfn>nose</dfn> again.",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text) for text in cells])
    nbformat.write(book, tmp_path / "01_a.ipynb")
    assert lessons.terms(tmp_path)["nose"][0] == "A nose has 1.5 sensors."
    assert "**nose**: A nose has 1.5 sensors. [What is it?](notebooks/01_a.ipynb)" in lessons.glossary(tmp_path)


def test_a_source_is_shown_as_code():
    shown = lessons.source(notebook.NotebookRun.finish).data
    assert shown.startswith("```python\ndef finish(") and shown.endswith("```")
