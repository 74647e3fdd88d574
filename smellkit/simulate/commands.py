"""`smellkit data simulate`: recordings that anyone may copy, one command a system."""

import sys
import time
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(context_settings={"show_default": True})
def simulate():
    """Make recordings that anyone may copy."""


@simulate.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for the recordings.")
@click.option("--seed", default=7, help="The same seed gives the same recordings.")
@click.option("--recordings", default=4, help="Recordings of each nominal operation.")
@click.option("--rows", default=128, help="Rows a recording, at 3.9 a second.")
def gcode(out, seed, recordings, rows):
    """Simulate a milling machine: programs, trajectories, and what 12 sensor nodes make of them."""
    from smellkit.simulate.gcode import machine

    click.echo(f"{machine(out, recordings=recordings, rows=rows, seed=seed)} recordings in {out}.")


@simulate.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for smellnet/ and scents/; it must not hold them yet.")
@click.option("--seed", default=2026, help="The same seed gives the same files.")
@click.option("--recordings", default=3, help="Training recordings a substance.")
@click.option("--rows", default=300, help="Seconds (and rows) a recording.")
@click.option("--pictures", default=5, help="Drawings a scent, of those in the sample.")
@click.option(
    "--sessions", type=click.Choice(["substance", "recording"]), default="substance",
    help="A session at the bench for each: with one a substance, the session gives the substance away, as in SmellNet.",
)  # fmt: skip
def odour(out, seed, recordings, rows, pictures, sessions):
    """Simulate an electronic nose: SmellNet's layout and the twelve-scent layout."""
    from smellkit.simulate.odour import Size, write_sample

    size = Size(training=recordings, rows=rows, pictures=pictures)
    folder = write_sample(out, seed=seed, size=size, sessions=sessions)
    click.echo(f"Wrote {folder / 'smellnet'} and {folder / 'scents'}.")


@simulate.command()
@click.option("--out", type=FOLDER, required=True, help="A new folder: one for each class, and nose.toml.")
@click.option("--nose", "name", default="mq-array", metavar="NAME|FILE", help="What records.")
@click.option("--classes", default=4, help="Substances, at most 14.")
@click.option("--recordings", default=12, help="Recordings a class.")
@click.option("--seconds", default=300.0, help="How long each is.")
@click.option("--days", default=3, help="Days over which the recordings of a class are dealt.")
@click.option("--seed", default=7, help="The same seed gives the same recordings.")
def nose(out, name, classes, recordings, seconds, days, seed):
    """Simulate any nose that has a description: a folder as its owner would have it."""
    from smellkit import noses
    from smellkit.simulate.boards import write_recordings

    how = {"classes": classes, "recordings": recordings, "seconds": seconds, "days": days, "seed": seed}
    click.echo(f"{classes * recordings} recordings of {name} in {write_recordings(out, noses.load(name), **how)}.")


@simulate.command()
@click.option("--out", type=FOLDER, required=True, help="A new folder for frames, masks and annotations.")
@click.option("--pairs", default=300, help="Pairs of frames in all.")
@click.option("--size", default="160x120", metavar="WxH", help="Pixels of a frame.")
@click.option("--seed", default=7, help="The same seed gives the same scenes at every size.")
@click.option("--frames", default=5, help="Frames a video; a video is in one split only.")
@click.option(
    "--missing", default="fume",
    help="Missing gases: fume (as published), independent (of the class), none, even (none; classes alike).",
)  # fmt: skip
@click.option("--world", default="", help="Others that take turns: own, cone, particles, advected, mixed.")
@click.option("--variety", default=0.0, help="Share of videos with other cameras and other barns.")
@click.option("--shares", default="70,15,15", help="Of training, validation and test.")
def plume(out, pairs, size, seed, frames, missing, variety, world, shares):
    """Simulate two gas cameras at a rumen vessel: CO2 and CH4 frames, masks, and the health of the rumen."""
    from smellkit.simulate import plume as plumes

    began = time.process_time()
    split = plumes.numbers(shares, ",", name="--shares", example="70,15,15")
    width, height = plumes.numbers(size, "x", name="--size", example="160x120")
    how = {"frames": frames, "missing": missing, "variety": variety, "world": world, "shares": split}
    how |= {"progress": sys.stderr.isatty()}
    counts = plumes.write(out, pairs=pairs, size=(width, height), seed=seed, **how)
    speed = pairs / max(time.process_time() - began, 1e-3)
    click.echo(f"{pairs} pairs in {out}, {speed:.0f} a second of one core:\n{counts.T.to_string()}")
