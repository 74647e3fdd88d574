"""A page for each substance: what it says is what the file of figures says."""

import json

from smellkit import paths
from smellkit.odour.scents import CATEGORIES
from smellkit.study.odour.substances import FILE, measure, pages


def test_every_substance_has_a_page_that_the_list_leads_to():
    made = pages()
    names = {name for members in CATEGORIES.values() for name in members.split()}
    assert set(made) == {"substances.qmd", *(f"substances/{name}.qmd" for name in names)}
    assert all(f"(substances/{name}.qmd)" in made["substances.qmd"] for name in names)


def test_a_page_says_what_was_measured_and_what_nobody_knows():
    rows, made = json.loads(FILE.read_text())["rows"], pages()
    for name, row in rows.items():
        page = made[f"substances/{name}.qmd"]
        best, share = next(iter(row["same_session"]["named"].items()))
        assert f"{best.replace('_', ' ')} {100 * share:.0f} %" in page
        assert ("nobody knows" in page) == ("other_session" not in row)
        assert page.count("<svg") == len(row["curves"]) + 1


def test_the_figures_come_from_recordings():
    row = measure(str(paths.sample() / "smellnet"))["banana"]
    assert row["category"] == "fruits" and row["recordings"] >= 2
    assert sum(row["same_session"]["named"].values()) <= 1.0001
    assert len(row["early"]["p"]) > 10 and all(0 <= p <= 1 for p in row["early"]["p"])
    assert row["early"]["right_from"] is None  # the shipped network has never smelled the simulated nose


def test_without_figures_there_are_no_pages(tmp_path):
    assert pages(tmp_path / "none.json") == {}
