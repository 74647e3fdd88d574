"""Published figures: what a page shows is what a command measured."""

import pytest

from smellkit import paths, results
from smellkit.errors import DataError


def test_the_readme_says_what_the_results_say():
    text = (paths.HOME / "README.md").read_text(encoding="utf-8")
    assert results.readme(text, results.read()) == text, "run `smellkit site --publish`"


def test_a_readme_without_its_marks_is_refused():
    with pytest.raises(DataError, match="put them back"):
        results.readme("# smellkit\n", {})


def test_every_result_names_the_command_that_made_it():
    assert all(result.command.startswith("smellkit ") for result in results.read().values())
