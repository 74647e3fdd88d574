"""The training loop: one for every system, short enough to read before you trust it.

Accelerate brings devices, several processes, mixed precision, state saving and trackers. Ours is the rest: the seed
set before the model is built, clipping, a cosine with warm-up, the best epoch by a validation score, early stop,
resume, one JSON line an epoch, and the test split scored once, at the end, with the best epoch's weights.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from smellkit import checkpoint, paths, runs
from smellkit.errors import OptionError, WriteError
from smellkit.options import check
from smellkit.runs import Run
from smellkit.task import Batch, Task, collate


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

    def __post_init__(self) -> None:
        check([self.precision], ("no", "fp16", "bf16"), "There is no precision")
        for name, least in {"epochs": 1, "batch": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise OptionError(f"{name}={getattr(self, name)}", hint=f"{least} or more")
        if not 0 <= self.averaging < 1:
            raise OptionError(f"averaging={self.averaging} is not a decay", hint="0 (none) to below 1")


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
    run = run or runs.start(name or task.name, asked)
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
    loop = _Loop(run, task, settings, splits["train"])
    look: dict[str, Any] = {"leave": False, "dynamic_ncols": True} | ({} if runs.leads() else {"disable": True})
    bar = tqdm(range(len(loop.rows), settings.epochs), desc=run.name, unit="epoch", **look)
    for epoch in bar:
        if settings.patience and epoch - loop.best_epoch() > settings.patience:
            break
        set_seed(settings.seed + epoch)  # a resumed run sees the batches that it would have seen
        loss = loop.train_epoch(task.loss, clip=settings.clip)
        if not math.isfinite(loss):
            raise OptionError(f"The loss of {run.name} is {loss} in epoch {epoch}", hint="a smaller learning_rate")
        scores = loop.scores(splits["valid"], task=task, batch=settings.batch)
        bar.set_postfix({"loss": f"{loss:.3f}", task.watch: f"{scores[task.watch]:.3f}"})
        row = {"epoch": epoch, "loss": loss, "learning_rate": loop.schedule.get_last_lr()[0], **scores}
        loop.rows.append(runs.plain(row))  # NaN is None
        best = loop.best_epoch() == epoch
        loop.keep({"task": task.name, "params": asked, "epoch": epoch, **task.about()} if best else None)
    return loop.finish(task, splits)


class _Loop:
    """What one epoch needs: all that accelerate prepares and saves, and the average of the weights if there is one."""

    def __init__(self, run: Run, task: Task, settings: Settings, train: Dataset):
        from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs

        self.run, self.state, self.watch = run, run.folder / "state", task.watch
        trackers = settings.tracker.split(",") if settings.tracker else None
        folder = str(run.folder / "trackers")
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.accelerator = Accelerator(
            cpu=several and not torch.cuda.is_available(),  # or else each process would train for itself
            mixed_precision=settings.precision, log_with=trackers, project_dir=folder,
            dataloader_config=DataLoaderConfiguration(split_batches=True),  # the processes share a batch of `settings`
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )  # fmt: skip
        if settings.batch % (count := self.accelerator.num_processes):
            hint = f"--set batch={settings.batch // count * count or count}"
            raise OptionError(f"{count} processes can't share a batch of {settings.batch} evenly", hint=hint)
        if trackers:
            config = {key: value for key, value in run.params.items() if isinstance(value, (str, int, float, bool))}
            self.accelerator.init_trackers(run.name.replace("/", "-"), config=config)
        self.built = model = task.build()
        optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        prepared = self.accelerator.prepare(model, optimiser, _loader(train, settings.batch))
        self.model, self.optimiser, self.loader = prepared
        steps = settings.epochs * len(self.loader)
        self.schedule = LambdaLR(self.optimiser, lambda step: cosine(step, steps=steps, warmup=settings.warmup))
        decay = get_ema_multi_avg_fn(settings.averaging)
        self.average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True) if settings.averaging else None
        self.chosen = self.average.module if self.average else model  # what is scored and kept
        self.accelerator.register_for_checkpointing(self.schedule, *filter(None, [self.average]))
        self.rows = self.take_up()  # one an epoch

    def take_up(self) -> list[dict[str, Any]]:
        """Go on from the last epoch whose state was saved whole, if any; the rows up to it."""
        file, saved = self.run.folder / "metrics.jsonl", sorted(self.state.glob("[0-9]*"))
        if saved:
            self.accelerator.load_state(str(saved[-1]))
        if not file.exists():
            return []
        kept = file.read_text(encoding="utf-8").splitlines(keepends=True)[: int(saved[-1].name) if saved else 0]
        paths.write_text(file, "".join(kept))
        return [json.loads(line) for line in kept]

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
                self.average.update_parameters(self.built)
            total += loss.item()
        mean = torch.tensor(total / len(self.loader), device=self.accelerator.device)
        return float(self.accelerator.reduce(mean, "mean"))

    def scores(self, data: Dataset, *, task: Task, batch: int = 0) -> dict[str, float]:
        """What `evaluate` says in the main process, for all of them: they must agree on the best epoch."""
        from accelerate.utils import broadcast_object_list

        main = self.accelerator.is_main_process
        scores = [evaluate(self.chosen, data, task=task, batch=batch) if main else None]
        return broadcast_object_list(scores)[0]

    def best_epoch(self) -> int:
        """The first epoch with the largest score, -1 before any has one."""
        scores = [-math.inf, *(-math.inf if row[self.watch] is None else row[self.watch] for row in self.rows)]
        return scores.index(max(scores)) - 1

    def keep(self, manifest: dict[str, Any] | None) -> None:
        """Log the last epoch, save the weights, if they are the best, with a `manifest`, and the state to resume."""
        self.accelerator.log(self.rows[-1], step=len(self.rows) - 1)
        if self.accelerator.is_main_process:
            if manifest:
                checkpoint.save(self.run.folder, self.chosen.state_dict(), manifest)
            self.run.log(self.rows[-1])
        part = self.state / "part"
        try:
            with paths.writing(self.state):
                self.accelerator.save_state(str(part))
        except RuntimeError as why:
            if not re.search("writ|iostream", str(why)):  # what torch makes of a full disk
                raise
            raise WriteError(f"Can't write {self.state}: {str(why)[:200]}", hint="make room") from why
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            earlier = list(self.state.glob("[0-9]*"))
            part.rename(self.state / f"{len(self.rows):06}")  # whole, or not there
            for state in earlier:
                shutil.rmtree(state)

    def finish(self, task: Task, splits: dict[str, Dataset]) -> Run:
        """Score every split but the training one with the best epoch's weights, and finish the run."""
        self.accelerator.wait_for_everyone()
        checkpoint.fill(self.chosen, checkpoint.load(self.run.folder)[0], where=str(self.run.folder))
        scores = {split: self.scores(splits[split], task=task) for split in splits if split != "train"}
        size = sum(p.numel() for p in self.chosen.parameters())
        if self.accelerator.is_main_process:
            shutil.rmtree(self.state, ignore_errors=True)
            self.run.finish({**scores, "best_epoch": self.best_epoch(), "parameters": size})
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.run


def _loader(train: Dataset, batch: int) -> DataLoader:
    odds = getattr(train, "weights", None)  # how often to draw each sample, where a data set has a say
    sampler = None if odds is None else WeightedRandomSampler(odds, len(odds))
    size: int = len(train)  # type: ignore[arg-type]
    alone = size > 1 and size % batch == 1  # one sample alone can't be normalised
    how = {"shuffle": sampler is None, "sampler": sampler, "collate_fn": collate, "drop_last": alone}
    return DataLoader(train, batch_size=batch, **how)  # type: ignore[arg-type]


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
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    was_training = model.training
    model.eval()
    join = lambda parts: {name: torch.cat([part[name] for part in parts]) for name in parts[0]}  # noqa: E731
    outputs, batches = [], []
    for samples in DataLoader(data, batch_size=batch, collate_fn=collate):
        result = model({name: tensor.to(device) for name, tensor in samples.items()})
        result = {name: tensor.cpu() for name, tensor in result.items()}
        result, samples = keep(result, samples) if keep else (result, samples)
        outputs.append(result)
        batches.append(samples)
    model.train(was_training)
    return join(outputs), join(batches)


def cosine(step: int, *, steps: int, warmup: float) -> float:
    """Factor of the learning rate: a linear rise over the first `warmup` share of the steps, then a cosine to 0."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, steps - rise))))
