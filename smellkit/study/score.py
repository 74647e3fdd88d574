"""`smellkit study score SYSTEM`: the visible tests, scored once a release of weights, and every look kept.

A test that was looked at has been learned from, a little each time: what is chosen is chosen on training data. Weights
that are saved to ship meet the tests once for their card (`study.odour.release`), which is kept here, too.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smellkit import checkpoint, options, paths, runs
from smellkit.errors import DataError, OptionError
from smellkit.study.evaluate import Outcome, percent, summarise

FILE = paths.HOME / "site" / "results" / "scorings.jsonl"
HEAD = """## How often was each test looked at?

A test is learned from a little by every look. Looks before the log was kept are the published results whose figures
changed, so there were more. Shipped weights are scored once a release, by `smellkit study score`.

| test | looked at, at least | by shipped weights | last, per cent | of |
|---|---|---|---|---|"""


class Tested(NamedTuple):
    """A system that ships: the results page that shows it, the measures that are kept, and what scores it."""

    page: str
    measures: Sequence[str]
    outcomes: str  # "module:function" from a data folder to {test: what the shipped weights scored on it}


def score(system: str, data: str, *, again: bool = False, file: Path = FILE) -> dict[str, Any]:
    """Score the shipped weights of `system` on its visible tests, append one line to `file`, and return it.

    OptionError for weights that were scored before, unless `again`: a second look tells nothing new but is one.
    """
    options.check([system], TESTED, "There is no system")
    digest = checkpoint.manifest(paths.weights() / system)["sha256"]
    with paths.locked(file.parent, what="scoring"):
        before = [line for line in read(file) if line["system"] == system and line["weights"] == digest]
        if before and not again:
            what = f"These weights were scored on {before[-1]['date']}: {file}"
            raise OptionError(what, hint="read the figures there; --again scores them once more, and says so")
        figures = {}
        for test, one in options.resolve(TESTED[system].outcomes)(data).items():
            kept = {name: one.measures[name] for name in TESTED[system].measures}
            means = summarise([Outcome(one.groups, kept)])
            figures[test] = {name: interval._asdict() for name, interval in means.items()}
        command = f"smellkit study score {system} --data DIR" + " --again" * again
        return append(file, system=system, weights=digest, command=command, figures=figures)


def append(file: Path = FILE, *, system: str, weights: str, command: str, figures: Mapping) -> dict[str, Any]:
    """Add a look to the log, whole or not at all, and return it: of which weights (their sha256), on which tests."""
    made = {
        "system": system,
        "date": datetime.date.today().isoformat(),
        "revision": runs.revision(),
        "weights": weights,
    }
    plain = runs.plain({**made, "command": command, "figures": figures})
    with paths.writing(file), file.open("ab", buffering=0) as log:
        log.write(json.dumps(plain, allow_nan=False).encode() + b"\n")
    return plain


def read(file: Path = FILE) -> list[dict[str, Any]]:
    """Every look, the oldest first; DataError for a line that is none."""
    looks = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines() if file.is_file() else [], 1):
        try:
            look = json.loads(text)
            looks.append({name: look[name] for name in ("system", "date", "revision", "weights", "command", "figures")})
        except (ValueError, TypeError, KeyError) as why:
            raise DataError(f"{file}, line {number} is no scoring: {why!r}", hint="restore it from git") from why
    return looks


def table(page: str, file: Path = FILE) -> str:
    """How often each test of a results page was looked at, beside its last figures, as markdown; "" for no look."""
    looks = [look for look in read(file) if look["system"] in TESTED and TESTED[look["system"]].page == page]
    tests = dict.fromkeys((look["system"], test) for look in looks for test in look["figures"])
    rows = [HEAD] if tests else []
    for system, test in tests:
        own = [look for look in looks if look["system"] == system and test in look["figures"]]
        shipped = [look for look in own if look["weights"]]
        last = (shipped or own)[-1]
        text = (
            ", ".join(f"{name.replace('_', ' ')} {percent(one)}" for name, one in last["figures"][test].items()) or "–"
        )
        whose = f"{'shipped weights' if shipped else 'a fit'}, {last['date']}"
        rows.append(f"| {system}: {test} | {len(own)} | {len(shipped)} | {text} | {whose} |")
    return "\n".join(rows)


def plume(data: str) -> Mapping[str, Outcome]:
    """What the shipped model scores on the test pairs of `data`, or of every simulator of `bench plume-worlds`."""
    from smellkit.plume.predict import PlumePredictor
    from smellkit.study.plume import worlds

    model = PlumePredictor.load(paths.weights() / "plume").model
    if data:
        return {"pairs of a folder": worlds.answered(model, data)}
    singly = {f"simulator {world}": worlds.scored(model, world) for world in (*worlds.OWN, *worlds.WORLDS)}
    films = (worlds.OWN[0], *worlds.WORLDS)
    return singly | {f"simulator {world}, videos": worlds.filmed(model, world, videos=True) for world in films}


STUDY, SHARES = "smellkit.study", ("top1_at_0.1", "dynamic_top_k")
TESTED = {
    "odour": Tested("odour", ("top1", "top5"), f"{STUDY}.odour.release:odour_outcomes"),
    "mixture": Tested("scents", SHARES, f"{STUDY}.odour.release:mixture_outcomes"),
    "fusion": Tested("scents", (*SHARES, "loudest"), f"{STUDY}.odour.release:fusion_outcomes"),
    "gcode": Tested(
        "gcode", ("AR", "exact", "operation", "within_0.2_mm", "within_2_mm"), f"{STUDY}.gcode.protocols:shipped"
    ),
    "plume": Tested("plume", ("miou", "balanced"), f"{STUDY}.score:plume"),
}
