"""The systems as tasks for the trainer: the window decoder (trained as one), and the published two stages.

A task is a dataclass: its fields are the options of `smellkit train`, its methods are what `smellkit.task.Task` asks.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from smellkit import checkpoint, paths, runs
from smellkit.gcode.recordings import POSITION_COLUMNS
from smellkit.gcode.tokens import PAD
from smellkit.gcode.window_decoder import PathKNN, Shape, WindowDecoder
from smellkit.options import task_of
from smellkit.runs import Run
from smellkit.study.gcode.scores import forced, head_scores, published_fields, structured_loss, token_accuracy
from smellkit.study.gcode.splits import DataConfig, Prepared, Split
from smellkit.study.gcode.two_stage import MachineEncoder, SensorDecoder, TwoStage
from smellkit.study.losses import focal
from smellkit.task import Batch, Tensors, collate

MADE_BY = "`smellkit train gcode-encoder`"


def model_of(kind: type, run: Run) -> Any:
    """The trained model of a finished run of the task `kind`."""
    return checkpoint.restore(task_of(kind, run.params).build(), run.folder)


def accuracy(logits: Tensor, target: Tensor) -> float:
    """Share of rows whose largest logit is the target's."""
    return float((logits.argmax(dim=1) == target).float().mean())


class _Contract:
    """What the trainer reads beside the methods."""

    watch: ClassVar[str] = "accuracy"
    keep: ClassVar[None] = None
    about: ClassVar[type] = dict
    batch: ClassVar[int] = 256


@dataclass(frozen=True)
class EncoderTask(DataConfig, _Contract):
    """The published encoder: operation of a window, with its input restored from a noisy copy.

    `fourier` (not as claimed) adds Fourier features of the position. The best epoch has the largest accuracy less the
    weighted error of the restored input.
    """

    name: ClassVar[str] = "gcode-encoder"
    watch: ClassVar[str] = "objective"
    protocol: str = "S"
    noise: float = 0.1
    reconstruction: float = 0.3
    fourier: bool = False

    def build(self) -> MachineEncoder:
        return MachineEncoder(self.prepared.scaling, noise=self.noise, fourier=self.fourier)

    def loss(self, outputs: Batch, batch: Batch) -> Tensor:
        return encoder_loss(outputs, batch, reconstruction=self.reconstruction)

    def score(self, outputs: Batch, batch: Batch) -> dict[str, float]:
        right = accuracy(outputs["operation"], batch["operation"])
        restored = -float(F.mse_loss(outputs["restored"], batch["continuous"]))
        return {"accuracy": right, "restored": restored, "objective": right + self.reconstruction * restored}


def encoder_loss(outputs: Batch, batch: Batch, *, reconstruction: float) -> Tensor:
    """Cross-entropy of the operation plus `reconstruction` times the squared error of the restored input."""
    loss = focal(outputs["operation"], batch["operation"], smoothing=0.1)
    if reconstruction:
        loss = loss + reconstruction * F.mse_loss(outputs["restored"], batch["continuous"])
    return loss


@torch.no_grad()
def remember(model: MachineEncoder, windows: Tensors, *, key: str) -> dict[str, Tensor]:
    """Memory (n, 64, width) and operation logits (n, 9) of all `windows`, from data/work when they are there.

    The file is named after the encoder's own weights and `key`, the windows: other weights are another file.
    """
    name = sha256(f"{checkpoint.fingerprint(model)} {key}".encode()).hexdigest()[:24]
    folder = paths.work() / "gcode-memory" / name
    if not (folder / checkpoint.FILE).exists():
        outputs = [model.eval()(batch) for batch in DataLoader(windows, batch_size=256, collate_fn=collate)]
        kept = {"memory": "memory", "logits": "operation"}
        tensors = {new: torch.cat([one[old] for one in outputs]) for new, old in kept.items()}
        tensors["memory"] = tensors["memory"].half()
        checkpoint.save(folder, tensors, {"kind": "gcode-memory", "encoder": checkpoint.fingerprint(model)})
    return checkpoint.load(folder)[0]


@dataclass(frozen=True)
class DecoderTask(_Contract):
    """The published decoder over the memory of a finished run of `gcode-encoder`, on the same data and split.

    With `frozen` the memory is computed once into data/work and the encoder is not even in the model; without it
    encoder and decoder are trained together, from the encoder's weights on. `width` and `layers` are as claimed.
    """

    name: ClassVar[str] = "gcode-decoder"
    encoder: str = "gcode-encoder"
    gamma: float = 0.0
    smoothing: float = 0.1
    heads: float = 0.3  # weight of the structured heads in the loss
    dropout: float = 0.3
    frozen: bool = True
    width: int = 192
    layers: int = 4

    @cached_property
    def encoder_task(self) -> EncoderTask:
        """What the encoder was trained on."""
        return task_of(EncoderTask, runs.latest(self.encoder, made_by=MADE_BY).params)

    @property
    def prepared(self) -> Prepared:
        return self.encoder_task.prepared

    @cached_property
    def fields(self) -> Tensor:
        """Class numbers of the structured heads for every published token, (668, 10)."""
        return published_fields()

    def load(self) -> dict[str, Tensors]:
        if not self.frozen:
            return self.encoder_task.load()
        encoder, sets = trained_encoder(self.encoder), {}
        for part in Split._fields:
            windows = self.prepared.windows(part)
            labels: dict[str, Any] = {name: windows.tensors[name] for name in ("operation", "published")}
            sets[part] = Tensors(**labels, **remember(encoder, windows, key=f"{self.encoder_task} {part}"))  # type: ignore[arg-type]
        return sets

    def build(self) -> nn.Module:
        encoder = trained_encoder(self.encoder)
        size = {"memory": encoder.width, "width": self.width, "layers": self.layers}
        decoder = SensorDecoder(dropout=self.dropout, **size)
        return decoder if self.frozen else TwoStage(encoder, decoder)

    def loss(self, outputs: Batch, batch: Batch) -> Tensor:
        target = batch["published"]
        valid = target != PAD
        total = focal(outputs["token"][valid], target[valid], gamma=self.gamma, smoothing=self.smoothing)
        if self.heads:
            fields = self.fields[target[valid]]
            total = total + self.heads * structured_loss(outputs["structured"][valid], fields, self.gamma)
        return total if self.frozen else total + encoder_loss(outputs, batch, reconstruction=0.3)

    def score(self, outputs: Batch, batch: Batch) -> dict[str, float]:
        tokens, target = outputs["token"].argmax(dim=-1).numpy(), batch["published"].numpy()
        return {
            "accuracy": token_accuracy(tokens, target),
            "numbers": token_accuracy(tokens, target, kind="numbers"),
            "operation": accuracy(outputs["operation"], batch["operation"]),
            **head_scores(outputs["structured"], self.fields[batch["published"]]),
        }


@dataclass(frozen=True)
class WindowDecoderTask(DataConfig, Shape, _Contract):
    """Encoder and decoder as one: operation, line and tokens of a window.

    `heads` weighs the structured heads in the loss, `position_weight` the guess of the (perhaps hidden) position,
    `step_line_weight` that of the line at each step; `gamma` and `smoothing` shape the token loss.
    """

    name: ClassVar[str] = "gcode-window-decoder"
    path_knn: bool = True
    gamma: float = 0.0
    smoothing: float = 0.05
    heads: float = 0.3
    position_weight: float = 3.0
    step_line_weight: float = 1.0

    def build(self) -> WindowDecoder:
        prepared, path_knn = self.prepared, None
        train = prepared.windows("train").tensors
        if self.path_knn and prepared.mask[POSITION_COLUMNS].all():
            path_knn = PathKNN(*prepared.paths())
        model = WindowDecoder(prepared.grammar, prepared.scaling, self, path_knn=path_knn)
        if model.summary is not None:
            model.summary.prepare(train["continuous"])
        return model

    def loss(self, outputs: Batch, batch: Batch) -> Tensor:
        known, valid = batch["line"] >= 0, batch["open"] != PAD
        target = batch["open"][valid]
        total = focal(outputs["token"][valid], target, gamma=self.gamma, smoothing=self.smoothing)
        for operation, line in zip(outputs["operations"].unbind(1), outputs["lines"].unbind(1), strict=True):
            total = total + focal(operation, batch["operation"], smoothing=self.smoothing)
            total = total + focal(line[known], batch["line"][known], smoothing=self.smoothing)
        position = F.smooth_l1_loss(outputs["position"], batch["continuous"][:, ::4, POSITION_COLUMNS])
        step_line = F.cross_entropy(outputs["step_line"].flatten(0, 1), batch["step_line"].flatten())
        fields = self.prepared.grammar.fields[target]
        structured = structured_loss(outputs["structured"][valid], fields, self.gamma)
        return total + self.position_weight * position + self.step_line_weight * step_line + self.heads * structured

    def score(self, outputs: Batch, batch: Batch) -> dict[str, float]:
        grammar = self.prepared.grammar
        tokens = forced(grammar, outputs["line"], outputs["token"], batch["open"])
        operation = accuracy(outputs["operation"], batch["operation"])
        learned = accuracy(outputs["learned"], batch["line"])
        position = (outputs["position"] - batch["continuous"][:, ::4, POSITION_COLUMNS]).abs().mean()
        return {
            "accuracy": (operation + learned) / 2,
            "operation": operation,
            "line": accuracy(outputs["line"], batch["line"]),
            "learned": learned,
            "token": token_accuracy(grammar.published[tokens].numpy(), batch["published"].numpy()),
            "position": -float(position),
        }


def trained_encoder(name: str) -> MachineEncoder:
    """The encoder of the finished run `name` of `gcode-encoder`."""
    return model_of(EncoderTask, runs.latest(name, made_by=MADE_BY))


def two_stages(run: Run) -> tuple[MachineEncoder, SensorDecoder]:
    """Encoder and decoder of a finished run of `gcode-decoder`."""
    whole = model_of(DecoderTask, run)
    if isinstance(whole, TwoStage):
        return whole.encoder, whole.decoder
    return trained_encoder(task_of(DecoderTask, run.params).encoder), whole
