"""The training loop: one for every system, short enough to read before you trust it.

Accelerate brings devices, several processes, mixed precision, state saving and trackers. Ours is the rest: the seed
set before the model is built, clipping, a cosine with warm-up, the best epoch by a validation score, early stop,
resume, one JSON line an epoch, and the test split scored once, at the end, with the best epoch's weights.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from smellkit import checkpoint, paths, runs
from smellkit.errors import OptionError, WriteError
from smellkit.runs import Run
from smellkit.task import Batch, Task, collate

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Settings:
    """How to train. What to train is the task's business."""

    epochs: int = 20
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1  # share of all steps over which the learning rate rises
    clip: float = 1.0  # largest norm of the gradient; 0 is no clipping
    patience: int = 0  # epochs without a better score before stopping; 0 is never
    averaging: float = 0.0  # decay of an exponential moving average of the weights; 0 is none
    seed: int = 7
    precision: str = "no"  # no, fp16 or bf16
    tracker: str = ""  # tensorboard, wandb, or several with commas


def fit(
    task: Task,
    settings: Settings | None = None,
    *,
    name: str = "",
    params: dict[str, Any] | None = None,
    resume: bool = False,
) -> Run:
    """Train `task` and return its finished run, called `name` or like the task.

    The run folder holds one line an epoch (metrics.jsonl), the best epoch's weights, and scores.json with the scores of
    "valid" and "test" at that epoch. `params` are the task's own options, kept with the run. `resume` goes on after the
    last finished epoch of an interrupted run; a run made with other parameters is refused, a finished one returned.
    """
    settings = settings or Settings()
    asked = parameters(task, settings, params)
    run = _take_up(name or task.name, asked) if resume else None
    if run and run.finished:
        return run
    splits = task.load()  # before a new run is opened: a fault of the data leaves a finished run of this name alone
    run = run or _open(name or task.name, asked)
    runs.claim(run)
    try:
        return _train(run, task, settings, splits, asked)
    except Exception:
        run.fail()
        raise


def _train(run: Run, task: Task, settings: Settings, splits: dict[str, Dataset], asked: dict[str, Any]) -> Run:
    """Train on loaded `splits` from where the run's state is, and finish the run."""
    from accelerate.utils import set_seed
    from tqdm.auto import tqdm

    set_seed(settings.seed)  # after loading, so that what loading draws does not move the first weights
    loop = _Loop.of(task, settings, splits["train"], _accelerator(run, settings, asked))
    progress = loop.resume(run)
    bar = tqdm(range(progress.epoch, settings.epochs), desc=run.name, unit="epoch", leave=False, dynamic_ncols=True)
    for epoch in bar:
        if progress.waited(epoch, settings.patience):
            break
        set_seed(settings.seed + epoch)  # a resumed run sees the batches that it would have seen
        loss = loop.train_epoch(task.loss, clip=settings.clip)
        if not math.isfinite(loss):
            raise OptionError(f"The loss of {run.name} is {loss} in epoch {epoch}", hint="a smaller learning_rate")
        scores = evaluate(loop.chosen, splits["valid"], task=task, batch=settings.batch)
        row = {"epoch": epoch, "loss": loss, "learning_rate": loop.schedule.get_last_lr()[0], **scores}
        bar.set_postfix({"loss": f"{loss:.3f}", task.watch: f"{scores[task.watch]:.3f}"})
        progress.epoch = epoch + 1
        best = progress.better(scores[task.watch], epoch)
        loop.keep(run, row, {"task": task.name, "params": asked, "epoch": epoch} if best else None)
    return _finish(run, loop, task, splits)


@dataclass
class _Loop:
    """What one epoch needs: everything that accelerate has prepared, and the average of the weights if there is one."""

    accelerator: Accelerator
    model: nn.Module
    optimiser: torch.optim.Optimizer
    loader: DataLoader
    schedule: LambdaLR
    average: AveragedModel | None
    progress: _Progress

    @classmethod
    def of(cls, task: Task, settings: Settings, train: Dataset, accelerator: Accelerator) -> _Loop:
        model = task.build()
        optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        model, optimiser, loader = accelerator.prepare(model, optimiser, _loader(train, settings.batch))
        steps = settings.epochs * len(loader)
        schedule = LambdaLR(optimiser, lambda step: cosine(step, steps=steps, warmup=settings.warmup))
        average = _average(accelerator.unwrap_model(model), settings.averaging)
        progress = _Progress()
        accelerator.register_for_checkpointing(schedule, progress, *([average] if average else []))
        return cls(accelerator, model, optimiser, loader, schedule, average, progress)

    @property
    def chosen(self) -> nn.Module:
        """The model that is scored and kept: the averaged one where there is an average."""
        return self.average.module if self.average else self.accelerator.unwrap_model(self.model)

    def resume(self, run: Run) -> _Progress:
        """Go on where an interrupted run saved its state."""
        if (run.folder / "state").exists():
            self.accelerator.load_state(str(run.folder / "state"))
            _forget_after(run, self.progress.epoch)
        return self.progress

    def train_epoch(self, loss_of: Callable[[Batch, Batch], Tensor], *, clip: float) -> float:
        """One pass over the training batches; return the mean loss."""
        total = 0.0
        self.model.train()
        for batch in self.loader:
            loss = loss_of(self.model(batch), batch)
            self.accelerator.backward(loss)
            if clip:
                self.accelerator.clip_grad_norm_(self.model.parameters(), clip)
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.schedule.step()
            if self.average:
                self.average.update_parameters(self.accelerator.unwrap_model(self.model))
            total += loss.item()
        return total / len(self.loader)

    def keep(self, run: Run, row: dict[str, Any], manifest: dict[str, Any] | None) -> None:
        """Log the epoch, save the weights when a `manifest` says that they are the best, and the state to resume."""
        self.accelerator.log(row, step=row["epoch"])
        if self.accelerator.is_main_process:
            if manifest:
                checkpoint.save(run.folder, self.chosen.state_dict(), manifest)
            run.log(row)
        try:
            self.accelerator.save_state(str(run.folder / "state"))
        except OSError as why:
            raise paths.unwritten(why, run.folder / "state") from why
        except RuntimeError as why:  # what torch makes of a full disk
            if not re.search("writ|iostream", str(why)):
                raise
            raise WriteError(f"Can't write {run.folder / 'state'}: {str(why)[:200]}", hint="make room") from why


def _finish(run: Run, loop: _Loop, task: Task, splits: dict[str, Dataset]) -> Run:
    """Score every split but the training one with the best epoch's weights, and finish the run."""
    loop.accelerator.wait_for_everyone()
    checkpoint.fill(loop.chosen, checkpoint.load(run.folder)[0], where=str(run.folder))
    scores = {split: evaluate(loop.chosen, splits[split], task=task) for split in splits if split != "train"}
    loop.accelerator.end_training()
    shutil.rmtree(run.folder / "state", ignore_errors=True)
    size = sum(p.numel() for p in loop.chosen.parameters())
    return run.finish({**scores, "best_epoch": loop.progress.best_epoch, "parameters": size})


def _loader(train: Dataset, batch: int) -> DataLoader:
    odds = getattr(train, "weights", None)  # how often to draw each sample, where a data set has a say
    sampler = None if odds is None else WeightedRandomSampler(odds, len(odds))
    last = len(train) % batch  # type: ignore[arg-type]
    alone = last == 1 and len(train) > 1  # type: ignore[arg-type]
    return DataLoader(
        train,
        batch_size=batch,
        shuffle=sampler is None,
        sampler=sampler,
        collate_fn=collate,
        drop_last=alone,  # one sample alone can't be normalised
    )


def parameters(task: Task, settings: Settings, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a run's params.json holds: the task's name and options, and the settings."""
    return runs.plain({"task": task.name, **(params or {}), **asdict(settings)})


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset, *, task: Task, batch: int = 0) -> dict[str, float]:
    """Scores of the whole of `data` at once, so that they do not depend on the size of a batch."""
    outputs, batches = predict(model, data, batch=batch or task.batch, keep=task.keep)
    return task.score(outputs, batches)


@torch.no_grad()
def predict(
    model: nn.Module,
    data: Dataset,
    *,
    batch: int = 256,
    keep: Callable[[Batch, Batch], tuple[Batch, Batch]] | None = None,
) -> tuple[Batch, Batch]:
    """Outputs for all of `data` and the samples themselves, or what `keep` leaves of both, on the CPU, in order."""
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    was_training = model.training
    model.eval()
    outputs, batches = [], []
    for samples in DataLoader(data, batch_size=batch, collate_fn=collate):
        result = model({name: tensor.to(place) for name, tensor in samples.items()})
        result = {name: tensor.cpu() for name, tensor in result.items()}
        result, samples = keep(result, samples) if keep else (result, samples)
        outputs.append(result)
        batches.append(samples)
    model.train(was_training)
    return _join(outputs), _join(batches)


def cosine(step: int, *, steps: int, warmup: float) -> float:
    """Factor of the learning rate: a linear rise over the first `warmup` share of the steps, then a cosine to 0."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, steps - rise))))


class _Progress:
    """What accelerate saves beside model, optimiser and random state."""

    def __init__(self):
        self.epoch, self.best, self.best_epoch = 0, -math.inf, -1

    def better(self, score: float, epoch: int) -> bool:
        if score <= self.best:
            return False
        self.best, self.best_epoch = score, epoch
        return True

    def waited(self, epoch: int, patience: int) -> bool:
        return bool(patience) and epoch - self.best_epoch > patience

    def state_dict(self) -> dict[str, float]:
        return vars(self).copy()

    def load_state_dict(self, state: dict[str, float]) -> None:
        vars(self).update(state)


def _take_up(name: str, asked: dict[str, Any]) -> Run | None:
    """The run of this name, if there is one with these parameters; one with others is refused."""
    run = Run(name, paths.runs() / name)
    if not (run.folder / "params.json").exists():
        return None
    other = {key for key in asked | run.params if asked.get(key) != run.params.get(key)}
    if other:
        changed = ", ".join(f"{key}: {run.params.get(key)} then, {asked.get(key)} now" for key in sorted(other))
        raise OptionError(f"The run {name!r} was made with other parameters ({changed})", hint="leave out --resume")
    return run


def _open(name: str, asked: dict[str, Any]) -> Run:
    shutil.rmtree(paths.runs() / name / "state", ignore_errors=True)
    return runs.start(name, asked)


def _accelerator(run: Run, settings: Settings, asked: dict[str, Any]) -> Accelerator:
    from accelerate import Accelerator

    accelerator = Accelerator(
        mixed_precision=settings.precision,
        log_with=settings.tracker.split(",") if settings.tracker else None,
        project_dir=str(run.folder / "trackers"),
    )
    if settings.tracker:
        config = {key: value for key, value in asked.items() if isinstance(value, (str, int, float, bool))}
        accelerator.init_trackers(run.name.replace("/", "-"), config=config)
    return accelerator


def _average(model: nn.Module, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _forget_after(run: Run, epoch: int) -> None:
    """Drop the lines of epochs whose state was not saved."""
    path = run.folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    paths.write_text(path, "".join(f"{line}\n" for line in lines if json.loads(line)["epoch"] < epoch))


def _join(batches: list[Batch]) -> dict[str, Tensor]:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
