"""Commands for data: fetch the public sets, simulate a sample, check a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from smellkit.cli import LazyGroup

FOLDER = click.Path(path_type=Path, file_okay=False)
COMMANDS = {
    "get": "smellkit.cli.data:get",
    "simulate": "smellkit.simulate.commands:simulate",
    "pair": "smellkit.cli.data:pair",
    "check": "smellkit.cli.data:check",
}


@click.group(cls=LazyGroup, table=COMMANDS)
def data():
    """Fetch, simulate or check recordings."""


@click.command()
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
            much = f"{len(source.files):5} files {size / 1e6:6.0f} MB" if source.files else f"{'by hand':>21}"
            click.echo(f"{source.name:16} {much}  {source.title}")
            click.echo(f"{'':16} {source.home}; licence: {source.licence}")
        return
    folder, new = fetch.get(name, folder=out, mirror=mirror, workers=workers)
    source = fetch.sources()[name]
    click.echo(f"{len(source.files)} files in {folder}, {new} of them new; all have the right SHA-256.")
    click.echo(f"Licence: {source.licence}. Please cite {source.home}")


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--how", default="original_based", show_default=True, help="original_based (the same moment) or random.")
@click.option("--regroup", is_flag=True, help="Deal the originals out anew: no copies of one in two splits.")
@click.option("--seed", default=7, show_default=True, help="Of the random pairing and of the new splits.")
def pair(folder, how, regroup, seed):
    """Pair the CO2 and CH4 frames in FOLDER: annotations in, paired annotations out, and a count of both.

    Random pairs are of one pH and class.
    """
    from smellkit.study.plume import splits

    shared = splits.shared_originals(splits.read_all(folder))
    if shared:
        click.echo(f"{shared} originals have copies in several splits" + ("." if regroup else ": see --regroup."))
    counts = splits.pair_folder(folder, how, regroup=regroup, seed=seed)
    click.echo(counts.T.to_string())


@click.command()
@click.argument("folder", metavar="DIR|FILE", type=click.Path(path_type=Path), required=False)
@click.option("--mask-values", "values", default="", help="What masks hold, such as 0=background,1=gas (plume).")
def check(folder, values):
    """Read everything in DIR or FILE (default: the sample), count what was forgiven, and list every fault."""
    from smellkit.study import survey

    report = survey.check(folder, mask_values=values)
    click.echo(str(report))
    if report.skipped:
        sys.exit(1)
