"""A trained run of the task `plume` as weights that `smellkit.plume.predict` reads.

The kit's own weights, trained on simulated cameras of many kinds: of five videos three are of our own simulator (four
in ten of them far from the task's), one of each of two others. Coarse frames first, then whole ones, twice, then other
videos, a third of them of plumes, walls and cameras mixed, every class as often; last five frames of each of a thousand
such videos, half of the time beside each other; in all about 24 minutes of one core:

smellkit data simulate plume --out DIR --pairs 2600 --frames 1 --shares 2400,150,50 --seed 31
    --missing none --variety 0.4 --world own,own,own,cone,particles
smellkit train plume --name plume-coarse OPTIONS --set data=DIR --set height=60 --set epochs=6 --set batch=16
    --set learning_rate=0.003
smellkit train plume --name plume-travel OPTIONS --set data=DIR --set start=plume-coarse --set epochs=5 --set batch=8
    --set learning_rate=0.0015
smellkit train plume --name plume-longer OPTIONS --set data=DIR --set start=plume-travel --set epochs=5 --set batch=8
    --set learning_rate=0.0015
smellkit data simulate plume --out MIXED --pairs 3900 --frames 1 --shares 3600,270,30 --seed 41
    --missing even --variety 0.5 --world own,own,cone,particles,mixed,mixed
smellkit train plume --name plume-mixed OPTIONS --set data=MIXED --set start=plume-longer --set epochs=3 --set batch=16
    --set learning_rate=0.0015
smellkit data simulate plume --out VIDEOS --pairs 6600 --frames 5 --shares 6000,500,100 --seed 51
    --missing even --variety 0.5 --world own,own,cone,particles,mixed,mixed
smellkit train plume --name plume-videos OPTIONS --set data=VIDEOS --set start=plume-mixed --set videos=0.5
    --set epochs=1 --set batch=16 --set learning_rate=0.0015
python -m smellkit.study.plume.release plume-videos data/weights/plume

with OPTIONS: --set model=plumenet --set alpha=1,1,1 --set ph=0.5 --set masks=3 --set invert=0.1 --set dropout=0.3
    --set weight_decay=0.0001 --set warmup=0.05 --set seed=1
"""

import sys
from pathlib import Path

from smellkit import checkpoint, runs
from smellkit.errors import WeightsError
from smellkit.options import task_of
from smellkit.plume import CLASSES, GASES
from smellkit.plume import annotations as tables
from smellkit.plume.predict import PlumePredictor
from smellkit.runs import Run
from smellkit.study import ranges
from smellkit.study.plume.task import PlumeTask


def from_run(run: Run) -> PlumePredictor:
    """The predictor of a finished run of the task `plume`."""
    task = task_of(PlumeTask, {**run.params, "start": ""})  # the run that it began with may be gone
    return PlumePredictor(checkpoint.restore(task.build(), run.folder), videos=task.videos > 0)


def save(run: Run, folder: Path) -> Path:
    """Write the model of a finished run of the task `plume` into `folder`, with what it was trained on."""
    model, task = from_run(run).model, task_of(PlumeTask, run.params)
    if task.fusion or not task.shared:
        raise WeightsError(f"The run {run.name!r} is of a variant, which has no name", hint="train a plain model")
    counts = tables.statistics({"train": tables.read_pairs(task.data, "train", pictures=False)}).iloc[0].to_dict()
    manifest = {
        "kind": "plume",
        "model": task.model,
        "size": list(model.size),
        "videos": task.videos > 0,
        "mirrored": True,  # up to a point of masks, for twice the time
        "gases": list(GASES),
        "classes": list(CLASSES),
        "trained_on": {"pairs": counts, "scores": run.scores},
        "made": run.stamp,
        "ranges": ranges.plume(task.data).asdict(),
    }
    return checkpoint.save(folder, model.state_dict(), runs.plain(manifest))


if __name__ == "__main__":
    print(save(runs.latest(sys.argv[1]), Path(sys.argv[2])))
