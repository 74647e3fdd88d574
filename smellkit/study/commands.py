"""The commands that no system owns: `smellkit study score`."""

from __future__ import annotations

import click


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
