"""The commands of this system: `smellkit bench plume`, `plume-ablations` and `plume-worlds`."""

import click

from smellkit.study.commands import JSON, keep


@click.command()
@click.option(
    "--data", "folder", default="", help="Folder to train on (and to test on); the simulated sample by default."
)
@click.option("--test", default="", help="Another folder, whose test split is tested on.")
@click.option("--model", "names", multiple=True, metavar="NAME", help="A row or a model; all rows without it.")
@click.option("--counts", is_flag=True, help="Only count parameters and multiply-accumulates.")
@click.option("--seeds", default=3, show_default=True, help="Trainings a row.")
@click.option("--epochs", default=12, show_default=True, help="Passes over the training pairs, the same for all.")
@click.option("--height", default=120, show_default=True, help="Rows that every model sees of a frame.")
@click.option("--no-outlines", is_flag=True, help="Leave out the distances between outlines (HD95, ASD).")
@click.option("--no-failing", is_flag=True, help="Leave out what is left when either camera fails.")
@JSON
def bench(folder, test, names, counts, seeds, epochs, height, no_outlines, no_failing, out):
    """Segment plumes of CO2 and CH4 and name the rumen's health: all models, variants and baselines, on equal terms."""
    from smellkit.plume import models
    from smellkit.study import evaluate
    from smellkit.study.plume import bench as benches

    if counts:
        for name in [benches.options_of(row)["model"] for row in benches.rows_of(names)] or models.MODELS:
            count = benches.counts(name)
            click.echo(f"{name:28} {count.parameters:>12,} parameters {count.macs / 1e9:8.3f} G MACs at 640x480")
        return
    how = {"surfaces": not no_outlines, "failing": not no_failing, "training": {"epochs": epochs}, "height": height}
    old = evaluate.earlier(out)
    result = benches.bench(folder, names=names, earlier=old, progress=click.echo, test=test, seeds=seeds, **how)
    keep(result, out, benches.COMMAND)


@click.command()
@click.option("--data", "folder", default="", help="Folder to train on; the simulated sample by default.")
@click.option("--test", default="", help="Another folder, whose test split is tested on.")
@click.option("--only", default="", help="Names of sweeps with commas, as in notebooks/sweeps; all by default.")
@click.option("--seeds", default=3, show_default=True, help="Repetitions of every case.")
@click.option("--workers", default=1, show_default=True, help="Processes on this machine.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="Overrides what the files fix for all runs.")
@JSON
def ablations(folder, test, only, seeds, workers, pairs, out):
    """How the gases meet, which there are, which tasks are learned, and the recipe: a small FUME trained again."""
    from smellkit import options
    from smellkit.study.plume import ablations as studies

    names = options.listed(only, studies.SWEEPS, what="sweep")
    swept = studies.swept(folder, names=names, seeds=seeds, workers=workers, test=test, **options.parse(pairs))
    for title, table in swept.items():
        click.echo(f"{title}\n{table.round(3).to_string(index=False)}\n")
    if out:
        click.echo(studies.publish(out, swept))


@click.command()
@click.option("--weights", default="plume", show_default=True, help="What is shipped, or a folder.")
@click.option("--world", "names", multiple=True, help="A simulator: cone, particles, advected; all without it.")
@JSON
def worlds(weights, names, out):
    """Weights on frames of our simulator and of others, which they may never have seen."""
    from smellkit.study import evaluate
    from smellkit.study.plume import worlds as study

    result = study.travel(weights, worlds=names or tuple(study.WORLDS), progress=click.echo)
    result["rows"] = evaluate.earlier(out).get("rows", {}) | result["rows"]
    keep(result, out, "smellkit bench plume-worlds")
