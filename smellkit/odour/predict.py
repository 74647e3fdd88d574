"""`smellkit predict DIR --weights odour|mixture|fusion`: what a folder of recordings smells of, as a CSV.

odour: the likeliest substances of every window and every recording. Columns file, window, start, top1..top5, p1..p5;
category, p_category where the classes are SmellNet's.
mixture: the ratios of twelve scents. Columns file, window, start, ratio_<odorant>. fusion: the same of recordings that
come with pictures and texts. `window` counts from 0, `start` is its first row in the file; window -1 stands for the
whole recording. p are calibrated probabilities.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import paths
from smellkit.checks import Report, fault, read_json, read_texts, readable
from smellkit.checks.ranges import Ranges
from smellkit.errors import TRY, DataError
from smellkit.odour.calibration import FAR, SessionCalibration, unfit
from smellkit.odour.confidence import ABSTAIN, decide
from smellkit.odour.formats import SUFFIXES, files_in, header_of, unread
from smellkit.odour.pipeline import Evidence, Pipeline, read_windows, several
from smellkit.odour.readers import NO_CLOCK
from smellkit.odour.recordings import STRIDE, MixtureWindows, cut_mixtures, read_mixture_files
from smellkit.odour.scents import ODORANTS, pictures_in, to_odorants
from smellkit.odour.smell import MixtureSmell, SubstanceSmell
from smellkit.sensors import SMELLNET

SHOWN = 5
COLUMNS = ["file", "window", "start", *(f"ratio_{name}" for name in ODORANTS)]


def odour(folder: Path, *, weights: Path, out: Path, stride: int = 50, answer: bool = False) -> str:
    """Predict every CSV under `folder` into the CSV `out`, windows every `stride` rows, and return what happened.

    A file that can't be read, or is too short for a window, is left out and named in the answer. DataError when there
    is not CSV, or none can be used. `answer` adds the substance, category or "abstain" that is answered.
    """
    if stride < 1:
        raise DataError(f"A stride of {stride} rows", hint="at least 1; the protocol's is 50")
    paths.check_writable(Path(out))
    smell, folder, report = SubstanceSmell.load(weights), Path(folder), Report()
    root = folder.parent if folder.is_file() else folder

    def read(path: Path) -> list[list]:
        return recording_rows(path.relative_to(root).as_posix(), path, smell, stride=stride, report=report)

    files = files_in(folder, (".csv",) if smell.nose == SMELLNET else SUFFIXES)
    files = [file for file in files if not is_index(file, report)]
    rows = [row for _, own in readable(files, read, skip=True, report=report) for row in own]
    if not rows:
        raise unread(folder, report)
    ranks = range(1, min(SHOWN, len(smell.classes)) + 1)
    columns = [*COLUMNS[:3], *(f"top{i}" for i in ranks), *(f"p{i}" for i in ranks), "category", "p_category", "answer"]
    table = pd.DataFrame(rows, columns=columns)
    whole = table[table["window"] == -1]
    silent = (~whole["answer"].isin(smell.classes)).sum()
    unasked = ["answer"] * (not answer) + ["category", "p_category"] * (not table["category"].any())
    _write(table.drop(columns=unasked), out)
    text = f"{out}: {len(table) - len(whole)} windows of {len(whole)} recordings; {silent} recordings too flat to name"
    if timeless := sum(what.startswith(NO_CLOCK) for _, what, _ in report.notes):
        text += f"; {timeless} without a clock: taken at {smell.nose.rate:g} Hz"
    left_out = {Path(path).relative_to(root).as_posix(): why for path, why in report.skipped.items()}
    return text + "".join(f"\n  left out {name}: {why.replace(TRY, '; try: ')}" for name, why in left_out.items())


def _write(table: pd.DataFrame, out: Path) -> None:
    with paths.replacing(Path(out)) as part:
        table.to_csv(part, index=False, float_format="%.6f")


def recording_rows(
    name: str, path: Path, smell: SubstanceSmell, *, stride: int = 50, report: Report | None = None
) -> list[list]:
    """The rows that the table of predictions has for one recording; what lies outside is refused."""
    windows, starts, why = read_windows(path, smell, stride=stride, report=report)
    if why:
        hint = "bring the columns to the unit and the sensors of the training recordings"
        raise DataError(f"{path}: {why}", hint=hint)
    scores = smell.scores(windows)
    whole = max(1.0, len(scores) * stride / smell.stride)  # as many windows as calibration would have cut
    p = np.vstack([smell.calibrated(scores), smell.calibrated(scores.mean(0), whole)])  # the recording's comes last
    positions, rows = [*enumerate(starts), (-1, 0)], []
    for position, own, one in zip(positions, p, decide(p, smell.confidence.thresholds), strict=True):
        best, (kind, sure) = np.argsort(-own, kind="stable")[:SHOWN], smell.category(own)
        answer = kind if sure > smell.confidence.category_least else "abstain"  # where no substance is sure
        answer = answer if one == ABSTAIN else smell.classes[one]
        rows.append([paths.cell(name), *position, *(smell.classes[i] for i in best), *own[best], kind, sure, answer])
    return rows


def mixture(folder: Path, *, weights: Path, out: Path, calibration: str = "", skip: bool = False) -> str:
    """Write the mixture ratios of every recording in `folder` to the CSV `out` and say what happened.

    Windows of 100 rows, every 50, of the first 600 (10 Hz). Columns file, window, start (first row), ratio_<odorant>;
    after a recording's windows comes its mean, with window = -1. `calibration`: the folder that `smellkit calibrate`
    made in the same session. A file that can't be used is refused with its reason, or with `skip` left out and named.
    """
    paths.check_writable(Path(out))
    smell, report = MixtureSmell.load(weights), Report()
    session = SessionCalibration.load(Path(calibration)) if calibration else None
    windows = read_folder(Path(folder), skip=skip, ranges=smell.ranges, report=report)
    if session:
        ratios, how = session.predict(windows.counts), f"calibrated with {len(np.unique(session.recording))} references"
        how += _far(windows, session.distance(windows.counts))
    else:
        answer = smell.hybrid.explain(windows.counts, recording=windows.recording)
        ratios = answer["ratios"]
        known = len(np.unique(windows.recording[answer["p_known_session"] >= 0.5]))
        how = f"{known} of them in a session known from training"
        if known < len(windows.index):
            how += ": references made today would help much, see `smellkit calibrate`"
    _write(as_table(windows, ratios), out)
    return f"{len(windows.index)} recordings, {len(windows)} windows; {how}.\n{out}\n{report}".rstrip()


def _far(windows: MixtureWindows, distance: NDArray) -> str:
    """Which recordings lie far from every reference, in words; "" where none does."""
    middle = pd.Series(distance).groupby(windows.recording).median()
    far = middle[middle > FAR].sort_values(ascending=False)
    if far.empty:
        return ""
    named = ", ".join(f"{windows.index['file'][row]} ({far[row]:.0f})" for row in far.index[:3])
    return (
        f"; {len(far)} of {len(middle)} recordings lie far from every reference, so don't trust their ratios: {named} "
        "(times the scatter within a day). Another session or another unit? Calibrate with references of today"
    )


def fusion(folder: Path, *, weights: Path, out: Path, pictures: str = "", texts: str = "", skip: bool = False) -> str:
    """Write the mixture ratios of every recording of the mixture board in `folder` to the CSV `out`; say what happened.

    Windows and columns are those of the mixture weights. `pictures` is a folder: a recording a/b.csv gets a/b.jpg, or
    all that lies in a/b/, or b.jpg, b/; `texts` is a CSV (file, text) or a JSON object from file to text or texts. A
    recording without either is judged by its smell; one that can't be used is refused, or with `skip` left out.
    """
    if pictures and not Path(pictures).is_dir():
        raise DataError(f"{pictures} is not a folder", hint="a picture, or a folder of them, for each recording")
    paths.check_writable(Path(out))
    pipeline, report = Pipeline.load(weights), Report()
    windows = read_folder(Path(folder), skip=skip, ranges=pipeline.smell.ranges, report=report)
    words, seen, ratios = _texts(Path(texts)) if texts else {}, 0, np.zeros((len(windows), len(ODORANTS)))
    unknown, listed = set(words), functools.cache(pictures_in)
    for number, name in enumerate(windows.index["file"]):
        rows, path = windows.recording == number, Path(name)
        own = path.with_suffix("").as_posix()  # it may be called by its path or by its name, with .csv or without
        places = [Path(pictures) / key for key in (own, path.stem)] if pictures else []
        files = next(filter(None, (_pictures(place, listed) for place in places)), [])
        called = [key for key in (name, own, path.name, path.stem) if key in words]
        shown = pipeline.seen({"picture": files, "text": words[called[0]] if called else []})
        seen, unknown = seen + bool(shown), unknown - {*called}
        ratios[rows] = to_odorants(_beta(pipeline, windows.counts[rows], shown))
    _write(as_table(windows, ratios), out)
    lost = f"; {len(unknown)} texts are of no recording here, such as {min(unknown)!r}" if unknown else ""
    text = f"{len(windows.index)} recordings, {len(windows)} windows; {seen} with a picture or a text{lost}.\n{out}"
    return f"{text}\n{report}".rstrip()


def _pictures(beside: Path, listed: Callable[[Path], list[Path]]) -> list[Path]:
    """The picture of this name, whatever its ending, or all that lie in the folder of this name."""
    return [one for one in listed(beside.parent) if one.stem == beside.name] or listed(beside)


def _beta(pipeline: Pipeline, counts: NDArray, shown: dict[str, Evidence]) -> NDArray[np.float64]:
    """Beta of each window (n, 12) in channel order."""
    smell = pipeline.smell
    assert isinstance(smell, MixtureSmell)
    if not shown:
        return smell.probabilities(counts)
    experts, (belief, _) = pipeline.fused.experts, pipeline.fused.smelled(smell.hybrid, counts)
    return experts.decide(experts.fuse(belief, *pipeline.likelihoods(shown)))


def _texts(path: Path) -> dict[str, list[str]]:
    """The texts of recordings, by what the table calls them; DataError that names the file."""
    if path.suffix.lower() != ".json":
        table = read_texts(path, columns=["file", "text"])
        return {name: texts.tolist() for name, texts in table["text"][table["text"] != ""].groupby(table["file"])}
    words = {name: several(text) if isinstance(text, (str, list)) else [text] for name, text in read_json(path).items()}
    for name, texts in words.items():
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise fault(path, "a text or a list of texts", repr(wrong[0])[:60], "correct it", key=f"$.{name}")
    return words


def read_folder(folder: Path, *, skip: bool, ranges: Ranges | None, report: Report) -> MixtureWindows:
    """Windows of all recordings (*.csv) below `folder`, or of the one file.

    What is too short or outside `ranges` is refused or skipped.
    """
    files = [file for file in files_in(folder, (".csv",)) if not is_index(file, report)]
    if not files:
        raise DataError(f"No recordings (*.csv) in {folder}", hint="columns NO2, C2H5OH, VOC, CO at 10 Hz")
    folder = folder.parent if folder.is_file() else folder
    values, index = read_mixture_files(files, root=folder, skip=skip, report=report)
    reasons = [unfit(folder / name, value, ranges) for name, value in zip(index["file"], values, strict=True)]
    for name, why in zip(index["file"], reasons, strict=True):
        if why and not skip:
            raise why
        if why:
            report.skip(folder / name, why)
    kept = np.array([why is None for why in reasons])
    if not kept.any():
        raise DataError(f"No recording in {folder} can be used", hint="; ".join(report.skipped.values())[:300])
    return cut_mixtures(
        [value for value, good in zip(values, kept, strict=True) if good], index[kept].reset_index(drop=True)
    )


def as_table(windows: MixtureWindows, ratios: NDArray) -> pd.DataFrame:
    """Return predictions (n, 12) as the table of `COLUMNS`: a recording's windows, then its mean as window -1."""
    each = pd.DataFrame(np.asarray(ratios, np.float64), columns=COLUMNS[3:])
    each = each.assign(recording=windows.recording, window=windows.start // STRIDE, place=windows.start)
    each["start"] = np.rint(windows.column("first") + windows.column("every") * windows.start).astype(int)
    whole = each.groupby("recording", as_index=False)[COLUMNS[3:]].mean().assign(window=-1, start=0, place=np.inf)
    table = pd.concat([each, whole], ignore_index=True).sort_values(["recording", "place"], kind="stable")
    return table.assign(file=windows.index["file"].map(paths.cell).to_numpy()[table["recording"]])[COLUMNS]


def is_index(file: Path, report: Report) -> bool:
    """Whether a CSV is a list of files with labels (SmellNet's test_index_unseen.csv) or predictions, no recording."""
    names = [name.strip() for name in header_of(file)]
    if names[:3] == COLUMNS[:3] or ("filepath" in names and any(name.startswith("label_") for name in names)):
        report.note(file, "an index of labels or predictions, no recording")
        return True
    return False
