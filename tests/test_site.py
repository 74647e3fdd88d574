"""Pages, links and the real look: a small site of its own, and a real Chromium."""

import json
import os
import re
import shutil
import stat
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from smellkit import batch, paths, site
from smellkit.cli.commands import site as command
from smellkit.errors import DataError, OptionError, SmellkitError
from smellkit.study import pages
from smellkit.study import published as results
from tests.links import broken

PLOT = '<figure class="smell-figure"><svg viewBox="0 0 10 10"><path d="M0 0h9" stroke="currentColor"/></svg></figure>'


def notebook(*, widget=False):
    """An executed notebook: title, hidden cell, code with outputs, perhaps a widget."""
    code = nbformat.v4.new_code_cell("#| label: a\nprint('seen')", execution_count=1)
    code.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="seen\n"),
        nbformat.v4.new_output("display_data", data={"text/html": PLOT, "text/plain": "figure"}),
    ]
    cells = [
        nbformat.v4.new_markdown_cell(
            "# What is seen?\n> In one sentence.\n\nReads nothing, with $x_1$ and [about](../about.qmd)."
        ),
        nbformat.v4.new_code_cell("#| include: false\nsecret = 1"),
        nbformat.v4.new_markdown_cell("## A step"),
        code,
    ]
    if widget:
        cell = nbformat.v4.new_code_cell("panel")
        cell.outputs = [
            nbformat.v4.new_output("display_data", data={batch.WIDGET: {"model_id": "1"}, "text/plain": "w"})
        ]
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells, metadata={"widgets": {"x": 1}} if widget else {})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The project's own pages and look in a folder of their own, with one executed notebook."""
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SMELLKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(site.sysconfig, "get_path", lambda name: "/nowhere")
    for name in (
        "_quarto.yml",
        "site/about.qmd",
        "site/hardware.qmd",
        "site/theme.scss",
        "site/kit.css",
        "site/after.html",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(paths.HOME / name, tmp_path / name)
    shutil.copytree(paths.HOME / "site" / "images", tmp_path / "site" / "images")
    (tmp_path / "index.qmd").write_text(
        "---\ntitle: Start\n---\n\nSee [the tour](site/notebooks/00_start.ipynb).\n\n<!-- results -->\n"
    )
    done = tmp_path / "runs" / "notebooks" / "quick"
    done.mkdir(parents=True)
    for name in ("00_start", "30_results"):
        nbformat.write(notebook(), done / f"{name}.ipynb")
    return tmp_path


def page(home, text, *, title="T"):
    """The first page's HTML, for a page of this markdown."""
    (home / "index.qmd").write_text(f"---\ntitle: {title}\nsubtitle: S\n---\n\n{text}\n")
    site.build(home=home)
    return (home / "_site" / "index.html").read_text()


def test_a_page_has_title_contents_and_tables(home):
    body = page(home, "## One two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n### Three")
    assert "<title>T</title>" in body and "<blockquote>\n<p>S</p>" in body
    assert '<h2 id="One-two">One two</h2>' in body and '<h3 id="Three">Three</h3>' in body
    assert "<table>" in body


def test_divisions_nest_and_callouts_have_titles(home):
    text = ':::: {.steps}\n::: {.step}\n**in**\n:::\n::::\n\n::: {.callout-tip title="Hear"}\nA *word*.\n:::\n'
    body = "".join(page(home, text).split("\n"))
    assert '<div class="steps"><div class="step"><p><strong>in</strong></p></div></div>' in body
    assert '<div class="callout-tip"><p class="callout-title">Hear</p><p>A <em>word</em>.</p></div>' in body


def test_maths_is_mathml(home):
    body = page(home, "$\\alpha_i$, and `$x$` stays.\n\n$$ \\sum_i z_i $$\n\n$\\frac$")
    assert body.count("<math") == 2 and "<code>$x$</code>" in body and "<code>\\frac</code>" in body


def test_front_matter_that_is_not_yaml_is_one_error(home):
    with pytest.raises(DataError, match="front matter"):
        page(home, "", title="[")


def test_a_notebook_shows_code_and_figures_and_hides_what_it_should(home):
    site.build(home=home)
    body = (home / "_site" / "site" / "notebooks" / "00_start.html").read_text()
    assert "<title>What is seen? – smellkit</title>" in body
    assert "In one sentence" in body and "<svg" in body and "seen" in body
    assert "secret" not in body and "label: a" not in body
    assert '<details class="code" open><summary>Code</summary>' in body


def test_quarto_gets_no_html_that_loads_scripts_and_headings_that_it_can_list(home):
    cell = nbformat.v4.new_code_cell("show()")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"text/markdown": f"### Table {n}"}) for n in (1, 2)]
    book = notebook()
    book.cells.append(cell)
    done = home / "runs" / "notebooks" / "quick"
    nbformat.write(book, done / "30_results.ipynb")
    site.assemble(done, home / "stage", home=home, parts={}, pages={}, raw=True)
    staged = (home / "stage" / "site" / "notebooks" / "30_results.ipynb").read_text()
    assert "text/html" not in staged and "```{=html}" in staged
    assert [cell["source"] for cell in json.loads(staged)["cells"][-2:]] == ["### Table 1", "### Table 2"]


def test_the_preview_has_every_page_and_no_broken_link(home):
    built = site.build(home=home)
    assert built.by == "preview"
    assert not list(broken(home / "_site"))
    text = (home / "_site" / "site" / "notebooks" / "00_start.html").read_text()
    assert 'href="../about.html"' in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert sorted(path.name for path in home.glob("_site/**/*.html")) == [
        "00_start.html", "30_results.html", "about.html", "hardware.html", "index.html",
    ]  # fmt: skip


def test_broken_links_and_fetches_are_found(home):
    page(home, '[a](site/gone.qmd) [b](site/about.qmd#gone) ![](no.png)\n\n<script src="https://x.org/a.js"></script>')
    faults = " ".join(broken(home / "_site"))
    assert all(word in faults for word in ("site/gone.html", "#gone", "no.png", "https://x.org/a.js"))


def test_widgets_become_a_picture(home):
    (home / "site" / "images" / "panel.png").write_bytes((paths.HOME / "site" / "images" / "favicon.svg").read_bytes())
    nbformat.write(notebook(widget=True), home / "runs" / "notebooks" / "quick" / "06_odour_live.ipynb")
    site.build(home=home)
    text = (home / "_site" / "site" / "notebooks" / "06_odour_live.html").read_text()
    assert text.count('src="../images/panel.png"') == 1
    assert "widget" not in text.replace("--no-widget", "")


AUDIT = {
    "rows": {
        "pressure alone": {"first row": {"top1": {"value": 0.42, "low": 0.3, "high": 0.54}}},
        "all twelve channels": {"first row": {"top1": {"value": 0.9156, "low": 0.84, "high": 0.98}}},
    }
}


def test_results_come_from_their_files_alone(home):
    folder = home / "site" / "results"
    folder.mkdir()
    shutil.copy(paths.HOME / "site" / "results.yaml", home / "site")
    assert pages.page("odour", folder) == ""
    assert set(results.todo(folder)["result"]) == set(results.layouts(folder))
    (folder / "audit.json").write_text(json.dumps(AUDIT))
    (folder / "other.json").write_text(json.dumps({"speed": {"frames": 7}}))
    assert not {"audit", "other"} & set(results.todo(folder)["result"])
    site.build(home=home, content=lambda: ({"results": pages.page("odour", folder)}, {}))
    text = (home / "_site" / "index.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "<strong>91.6</strong> [84.0, 98.0]" in text  # its interval stands clear
    assert "42.0 [30.0, 54.0]" in text
    assert "smellkit audit data/raw/smellnet" in text
    assert "| speed.frames | 7.0 |" in results.markdown(results.read(folder)["other"].tables[0])
    (folder / "audit.json").write_text("{")
    with pytest.raises(DataError, match="smellkit audit"):
        results.read(folder)


def test_a_site_is_built_again_only_once_something_changed(home):
    def times():
        site.build(home=home, quarto=False, progress=said.append)
        return sum("a preview of" in line for line in said)

    said = []
    assert (times(), times()) == (1, 1)
    (home / "index.qmd").write_text((home / "index.qmd").read_text() + "\nMore.\n")
    assert (times(), times()) == (2, 2)
    (home / "_site" / "index.html").unlink()
    assert (times(), times()) == (3, 3)


def test_a_set_that_was_never_run_is_refused(home):
    with pytest.raises(OptionError, match="quick"):
        site.build("full", home=home)
    shutil.rmtree(home / "runs")
    with pytest.raises(DataError, match="smellkit run"):
        site.build(home=home)


def test_publishing_leaves_no_path_of_this_machine(home):
    path = home / "runs" / "notebooks" / "quick" / "00_start.ipynb"
    path.write_text(path.read_text().replace("seen\\n", f"{home}/data and /mnt/disk/smellnet\\n"))
    stamp = {"parameters": {"data": "/mnt/disk/smellnet"}}
    path.with_suffix(".json").write_text(json.dumps(stamp))
    assert site.publish("quick", home=home) == 2
    text = (home / "site" / "notebooks" / "00_start.ipynb").read_text()
    assert "./data and data/raw/smellnet" in text
    assert site.executed("published", home=home) == home / "site" / "notebooks"


QUARTO = """#!/bin/sh
[ "$1" = --version ] && echo 1.7.0 && exit 0
mkdir -p "$2/_site" && echo "<html></html>" > "$2/_site/index.html"
echo "Output created: _site/index.html"
%s
"""


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Quarto is a shell script")
def test_quarto_is_used_where_it_is_found_and_its_log_is_read(home, monkeypatch):
    quarto = home / "quarto"
    monkeypatch.setenv("QUARTO_PATH", str(quarto))
    quarto.write_text(QUARTO % 'printf "\\033[33mWARN\\033[39m: Unable to resolve link target: gone.qmd\\n" >&2')
    quarto.chmod(quarto.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    built = site.build(home=home)
    assert built.by == "Quarto"
    assert built.warnings == ["WARN: Unable to resolve link target: gone.qmd"]
    assert "WARNING: WARN: Unable" in Path(built.log).read_text()
    monkeypatch.setattr(site.build, "__kwdefaults__", site.build.__kwdefaults__ | {"home": home})
    assert CliRunner().invoke(command, []).exit_code == 0
    assert CliRunner().invoke(command, ["--strict"]).exit_code == 1
    quarto.write_text(QUARTO % "echo broken theme >&2; exit 3")
    (home / "index.qmd").write_text("---\ntitle: Another\n---\n")
    with pytest.raises(SmellkitError, match="broken theme"):
        site.build(home=home)


@pytest.mark.browser
def test_the_site_works_in_a_browser_in_both_modes_and_on_a_phone(home, chromium):
    built, asked, faults = site.build(home=home), [], []
    page = chromium.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(Path(built.index).as_uri())
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 25, 31)"
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Menu").click()
    page.locator("#side").get_by_role("link", name="What is seen?").first.click()
    page.wait_for_url("**/00_start.html")
    assert page.locator("h1").inner_text() == "What is seen?"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Hide code").click()
    assert not page.locator("details.code pre").first.is_visible()
    page.locator("footer").get_by_role("link").click()
    page.wait_for_url("**/about.html")
    assert page.locator("math").count() > 3
    assert page.locator(".toc a").first.get_attribute("href") == "#Method"
    page.close()
    assert not faults and all(url.startswith("file:") for url in asked)


def test_the_real_pages_name_only_files_that_exist():
    """The committed pages: every link to a notebook is one in notebooks/, every picture is in the tree."""
    for path in (paths.HOME / "index.qmd", paths.HOME / "site" / "about.qmd"):
        for address in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            folder = paths.HOME / "notebooks" if address.endswith(".ipynb") else path.parent
            assert (folder / (address.split("/")[-1] if folder != path.parent else address)).exists(), address


def test_what_quarto_stumbled_over_stays_mended():
    look = {
        name: (paths.HOME / name).read_text()
        for name in ("_quarto.yml", "site/theme.scss", "site/kit.css", ".gitignore")
    }
    assert "$web-font-path: false" in look["site/theme.scss"]  # no fonts from a network
    assert "](site/about.qmd)" not in look["_quarto.yml"]  # a link in the footer's text is broken on every deeper page
    assert ".steps > div" not in look["site/kit.css"]  # Quarto makes sections of them
    assert "/.quarto/\n" in look[".gitignore"]  # Quarto would write it there


def test_every_failure_mode_and_mitigation_names_a_test_that_exists():
    text = (paths.HOME / "site" / "failure-modes.qmd").read_text(encoding="utf-8")
    for heading, count in (("## Nine failure modes", 9), ("## Six mitigations", 6)):
        rows = re.findall(
            r"^(\d)\. (.*\n   Held by .*)$", text.partition(heading)[2].partition("\n## ")[0], re.MULTILINE
        )
        assert [int(number) for number, _ in rows] == list(range(1, count + 1))
        for _, row in rows:
            named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
            assert named
            for file, name in named:
                assert f"\ndef {name}(" in (paths.HOME / "tests" / file).read_text(encoding="utf-8"), (file, name)
