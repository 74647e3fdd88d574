"""The commands of the odour system: `smellkit bench smellnet-base`, `smellkit audit`. Each calls one function."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)


@click.command("smellnet-base")
@click.option("--data", default="", metavar="DIR", help="The SmellNet folder; the small sample by default.")
@click.option("--model", default="", metavar="NAME", help="One model, or several with commas; the whole table else.")
@click.option("--seeds", default=5, show_default=True, help="Repetitions of each model, seeds 1, 2, ...")
@click.option("--json", "out", default="", type=FOLDER, help="Where the figures go.")
def smellnet_base(data, model, seeds, out):
    """Measure models on SmellNet's 50 substances: the official split, cross-validation, other sessions."""
    from smellkit.odour import bench

    result = bench.run(data, models=[name for name in model.split(",") if name], seeds=seeds, progress=click.echo)
    click.echo(bench.report(result))
    _keep(result, out)


@click.command()
@click.argument("folder", metavar="DIR", required=False, default="")
@click.option("--json", "out", default="", type=FOLDER, help="Where the figures go.")
def audit(folder, out):
    """Say how much of the accuracy on DIR may come from the session rather than from the smell."""
    from smellkit.odour import audit as audits

    result = audits.run(folder)
    click.echo(audits.report(result))
    _keep(result, out)


def _keep(result: dict, out: Path | str) -> None:
    """Write `result` as JSON when a file was asked for, and say so."""
    from smellkit import paths, runs

    if str(out) not in ("", "."):
        click.echo(f"{paths.write_json(Path(out), runs.plain(result))}")
