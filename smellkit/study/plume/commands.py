"""The commands of this system: `smellkit bench plume` and `plume-worlds`."""

from typing import Any

import click

from smellkit.study import commands
from smellkit.study.commands import DATA, JSON, keep, number, several, switch


def counted(given: dict[str, Any]) -> bool:
    """With the option --counts, only tell the parameters and multiply-accumulates of the models that were named."""
    if not given.pop("counts"):
        return False
    from smellkit.plume import models
    from smellkit.study.plume import bench as benches

    for name in [benches.options_of(row)["model"] for row in benches.rows_of(given["names"])] or models.MODELS:
        count = benches.counts(name)
        click.echo(f"{name:28} {count.parameters:>12,} parameters {count.macs / 1e9:8.3f} G MACs at 640x480")
    return True


bench = commands.bench(
    "plume",
    "plume.bench:run",
    "Segment plumes of CO2 and CH4 and name the rumen's health: models, variants and baselines, on equal terms.",
    DATA,
    click.option("--test", default="", metavar="DIR", help="Another folder, whose test split is tested on."),
    several("--model", "names", "A row or a model; all rows without it."),
    click.option("--counts", is_flag=True, help="Only count parameters and multiply-accumulates."),
    number("--seeds", 3, "Trainings a row."),
    number("--epochs", 12, "Passes over the training pairs, the same for all."),
    number("--height", 120, "Rows that every model sees of a frame."),
    switch("--no-outlines", "surfaces", "Leave out the distances between outlines (HD95, ASD)."),
    switch("--no-failing", "failing", "Leave out what is left when either camera fails."),
    instead=counted,
)


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
