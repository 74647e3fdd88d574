"""Every source notebook keeps to the form that readers, papermill and the site rely on."""

import ast
import json
import re
import shutil
import statistics

import nbformat
import pytest

from smellkit import paths, plan
from smellkit.checks import read_yaml
from smellkit.study import lessons
from smellkit.study.gcode import splits as gcode_splits
from smellkit.study.plume import splits as plume_splits

FILES = sorted((paths.HOME / "notebooks").glob("*.ipynb"))
BOOKS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
every = pytest.mark.parametrize("name", BOOKS)
NO_MODEL = ("01", "10", "13", "20", "23", "30")  # where data are read, or models of the notebooks before taken apart


def source(cell):
    return "".join(cell["source"])


def code(name):
    return [cell for cell in BOOKS[name]["cells"] if cell["cell_type"] == "code"]


def lines(cell):
    return [line for line in source(cell).splitlines() if line.strip()]


def words(text):
    """How many words of prose a markdown text has: without code, formulas, addresses, drawings and hidden hints."""
    text = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    text = re.sub(r"\$\$[^$]*\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|<[^>]*>|^    .*$", " ", text, flags=re.MULTILINE)
    return len(re.findall(r"\w[\w'’.-]*", text))


def sections(name):
    """The notebook's texts by section: title first, then each heading of the second level, exercises apart."""
    text = "\n\n".join(source(cell) for cell in BOOKS[name]["cells"] if cell["cell_type"] == "markdown")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return [re.split(r"^### ", part, flags=re.MULTILINE)[0] for part in parts]


def test_there_are_notebooks_and_their_numbers_are_their_own():
    numbers = [name[:2] for name in BOOKS]
    assert "00" in numbers
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", name) for name in BOOKS)
    assert len(set(numbers)) == len(numbers)


@every
def test_the_first_cell_asks_and_says_what_is_read_and_written(name):
    first = BOOKS[name]["cells"][0]
    assert first["cell_type"] == "markdown"
    lines = source(first).splitlines()
    assert lines[0].startswith("# ")
    assert lines[0].endswith("?"), "a title is a question"
    assert lines[1].startswith("> ")
    assert re.search(r"\bReads?\b.*\bWrites?\b", source(first), re.DOTALL)


@every
def test_the_second_cell_holds_plain_parameters_with_help(name):
    second = BOOKS[name]["cells"][1]
    assert second["metadata"].get("tags") == ["parameters"]
    assert plan.read(paths.HOME / "notebooks" / name).defaults
    for line in source(second).splitlines():
        assert line.count("=") == 1 or "#" in line.split("=", 1)[1], f"papermill passes over {line!r}"
        assert "|" not in line.split("=")[0]


@every
def test_the_third_cell_is_hidden_and_starts_the_run_and_the_last_finishes_it(name):
    third = next(source(cell) for cell in BOOKS[name]["cells"][2:] if "install" not in cell["metadata"].get("tags", []))
    assert third.startswith("#| include: false")
    assert re.search(r"run = notebook\.start\(", third)
    assert "run.finish(" in source(code(name)[-1])


@every
def test_nothing_was_left_by_an_execution(name):
    book = BOOKS[name]
    assert "widgets" not in book["metadata"]
    assert "papermill" not in book["metadata"]
    for cell in code(name):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert not {"papermill", "execution"} & set(cell["metadata"])


@every
def test_cells_are_short_have_stable_ids_and_define_one_thing_at_most(name):
    book = BOOKS[name]
    assert (book["nbformat"], book["nbformat_minor"]) >= (4, 5)
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    nbformat.validate(nbformat.reads(json.dumps(book), as_version=4))
    ids = [cell["id"] for cell in book["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in code(name):
        assert len(source(cell).splitlines()) <= 25, cell["id"]
        tree = ast.parse(re.sub(r"^[%!].*$", "", source(cell), flags=re.MULTILINE))
        made = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        assert len(made) <= 1, (
            f"{cell['id']}: a cell shows one model or one function; what is used twice is the package's"
        )


@every
def test_an_exercise_has_a_hidden_hint_and_a_solution_that_checks_itself(name):
    cells = BOOKS[name]["cells"]
    for place, cell in enumerate(cells):
        if "### Exercise" in source(cell):
            assert re.search(r"<details><summary>Hint</summary>.*</details>", source(cell), re.DOTALL), cell["id"]
            assert "solution" in cells[place + 1]["metadata"].get("tags", []), cell["id"]
            assert "assert " in source(cells[place + 1]), cell["id"]


@every
def test_a_lesson_explains_at_a_length_that_is_read_and_has_exercises(name):
    whole = "\n\n".join(source(cell) for cell in BOOKS[name]["cells"] if cell["cell_type"] == "markdown")
    assert 600 <= words(whole) <= 1500
    title, *parts, last = sections(name)
    assert "After it you can" in title
    for part in parts:
        assert 60 <= words(part) <= 120, part.splitlines()[0]
    assert last.startswith("What to read next") and "glossary.qmd" in last and "folder below" in last
    assert whole.count("### Exercise") >= (4 if name.startswith("0") else 3)


@every
def test_a_lesson_has_short_cells_and_shows_a_model(name):
    sizes = [len(lines(cell)) for cell in code(name)[2:] if "solution" not in cell["metadata"].get("tags", [])]
    assert statistics.median(sizes) <= 5
    assert max(len(lines(cell)) for cell in code(name)) <= 20
    if name[:2] not in NO_MODEL:
        assert any(re.search(r"lessons\.source\(|class \w+\(nn\.Module\)", source(cell)) for cell in code(name))


def test_the_glossary_is_what_the_notebooks_say():
    assert len(lessons.terms()) > 80
    made = "made anew by: python -m smellkit.study.lessons"
    assert lessons.GLOSSARY.read_text(encoding="utf-8") == lessons.glossary(), made


@pytest.mark.parametrize("decade", "0123")  # a reader may begin with any of them
def test_a_term_is_explained_once_and_by_a_sentence(decade):
    books = [book for name, book in BOOKS.items() if name[0] == decade]
    texts = [source(cell) for book in books for cell in book["cells"] if cell["cell_type"] == "markdown"]
    marked = re.findall(r"<dfn>(.*?)</dfn>", "\n".join(texts), flags=re.DOTALL)
    assert len(set(marked)) == len(marked), {term for term in marked if marked.count(term) > 1}
    assert all(len(said.split()) >= 6 for said, _, _ in lessons.terms().values())


def test_what_a_folder_lacks_is_known_before_a_notebook_needs_it(tmp_path):
    few, pairs = tmp_path / "few", tmp_path / "plume"
    few.mkdir()
    for file in (paths.sample() / "gcode").glob("face_00[12].parquet"):
        shutil.copy(file, few)
    absent = gcode_splits.impossible(str(few), "SGX")
    assert sorted(absent) == ["G", "X"] and all("few" in why for why in absent.values())
    shutil.copytree(paths.sample() / "plume", pairs, ignore=lambda *_: ["frames", "masks"])
    assert plume_splits.lacking(str(pairs), "train", "valid", "test") == ""
    (pairs / "paired_test_annotations.csv").unlink()
    assert "no paired_test_annotations.csv" in plume_splits.lacking(str(pairs), "train", "test")
    assert gcode_splits.impossible("", "SGX") == {}


@every
def test_a_notebook_names_no_path_of_a_machine(name):
    text = (paths.HOME / "notebooks" / name).read_text(encoding="utf-8")
    assert not re.search(r"/(work|tmp|home|root|Users)/", text)


def test_the_profiles_name_notebooks_and_parameters_that_exist():
    notebooks, file = plan.find(paths.HOME / "notebooks"), paths.HOME / "notebooks" / "profiles.yaml"
    for name in set(read_yaml(file)) - {"data"}:
        plan.settle(notebooks, given={}, profile=name, file=file)
