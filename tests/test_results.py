"""Published figures: what a page shows is what a command measured."""

import pytest

from smellkit import paths, site
from smellkit.errors import DataError
from smellkit.study import published as results


def test_the_readme_says_what_the_results_say():
    text = (paths.HOME / "README.md").read_text(encoding="utf-8")
    assert site.fill(text, {"results": results.summary()}) == text, "run `smellkit site --publish`"


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


def test_what_the_first_page_selects_is_in_the_tables():
    for result in results.read().values():
        for table in result.tables:
            rows, columns, _ = table.home or results.Part()
            assert set(rows) <= {name for name, _ in table.rows} and set(columns) <= set(table.columns), table.title


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


def test_a_part_of_a_table_is_bold_where_the_whole_is():
    near = ("near", ((89.0, 86.0, 91.0), (9.0, 8.0, 10.0)))
    rows = (("best", ((90.0, 88.0, 92.0), (1.0, 0.0, 2.0))), near, ("far", ((10.0, 9.0, 11.0), (2.0, 1.0, 3.0))))
    table = results.Table("", "of", ("x", "y"), rows)
    assert "**9.0**" in results.markdown(table) and "**90.0**" not in results.markdown(table)
    shown = results.markdown(table, part=results.Part(rows=("best", "far"), columns=("x",), note="Briefly."))
    assert (
        "**" not in shown
        and "| y |" not in shown
        and "near" not in shown
        and "| far | 10.0" in shown
        and shown.endswith("Briefly.")
    )


def test_every_table_row_and_column_that_the_first_page_names_is_published():
    for result in results.read().values():
        for table in result.tables:
            assert table.rows, f"{result.name}: {table.title} is empty"
            if table.home:
                assert set(table.home.rows) <= {name for name, _ in table.rows}, (result.name, table.title)
                assert set(table.home.columns) <= set(table.columns), (result.name, table.title)


def test_every_table_that_is_laid_out_finds_its_figures():
    read = results.read()
    absent = [
        part["title"]
        for name, layout in results.layouts().items()
        for part in layout.get("tables", [])
        if part["title"] not in {table.title for table in read[name].tables}
    ]
    assert absent == ["Classes and augmentation"]  # that sweep was run on the sample alone
