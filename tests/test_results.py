"""Published figures: what a page shows is what a command measured."""

import json
import re

import pytest

from smellkit import paths, site
from smellkit.errors import DataError
from smellkit.study import pages
from smellkit.study import published as results
from smellkit.study.pages import PAGES


def test_the_readme_says_what_the_results_say():
    text = (paths.HOME / "README.md").read_text(encoding="utf-8")
    assert site.fill(text, {"headlines": pages.headlines()}) == text, "run `smellkit site --publish`"


def test_a_readme_without_its_marks_is_refused():
    with pytest.raises(DataError, match="put them back"):
        site.fill("# smellkit\n", {"results": ""})


def test_every_result_names_the_command_that_made_it():
    assert all(result.command.startswith("smellkit ") for result in results.read().values())


def test_a_table_says_what_the_command_concluded(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "a.json").write_text('{"rows": {"x": {"score": 0.5}}, "why": {"says": "All of it is noise."}}')
    folder.with_suffix(".yaml").write_text(
        "a: {command: smellkit bench a, tables: [{title: T, of: case, rows: rows, note: Shares., says: why / says,"
        " columns: {S: score}}]}"
    )
    assert results.read(folder)["a"].tables[0].note == "Shares. All of it is noise."


def test_a_figure_shows_as_many_digits_as_it_has_to_say():
    rows = {
        "large": (313_244.0, 300_000.0, 320_000.0),
        "middle": (85.36, 84.9, 85.8),
        "small": (0.04321, None, None),
        "none": (0.0, -0.2, 0.2),
    }
    table = results.Table("", "of", ("x",), tuple((name, (figure,)) for name, figure in rows.items()))
    said = [
        line.split("|")[2].strip().replace("\N{NO-BREAK SPACE}", " ") for line in results.markdown(table).splitlines()
    ]
    assert said[2:] == ["313,244 [300,000, 320,000]", "85.4 [84.9, 85.8]", "0.043", "0.0 [-0.2, 0.2]"]


def test_the_best_is_the_least_where_less_is_better_and_nobody_where_rows_are_no_rivals():
    rows = (("good", ((1.0, 0.9, 1.1),)), ("bad", ((9.0, 8.0, 10.0),)))
    assert results.Table("", "of", ("error",), rows).best(0) == 1
    assert results.Table("", "of", ("error",), rows, smaller=("error",)).best(0) == 0
    assert results.Table("", "of", ("error",), rows, compete=False).best(0) is None


def test_no_error_is_praised_for_being_large():
    for result in results.read().values():
        for table in result.tables:
            large = [name for name in table.columns if "error" in name.lower() and name not in table.smaller]
            assert all(table.best(table.columns.index(name)) is None for name in large), table.title


def test_a_row_name_is_text_in_the_page_whatever_it_holds():
    table = results.Table("", "of", ("x",), (("<script>alert(1)</script> a|b", ((1.0, None, None),)),))
    shown = results.markdown(table)
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert "a\\|b" in shown


def test_a_figure_is_bold_where_its_interval_stands_clear_of_all_others():
    rows = (("best", ((90.0, 88.0, 92.0),)), ("near", ((89.0, 86.0, 91.0),)))
    assert "**" not in results.markdown(results.Table("", "of", ("x",), rows))
    assert "**90.0**" in results.markdown(results.Table("", "of", ("x",), (rows[0], ("far", ((9.0, 8.0, 10.0),)))))


def test_no_published_table_is_empty():
    for result in results.read().values():
        assert all(table.rows for table in result.tables), result.name


def test_every_result_stands_on_one_page_with_all_its_tables():
    bodies = {name: pages.page(name) for name in PAGES}
    for result in results.read().values():
        (page,) = [name for name, body in bodies.items() if f"(results/{result.name}.json)" in body]
        for table in result.tables:
            assert results.markdown(table).removeprefix(f"**{table.title}**\n\n") in bodies[page], table.title


def test_a_plot_has_a_mark_with_its_row_and_interval_for_every_figure():
    rows = (("a <b>", ((50.0, 40.0, 60.0), None)), ("c", ((10.0, None, None), (20.0, 15.0, 25.0))))
    plot = pages.intervals(results.Table("T", "of", ("x", "y"), rows), ["x", "y"], lines={"others": 70.0})
    assert "<title>a &lt;b&gt;, x: 50 [40, 60]</title>" in plot and "<title>c, x: 10</title>" in plot
    assert plot.count("<title>") == 3 and "others" in plot and "\n" not in plot and "<b>" not in plot


def test_a_table_of_nothing_but_zeros_is_drawn():
    rows = (("nobody is right", ((0.0, 0.0, 0.0),)),)
    assert "0 [0, 0]" in pages.intervals(results.Table("T", "of", ("x",), rows), ["x"])


def test_ratios_of_any_size_stand_on_an_axis_of_decades():
    rows = tuple((str(value), ((value, None, None),)) for value in (0.1, 1.0, 10.0, 1000.0))
    plot = pages.intervals(results.Table("T", "of", ("x",), rows), ["x"], log=True)
    places = [float(place) for place in re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="4.5"', plot)]
    tenfold = places[1] - places[0]
    assert tenfold > 0 and places[2:4] == pytest.approx([places[1] + tenfold, places[1] + 3 * tenfold], abs=0.3)
    assert all(f">{tick}</text>" in plot for tick in ("0.1", "1", "10", "100", "1000"))


def test_a_headline_without_its_figure_is_an_error(tmp_path):
    (tmp_path / "headlines.yaml").write_text("- {what: W, easy: [here, a, rows / x / score]}\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text('{"rows": {"x": {"score": {"value": 0.5, "low": 0.4, "high": 0.6}}}}')
    text = pages.headlines(tmp_path / "results").replace("\N{NO-BREAK SPACE}", " ")
    assert text.splitlines()[2] == "| W | **50.0** [40.0, 60.0], here | – | – |"
    (tmp_path / "headlines.yaml").write_text("- {what: W, easy: [here, a, rows / y / score]}\n")
    with pytest.raises(DataError, match="no figure at 'rows / y / score'"):
        pages.headlines(tmp_path / "results")


def test_every_table_that_is_laid_out_finds_its_figures():
    read = results.read()
    absent = [
        part["title"]
        for name, layout in results.layouts().items()
        for part in layout.get("tables", [])
        if part["title"] not in {table.title for table in read[name].tables}
    ]
    assert absent == ["Classes and augmentation"]  # that sweep was run on the sample alone


def test_a_table_has_a_row_for_each_split_or_the_one_row_that_the_file_names(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    row = {"1 s": {"score": 0.5}, "2 s": {"score": 0.6}, "seeds": [1]}
    (folder / "a.json").write_text(json.dumps({"rows": {"x/y": row, "x/z": row, "other": row}, "chosen": "x/z"}))
    part = "{title: %s, of: case, rows: rows, begins: 'x/', %s, columns: {S: %s}}"
    parts = (
        part % ("T", "splits: [1 s, 2 s], named: '{split} of {row}'", "score"),
        part % ("U", "only: chosen", "1 s / score"),
    )
    folder.with_suffix(".yaml").write_text(f"a: {{command: smellkit bench a, tables: [{', '.join(parts)}]}}")
    first, second = results.read(folder)["a"].tables
    assert [name for name, _ in first.rows] == ["1 s of y", "2 s of y", "1 s of z", "2 s of z"]
    assert second.rows == (("z", ((0.5, None, None),)),)
