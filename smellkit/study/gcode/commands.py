"""The commands of this system: `smellkit bench gcode`, `gcode-ablations` and `smart-mill`."""

import click

from smellkit.study.commands import FOLDER, JSON, measure


@click.command()
@click.option("--data", "folder", default="", help="Folder of recordings; the simulated sample by default.")
@click.option("--protocol", default="G", show_default=True, type=click.Choice(["S", "G", "X"]))
@click.option(
    "--channels", "channel_set", default="all", show_default=True, help="Or no-position, no-position-z, centred."
)
@click.option(
    "--system", default="decoder", show_default=True, type=click.Choice(["decoder", "two-stage", "two-stage-fourier"])
)
@click.option(
    "--context", default="window", show_default=True, type=click.Choice(["window", "recording", "run"]), help="Seen."
)
@click.option("--folds", default="0,1,2,3,4", show_default=True, help="Which folds of protocol G.")
@click.option("--seeds", default="7", show_default=True, help="Of first weights and order of batches; a fit for each.")
@click.option("--epochs", default=0, help="Passes over the training part: 24 for the decoder, 40 for two stages.")
@JSON
def bench(folder, protocol, channel_set, system, context, folds, seeds, epochs, out):
    """Name the operation and decode the G-code of a milling machine under a protocol: S (leaky), G or X."""
    from smellkit.errors import OptionError
    from smellkit.study.gcode import protocols as benches

    try:
        numbers, repeated = ([int(number) for number in text.split(",")] for text in (folds, seeds))
    except ValueError as why:
        raise OptionError(f"--folds {folds!r} and --seeds {seeds!r} are not numbers", hint="for example 0,1") from why
    how = {"epochs": epochs} if epochs else {}
    asked = {"protocol": protocol, "channel_set": channel_set, "system": system, "context": context}
    result = benches.bench(str(folder), **asked, folds=numbers, seeds=repeated, **how)
    click.echo(benches.text(result))
    if out:
        click.echo(benches.write(out, result))


@click.command()
@click.option("--data", "folder", default="", help="Folder of recordings; the simulated sample by default.")
@click.option("--only", default="", help="Names of sweeps with commas, as in notebooks/sweeps; all by default.")
@click.option("--seeds", default=3, show_default=True, help="Repetitions of every case.")
@click.option("--workers", default=1, show_default=True, help="Processes on this machine.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="Overrides what the files fix for all runs.")
@JSON
def ablations(folder, only, seeds, workers, pairs, out):
    """Losses, kinds of sensor and parts of the window decoder, each with several seeds, and what of it is noise."""
    from smellkit import options
    from smellkit.study.gcode import ablations as studies

    names = options.listed(only, studies.SWEEPS, what="sweep")
    results = studies.bench_all(str(folder), names=names, seeds=seeds, workers=workers, **options.parse(pairs))
    click.echo(studies.text(results))
    if out:
        click.echo(studies.write(out, results))


@click.command()
@click.option("--data", "folder", required=True, metavar="DIR", type=FOLDER, help="The 18 files.")
@click.option("--seeds", default=3, show_default=True, help="Repetitions of what is random, seeds 1, 2, ...")
@JSON
def smart_mill(folder, seeds, out):
    """Name the line of a second machine's program, and its process, from its drives; whole experiments held out."""
    measure("gcode.mill", out, f"smellkit bench smart-mill --data DIR --seeds {seeds}", folder, seeds=seeds)
