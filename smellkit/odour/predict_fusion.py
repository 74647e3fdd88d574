"""`smellkit predict DIR --weights fusion`: mixture ratios of recordings that come with pictures and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smellkit import paths
from smellkit.checks import Report, read_json
from smellkit.errors import DataError
from smellkit.odour.pipeline import Pipeline
from smellkit.odour.predict import as_table, read_folder
from smellkit.odour.scents import ODORANTS, PICTURES, pictures_in, to_odorants
from smellkit.odour.smell import MixtureSmell


def fusion(folder: Path, *, weights: Path, out: Path, pictures: str = "", texts: str = "", skip: bool = False) -> str:
    """Write the mixture ratios of every recording of the mixture board in `folder` to the CSV `out`; say what happened.

    Windows and columns are those of the mixture weights. `pictures` is a folder: a recording a/b.csv gets a/b.jpg, or
    all that lies in a/b/, or b.jpg, b/; `texts` is a CSV (file, text) or a JSON object from file to text or texts. A
    recording without either is judged by its smell; one that can't be used is refused, or with `skip` left out.
    """
    pipeline, report = Pipeline.load(weights), Report()
    windows = read_folder(Path(folder), skip=skip, ranges=pipeline.smell.ranges, report=report)
    names = windows.index["file"].tolist()
    words, seen = _texts(Path(texts)) if texts else {}, 0
    ratios = np.zeros((len(windows), len(ODORANTS)))
    for number, name in enumerate(names):
        rows = np.flatnonzero(windows.recording == number)
        path = Path(name)
        keys = (name, path.with_suffix("").as_posix(), path.name, path.stem)  # how a table may call a recording
        shown: dict[str, list] = {
            "picture": _pictures(Path(pictures), path) if pictures else [],
            "text": next((words[key] for key in keys if key in words), []),
        }
        shown = {sense: contents for sense, contents in shown.items() if contents}
        seen += bool(shown)
        ratios[rows] = to_odorants(_beta(pipeline, windows.counts[rows], shown))
    with paths.replacing(Path(out)) as part:
        as_table(windows, ratios).to_csv(part, index=False, float_format="%.6f")
    text = f"{len(names)} recordings, {len(windows)} windows; {seen} with a picture or a text.\n{out}"
    return f"{text}\n{report}".rstrip()


def _beta(pipeline: Pipeline, counts: NDArray, shown: dict[str, list]) -> NDArray[np.float64]:
    """Beta of each window (n, 12) in channel order."""
    smell = pipeline.smell
    assert isinstance(smell, MixtureSmell)
    if not shown:
        return smell.probabilities(counts)
    experts, (belief, _) = pipeline.fused.experts, pipeline.fused.smelled(smell.hybrid, counts)
    return experts.decide(experts.fuse(belief, *pipeline.likelihoods(pipeline.seen(shown))))


def _pictures(folder: Path, recording: Path) -> list[Path]:
    """The pictures of a recording in a folder of pictures."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", hint="a picture, or a folder of them, for each recording")
    for key in (recording.with_suffix(""), Path(recording.stem)):
        files = [path for ending in PICTURES if (path := folder / f"{key}{ending}").is_file()]
        if files := files or pictures_in(folder / key):
            return files
    return []


def _texts(path: Path) -> dict[str, list[str]]:
    """The texts of recordings, by what the table calls them; DataError that names the file."""
    if path.suffix.lower() == ".json":
        value = read_json(path)
        return {str(key): [text] if isinstance(text, str) else list(text) for key, text in value.items()}
    try:
        table = pd.read_csv(path, dtype=str).dropna()
        return {str(key): rows["text"].tolist() for key, rows in table.groupby("file")}
    except (OSError, ValueError, KeyError) as why:
        raise DataError(f"{path} is no table of texts: {why}", hint="a CSV with columns file and text") from why
