"""What the commands of the benches share, `smellkit study score`, and the ablations, which no system owns alone."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click
from click.core import ParameterSource

from smellkit import options, paths

FOLDER = click.Path(path_type=Path)
JSON = click.option("--json", "out", type=FOLDER, help="Where the figures go; of rows, those not run now are kept.")
SAVE = click.option("--save", "folder", type=FOLDER, help="Only train the weights to ship; keep them there.")
DATA = click.option("--data", default="", metavar="DIR", help="The folder of recordings or pairs; the sample else.")


def names(option: str, to: str, about: str):
    """An option that takes names with commas between them, and gives a list."""
    split = lambda _, __, text: [name.strip() for name in text.split(",") if name.strip()]  # noqa: E731
    return click.option(option, to, default="", metavar="NAME", callback=split, help=about)


def number(option: str, default: int, about: str, *, least: int = 1):
    """An option that is a whole number from `least` on."""
    return click.option(option, default=default, show_default=True, type=click.IntRange(least), help=about)


def numbers(option: str, default: str, about: str):
    """An option that takes whole numbers with commas between them, and gives a list."""
    return click.option(option, default=default, show_default=True, callback=_listed, help=about)


def _listed(_: click.Context, option: click.Parameter, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as why:
        raise click.BadParameter(f"{text!r} are not numbers with commas, for example 0,1", param=option) from why


def several(option: str, to: str, about: str):
    """An option that may be given more than once."""
    return click.option(option, to, multiple=True, metavar="NAME", help=about)


def switch(option: str, to: str, about: str):
    """An option that switches `to` off."""
    return click.option(option, to, is_flag=True, flag_value=False, default=True, help=about)


def place(about: str):
    """The folder of data, which has to be named."""
    return click.option("--data", required=True, metavar="DIR", type=FOLDER, help=about)


def keep(result: Mapping[str, Any], out: Path | None, command: str) -> None:
    """Write `result` as JSON when a file was asked for, and say so."""
    from smellkit.study import evaluate

    if out:
        click.echo(f"{evaluate.publish(out, result, command=command)}")


def bench(
    name: str,
    study: str,
    about: str,
    *asked: Callable,
    save: str = "",
    instead: Callable[[dict[str, Any]], bool] = lambda _: False,
    **fixed: Any,
) -> click.Command:
    """The command `smellkit bench NAME`: what the options `asked` of a study is measured, shown and kept.

    `study` is its "module:function" below smellkit.study, called with the options, what is `fixed`, and what the file
    has already. Where it makes weights that ship, `save` is their function in `odour.release`, for the option --save;
    where `instead` says that it has answered, nothing is measured.
    """

    def call(out: Path | None, folder: Path | None = None, **given: Any) -> None:
        from smellkit.study import evaluate, published

        if folder:
            click.echo(resolve_name(f"smellkit.study.odour.release:{save}")(given["data"], folder, progress=click.echo))
            return
        if instead(given):
            return
        if out:
            paths.check_writable(out)
        run, before = resolve_name(f"smellkit.study.{study}"), evaluate.earlier(out)
        command = f"smellkit bench {name}" + asked_for(click.get_current_context())
        try:
            result = run(**given, **fixed, progress=click.echo, earlier=before)
        except BaseException as why:
            measured, known = getattr(why, "measured", {}), before.get("rows", {})
            if known != (rows := measured.get("rows", known)) and rows.keys() >= known.keys():
                keep(before | measured, out, command)
            raise
        click.echo(published.text(name, result))
        keep(result, out, command)

    for option in (*((SAVE,) if save else ()), JSON, *reversed(asked)):
        call = option(call)
    return click.command(name, help=about)(call)


def asked_for(context: click.Context) -> str:
    """The options of a command as they were given, but where data lay and figures went: ` --protocol X --seeds 7,8`."""
    text = " --data DIR" if "data" in context.params else ""
    for option in context.command.params:
        value, given = context.params.get(str(option.name)), context.get_parameter_source(str(option.name))
        if given is ParameterSource.COMMANDLINE and option.name not in ("data", "out", "fixed"):
            several = value if isinstance(value, tuple) else [value]
            words = [",".join(map(str, one)) if isinstance(one, list) else str(one) for one in several]
            text += "".join(f" {option.opts[0]}" + f" {shlex.quote(word)}" * (value is not False) for word in words)
    return text


def ablations(system: str, about: str, *more: Callable, seeds: int = 3, workers: int = 1) -> click.Command:
    """The command of the sweeps of a system, see `study.ablations`."""
    parse = lambda _, __, pairs: options.parse(pairs)  # noqa: E731
    fixed = "Overrides what the files fix for all runs."
    return bench(
        f"{system}-ablations",
        "ablations:run",
        about,
        DATA,
        *more,
        names("--only", "only", "Names of sweeps with commas, as in notebooks/sweeps; all by default."),
        number("--seeds", seeds, "Repetitions of every case, seeds 1, 2, ..."),
        number("--workers", workers, "Processes on this machine."),
        click.option("--set", "fixed", multiple=True, metavar="NAME=VALUE", callback=parse, help=fixed),
        system=system,
    )


smellnet_ablations = ablations(
    "smellnet", "Run the encoder's sweeps: technique, sensors, tricks, sessions.", seeds=5, workers=2
)
gcode_ablations = ablations(
    "gcode", "Losses, kinds of sensor and parts of the window decoder, and what of it is noise."
)
plume_ablations = ablations(
    "plume",
    "How the gases meet, which there are, which tasks are learned, and the recipe: a small FUME trained again.",
    click.option("--test", default="", help="Another folder, whose test split is tested on."),
)


@click.group()
def study():
    """Keep the log of how often each visible test was looked at."""


@study.command()
@click.argument("system", metavar="SYSTEM")
@click.option("--data", "folder", default="", help="The folder of real recordings; the simulated sample by default.")
@click.option("--again", is_flag=True, help="Score weights that were scored before; the log will show it.")
def score(system, folder, again):
    """Score the shipped weights of SYSTEM (odour, mixture, fusion, gcode, plume) on its visible tests, and log it."""
    from smellkit.study import score as scoring
    from smellkit.study.evaluate import percent

    line = scoring.score(system, str(folder), again=again)
    for test, figures in line["figures"].items():
        click.echo(f"{test}: " + ", ".join(f"{name} {percent(figure)}" for name, figure in figures.items()))
    click.echo(f"logged in {scoring.FILE}")
