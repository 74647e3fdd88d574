"""The kit's own commands: run, site and doctor; train, sweep, predict, export and calibrate, one table row a system."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)
SET: dict[str, Any] = {"multiple": True, "metavar": "NAME=VALUE"}

TASKS = {  # name -> "module:function"; the function's keyword arguments are the task's options
    "odour-encoder": "smellkit.study.odour.encoder_task:task",
    "odour-mixture": "smellkit.study.odour.mixture_task:task",
    "odour-fusion": "smellkit.study.odour.fusion_task:task",
    "gcode-window-decoder": "smellkit.study.gcode.task:WindowDecoderTask",
    "gcode-encoder": "smellkit.study.gcode.task:EncoderTask",
    "gcode-decoder": "smellkit.study.gcode.task:DecoderTask",
    "plume": "smellkit.study.plume.task:PlumeTask",
}

PREDICTORS = {  # weights -> function(folder, *, weights, out, **options) -> what happened
    "odour": "smellkit.odour.predict:odour",
    "mixture": "smellkit.odour.predict:mixture",
    "fusion": "smellkit.odour.predict:fusion",
    "gcode": "smellkit.gcode.predict:gcode",
    "plume": "smellkit.plume.predict:plume",
}

EXPORTERS = {  # weights -> function(weights, *, out) -> what happened
    "odour": "smellkit.odour.export:odour",
    "gcode": "smellkit.gcode.predict:onnx",
    "plume": "smellkit.plume.predict:onnx",
}

CALIBRATORS = {  # weights -> function(folder, *, labels, out, using) -> what happened
    "mixture": "smellkit.odour.calibration:calibrate",
    "odour": "smellkit.odour.calibration:repair",
}


@click.command()
@click.argument("notebooks", nargs=-1)
@click.option("--profile", default="quick", show_default=True, help="A set of parameters in notebooks/profiles.yaml.")
@click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter, in every notebook that has it.")
@click.option("--data", type=FOLDER, help="A folder of recordings instead of the sample.")
@click.option("--force", is_flag=True, help="Run also what is up to date.")
@click.option("--timeout", default=600, show_default=True, help="Seconds that one cell may take.")
@click.option("--workers", default=0, help="How many run at once; as many as there are cores by default.")
@click.option("--scheduler", default="", metavar="tcp://HOST:PORT", help="A dask scheduler instead of this machine.")
@click.option("--stop/--keep-going", help="End the batch at the first failure, or only what reads its runs (default).")
def run(notebooks, pairs, **how):
    """Execute NOTEBOOKS (names or numbers; all without any) side by side, those that are not up to date."""
    from smellkit import batch, options

    began = time.monotonic()
    results = batch.run(notebooks, given=options.parse(pairs), **how, progress=click.echo)
    seconds = sum(result.seconds for result in results)
    click.echo(f"{'in all':<36} {seconds:6.1f} s, done in {time.monotonic() - began:.1f} s")
    failed = [result for result in results if result.error]
    for result in failed:
        click.secho(f"Error: {result.error}", fg="red", err=True)
        click.echo(f"The notebook as far as it came: {result.output}", err=True)
    if left := [result.notebook for result in results if result.status == batch.LEFT]:
        click.echo(f"Not reached: {', '.join(left)}", err=True)
    if failed:
        sys.exit(1)


@click.command()
@click.option("--from", "source", default="", metavar="SET", help="A folder in data/runs/notebooks, or published.")
@click.option("--data", type=FOLDER, help="The data folder of the run to show, as for `run`.")
@click.option("--profile", default="", help="The profile of the run to show, as for `run`.")
@click.option("--preview", is_flag=True, help="Do without Quarto even where it is installed.")
@click.option("--strict", is_flag=True, help="Exit with 1 when the log holds a warning.")
@click.option("--publish", is_flag=True, help="Also copy notebooks to site/notebooks and results to README.md.")
def site(source, data, profile, preview, strict, publish):
    """Build the pages from executed notebooks; the last run's unless --from, --profile or --data say otherwise."""
    from smellkit import batch, options
    from smellkit import site as sites

    if not source and (data or profile):
        source = batch.set_name(profile or "quick", data)
    if publish:
        headlines = options.resolve("smellkit.study.pages:headlines")()
        click.echo(f"Published {sites.publish(source, parts={'headlines': headlines})} notebooks in site/notebooks.")
    addresses = ("smellkit.study.pages:parts", "smellkit.study.odour.substances:pages")
    content = lambda: tuple(options.resolve(address)() for address in addresses)  # noqa: E731 - they take seconds
    built = sites.build(source, quarto=not preview, content=content, progress=click.echo)
    for warning in built.warnings:
        click.secho(f"Warning: {warning}", fg="yellow", err=True)
    click.echo(f"The site lies in {built.index}")
    if built.by == "Quarto":
        click.echo(f"Its search needs a server: `python -m http.server --directory {Path(built.index).parent}`")
    if strict and built.warnings:
        click.secho(f"Error: {len(built.warnings)} warnings; the whole log is {built.log}", fg="red", err=True)
        sys.exit(1)


@click.command()
def doctor():
    """Say what this machine has, what is missing, and how to get it; exit 1 when something required is missing."""
    from smellkit import doctor as doctors

    findings = doctors.examine()
    click.echo(doctors.as_text(findings))
    if any(finding.level == "missing" for finding in findings):
        sys.exit(1)


@click.command()
@click.argument("task", metavar="TASK")
@click.option("--set", "pairs", **SET, help="An option of the task or of the training.")
@click.option("--name", default="", help="Name of the run folder; the task's name by default.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option("--tracker", default="", help="tensorboard, wandb, or both with a comma.")
def train(task, pairs, name, resume, tracker):
    """Train TASK (odour-encoder, odour-mixture, gcode-decoder, ...) and leave a run folder."""
    from smellkit import options, runs
    from smellkit.train import Settings, fit

    factory = options.find(TASKS, task, what="task")
    task_options, settings = options.split(options.parse(pairs), factory, Settings)
    if tracker:
        settings["tracker"] = tracker
    run = fit(factory(**task_options), Settings(**settings), name=name, params=task_options, resume=resume)
    if not runs.leads():
        return
    click.echo(f"{run.folder}")
    for split, scores in run.scores.items():
        if isinstance(scores, dict):
            click.echo(f"  {split}: " + ", ".join(f"{score} {value:.3f}" for score, value in scores.items()))


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--scheduler", default="", metavar="tcp://HOST:PORT", help="A dask scheduler; this machine by default.")
@click.option("--workers", default=2, show_default=True, help="Processes on this machine.")
@click.option("--score", default="test.accuracy", show_default=True, help="The score in the table.")
@click.option("--set", "pairs", **SET, help="Overrides what the file fixes for all runs.")
@click.option("--fresh", is_flag=True, help="Run again what is finished.")
def sweep(file, scheduler, workers, score, pairs, fresh):
    """Run every case and seed of FILE.yaml; means with 95 % intervals at the end."""
    from smellkit import options
    from smellkit.study import sweep as sweeps

    plan = sweeps.read(file)
    options.find(TASKS, plan.task, what="task")
    plan = replace(plan, fixed=plan.fixed | options.parse(pairs))
    table = sweeps.run(plan, TASKS[plan.task], scheduler=scheduler, workers=workers, fresh=fresh)
    click.echo(sweeps.summary(table, score=score).to_string(index=False, float_format="{:.3f}".format))
    click.echo(f"{sweeps.folder(plan.name) / 'runs.parquet'}")


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--weights", "name", required=True, help="odour, mixture, fusion, gcode, plume, or a folder.")
@click.option("--out", required=True, type=FOLDER, help="Where the predictions go.")
@click.option("--set", "pairs", **SET, help="An option of this predictor.")
@click.option("--calibration", type=FOLDER, help="What `smellkit calibrate` made (mixture).")
@click.option("--channels", default="", help="all, or no-position to hide the machine's position (gcode).")
def predict(folder, name, out, pairs, calibration, channels):
    """Name what was recorded in the files of DIR, with trained weights."""
    from smellkit import options, paths

    kind, weights = _weights(name)
    function = options.find(PREDICTORS, kind, what="predictor for the weights")
    asked = {"calibration": str(calibration) if calibration else "", "channels": channels}
    given = options.parse(pairs) | {option: value for option, value in asked.items() if value}
    (chosen,) = options.split(given, function)
    click.echo(paths.text(function(folder, weights=weights, out=out, **chosen)))


@click.command()
@click.argument("name", metavar="WEIGHTS")
@click.option("--onnx", "out", required=True, type=FOLDER, help="Where the ONNX model goes.")
def export(name, out):
    """Write the model of WEIGHTS (odour, or a folder of such weights) as ONNX, checked against torch."""
    from smellkit import options

    kind, weights = _weights(name)
    click.echo(options.find(EXPORTERS, kind, what="exporter for the weights")(weights, out=out))


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--labels", type=FOLDER, help="CSV: filepath and label_<odorant> of each reference (mixtures).")
@click.option(
    "--out", required=True, type=FOLDER, help="What `predict --calibration` takes (mixtures), or new weights."
)
@click.option("--weights", "name", default="mixture", show_default=True, help="mixture, odour, or a folder of weights.")
def calibrate(folder, labels, out, name):
    """Adapt to today's session with a few references in DIR: mixtures and base scents, or a folder for each class."""
    from smellkit import options

    kind, weights = _weights(name)
    function = options.find(CALIBRATORS, kind, what="calibration for the weights")
    click.echo(function(folder, labels=labels, out=out, using=weights))


def _weights(name: str) -> tuple[str, Path]:
    """Kind and folder: a name is a folder in data/weights; a folder says its kind in its manifest."""
    from smellkit import checkpoint

    folder = checkpoint.find(name)
    return str(checkpoint.manifest(folder).get("kind", folder.name)), folder
