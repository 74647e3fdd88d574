"""What a part of the reader is worth: taken away at test time, or left out and trained again."""

from __future__ import annotations

import pandas as pd

from smellkit.gcode import bench, channels, scores
from smellkit.gcode.channels import MODALITIES
from smellkit.gcode.samples import Prepared
from smellkit.runs import Run


def zeroed(run: Run, prepared: Prepared) -> pd.DataFrame:
    """Test scores of one trained reader when it is blinded to one modality: without, TF, AR, operation.

    The published modality table is of this kind: it shows what a model trained with a channel misses when it is gone,
    not what the channel is worth; for that, train again (`--set without=...`).
    """
    rows = []
    for modality in ("", *MODALITIES):
        told = bench.say(run, prepared, mask=channels.keep(without=modality))
        right = told.operation.argmax(axis=1) == told.table["operation_id"].to_numpy()
        row = {"without": modality or "nothing", "TF": scores.accuracy(told.forced, told.target)}
        rows.append(row | {"AR": scores.accuracy(told.free, told.target), "operation": float(right.mean())})
    return pd.DataFrame(rows)
