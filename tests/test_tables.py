"""Tables of results in a real Chromium: sorted, filtered, saved; and nothing wider than a phone."""

import csv
from pathlib import Path

import pytest

from smellkit import paths
from smellkit.study import pages, published

pytestmark = pytest.mark.browser
ROWS = "".join(f"<tr><td>{name}</td><td>{text}</td></tr>" for name, text in [
    ("lstm", "48.0 [39.2, 56.7]"), ("=1+1", "–"), ("trees", "68.5 [59.5, 77.4]"), ("large", "313,244"),
    ("e", "1.0"), ("f", "2.0"), ("g", "3.0"),
])  # fmt: skip
PAGE = (
    "<!DOCTYPE html><meta name=viewport content='width=device-width'><details class=results open>"
    "<summary>T 7 rows</summary>"
    f"<table><thead><tr><th>model</th><th>Top-1</th></tr></thead><tbody>{ROWS}</tbody></table></details>"
)


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.set_content(PAGE)
    page.add_style_tag(path=paths.HOME / "site" / "kit.css")
    page.add_script_tag(path=paths.HOME / "site" / "tables.js")
    yield page
    page.close()


def names(page):
    return page.eval_on_selector_all("tbody tr:not([hidden]) td:first-child", "cells => cells.map(c => c.textContent)")


def test_a_heading_sorts_by_number_the_largest_first_and_what_has_none_last(page):
    page.click("th:nth-child(2) button")
    assert names(page) == ["large", "trees", "lstm", "g", "f", "e", "=1+1"]
    assert page.get_attribute("th:nth-child(2)", "aria-sort") == "descending"
    page.click("th:nth-child(2) button")
    assert names(page)[:2] == ["=1+1", "e"]


def test_a_word_filters_rows_and_what_is_left_is_saved_without_formulas(page, tmp_path):
    page.fill("input[type=search]", "1")
    assert names(page) == ["=1+1", "large", "e"]
    with page.expect_download() as download:
        page.click("text=save as CSV")
    assert download.value.suggested_filename == "t.csv"
    rows = list(csv.reader(Path(download.value.path()).read_text().splitlines()))
    assert rows == [["model", "Top-1"], ["'=1+1", "–"], ["large", "313,244"], ["e", "1.0"]]


def test_the_page_is_no_wider_than_a_phone(page):
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_every_result_that_has_a_layout_names_its_page():
    assert {layout["page"] for layout in published.layouts().values()} == set(pages.PAGES)
