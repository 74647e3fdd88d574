"""The command that no system owns, `smellkit study score`, and what the commands of the benches share."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)
JSON = click.option("--json", "out", type=FOLDER, help="Where the figures go; of rows, those not run now are kept.")
SAVE = click.option("--save", "folder", type=FOLDER, help="Only train the weights to ship; keep them there.")


def measure(bench: str, out: Path | None, command: str, *given: Any, resumes: bool = True, **options: Any) -> None:
    """Run a bench of the study, which `resumes` what `out` has already, show its tables, and keep its result."""
    from smellkit.study import evaluate, published

    before = {"earlier": evaluate.earlier(out)} if resumes else {}
    result = import_module(f"smellkit.study.{bench}").run(*given, progress=click.echo, **before, **options)
    click.echo(published.text(command.split()[2], result))
    keep(result, out, command)


def keep(result: Mapping[str, Any], out: Path | None, command: str) -> None:
    """Write `result` as JSON when a file was asked for, and say so."""
    from smellkit.study import evaluate

    if out:
        click.echo(f"{evaluate.publish(out, result, command=command)}")


def bench(name: str, study: str, about: str, *options: Callable, save: str = "") -> click.Command:
    """The command `smellkit bench NAME`: what the `options` ask of a study is measured, shown and kept.

    Where the study makes weights that ship, `save` is their function in `odour.release`, for the option --save.
    """

    def call(out: Path | None, data: str, folder: Path | None = None, **asked: Any) -> None:
        if folder:
            ship = getattr(import_module("smellkit.study.odour.release"), save)
            click.echo(ship(data, folder, progress=click.echo))
            return
        seeds = f" --seeds {asked['seeds']}" if "seeds" in asked else ""
        measure(study, out, f"smellkit bench {name} --data DIR{seeds}", data, **asked)

    for option in (*((SAVE,) if save else ()), JSON, *reversed(options)):
        call = option(call)
    return click.command(name, help=about)(call)


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
