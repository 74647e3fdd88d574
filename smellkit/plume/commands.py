"""The commands of this system: `smellkit bench plume`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--data", "folder", default="", help="Folder to train on (and to test on); the simulated sample by default."
)
@click.option("--test", default="", help="Another folder, whose test split is tested on.")
@click.option("--model", "names", multiple=True, metavar="NAME", help="A row or a model; all rows without it.")
@click.option("--counts", is_flag=True, help="Only count parameters and multiply-accumulates.")
@click.option("--seeds", default=3, show_default=True, help="Trainings a row.")
@click.option("--epochs", default=12, show_default=True, help="Passes over the training pairs, the same for all.")
@click.option("--no-outlines", is_flag=True, help="Leave out the distances between outlines (HD95, ASD).")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Where the figures go.")
def bench(folder, test, names, counts, seeds, epochs, no_outlines, out):
    """Segment plumes of CO2 and CH4 and name the rumen's health: all models, variants and baselines, on equal terms."""
    from smellkit import paths
    from smellkit.plume import bench as benches
    from smellkit.plume import models

    if counts:
        for name in [benches.ROWS.get(name, {"model": name})["model"] for name in names] or models.MODELS:
            count = models.counts(name)
            click.echo(f"{name:28} {count.parameters:>12,} parameters {count.macs / 1e9:8.3f} G MACs at 640x480")
        return
    rows = benches.rows_of(names)
    result = benches.bench(
        folder, test=test, names=rows, seeds=seeds, epochs=epochs, surfaces=not no_outlines, tell=click.echo
    )
    if out:
        click.echo(paths.write_json(out, benches.added(out, result)))
