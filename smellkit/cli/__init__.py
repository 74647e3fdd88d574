"""The command line: a table of commands. Each parses, calls one function, and says what happened."""

import logging
import sys
from functools import partial

import click

from smellkit import __version__, paths
from smellkit.errors import SmellkitError
from smellkit.options import nearest, resolve

COMMANDS = {  # name -> "module:attribute"; a module is imported only when its command is called
    "run": "smellkit.cli.commands:run",
    "site": "smellkit.cli.commands:site",
    "doctor": "smellkit.cli.commands:doctor",
    "data": "smellkit.cli.data:data",
    "learn": "smellkit.study.odour.commands:learn",
    "train": "smellkit.cli.commands:train",
    "sweep": "smellkit.cli.commands:sweep",
    "predict": "smellkit.cli.commands:predict",
    "sniff": "smellkit.cli.sniff:sniff",
    "export": "smellkit.cli.commands:export",
    "bench": "smellkit.cli:bench",
    "study": "smellkit.study.commands:study",
    "audit": "smellkit.study.odour.commands:audit",
    "calibrate": "smellkit.cli.commands:calibrate",
    "submit": "smellkit.study.odour.commands:submit",
    "neckwear": "smellkit.cli.neckwear:neckwear",
    "nose": "smellkit.cli.data:nose",
}
READERS = logging.getLogger("smellkit.checks.report")

BENCHES = {
    "smellnet-base": "smellkit.study.odour.commands:smellnet_base",
    "smellnet-sessions": "smellkit.study.odour.commands:smellnet_sessions",
    "early": "smellkit.study.odour.commands:early",
    "smellnet-ablations": "smellkit.study.commands:smellnet_ablations",
    "smellnet-mixture": "smellkit.study.odour.commands:smellnet_mixture",
    "peers": "smellkit.study.odour.commands:peers",
    "drift": "smellkit.study.odour.commands:drift",
    "fusion": "smellkit.study.odour.commands:fusion",
    "reproduce": "smellkit.study.odour.commands:reproduce",
    "neckwear": "smellkit.study.device.bench:bench",
    "speed": "smellkit.study.speed:bench",
    "gcode": "smellkit.study.gcode.commands:bench",
    "gcode-ablations": "smellkit.study.commands:gcode_ablations",
    "smart-mill": "smellkit.study.gcode.commands:smart_mill",
    "plume": "smellkit.study.plume.commands:bench",
    "plume-ablations": "smellkit.study.commands:plume_ablations",
    "plume-worlds": "smellkit.study.plume.commands:worlds",
}


class LazyGroup(click.Group):
    """A click group over a table of "module:attribute" strings, so that `smellkit --help` loads no torch."""

    def __init__(self, *args, table: dict[str, str], **kwargs):
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx):
        return list(self.table)

    def get_command(self, ctx, name):
        if name not in self.table:
            ctx.fail(f"No command {name!r}: {nearest(name, self.table)}")
        return resolve(self.table[name])


class Forgiven(logging.Filter):
    """Keeps what readers forgive out of the log, and shows it once, when the command ends, instead of a line a file."""

    def __init__(self):
        super().__init__()
        self.places: list[tuple[str, str, int]] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.funcName != "tell":
            return record.levelno >= logging.WARNING
        path, what, count = record.args or ("", "", 0)
        self.places.append((str(path), str(what), int(str(count))))
        return False

    def show(self) -> None:
        if self.places:
            from smellkit.checks.report import summary  # loads pandas, which who plays a scent need not wait for

            click.echo("\n  ".join(["Forgiven while reading:", *summary(self.places)]), err=True)


@click.group(cls=LazyGroup, table=COMMANDS)
@click.version_option(__version__)
@click.pass_context
def cli(ctx):
    """From a gas-sensor recording to a scent that someone can smell."""
    forgiven, level = Forgiven(), READERS.level
    READERS.addFilter(forgiven)
    READERS.setLevel(logging.INFO)
    for end in (forgiven.show, partial(READERS.setLevel, level), partial(READERS.removeFilter, forgiven)):
        ctx.call_on_close(end)  # the last one first


@click.group(cls=LazyGroup, table=BENCHES)
def bench():
    """Measure a published protocol, or the kit's own speed, and write the figures as JSON."""


def main() -> None:
    """Run the command line: an error that the reader can act on is one message and exit code 1."""
    try:
        return cli()
    except SmellkitError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in paths.FULL:
            raise
        place = f" {error.filename}" if error.filename else ""
        message = f"Can't write{place}: {error.strerror}\n  Try: make room, or write to another place"
    click.secho(f"Error: {message}", fg="red", err=True)
    sys.exit(1)
