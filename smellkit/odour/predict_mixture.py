"""`smellkit predict DIR --weights mixture`: what is in the air, window by window and for each recording as a whole."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from smellkit import paths
from smellkit.checks import Report
from smellkit.errors import DataError
from smellkit.odour.calibration import SessionCalibration
from smellkit.odour.mixture_task import LENGTH, MixtureWindows, cut, load_hybrid
from smellkit.odour.mixtures import read_mixture_files
from smellkit.odour.scents import ODORANTS

COLUMNS = ["file", "window", "start", *(f"ratio_{name}" for name in ODORANTS)]


def mixture(folder: Path, *, weights: Path, out: Path, calibration: str = "", skip: bool = False) -> str:
    """Write the mixture ratios of every recording in `folder` to the CSV `out` and say what happened.

    Windows of 100 rows, every 50, of the first 600 (10 Hz). Columns file, window, start (first row), ratio_<odorant>;
    after a recording's windows comes its mean, with window = -1. `calibration`: the folder that `smellkit calibrate`
    made in the same session. A file that can't be used is refused with its reason, or with `skip` left out and named.
    """
    model = load_hybrid(weights)
    session = SessionCalibration.load(Path(calibration)) if calibration else None
    report = Report()
    windows = read_folder(Path(folder), skip=skip, report=report)
    if session:
        ratios, how = session.predict(windows.counts), f"calibrated with {len(np.unique(session.recording))} references"
    else:
        answer = model.explain(windows.counts, recording=windows.recording)
        ratios = answer["ratios"]
        known = len(np.unique(windows.recording[answer["p_known_session"] >= 0.5]))
        how = f"{known} of them in a session known from training"
        if known < len(windows.index):
            how += ": references made today would help much, see `smellkit calibrate`"
    table = as_table(windows, ratios)
    with paths.replacing(Path(out)) as part:
        table.to_csv(part, index=False, float_format="%.6f")
    summary = f"{len(windows.index)} recordings, {len(windows)} windows; {how}.\n{out}"
    return f"{summary}\n{report}".rstrip()


def read_folder(folder: Path, *, skip: bool = False, report: Report | None = None) -> MixtureWindows:
    """Return the windows of all recordings (*.csv) in `folder` and below; an index of labels is no recording."""
    folder, report = Path(folder), report if report is not None else Report()
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder}", hint="a folder of recordings (*.csv, four gas sensors at 10 Hz)"
        )
    files = sorted(file for file in folder.rglob("*.csv") if not file.name.startswith("."))
    files = [file for file in files if not _is_index(file, report)]
    if not files:
        raise DataError(f"No recordings (*.csv) in {folder}", hint="columns NO2, C2H5OH, VOC, CO at 10 Hz")
    values, index = read_mixture_files(files, root=folder, labelled=False, skip=skip, report=report)
    short = np.array([len(value) < LENGTH for value in values])
    for name, value in zip(index["file"][short], [v for v, s in zip(values, short, strict=True) if s], strict=True):
        why = DataError(
            f"{folder / name}: {len(value)} rows are less than one window of {LENGTH}",
            hint="record at least 10 s at 10 Hz",
        )
        if not skip:
            raise why
        report.skip(folder / name, why)
    kept = [value for value, lost in zip(values, short, strict=True) if not lost]
    return cut(kept, index[~short].reset_index(drop=True))


def as_table(windows: MixtureWindows, ratios: np.ndarray) -> pd.DataFrame:
    """Return predictions (n, 12) as the table of `COLUMNS`: a recording's windows, then its mean as window -1."""
    each = pd.DataFrame(ratios.astype(np.float64), columns=COLUMNS[3:])
    each.insert(0, "start", windows.start)
    each.insert(0, "window", windows.start // 50)
    each.insert(0, "recording", windows.recording)
    whole = each.groupby("recording", as_index=False)[COLUMNS[3:]].mean().assign(window=-1, start=0)
    order = {-1: np.iinfo(np.int64).max}
    table = pd.concat([each, whole], ignore_index=True)
    table = table.sort_values(["recording", "window"], key=lambda column: column.replace(order), kind="stable")
    return table.assign(file=windows.index["file"].to_numpy()[table["recording"]])[COLUMNS]


def _is_index(file: Path, report: Report) -> bool:
    """Whether a CSV is a list of files with labels (SmellNet's test_index_unseen.csv) or predictions, no recording."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            header: Sequence[str] = next(csv.reader([opened.readline(100_000)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # reading it as a recording gives the reason
    names = [name.strip() for name in header]
    if names == COLUMNS or ("filepath" in names and any(name.startswith("label_") for name in names)):
        report.note(file, "an index of labels or predictions, no recording")
        return True
    return False
