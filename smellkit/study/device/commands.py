"""`smellkit bench neckwear`: the figures of the driver."""

from __future__ import annotations

import click

from smellkit.study.commands import JSON, keep


@click.command()
@JSON
@click.option("--long", is_flag=True, help="Also play a list of 300 s in real time.")
def bench(out, long):
    """Measure frames, parser, stop, watchdog and the fault scenarios of the NeckWear."""
    from smellkit.study.device.bench import measure

    keep(measure(progress=click.echo, long=long), out, "smellkit bench neckwear" + " --long" * long)
