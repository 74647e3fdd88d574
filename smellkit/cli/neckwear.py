"""`smellkit neckwear ...`: each command parses, calls one function, and says what happened."""

import contextlib
import time
from pathlib import Path

import click

CHECKLIST = """\
[ ] Cartridges {which} are in their slots (worn: 1 to 6 left, 7 to 12 right) and not empty: smell each one.
[ ] The NeckWear is charged and switched on; its battery can't be asked over this link.
[ ] The handset is plugged in, nothing else uses its port, and `smellkit neckwear probe` answers.
[ ] Handset and NeckWear are on the same radio channel, within a few metres.
[ ] The wearer has agreed to these scents, has no known allergy to them, and can take the device off.
[ ] The room is aired. Nothing confirms a stop: a play ends by its own timer within 10 s at the latest."""


def _opens_player(command):
    """The options of every command that opens a player."""
    for option in (
        click.option("--log", type=click.Path(path_type=Path), help="File for the device log (JSON lines)."),
        click.option("--blind", is_flag=True, help="Go on where nothing answers; it may be a wrong port."),
        click.option("--link", type=click.Choice(["auto", "handset", "direct"]), default="auto", show_default=True,
                     help="Who answers."),
        click.option("--port", default="virtual", envvar="SMELLKIT_PORT", show_default=True,
                     help="Serial port, address, ble:NAME, or virtual."),
    ):  # fmt: skip
        command = option(command)
    return command


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
def scents():
    """List the twelve channels and the scents that belong into them."""
    from smellkit.odour.scents import SCENTS

    for number, name in enumerate(SCENTS, 1):
        click.echo(f"{number:2}  {name}")


@neckwear.command()
@_opens_player
def probe(**player):
    """Ask who is there: the handset for its radio channel, or the player how it is."""
    with _open(**player) as neck:
        answer, status = neck.probe(), neck.status()
        took = f"on {player['port']} answered in {answer.seconds * 1000:.1f} ms"
        if neck.link == "handset":
            click.echo(f"The handset {took}: radio channel {answer.channel}.")
            click.echo("Battery and cartridges: unknown (the link has no query for them).")
        else:
            click.echo(f"The player {took}: {status.state}.")
            click.echo(f"Battery {status.battery} %, cartridges {status.cartridges}, as it said at {status.said_at}.")


@neckwear.command()
@click.argument("scent")
@click.option("--seconds", default=3.0, show_default=True, help="How long to play.")
@_opens_player
def play(scent, seconds, **player):
    """Play one SCENT: its channel, 1 to 12, or its name, such as banana."""
    number = _channel(scent)
    with _playing(**player) as neck:
        neck.play(number, seconds=seconds)
        click.echo(f"Playing scent {scent} for {seconds:g} s on {player['port']}. Ctrl-C stops.")
        neck.wait()
        silent = "Whether it was in the air is unconfirmed: the device does not say."
        over = f"Over. {silent if neck.link == 'handset' else 'The player acknowledged it.'}"
        click.echo(over if neck.ended == "played" else f"It was {neck.ended}.")


@neckwear.command()
@click.argument("shares", nargs=-1, required=True)
@click.option("--seconds", default=60.0, show_default=True, help="How long the sequence takes.")
@click.option("--slot", default=2.0, show_default=True, help="Seconds of one slot (1 to 5).")
@click.option("--keep", default=4, show_default=True, help="Play the largest shares only.")
@_opens_player
def mix(shares, seconds, slot, keep, **player):
    """Play a mixture as a sequence of slots.

    SHARES are scent=share, by channel or by name, and add up to 1: 1=0.5 mango=0.3 12=0.2. `smellkit neckwear scents`
    lists them. Slots of two seconds are smelled one after the other, not as a blend.
    """
    beta = _beta(shares)
    with _playing(**player) as neck:
        plan = neck.play_mixture(beta, seconds=seconds, slot=slot, keep=keep)
        scents = " ".join(str(scent) for _, scent, _ in plan.slots)
        click.echo(f"{len(plan.slots)} slots: {scents}. Left out: {plan.lost:.1%}. Ctrl-C stops.")
        neck.wait()
        sent = ", ".join(f"scent {scent} {share:.1%}" for scent, share in neck.achieved().items() if scent)
        click.echo(f"Sent: {sent or 'as one mixture'}" if neck.ended == "played" else f"It was {neck.ended}.")


@neckwear.command()
@click.option("--port", envvar="SMELLKIT_PORT", help="Only the player on this port; without, every one that is open.")
def stop(port):
    """Emergency stop: reach the players that other programs hold, or send stop to a port that nobody holds."""
    from smellkit.device.watchdog import order_stop
    from smellkit.errors import DeviceError

    replies, missed = order_stop(port or ""), []
    for reply in replies:
        for name in reply["ports"]:
            held = f"{name}, held by process {reply['pid']} ({reply['program']})"
            if name not in reply["sent"]:
                missed.append(held)
                continue
            outcome = "It confirmed that." if name in reply["confirmed"] else "Nothing confirms that."
            click.echo(f"Stop was sent to {held}. {outcome}")
    if missed:
        raise DeviceError(f"No stop could be sent to {'; '.join(missed)}", hint="switch the player off")
    if replies:
        return
    if not port or port == "virtual":
        hint = "--port PORT sends stop to a port that no program holds"
        raise DeviceError("No program of yours holds a player", hint=hint)
    with _open(port, blind=True) as neck:
        done = neck.stop()
        confirmed = "It confirmed that." if done.confirmed else "The device does not confirm it."
        click.echo(f"Stop was sent {done.sent} times to {port}. {confirmed}")


@neckwear.command()
@click.argument("scents", nargs=-1, type=click.IntRange(1, 12))
def checklist(scents):
    """What to look at before a run with these SCENTS, because the link can't say it."""
    click.echo(CHECKLIST.format(which=", ".join(map(str, sorted(set(scents)))) or "all 12"))


@neckwear.command()
@click.option("--tcp", type=click.IntRange(0, 65535), help="Serve on 127.0.0.1 at this port (0: any), not on a pty.")
@click.option("--link", type=click.Path(path_type=Path), help="A symbolic link that follows the pty.")
@click.option("--direct", is_flag=True, help="Speak the link that answers, not the handset's.")
@click.option("--fault", "faults", multiple=True, help="Name, or name=value; repeat for more. See --list-faults.")
@click.option("--seed", default=0, show_default=True, help="Decides every chance.")
@click.option("--log", type=click.Path(path_type=Path), help="File for what was emitted (JSON lines).")
@click.option("--seconds", type=click.IntRange(0, 10**8), default=10**8, help="End after this long, or by Ctrl-C.")
@click.option("--list-faults", is_flag=True, help="Say what can go wrong, and end.")
def virtual(tcp, link, direct, faults, seed, log, seconds, list_faults):
    """Run a virtual NeckWear for any client."""
    from smellkit.device.clock import Clock
    from smellkit.device.log import LineFile
    from smellkit.device.serve import PtyServer, TcpServer
    from smellkit.simulate.faulty_player import FAULTS, FaultyDirect, FaultyNeckWear, read_faults

    if list_faults:
        for name, (number, what, usual) in FAULTS.items():
            click.echo(f"{name:13} {number:4} {what} (usually {usual:g})")
        return
    with contextlib.closing(LineFile(log)) if log else contextlib.nullcontext() as file:
        device = (FaultyDirect if direct else FaultyNeckWear)(faults=read_faults(faults), seed=seed, log=file)
        with PtyServer(device, link=link) if tcp is None else TcpServer(device, port=tcp) as served:
            click.echo(f"A virtual NeckWear listens on {served.port}")
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(seconds)
            for air in device.air:
                click.echo(f"scent {air.scent}: {(air.end or Clock.now()) - air.start:.3f} s")


def _open(port, *, log=None, link="auto", blind=False):
    from smellkit.device.errors import NoReply
    from smellkit.device.neckwear import NeckWear

    known = "handset" if link == "auto" else link
    neck = None
    try:
        neck = NeckWear.open(port, log=log, link=known if port == "virtual" else link)
        if link != "auto":
            neck.probe()
        return neck
    except NoReply:
        if neck:
            neck.close()
        if not blind:
            raise
        click.echo(f"Nothing answered on {port}: going on blind.")
        return NeckWear.open(port, log=log, link=known)


@contextlib.contextmanager
def _playing(**player):
    """The player, for what wakes it first where it sleeps; Ctrl-C is silence, or an error where no stop could leave."""
    with _open(**player) as neck:
        if neck.link == "handset":
            click.echo("Waking the player ...")
        try:
            yield neck
        except KeyboardInterrupt:
            neck.stop()
            click.echo("\nStop was sent.")
            raise SystemExit(130) from None


def _channel(scent):
    from smellkit.device import frames

    if scent.isdecimal() and int(scent) in frames.SCENT_NUMBERS:
        return int(scent)
    from smellkit.odour.scents import ALIASES, SCENTS  # names alone need them, and they load pandas
    from smellkit.options import check

    name = scent.strip().lower().replace(" ", "_").replace("-", "_")
    name = ALIASES.get(name, name)
    check([name], SCENTS, "There is no scent")
    return SCENTS.index(name) + 1


def _beta(shares):
    from smellkit.errors import OptionError

    beta = [0.0] * 12
    for share in shares:
        scent, _, value = share.partition("=")
        number = _channel(scent)
        try:
            beta[number - 1] += float(value)
        except ValueError:
            raise OptionError(f"Share {share!r}", hint="scent=share, such as 3=0.5 or mango=0.5") from None
    return beta
