"""`smellkit predict DIR --weights fusion`: the columns of the mixture weights, with pictures and texts beside."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from smellkit import checkpoint
from smellkit.cli import cli
from smellkit.errors import DataError
from smellkit.odour import recordings
from smellkit.odour.predict import fusion, mixture
from smellkit.odour.scents import ODORANTS, list_pictures, substance
from smellkit.study.odour.mixture_data import parse_label

FOLDER = recordings.find() / "mixture" / "test_seen"
RATIOS = [f"ratio_{name}" for name in ODORANTS]


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A folder of recordings, and beside it a picture of each component and a sentence about all of them."""
    home = tmp_path_factory.mktemp("fusion")
    pictures, texts = list_pictures(), {}
    for file in sorted(FOLDER.rglob("*.csv"))[:6]:
        (home / "recordings").mkdir(exist_ok=True)
        shutil.copy(file, home / "recordings" / file.name)
        there = [substance(name) for name in parse_label(file.name)]
        (home / "pictures" / file.stem).mkdir(parents=True)
        for name in there:
            shown = Path(pictures.loc[pictures["scent"] == name, "file"].iloc[0])
            shutil.copy(shown, home / "pictures" / file.stem / f"{name}{shown.suffix}")
        texts[file.name] = [name.replace("_", " ") for name in there]
    (home / "texts.json").write_text(json.dumps(texts))
    lines = [(name, text) for name, some in texts.items() for text in some]
    pd.DataFrame(lines, columns=["file", "text"]).to_csv(home / "texts.csv", index=False)
    return home


def predicted(beside, out, **options):
    fusion(beside / "recordings", weights=checkpoint.find("fusion"), out=out, **options)
    return pd.read_csv(out)


def test_the_columns_are_those_of_the_mixture_weights_and_without_senses_so_are_the_answers(beside, tmp_path):
    mixture(beside / "recordings", weights=checkpoint.find("mixture"), out=tmp_path / "mixture.csv")
    alone, known = predicted(beside, tmp_path / "alone.csv"), pd.read_csv(tmp_path / "mixture.csv")
    assert list(alone) == list(known) and alone["file"].tolist() == known["file"].tolist()


def test_pictures_and_texts_say_what_is_in_the_air(beside, tmp_path):
    table = predicted(beside, tmp_path / "out.csv", pictures=str(beside / "pictures"), texts=str(beside / "texts.json"))
    np.testing.assert_allclose(table[RATIOS].sum(axis=1), 1, atol=1e-5)
    whole = table[table["window"] == -1].set_index("file")
    for file in sorted((beside / "recordings").glob("*.csv")):
        there = {f"ratio_{name}" for name in parse_label(file.name)}
        assert set(whole.loc[file.name, RATIOS].nlargest(len(there)).index) == there, file.name


def test_a_table_of_texts_is_read_as_the_object_is(beside, tmp_path):
    first = predicted(beside, tmp_path / "a.csv", texts=str(beside / "texts.json"))
    second = predicted(beside, tmp_path / "b.csv", texts=str(beside / "texts.csv"))
    pd.testing.assert_frame_equal(first, second)


def test_a_recording_in_a_folder_finds_what_is_called_by_its_name_alone(beside, tmp_path):
    deep = tmp_path / "recordings" / "monday"
    shutil.copytree(beside / "recordings", deep)
    said = {Path(name).stem: texts for name, texts in json.loads((beside / "texts.json").read_text()).items()}
    (tmp_path / "texts.json").write_text(json.dumps(said))
    near = predicted(beside, tmp_path / "a.csv", pictures=str(beside / "pictures"), texts=str(beside / "texts.json"))
    senses = {"pictures": str(beside / "pictures"), "texts": str(tmp_path / "texts.json")}
    far = predicted(tmp_path, tmp_path / "b.csv", **senses)
    np.testing.assert_allclose(near[RATIOS], far[RATIOS], atol=1e-6)


def test_the_command_says_how_many_had_a_picture_or_a_text(beside, tmp_path):
    options = ["--set", f"pictures={beside / 'pictures'}", "--set", f"texts={beside / 'texts.csv'}"]
    words = ["predict", str(beside / "recordings"), "--weights", "fusion", "--out", str(tmp_path / "out.csv"), *options]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0 and "6 recordings" in done.output and "6 with a picture or a text" in done.output


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("texts.json", "[1]", "expected an object"),
        ("texts.csv", "a,b\n1,2\n", "no file"),
        ("texts.json", '{"a.csv": 3}', "a text or a list of texts"),
        ("texts.json", '{"a.csv": ["sweet", null]}', "a text or a list of texts"),
        ("texts.json", '{"a.csv": null}', r"key \$.a.csv: expected a text or a list of texts"),
        ("texts.json", '{"a.csv": [5]}', r"key \$.a.csv: expected a text or a list of texts"),
    ],
)
def test_texts_that_are_no_table_are_refused_by_file(beside, tmp_path, name, content, word):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=word) as why:
        predicted(beside, tmp_path / "out.csv", texts=str(tmp_path / name))
    assert name in str(why.value) and not (tmp_path / "out.csv").exists()


def test_a_remark_beside_a_text_is_no_reason_to_leave_the_text_out(beside, tmp_path):
    pd.read_csv(beside / "texts.csv").assign(remark="").to_csv(tmp_path / "texts.csv", index=False)
    first = predicted(beside, tmp_path / "a.csv", texts=str(beside / "texts.csv"))
    second = predicted(beside, tmp_path / "b.csv", texts=str(tmp_path / "texts.csv"))
    pd.testing.assert_frame_equal(first, second)


def test_a_picture_is_found_whatever_the_case_of_its_ending(beside, tmp_path):
    first = sorted((beside / "recordings").glob("*.csv"))[0]
    shutil.copy(next((beside / "pictures" / first.stem).iterdir()), tmp_path / f"{first.stem}.JPG")
    folder, weights = beside / "recordings", checkpoint.find("fusion")
    said = fusion(folder, weights=weights, out=tmp_path / "out.csv", pictures=str(tmp_path))
    assert "1 with a picture or a text" in said


def test_texts_of_recordings_that_are_not_there_are_told(beside, tmp_path):
    (tmp_path / "texts.json").write_text('{"mistyped.csv": "sweet"}')
    folder, weights = beside / "recordings", checkpoint.find("fusion")
    said = fusion(folder, weights=weights, out=tmp_path / "out.csv", texts=str(tmp_path / "texts.json"))
    assert "1 texts are of no recording here, such as 'mistyped.csv'" in said


def test_volts_in_columns_of_counts_are_refused_here_too(beside, tmp_path):
    file = next((beside / "recordings").glob("*.csv"))
    table = pd.read_csv(file)
    gas = [name for name in table if name != "timestamp_ms"]
    (tmp_path / "in").mkdir()
    table.assign(**{name: table[name] * 3.3 / 1023 for name in gas}).to_csv(tmp_path / "in" / file.name, index=False)
    with pytest.raises(DataError, match="volts"):
        fusion(tmp_path / "in", weights=checkpoint.find("fusion"), out=tmp_path / "out.csv")
