"""The commands of the odour system: `smellkit bench smellnet-base`, `smellkit audit`. Each calls one function."""

from __future__ import annotations

from pathlib import Path

import click

from smellkit.study.commands import FOLDER, JSON, keep, measure

DATA = click.option("--data", default="", metavar="DIR", help="The SmellNet folder; the small sample by default.")
SAVE = click.option("--save", "folder", type=FOLDER, help="Only train the weights to ship; keep them there.")


@click.command("smellnet-base")
@DATA
@click.option("--model", default="", metavar="NAME", help="One model, or several with commas; the whole table else.")
@click.option("--seeds", default=5, show_default=True, help="Repetitions of each model, seeds 1, 2, ...")
@click.option("--folds", default=6, show_default=True, help="Parts of the cross-validation; 0 leaves it out.")
@JSON
@SAVE
def smellnet_base(data, model, seeds, folds, out, folder):
    """Measure models on SmellNet's 50 substances: the official split, cross-validation, other sessions."""
    if folder:
        _ship("odour", data, folder)
    else:
        asked = {"models": _names(model), "seeds": seeds, "folds": folds}
        measure("odour.smellnet", out, "smellkit bench smellnet-base --data DIR", data, **asked)


@click.command("smellnet-sessions")
@DATA
@click.option("--method", default="", metavar="NAME", help="One method; all else. See `study/odour/sessions.py`.")
@click.option("--seeds", default=0, show_default=True, help="Fits that score other sessions; 0 keeps earlier figures.")
@click.option("--folds", default=5, show_default=True, help="Recordings of each substance held out for simulated days.")
@JSON
@SAVE
def smellnet_sessions(data, method, seeds, folds, out, folder):
    """Choose a method for another day on training recordings alone, and score it on other sessions."""
    if folder:
        _ship("another_day", data, folder)
    else:
        asked = {"methods": [method] if method else [], "folds": folds, "seeds": seeds}
        measure("odour.sessions", out, "smellkit bench smellnet-sessions --data DIR", data, **asked)


@click.command("early")
@DATA
@click.option("--model", default="", metavar="NAME", help="odour or odour-same-session; both else.")
@click.option("--folds", default=3, show_default=True, help="Recordings of each substance that thresholds come from.")
@JSON
def early(data, model, folds, out):
    """Measure how soon the shipped weights name a substance, and how often rightly, when they stop as they are sure."""
    measure("odour.early", out, "smellkit bench early --data DIR", data, models=tuple(_names(model)), folds=folds)


@click.command("smellnet-ablations")
@DATA
@click.option("--seeds", default=5, show_default=True, help="Repetitions of each case, seeds 1, 2, ...")
@click.option("--workers", default=2, show_default=True, help="Processes on this machine.")
@JSON
def smellnet_ablations(data, seeds, workers, out):
    """Run the encoder's sweeps of notebooks/sweeps in full: technique, sensors, tricks, sessions."""
    from smellkit.study.odour import ablations

    result = ablations.measure(data, seeds=seeds, workers=workers, progress=click.echo)
    keep(result, out, "smellkit bench smellnet-ablations --data DIR")


@click.command()
@click.argument("folder", metavar="DIR", required=False, default="")
@JSON
def audit(folder, out):
    """Say how much of the accuracy on DIR may come from the session rather than from the smell."""
    from smellkit.study.odour import audit as audits

    result = audits.run(folder)
    click.echo(audits.report(result))
    keep(result, out, "smellkit audit DIR")


@click.command("smellnet-mixture")
@DATA
@click.option("--part", default="", metavar="NAME", help="official, validation, calibration or networks; or all.")
@click.option("--seeds", default=5, show_default=True, help="Repetitions of what is random, seeds 1, 2, ...")
@click.option("--save", "folder", type=FOLDER, help="Train on all there is, too, and keep the weights there.")
@JSON
def smellnet_mixture(data, part, seeds, folder, out):
    """Measure mixture ratios on SmellNet-Mixture: the published metric, and those that keep it honest."""
    if folder:
        from smellkit.study.odour import release

        click.echo(f"weights: {release.mixture(data, folder)}")
    measure("odour.mixtures", out, "smellkit bench smellnet-mixture --data DIR", data, parts=_names(part), seeds=seeds)


@click.command("fusion")
@DATA
@click.option("--scene", default="", metavar="NAME", help="compact, light, or a Qwen-VL folder.")
@click.option("--seeds", default=3, show_default=True, help="Splits of pictures, sentences and recordings, 1, 2, ...")
@JSON
@SAVE
def fusion(data, scene, seeds, out, folder):
    """Measure smell, picture and text alone and together: what ships, the networks, missing and lying senses."""
    if folder:
        _ship("fusion", data, folder)
    else:
        command = f"smellkit bench fusion --data DIR --seeds {seeds}"
        measure("odour.fusion", out, command, data, scene=scene, seeds=seeds)


@click.command("reproduce")
@click.option("--seeds", default=20, show_default=True, help="Targets of one, two and three scents, seeds 1, 2, ...")
@JSON
def reproduce(seeds, out):
    """Measure how near the closed loop brings simulated air to a target, and how near playing it once comes."""
    measure("odour.reproduce", out, f"smellkit bench reproduce --seeds {seeds}", seeds, resumes=False)


@click.command("drift")
@click.option("--data", required=True, metavar="DIR", type=FOLDER, help="The folder of UCI 270's batchN.dat.")
@click.option("--seeds", default=3, show_default=True, help="Repetitions of what is random, seeds 1, 2, ...")
@click.option("--part", "parts", multiple=True, metavar="NAME", help="How a row begins, such as references/5; or all.")
@JSON
def drift(data, seeds, parts, out):
    """Measure how ageing sensors are met on UCI's drift set: no labels, all batches before, references of today."""
    measure("odour.drift", out, f"smellkit bench drift --data DIR --seeds {seeds}", data, seeds=seeds, parts=parts)


@click.command("submit")
@click.argument("file", type=FOLDER)
@click.option("--name", required=True, help="What the row is called.")
@click.option("--by", required=True, metavar="WHO", help="Who made the predictions.")
@click.option("--link", default="", help="Where the model is described.")
@click.option("--json", "out", type=FOLDER, help="The leaderboard; the published one by default.")
def submit(file, name, by, link, out):
    """Score the predictions in FILE (a table as `smellkit predict` writes it) and put them on the leaderboard."""
    from smellkit.study.evaluate import percent
    from smellkit.study.odour import leaderboard

    row = leaderboard.submit(file, name=name, by=by, link=link, out=out or leaderboard.FILE)
    for split, kinds in row["scores"].items():
        for kind, figures in kinds.items():
            told = ", ".join(f"{key} {percent(value)}" for key, value in figures.items() if key != "answers")
            click.echo(f"{split.replace('_', ' ')}, {kind}: {told or 'not answered'}")
    if "other_session" not in row["scores"]:
        click.echo("Not answered: another session (base/online_spices). The official split shares its sessions.")


def _ship(kind: str, data: str, folder: Path) -> None:
    """Make weights that come with the kit, and say what they score."""
    from smellkit.study.odour import release

    click.echo(getattr(release, kind)(data, folder, progress=click.echo))


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


@click.command("peers")
@click.option("--data", required=True, metavar="DIR", type=FOLDER, help="A folder with smellnet/ and uma_odours/.")
@click.option("--set", "sets", multiple=True, metavar="NAME", help="smellnet, uma or own-format; all by default.")
@JSON
def peers(data, sets, out):
    """Measure opensmell 1.0.0 and this kit on the same folds, with the session audit beside (the extra `peers`)."""
    measure("odour.peers", out, "smellkit bench peers --data DIR", data, sets=sets)


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

    from smellkit import batch, options, paths
    from smellkit.checks import read_json
    from smellkit.study.odour.own_report import summary

    folder = folder.expanduser().resolve()
    out = (out or folder.with_name(f"{folder.name}-learnt")).resolve()
    given = {"nose": str(Path(nose).resolve()) if nose and Path(nose).exists() else nose, "out": str(out)}
    given["sessions"] = sessions if not Path(sessions).is_file() else str(Path(sessions).resolve())
    given |= options.parse(pairs)
    (result,) = batch.run(["07_own_nose"], given=given, data=folder, force=True, timeout=3600)
    if result.error:
        raise result.error
    with paths.replacing(out / "report.ipynb") as part:
        shutil.copyfile(result.output, part)
    click.echo(summary(read_json(out / "report.json")))
    click.echo(f"{out}")
