"""The commands of the odour system: `smellkit bench smellnet-base`, `smellkit audit`. Each calls one function."""

from pathlib import Path

import click

from smellkit.study.commands import DATA, FOLDER, JSON, bench, keep, names, number, place, several

smellnet_base = bench(
    "smellnet-base",
    "odour.smellnet:run",
    "Measure models on SmellNet's 50 substances: the official split, cross-validation, other sessions.",
    DATA,
    names("--model", "models", "One model, or several with commas; the whole table else."),
    number("--seeds", 5, "Repetitions of each model, seeds 1, 2, ..."),
    number("--folds", 6, "Parts of the cross-validation; 0 leaves it out.", least=0),
    save="odour",
)
smellnet_sessions = bench(
    "smellnet-sessions",
    "odour.sessions:run",
    "Choose a method for another day on training recordings alone, and score it on other sessions.",
    DATA,
    several("--method", "methods", "A method; all without it. See `study/odour/sessions.py`."),
    number("--seeds", 0, "Fits that score other sessions; 0 keeps earlier figures.", least=0),
    number("--folds", 5, "Recordings of each substance held out for simulated days."),
    save="another_day",
)
early = bench(
    "early",
    "odour.early:run",
    "Measure how soon the shipped weights name a substance, and how often rightly, when they stop as they are sure.",
    DATA,
    names("--model", "models", "odour or odour-same-session; both else."),
    number("--folds", 3, "Recordings of each substance that thresholds come from."),
)
smellnet_mixture = bench(
    "smellnet-mixture",
    "odour.mixtures:run",
    "Measure mixture ratios on SmellNet-Mixture: the published metric, and those that keep it honest.",
    DATA,
    names("--part", "parts", "official, validation, calibration or networks; or all."),
    number("--seeds", 5, "Repetitions of what is random, seeds 1, 2, ..."),
    save="mixture",
)
fusion = bench(
    "fusion",
    "odour.fusion:run",
    "Measure smell, picture and text alone and together: what ships, the networks, missing and lying senses.",
    DATA,
    click.option("--scene", default="", metavar="NAME", help="compact, light, or a Qwen-VL folder."),
    number("--seeds", 3, "Splits of pictures, sentences and recordings, 1, 2, ..."),
    save="fusion",
)
drift = bench(
    "drift",
    "odour.drift:run",
    "Measure how ageing sensors are met on UCI's drift set: no labels, all batches before, references of today.",
    place("The folder of UCI 270's batchN.dat."),
    number("--seeds", 3, "Repetitions of what is random, seeds 1, 2, ..."),
    several("--part", "parts", "How a row begins, such as references/5; or all."),
)
peers = bench(
    "peers",
    "odour.peers:run",
    "Measure opensmell 1.0.0 and this kit on the same folds, with the session audit beside (the extra `peers`).",
    place("A folder with smellnet/ and uma_odours/."),
    several("--set", "sets", "smellnet, uma or own-format; all by default."),
)


reproduce = bench(
    "reproduce",
    "odour.reproduce:run",
    "Measure how near the closed loop brings simulated air to a target, and how near playing it once comes.",
    number("--seeds", 20, "Targets of one, two and three scents, seeds 1, 2, ..."),
)


@click.command()
@click.argument("folder", metavar="DIR", required=False, default="")
@JSON
def audit(folder, out):
    """Say how much of the accuracy on DIR may come from the session rather than from the smell."""
    from smellkit.study import published
    from smellkit.study.odour import audit as audits

    result = audits.run(folder, progress=click.echo)
    click.echo(f"{published.text('audit', result)}\n{result['verdict']}")
    keep(result, out, "smellkit audit DIR")


@click.command("submit")
@click.argument("file", type=FOLDER)
@click.option("--name", required=True, help="What the row is called.")
@click.option("--by", required=True, metavar="WHO", help="Who made the predictions.")
@click.option("--link", default="", help="Where the model is described.")
@click.option("--json", "out", type=FOLDER, help="The leaderboard; the published one by default.")
def submit(file, name, by, link, out):
    """Score the predictions in FILE (a table as `smellkit predict` writes it) and put them on the leaderboard."""
    from smellkit.study.evaluate import intervals, percent, splits
    from smellkit.study.odour import leaderboard

    scored = splits(leaderboard.submit(file, name=name, by=by, link=link, out=out or leaderboard.FILE))
    for split, figures in scored.items():
        listed = ", ".join(f"{key} {percent(value)}" for key, value in intervals(figures).items())
        click.echo(f"{split.replace('_', ' ')}: {listed}")
    if "other_session, recording" not in scored:
        click.echo("Not answered: another session (base/online_spices). The official split shares its sessions.")


@click.command()
@click.argument("folder", metavar="FOLDER", type=FOLDER)
@click.option(
    "--nose", default="", metavar="FILE|NAME", help="What recorded it; nose.toml in FOLDER, or a guess, else."
)
@click.option("--sessions", default="", metavar="FILE|by-day", help="A CSV (file, session), or the days of the clock.")
@click.option("--out", type=FOLDER, help="For the report and the weights; FOLDER-learnt by default.")
@click.option("-p", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter of notebook 07.")
def learn(folder, nose, sessions, out, pairs):
    """Say what FOLDER holds, how good your nose is honestly, and leave weights that run on it."""
    import shutil

    from smellkit import batch, noses, options, paths
    from smellkit.checks import read_json
    from smellkit.study.odour.own_report import summary

    more = options.parse(pairs)
    options.check(more, ("representation", "networks", "seed"), "-p has no")
    folder = folder.expanduser().resolve()
    out = (out or folder.with_name(f"{folder.name}-learnt")).resolve()
    there = {text: Path(text).is_file() or (Path(text) / noses.FILE).is_file() for text in (nose, sessions)}
    places = {name: str(Path(text).resolve()) if there[text] else text
              for name, text in {"nose": nose, "sessions": sessions}.items()}  # fmt: skip
    given = {**places, "out": str(out), **more}
    (result,) = batch.run(["07_own_nose"], given=given, data=folder, force=True, timeout=3600)
    if result.error:
        raise result.error
    with paths.replacing(out / "report.ipynb") as part:
        shutil.copyfile(result.output, part)
    click.echo(summary(read_json(out / "report.json")))
    click.echo(f"{out}")
