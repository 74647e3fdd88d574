"""`smellkit bench neckwear`: the figures of the driver."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures there.")
@click.option("--long", is_flag=True, help="Also play a list of 300 s in real time.")
def bench(out, long):
    """Measure frames, parser, stop, watchdog and the fault scenarios of the NeckWear."""
    from smellkit.study.device.bench import measure
    from smellkit.study.evaluate import publish

    figures = measure(progress=click.echo, long=long)
    if out:
        publish(out, figures, command="smellkit bench neckwear" + " --long" * long)
        click.echo(f"Written to {out}.")
