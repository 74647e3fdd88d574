"""Every source notebook keeps to the form that readers, papermill and the site rely on."""

import ast
import json
import re

import nbformat
import pytest

from smellkit import paths, plan

FILES = sorted((paths.HOME / "notebooks").glob("*.ipynb"))
BOOKS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
every = pytest.mark.parametrize("name", BOOKS)


def source(cell):
    return "".join(cell["source"])


def code(name):
    return [cell for cell in BOOKS[name]["cells"] if cell["cell_type"] == "code"]


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
    assert plan.defaults(paths.HOME / "notebooks" / name)
    for line in source(second).splitlines():
        assert line.count("=") == 1 or "#" in line.split("=", 1)[1], f"papermill passes over {line!r}"
        assert "|" not in line.split("=")[0]


@every
def test_the_third_cell_is_hidden_and_starts_the_run_and_the_last_finishes_it(name):
    third = source(BOOKS[name]["cells"][2])
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


@every
def test_a_notebook_names_no_path_of_a_machine(name):
    text = (paths.HOME / "notebooks" / name).read_text(encoding="utf-8")
    assert not re.search(r"/(work|tmp|home|root|Users)/", text)


def test_the_profiles_name_notebooks_and_parameters_that_exist():
    notebooks, file = plan.find(paths.HOME / "notebooks"), paths.HOME / "notebooks" / "profiles.yaml"
    for name in plan.profiles(file)[0]:
        plan.settle(notebooks, given={}, profile=name, file=file)
