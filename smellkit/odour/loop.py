"""One smell after the other: every recording of a folder with its picture and description, recognised and played.

    smell_data/<odour>/*.csv, images/<odour>/*, smell_descriptions.json -> items -> pipeline -> player -> JSON lines

What can't be read or played is a line with its error, and the loop goes on; what a log holds already is not done again.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smellkit.device.errors import LinkError, PortError, PortLost
from smellkit.device.neckwear import NeckWear
from smellkit.errors import DataError, SmellkitError
from smellkit.odour.pipeline import Mixture, Pipeline, Played
from smellkit.odour.scents import SCENTS, pictures_in, read_scents

TRIES = 3  # of a play, where the port goes away


@dataclass(frozen=True)
class Item:
    """One thing to recognise: what there is of it, or `error`, why there is nothing."""

    name: str
    recording: Path | None = None
    picture: Path | None = None
    text: str | None = None
    error: str = ""


def read_items(folder: Path) -> list[Item]:
    """Every recording of a folder in the twelve-scent layout, odour by odour in the order of the player's channels.

    The n-th recording of an odour gets its n-th picture, and begins again where there are fewer; an odour without
    recordings is an item with its error. DataError when there is no such layout.
    """
    folder = Path(folder)
    if not (folder / "smell_data").is_dir():
        raise DataError(f"No smell_data/ in {folder}", hint="smell_data/<odour>/*.csv, images/<odour>/*")
    items = []
    for scent in read_scents(folder):
        inside, shown = folder / "smell_data" / scent.name, pictures_in(folder / "images" / scent.name)
        recordings = sorted(path for path in inside.glob("*.csv") if not path.name.startswith("."))
        if not recordings:
            items.append(Item(scent.name, error=f"no recordings (*.csv) in {inside}: record some, or remove the scent"))
        for number, recording in enumerate(recordings):
            picture = shown[number % len(shown)] if shown else None
            items.append(Item(f"{scent.name}/{recording.name}", recording, picture, scent.long_description))
    return items


def run(
    pipeline: Pipeline,
    items: Sequence[Item],
    *,
    log: Path | None = None,
    player: Callable[[], NeckWear] | None = None,
    seconds: float = 8,
    mixture: bool = False,
) -> Iterator[dict[str, Any]]:
    """Recognise the `items` in order, play each for `seconds` on the `player`, and yield a line for each.

    A line holds time, item, name, confidence, beta, evidence, reason, played and error. With a `log` each line is
    appended to that file at once, and items that it holds without an error are left out.
    """
    done = finished(log)
    held: list[NeckWear] = []
    try:
        for item in items:
            if (item.name, str(item.recording)) in done:
                continue
            answer, played, error = None, None, item.error
            try:
                if not error:
                    answer = pipeline(item.recording, picture=item.picture, text=item.text)
                if answer is not None and player is not None:
                    played = _played(answer, held, player, seconds=seconds, mixture=mixture)
            except SmellkitError as why:
                error = str(why)
            line = as_line(item.name, answer, played, recording=item.recording, error=error)
            if log is not None:
                append(log, line)
            yield line
    finally:
        _let_go(held)


def _played(
    answer: Mixture, held: list[NeckWear], player: Callable[[], NeckWear], *, tries: int = TRIES, **how: Any
) -> Played:
    """Play on the player that is `held`, or on one opened anew where the port went away, at most `tries` times."""
    try:
        if not held:
            held.append(player())
        return answer.play(held[0], wait=True, **how)
    except LinkError as why:
        _let_go(held)
        if tries == 1 or not isinstance(why, (PortError, PortLost)):
            raise
    return _played(answer, held, player, tries=tries - 1, **how)


def _let_go(held: list[NeckWear]) -> None:
    while held:
        held.pop().close()


def as_line(
    name: str, answer: Mixture | None, played: Played | None = None, *, recording: Path | None = None, error: str = ""
) -> dict[str, Any]:
    """What was recognised and played of one item, as plain values for a line of JSON."""
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {"time": time, "item": name, "recording": str(recording or "")}
    if answer is not None:
        said = asdict(answer)
        line |= {key: said[key] for key in ("name", "confidence", "beta", "evidence", "reason", "mixture_reason")}
    aired: Any = None  # the scent that was played, or the slots of a mixture as (start, scent, seconds)
    if played and played.plan is not None:
        aired = [(start, SCENTS[scent - 1], length) for start, scent, length in played.plan.slots]
    elif played:
        aired = SCENTS[(played.scent or 1) - 1]
    return line | {"played": aired, "error": error}


def append(log: Path, line: dict[str, Any]) -> None:
    """Add a line of JSON to a file, at once and whole; below a last line that was cut."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    before = Path(log).read_bytes() if Path(log).is_file() else b""
    cut = bool(before) and not before.endswith(b"\n")
    with Path(log).open("a", encoding="utf-8") as file:
        file.write("\n" * cut + json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def finished(log: Path | None) -> set[tuple[str, str]]:
    """The items, each with its recording, that a log holds without an error; a line that was cut is as if not there."""
    if log is None or not Path(log).is_file():
        return set()
    done = set()
    for text in Path(log).read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and not line.get("error"):
            done.add((str(line.get("item")), str(line.get("recording"))))
    return done
