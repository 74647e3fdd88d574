"""Commands for data: fetch the public sets, simulate a sample, check a folder."""

from __future__ import annotations

import sys
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
    from smellkit.gcode.simulate import machine

    click.echo(f"{machine(out, recordings=recordings, rows=rows, seed=seed)} recordings in {out}.")


@simulate.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for smellnet/ and scents/; it must not hold them yet.")
@click.option("--seed", default=2026, show_default=True, help="The same seed gives the same files.")
@click.option("--recordings", default=3, show_default=True, help="Training recordings a substance.")
@click.option("--rows", default=300, show_default=True, help="Seconds (and rows) a recording.")
@click.option("--pictures", default=5, show_default=True, help="Drawings a scent.")
@click.option(
    "--sessions",
    type=click.Choice(["substance", "recording"]),
    default="substance",
    show_default=True,
    help="A sitting at the bench for each: with one a substance, the sitting gives the substance away, as in SmellNet.",
)
def odour(out, seed, recordings, rows, pictures, sessions):
    """Simulate an electronic nose: SmellNet's layout and the twelve-scent layout."""
    from smellkit.odour.simulate.sample import Size, write_sample

    size = Size(training=recordings, rows=rows, pictures=pictures)
    folder = write_sample(out, seed=seed, size=size, sessions=sessions)
    click.echo(f"Wrote {folder / 'smellnet'} and {folder / 'scents'}.")


@data.command()
@click.argument("folder", type=FOLDER, required=False)
def check(folder):
    """Read everything in FOLDER (default: the sample), count what was forgiven, and list every fault."""
    from smellkit.odour.data.survey import survey

    report = survey(folder)
    click.echo(str(report))
    if report.skipped:
        sys.exit(1)
