"""`smellkit sniff`: a recording, a picture and a sentence go in, a scent comes out."""

from pathlib import Path

import click

FILE, LOG = click.Path(path_type=Path), click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("recording", required=False, type=FILE)
@click.option("--picture", "pictures", multiple=True, type=FILE, help="A picture of what smells; repeat for more.")
@click.option("--text", "texts", multiple=True, help="What it smells of, in words; repeat for more.")
@click.option("--play", "port", default="", metavar="virtual|PORT", help="Play it on this player.")
@click.option("--mix", is_flag=True, help="Play the mixture, not the loudest scent alone.")
@click.option("--seconds", default=8.0, show_default=True, help="How long to play.")
@click.option("--weights", default="odour", show_default=True, help="odour, mixture, or a folder of weights.")
@click.option("--nose", default="", metavar="odour|mixture", help="The board of the recording; its columns tell else.")
@click.option("--json", "out", type=LOG, help="Append a line of JSON; of a folder, what it holds is not done again.")
def sniff(recording, pictures, texts, port, mix, seconds, weights, nose, out):
    """Recognise a RECORDING, a picture and a text, or all of them, and play the scent.

    RECORDING is a CSV file, or a folder with smell_data/, images/ and smell_descriptions.json, of which each recording
    is recognised with its picture and description, one after the other.
    """
    from smellkit.device.neckwear import NeckWear
    from smellkit.errors import OptionError
    from smellkit.odour import live
    from smellkit.odour.pipeline import Pipeline

    pipeline = Pipeline.load(weights)
    player = (lambda: NeckWear.open(port)) if port else None
    if recording is not None and recording.is_dir():
        if pictures or texts or nose:
            raise OptionError("--picture, --text and --nose beside a folder", hint="its items bring their own")
        items = live.read_items(recording)
        lines = live.run(pipeline, items, log=out, player=player, seconds=seconds, mixture=mix)
        _folder(lines, count=len(items), log=out)
        return
    answer = pipeline(recording, picture=list(pictures) or None, text=list(texts) or None, nose=nose)
    played = None
    click.echo(describe(answer))
    if player is not None:
        with player() as neck:
            played = answer.play(neck, seconds=seconds, mixture=mix, wait=True)
    line = live.as_line(str(recording or ""), answer, played, recording=recording)
    if port:
        reason = answer.mixture_reason if mix else answer.reason
        click.echo(f"played: {line['played'] or f'nothing, {reason}'}")
    if out:
        live.append(out, line)
        click.echo(f"{out}")


def describe(answer) -> str:
    """A Mixture in a few lines: the name, the largest shares, what each sense said, and why nothing may be played."""
    if not answer.name:
        return f"Nothing is recognised: {answer.reason}"
    kind = f" ({answer.category}, {answer.category_confidence:.0%})" if answer.category else ""
    lines = [f"{answer.name}, {answer.confidence:.0%} sure{kind}: {_shares(answer.beta)}"]
    for sense, one in answer.evidence.items():
        shares = f"left out: {one.why}" if one.why else f"{_shares(one.shares)}   trust {one.trust:.2f}"
        lines.append(f"  {sense:8} {shares}")
    return "\n".join(lines + ([f"  {answer.reason}: no scent would be played"] if answer.reason else []))


def _shares(shares) -> str:
    first = sorted(shares.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {share:.2f}" for name, share in first if share >= 0.005)


def _folder(lines, *, count, log) -> None:
    """Print a line for each of `count` items, and what was left out; exit with 1 when nothing could be done."""
    good = left = 0
    for line in lines:
        good, left = good + (not line["error"]), left + bool(line["error"])
        if line["error"]:
            click.echo(f"{line['item']}: {line['error']}", err=True)
        else:
            click.echo(f"{line['item']}: {line['name']} {line['confidence']:.2f}, played {line['played'] or 'nothing'}")
    before = count - good - left
    click.echo(f"{good} done, {left} left out" + (f", {before} done before by {log}" if before else ""))
    if left and not good:
        raise SystemExit(1)
