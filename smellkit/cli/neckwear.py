"""`smellkit neckwear ...`: each command parses, calls one function, and says what happened."""

from __future__ import annotations

import time
from pathlib import Path

import click

port_option = click.option(
    "--port", default="virtual", envvar="SMELLKIT_PORT", show_default=True, help="Serial port, address, or virtual."
)
CHECKLIST = [  # what a person has to look at, because the link can't say it: cartridges, power, radio
    "Cartridges {which} are in their slots (worn: 1 to 6 left, 7 to 12 right) and not empty: smell each one.",
    "The NeckWear is charged and switched on; its battery can't be asked over this link.",
    "The handset is plugged in, nothing else uses its port, and `smellkit neckwear probe` answers.",
    "Handset and NeckWear are on the same radio channel, within a few metres.",
    "The wearer has agreed to these scents, has no known allergy to them, and can take the device off.",
    "The room is aired. Nothing confirms a stop: a play ends by its own timer within 10 s at the latest.",
]
log_option = click.option("--log", type=click.Path(path_type=Path), help="File for the device log (JSON lines).")


@click.group()
def neckwear():
    """Play scents on the NeckWear, or on a virtual one."""


@neckwear.command()
def ports():
    """List the serial ports, likely handsets first."""
    from smellkit.device.link import list_ports

    ports = list_ports()
    for port in ports:
        click.echo(f"{'*' if port.likely else ' '} {port.device}  {port.name}  {port.serial_number}".rstrip())
    click.echo("* may be a NeckWear handset." if ports else "No serial ports here. `--port virtual` needs none.")


@neckwear.command()
@port_option
@log_option
def probe(port, log):
    """Ask the handset for its radio channel."""
    with _open(port, log) as neck:
        answer = neck.probe()
        click.echo(f"The handset on {port} answered in {answer.seconds * 1000:.1f} ms: radio channel {answer.channel}.")
        click.echo("Battery and cartridges: unknown (the link has no query for them).")


@neckwear.command()
@click.argument("scent", type=click.IntRange(1, 12))
@click.option("--seconds", default=3.0, show_default=True, help="How long to play.")
@port_option
@log_option
def play(scent, seconds, port, log):
    """Play one SCENT, 1 to 12."""
    with _open(port, log) as neck:
        neck.play(scent, seconds=seconds)
        click.echo(f"Playing scent {scent} for {seconds:g} s on {port}. Ctrl-C stops.")
        neck.wait()
        click.echo("Over. Whether it was in the air is unconfirmed: the device does not say.")


@neckwear.command()
@click.argument("shares", nargs=-1, required=True)
@click.option("--seconds", default=60.0, show_default=True, help="How long the sequence takes.")
@click.option("--slot", default=2.0, show_default=True, help="Seconds of one slot (1 to 5).")
@click.option("--keep", default=4, show_default=True, help="Play the largest shares only.")
@port_option
@log_option
def mix(shares, seconds, slot, keep, port, log):
    """Play a mixture as a sequence of slots: SHARES such as 1=0.5 4=0.3 12=0.2."""
    beta = _beta(shares)
    with _open(port, log) as neck:
        plan = neck.play_mixture(beta, seconds=seconds, slot=slot, keep=keep)
        scents = " ".join(str(scent) for _, scent, _ in plan.slots)
        click.echo(f"{len(plan.slots)} slots: {scents}. Left out: {plan.lost:.1%}. Ctrl-C stops.")
        neck.wait()
        click.echo("Sent: " + ", ".join(f"scent {scent} {share:.1%}" for scent, share in neck.achieved().items()))


@neckwear.command()
@port_option
@log_option
def stop(port, log):
    """Send stop, three times."""
    with _open(port, log) as neck:
        done = neck.stop()
        click.echo(f"Stop was sent {done.sent} times to {port}. The device does not confirm it.")


@neckwear.command()
@click.argument("scents", nargs=-1, type=click.IntRange(1, 12))
def checklist(scents):
    """What to look at before a run with these SCENTS."""
    which = ", ".join(map(str, sorted(set(scents)))) or "all 12"
    for line in CHECKLIST:
        click.echo(f"[ ] {line.format(which=which)}")


@neckwear.command()
@click.option(
    "--tcp", type=click.IntRange(0, 65535), help="Serve on 127.0.0.1 at this port (0: a free one), not on a pty."
)
@click.option("--link", type=click.Path(path_type=Path), help="A symbolic link that follows the pty.")
@click.option("--fault", "faults", multiple=True, help="Name, or name=value; repeat for more. See --list-faults.")
@click.option("--seed", default=0, show_default=True, help="Decides every chance.")
@click.option("--log", type=click.Path(path_type=Path), help="File for what was emitted (JSON lines).")
@click.option("--seconds", type=float, help="End after this long; without, Ctrl-C ends it.")
@click.option("--list-faults", is_flag=True, help="Say what can go wrong, and end.")
def virtual(tcp, link, faults, seed, log, seconds, list_faults):
    """Run a virtual NeckWear for any client."""
    from contextlib import ExitStack

    from smellkit.device.clock import Clock
    from smellkit.device.serve import PtyServer, TcpServer
    from smellkit.device.virtual import FAULTS, VirtualNeckWear, read_faults

    if list_faults:
        for name, (number, what, usual) in FAULTS.items():
            click.echo(f"{name:13} {number:4} {what} (usually {usual:g})")
        return
    with ExitStack() as stack:
        file = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
        device = VirtualNeckWear(faults=read_faults(faults), seed=seed, log=file)
        served = PtyServer(device, link=link) if tcp is None else TcpServer(device, port=tcp)
        stack.enter_context(served)
        click.echo(f"A virtual NeckWear listens on {served.port}")
        try:
            time.sleep(seconds if seconds is not None else 10**8)
        except KeyboardInterrupt:
            click.echo()
        for air in device.air:
            click.echo(f"scent {air.scent}: {(air.end or Clock.now()) - air.start:.3f} s")


def _open(port, log):
    from smellkit.device.neckwear import NeckWear

    return NeckWear.open(port, log=log)


def _beta(shares):
    from smellkit.errors import OptionError

    beta = [0.0] * 12
    for share in shares:
        scent, _, value = share.partition("=")
        if not (scent.isdigit() and 1 <= int(scent) <= 12):
            raise OptionError(f"Share {share!r}", hint="scent=share, with a scent from 1 to 12, such as 3=0.5")
        try:
            beta[int(scent) - 1] = float(value)
        except ValueError:
            raise OptionError(f"Share {share!r}", hint="scent=share, such as 3=0.5") from None
    return beta
