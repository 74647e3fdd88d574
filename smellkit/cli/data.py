"""Commands for data: fetch the public sets, simulate a sample, check a folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def data():
    """Fetch, simulate or check recordings."""


@data.command()
@click.argument("name", required=False)
@click.option("--out", type=FOLDER, help="Data root to put it in.  [default: SMELLKIT_DATA, or data/raw]")
@click.option("--mirror", default="", help="Another server with the same repositories, revision by revision.")
@click.option("--workers", default=8, show_default=True, help="How many files at a time.")
def get(name, out, mirror, workers):
    """Fetch the public data set NAME; without a name, list them."""
    from smellkit import fetch

    if name is None:
        for source in fetch.sources(mirror=mirror).values():
            size = sum(file.size for file in source.files)
            click.echo(f"{source.name:16} {len(source.files):5} files {size / 1e6:6.0f} MB  {source.title}")
            click.echo(f"{'':16} {source.home}; licence: {source.licence}")
        return
    folder, new = fetch.get(name, folder=out, mirror=mirror, workers=workers)
    source = fetch.sources()[name]
    click.echo(f"{len(source.files)} files in {folder}, {new} of them new; all have the right SHA-256.")
    click.echo(f"Licence: {source.licence}. Please cite {source.home}")


@data.group()
def simulate():
    """Make recordings that anyone may copy."""


@simulate.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for the recordings.")
@click.option("--seed", default=7, show_default=True, help="The same seed gives the same recordings.")
@click.option("--recordings", default=4, show_default=True, help="Recordings of each nominal operation.")
@click.option("--rows", default=128, show_default=True, help="Rows a recording, at 3.9 a second.")
def gcode(out, seed, recordings, rows):
    """Simulate a milling machine: programs, trajectories, and what 12 sensor nodes make of them."""
    from smellkit.simulate.gcode import machine

    click.echo(f"{machine(out, recordings=recordings, rows=rows, seed=seed)} recordings in {out}.")


@simulate.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for smellnet/ and scents/; it must not hold them yet.")
@click.option("--seed", default=2026, show_default=True, help="The same seed gives the same files.")
@click.option("--recordings", default=3, show_default=True, help="Training recordings a substance.")
@click.option("--rows", default=300, show_default=True, help="Seconds (and rows) a recording.")
@click.option("--pictures", default=5, show_default=True, help="Drawings a scent.")
@click.option(
    "--sessions", type=click.Choice(["substance", "recording"]), default="substance", show_default=True,
    help="A session at the bench for each: with one a substance, the session gives the substance away, as in SmellNet.",
)  # fmt: skip
def odour(out, seed, recordings, rows, pictures, sessions):
    """Simulate an electronic nose: SmellNet's layout and the twelve-scent layout."""
    from smellkit.simulate.odour import Size, write_sample

    size = Size(training=recordings, rows=rows, pictures=pictures)
    folder = write_sample(out, seed=seed, size=size, sessions=sessions)
    click.echo(f"Wrote {folder / 'smellnet'} and {folder / 'scents'}.")


@simulate.command()
@click.option("--out", type=FOLDER, required=True, help="A new folder for frames, masks and annotations.")
@click.option("--pairs", default=300, show_default=True, help="Pairs of frames in all.")
@click.option("--size", default="160x120", show_default=True, metavar="WxH", help="Pixels of a frame.")
@click.option("--seed", default=7, show_default=True, help="The same seed gives the same scenes at every size.")
@click.option("--frames", default=5, show_default=True, help="Frames a video; a video is in one split only.")
@click.option(
    "--missing", default="fume", show_default=True,
    help="Missing gases: fume (as published), independent (of the class), none, even (none; classes alike).",
)  # fmt: skip
@click.option("--variety", default=0.0, show_default=True, help="Share of videos with other cameras and other barns.")
@click.option("--shares", default="70,15,15", show_default=True, help="Of training, validation and test.")
def plume(out, pairs, size, seed, frames, missing, variety, shares):
    """Simulate two gas cameras at a rumen vessel: CO2 and CH4 frames, masks, and the health of the rumen."""
    from smellkit.simulate import plume as plumes

    began = time.process_time()
    split = plumes.numbers(shares, ",", name="--shares", example="70,15,15")
    how = {"frames": frames, "missing": missing, "variety": variety, "shares": split, "progress": sys.stderr.isatty()}
    counts = plumes.write(out, pairs=pairs, size=plumes.pixels(size), seed=seed, **how)
    speed = pairs / max(time.process_time() - began, 1e-3)
    click.echo(f"{pairs} pairs in {out}, {speed:.0f} a second of one core:\n{counts.T.to_string()}")


@data.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--how", default="original_based", show_default=True,
    help="original_based (the same moment) or random (within one pH and class).",
)  # fmt: skip
@click.option("--regroup", is_flag=True, help="Deal the originals out anew: no copies of one in two splits.")
@click.option("--seed", default=7, show_default=True, help="Of the random pairing and of the new splits.")
def pair(folder, how, regroup, seed):
    """Pair the CO2 and CH4 frames in FOLDER: annotations in, paired annotations out, and a count of both."""
    from smellkit.plume import annotations as tables

    shared = tables.shared_originals(tables.read_all(folder))
    if shared:
        click.echo(f"{shared} originals have copies in several splits" + ("." if regroup else ": see --regroup."))
    counts = tables.pair_folder(folder, how, regroup=regroup, seed=seed)
    click.echo(counts.T.to_string())


@data.command()
@click.argument("folder", type=FOLDER, required=False)
def check(folder):
    """Read everything in FOLDER (default: the sample), count what was forgiven, and list every fault."""
    from smellkit.plume import annotations
    from smellkit.plume import data as plumes
    from smellkit.study.odour.survey import survey

    report = plumes.check(folder) if folder and annotations.holds(folder) else survey(folder)
    click.echo(str(report))
    if report.skipped:
        sys.exit(1)
