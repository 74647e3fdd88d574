"""The commands of this system: `smellkit bench gcode` and `smart-mill`."""

import click

from smellkit.study import commands
from smellkit.study.commands import DATA, number, numbers, place


def one_of(option: str, names: tuple[str, ...], to: str, about: str = ""):
    """An option that is one of `names`, the first by default."""
    return click.option(option, to, default=names[0], show_default=True, type=click.Choice(names), help=about)


bench = commands.bench(
    "gcode",
    "gcode.protocols:run",
    "Name the operation and decode the G-code of a milling machine under a protocol: S (leaky), G or X.",
    DATA,
    one_of("--protocol", ("G", "S", "X"), "protocol"),
    one_of("--channels", ("all", "no-position", "no-position-z", "centred"), "channel_set"),
    one_of("--system", ("decoder", "two-stage", "two-stage-fourier"), "system"),
    one_of("--context", ("window", "recording", "run"), "context", "Seen."),
    numbers("--folds", "0,1,2,3,4", "Which folds of protocol G."),
    numbers("--seeds", "7", "Of first weights and order of batches; a fit for each."),
    number("--epochs", 0, "Passes over the training part: 24 for the decoder, 40 for two stages.", least=0),
)
smart_mill = commands.bench(
    "smart-mill",
    "gcode.mill:run",
    "Name the line of a second machine's program, and its process, from its drives; whole experiments held out.",
    place("The 18 files."),
    number("--seeds", 3, "Repetitions of what is random, seeds 1, 2, ..."),
)
