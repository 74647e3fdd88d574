"""`smellkit train`, `sweep`, `predict`, `export` and `calibrate`: what every system can do, one table row each."""

from __future__ import annotations

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
    "fusion": "smellkit.odour.predict_fusion:fusion",
    "gcode": "smellkit.gcode.predict:gcode",
    "plume": "smellkit.plume.predict:plume",
}

EXPORTERS = {  # weights -> function(weights, *, out) -> what happened
    "odour": "smellkit.odour.export:odour",
    "gcode": "smellkit.gcode.export:gcode",
    "plume": "smellkit.plume.export:plume",
}

CALIBRATORS = {  # weights -> function(folder, *, labels, out, using) -> what happened
    "mixture": "smellkit.odour.calibration:calibrate",
    "odour": "smellkit.odour.calibration:repair",
}


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
    from dataclasses import replace

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
    from smellkit import options

    kind, weights = _weights(name)
    function = options.find(PREDICTORS, kind, what="predictor for the weights")
    asked = {"calibration": str(calibration) if calibration else "", "channels": channels}
    given = options.parse(pairs) | {option: value for option, value in asked.items() if value}
    (chosen,) = options.split(given, function)
    click.echo(function(folder, weights=weights, out=out, **chosen))


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
