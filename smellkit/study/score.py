"""`smellkit study score SYSTEM`: the visible tests, scored once a release of weights, and every look kept.

A test that was looked at has been learned from, a little each time: what is chosen is chosen on training data. Weights
that are saved to ship meet the tests once for their card (`study.odour.release`), which is kept here, too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
Outcomes = Mapping[str, Outcome]  # test -> what the shipped weights scored on it


class Tested(NamedTuple):
    """A system that ships: the results page that shows it, the measures that are kept, and what scores it."""

    page: str
    measures: Sequence[str]
    outcomes: Callable[[str], Outcomes]


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
        for test, one in TESTED[system].outcomes(data).items():
            kept = {name: one.measures[name] for name in TESTED[system].measures}
            figures[test] = {
                name: interval._asdict() for name, interval in summarise([Outcome(one.groups, kept)]).items()
            }
        command = f"smellkit study score {system} --data DIR" + " --again" * again
        return append(file, system=system, weights=digest, command=command, figures=figures)


def append(file: Path = FILE, *, system: str, weights: str, command: str, figures: Mapping) -> dict[str, Any]:
    """Add a look to the log, whole or not at all, and return it: of which weights (their sha256), on which tests."""
    git = ["git", "-C", str(paths.HOME), "show", "-s", "--format=%cs", "HEAD"]
    date = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    made = {"system": system, "date": date, "revision": runs.revision(), "weights": weights}
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
        told = ", ".join(f"{name.replace('_', ' ')} {_told(one)}" for name, one in last["figures"][test].items()) or "–"
        whose = f"{'shipped weights' if shipped else 'a fit'}, {last['date']}"
        rows.append(f"| {system}: {test} | {len(own)} | {len(shipped)} | {told} | {whose} |")
    return "\n".join(rows)


def _told(figure: Mapping[str, Any]) -> str:
    """A share in per cent, with its interval where one was kept."""
    return percent(figure) if figure.get("low") is not None else f"{100 * figure['value']:.1f}"


def _odour(data: str) -> Outcomes:
    from smellkit.odour.recordings import read_recordings
    from smellkit.odour.smell import SubstanceSmell
    from smellkit.odour.windows import cut
    from smellkit.study.odour.smellnet import outcome
    from smellkit.study.odour.survey import other_sessions

    smell = SubstanceSmell.load(paths.weights() / "odour")
    parts = {"official split": read_recordings(data, "testing"), "another session": other_sessions(data)}
    cuts = {name: cut(rows, smell.protocol, classes=smell.classes) for name, rows in parts.items() if rows is not None}
    return {name: outcome(smell.scores(windows.values), windows) for name, windows in cuts.items()}


def _mixture(data: str) -> Outcomes:
    from smellkit.odour.mixture import dynamic_top_k, within_tolerance
    from smellkit.odour.recordings import find
    from smellkit.odour.smell import load_hybrid
    from smellkit.study.odour.mixture_data import read_windows

    hybrid, outcomes = load_hybrid(paths.weights() / "mixture"), {}
    for name in ("seen", "unseen"):
        if (find(data) / "mixture" / f"test_{name}").is_dir():
            test = read_windows(find(data), f"test_{name}", copies=True)
            ratios = hybrid.explain(test.counts, recording=test.recording)["ratios"]
            right = {"top1_at_0.1": within_tolerance, "dynamic_top_k": dynamic_top_k}
            measures = {measure: of(ratios, test.ratios) for measure, of in right.items()}
            outcomes[f"{name} mixtures"] = Outcome(test.recording, measures)
    return outcomes


def _fusion(data: str) -> Outcomes:
    """The shipped experts; pictures and sentences by probes that did not see them, and as those mistake them."""
    from smellkit.odour.smell import Fused
    from smellkit.study.odour.fusion import ALL, by_experts, name_of, outcomes, untrained
    from smellkit.study.odour.scenes import read_scenes

    scenes = read_scenes(data, seed=1)
    experts = replace(Fused.load().experts, confusion=untrained(scenes).confusion)
    table = outcomes(by_experts(experts, scenes), scenes, seed=1, subsets=[ALL])
    tests = {"test": "seen mixtures, three senses", "unseen": "unseen mixtures, three senses"}
    return {
        words: table[f"{part}, {name_of(ALL)}"] for part, words in tests.items() if f"{part}, {name_of(ALL)}" in table
    }


def _gcode(data: str) -> Outcomes:
    from smellkit.study.gcode.protocols import shipped

    return shipped(data)


def _plume(data: str) -> Outcomes:
    """The test pairs of `data`, or of every simulator of `smellkit bench plume-worlds`."""
    from smellkit.plume.predict import PlumePredictor
    from smellkit.study.plume import worlds

    model = PlumePredictor.load(paths.weights() / "plume").model
    if data:
        return {"pairs of a folder": worlds.answered(model, data)}
    return {f"simulator {world}": worlds.scored(model, world) for world in (*worlds.OWN, *worlds.WORLDS)}


TESTED = {
    "odour": Tested("odour", ("top1", "top5"), _odour),
    "mixture": Tested("scents", ("top1_at_0.1", "dynamic_top_k"), _mixture),
    "fusion": Tested("scents", ("top1_at_0.1", "dynamic_top_k", "loudest"), _fusion),
    "gcode": Tested("gcode", ("AR", "exact", "operation", "within_0.2_mm", "within_2_mm"), _gcode),
    "plume": Tested("plume", ("miou", "balanced"), _plume),
}
