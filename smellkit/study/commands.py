"""The command that no system owns, `smellkit study score`, and what the commands of the benches share."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)
JSON = click.option("--json", "out", type=FOLDER, help="Where the figures go; of rows, those not run now are kept.")


def measure(bench: str, out: Path | None, command: str, *given: Any, resumes: bool = True, **options: Any) -> None:
    """Run a bench of the study, which `resumes` what `out` has already, print its report, and keep its result."""
    from smellkit.study import evaluate

    module = import_module(f"smellkit.study.{bench}")
    before = {"earlier": evaluate.earlier(out)} if resumes else {}
    result = module.run(*given, progress=click.echo, **before, **options)
    click.echo(module.report(result))
    keep(result, out, command)


def keep(result: Mapping[str, Any], out: Path | None, command: str) -> None:
    """Write `result` as JSON when a file was asked for, and say so."""
    from smellkit.study import evaluate

    if out:
        click.echo(f"{evaluate.publish(out, result, command=command)}")


@click.group()
def study():
    """Keep the log of how often each visible test was looked at."""


@study.command()
@click.argument("system", metavar="SYSTEM")
@click.option("--data", "folder", default="", help="The folder of real recordings; the simulated sample by default.")
@click.option("--again", is_flag=True, help="Score weights that were scored before; the log will show it.")
def score(system, folder, again):
    """Score the shipped weights of SYSTEM (odour, mixture, fusion, gcode, plume) on its visible tests, and log it."""
    from smellkit.study import score as scoring
    from smellkit.study.evaluate import percent

    line = scoring.score(system, str(folder), again=again)
    for test, figures in line["figures"].items():
        click.echo(f"{test}: " + ", ".join(f"{name} {percent(figure)}" for name, figure in figures.items()))
    click.echo(f"logged in {scoring.FILE}")
