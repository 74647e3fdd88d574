"""`smellkit data ...` and `smellkit nose ...`: public sets, folders, sensor boards. Each command calls one function."""

import sys
from pathlib import Path

import click

from smellkit.cli import LazyGroup

FILE, FOLDER = click.Path(path_type=Path), click.Path(path_type=Path, file_okay=False)
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

    sources = fetch.sources(mirror=mirror)
    if name is None:
        for source in sources.values():
            size = sum(file.size for file in source.files)
            much = f"{len(source.files):5} files {size / 1e6:6.0f} MB" if source.files else f"{'by hand':>21}"
            click.echo(f"{source.name:16} {much}  {source.title}\n{'':16} {source.home}; licence: {source.licence}")
        return
    folder, new = fetch.get(name, folder=out, mirror=mirror, workers=workers)
    click.echo(f"{len(sources[name].files)} files in {folder}, {new} of them new; all have the right SHA-256.")
    click.echo(f"Licence: {sources[name].licence}. Please cite {sources[name].home}")


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

    if shared := splits.shared_originals(splits.read_all(folder)):
        click.echo(f"{shared} originals have copies in several splits" + ("." if regroup else ": see --regroup."))
    click.echo(splits.pair_folder(folder, how, regroup=regroup, seed=seed).T.to_string())


@click.command()
@click.argument("folder", metavar="DIR|FILE", type=FILE, required=False)
@click.option("--mask-values", "values", default="", help="What masks hold, such as 0=background,1=gas (plume).")
def check(folder, values):
    """Read everything in DIR or FILE (default: the sample), count what was forgiven, and list every fault."""
    from smellkit.study import survey

    report = survey.check(folder, mask_values=values)
    click.echo(str(report))
    if report.skipped:
        sys.exit(1)


@click.group()
def nose():
    """Describe a sensor board, read it, record it."""


@nose.command("list")
def list_noses():
    """List the noses that come with the kit."""
    from smellkit import noses

    for name in noses.names():
        one = noses.load(name)
        rate = f"{one.rate:g} Hz" if one.rate else "rate measured"
        click.echo(f"{name:17} {len(one.columns):2} columns, {rate}: {one.about}")


@nose.command()
@click.argument("name", metavar="NAME|FILE|FOLDER")
def show(name):
    """Print the description of a nose as TOML, to be changed into that of your own."""
    from smellkit import noses

    click.echo(noses.as_toml(noses.load(name)), nl=False)


@nose.command()
@click.argument("folder", type=FILE)
@click.option("--out", type=FILE, help="File to write; it must not exist.  [default: FOLDER/nose.toml]")
def new(folder, out):
    """Write the description of the nose that recorded what is in FOLDER, with every guess marked for you to confirm."""
    from smellkit import noses, paths
    from smellkit.errors import OptionError
    from smellkit.odour.readers import guess

    out = out or (folder if folder.is_dir() else folder.parent) / noses.FILE
    if out.exists():
        raise OptionError(f"{out} exists already", hint="delete it, or --out for another file")
    described, guesses = guess(folder)
    paths.write_text(out, noses.as_toml(described, remarks=noses.remarks(described, guesses)))
    click.echo(f"{out}: {len(described.columns)} columns. Please confirm:" if guesses else f"{out}: {described.name}.")
    for text in guesses:
        click.echo(f"  {text}")


@nose.command()
@click.argument("folder", type=FILE)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="A new folder.")
@click.option("--nose", "name", default="", metavar="NAME|FILE", help="What recorded it.  [default: see `nose new`]")
@click.option("--device", default="nose", show_default=True, help="Name of your device in the names of the files.")
def convert(folder, out, name, device):
    """Write the recordings in FOLDER, of any format, as pairs of OpenSmell's Exchange Format (CSV and JSON)."""
    from smellkit import noses
    from smellkit.odour.formats import write_exchange
    from smellkit.odour.readers import read_folder

    described, table = read_folder(folder, noses.load(name) if name else None)
    click.echo(f"{write_exchange(out, described, table, device=device)} recordings of {described.name} in {out}.")


@nose.command()
def ports():
    """List the serial ports."""
    from smellkit.device.link import list_ports

    ports = list_ports()
    for port in ports:
        click.echo(f"{port.device}  {port.name}  {port.serial_number}".rstrip())
    if not ports:
        click.echo("No serial ports here. `virtual` replays a recording.")


@nose.command()
@click.argument("port")
@click.option("--out", type=FILE, required=True, help="CSV file to write; it must not exist.")
@click.option("--seconds", type=float, help="End after this long; without, Ctrl-C ends it.")
@click.option("--nose", "name", default="smellnet", show_default=True, metavar="NAME|FILE", help="What the board is.")
@click.option("--baud", type=int, help="Speed of the board's serial line.  [default: that of the nose]")
def record(port, out, seconds, name, baud):
    """Record what the board on PORT says, row by row, until Ctrl-C."""
    from smellkit.device.enose import Nose, record

    with Nose.open(port, nose=name, baud=baud) as board:
        click.echo(f"Recording from {port} to {out}. Ctrl-C ends it.")
        rows = record(board, out, seconds=seconds)
        dropped = ", ".join(f"{count} {reason}" for reason, count in board.status()["dropped"].items()) or "none"
        click.echo(f"{rows} rows in {out}; lines dropped: {dropped}.")
