"""What the project's pages and services read: workflows, forms, the container and the citation."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

import smellkit
from smellkit import checkpoint, paths
from smellkit.sensors import SENSORS
from smellkit.study.pages import links

WORKFLOWS = sorted((paths.HOME / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((paths.HOME / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_only_what_it_needs_and_ends(path):
    workflow = read(path)
    assert workflow["permissions"]["contents"] == "read"
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert all(re.search(r"@v\d+$", step["uses"]) for step in job["steps"] if "uses" in step)


def test_the_tests_run_on_three_systems():
    jobs = read(paths.HOME / ".github" / "workflows" / "tests.yml")["jobs"]
    systems = {jobs["everything"]["runs-on"], *jobs["elsewhere"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu-latest", "macos-latest", "windows-latest"}
    assert (paths.HOME / ".ci" / "run").exists()


def test_every_form_asks_something_that_must_be_answered():
    forms = [read(path) for path in FORMS if path.stem != "config"]
    assert len(forms) >= 2
    for form in forms:
        assert {"name", "description", "body"} <= set(form)
        assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_container_installs_by_a_target_of_the_makefile():
    command = json.loads((paths.HOME / ".devcontainer" / "devcontainer.json").read_text())["postCreateCommand"]
    assert "$(VENV)/lab.stamp:" in (paths.HOME / "Makefile").read_text()
    assert command.startswith("make ") and command.endswith(".venv/lab.stamp")


def test_the_citation_has_the_version_of_the_kit():
    citation = read(paths.HOME / "CITATION.cff")
    assert citation["version"] == smellkit.__version__
    assert citation["cff-version"] == "1.2.0" and citation["authors"]


def test_the_description_for_machines_names_files_that_are_there_and_the_columns_of_the_nose():
    described = json.loads((paths.HOME / "data" / "croissant.json").read_text(encoding="utf-8"))
    sets = [part for part in described["distribution"] if part["@type"] == "cr:FileSet"]
    assert all(any(paths.HOME.glob(part["includes"])) for part in sets) and len(sets) == 5
    fields = [field["name"] for field in described["recordSet"][0]["field"]]
    assert fields == [*SENSORS, "file"]
    assert described["version"] == smellkit.__version__


def test_every_shipped_weight_has_a_card_made_from_its_manifest(tmp_path):
    folders = [path for path in paths.weights().iterdir() if path.is_dir()]
    assert len(folders) == 6
    for folder in folders:
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert text == checkpoint.card(checkpoint.manifest(folder)), folder.name
        front = yaml.safe_load(text.split("---")[1])
        assert front["license"] == "mit" and front["library_name"] == "smellkit"
        assert "**Limits.**" in text
    checkpoint.save(tmp_path, {}, {"kind": "odour", "classes": ["a"], "scores": {"test": {"top1": 0.5}}})
    assert "| test, top1 | 0.5 |" in (tmp_path / "README.md").read_text()


def test_the_install_cell_of_notebook_00_has_the_address_of_the_site():
    cells = json.loads((paths.HOME / "notebooks" / "00_start.ipynb").read_text(encoding="utf-8"))["cells"]
    install = next("".join(cell["source"]) for cell in cells if "install" in cell["metadata"].get("tags", []))
    address = yaml.safe_load((paths.HOME / "_quarto.yml").read_text(encoding="utf-8"))["website"]["repo-url"]
    assert f'address = "{address}"' in install


def test_links_to_the_code_appear_with_its_address_alone(tmp_path):
    file = tmp_path / "_quarto.yml"
    file.write_text('website: {repo-url: ""}\n')
    assert set(links(file).values()) == {""}
    file.write_text("website: {repo-url: https://github.com/someone/smellkit}\n")
    addresses = links(file)
    assert "mybinder.org/v2/gh/someone/smellkit/main" in addresses["open"]
    assert "colab.research.google.com/github/someone/smellkit/blob/main/notebooks/00" in addresses["open"]
    workflow = "actions/workflows/tests.yml"
    assert f"https://github.com/someone/smellkit/{workflow}/badge.svg" in addresses["badges"]
    assert (paths.HOME / ".github" / workflow.removeprefix("actions/")).exists()


@pytest.mark.skipif(not hasattr(os, "nice"), reason="needs niceness")
def test_a_file_is_done_by_one_worker_and_what_measures_seconds_takes_turns(tmp_path):
    body = "import os, pytest\n@pytest.mark.parametrize('n', range(9))\ndef test_it(n):\n"
    body += "    with open('said', 'a') as file:\n"
    body += "        file.write(f\"{__name__} {os.environ['PYTEST_XDIST_WORKER']} {os.nice(0)}\\n\")\n"
    for name in ("device_a", "device_b", "c", "d", "e"):
        (tmp_path / f"test_{name}.py").write_text(body)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    found = os.pathsep.join([str(paths.HOME / "tests"), str(paths.HOME)])
    alone = {"PYTHONPATH": found, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "3", "--no-loadscope-reorder", "-p", "conftest"]
    done = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, env=clean | alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = {tuple(line.split()) for line in (tmp_path / "said").read_text().splitlines()}
    worker, nice = ({row[0]: row[i] for row in said} for i in (1, 2))
    assert len(said) == 5 and worker["test_device_a"] == worker["test_device_b"]
    assert worker["test_device_a"] not in [worker[f"test_{name}"] for name in "cde"]
    assert int(nice["test_c"]) >= 5 and int(nice["test_device_a"]) == os.nice(0)
