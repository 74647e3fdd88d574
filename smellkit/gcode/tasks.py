"""The systems as tasks for the trainer: the reader (trained as one), and the published two stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from smellkit import checkpoint as weights
from smellkit import runs
from smellkit.gcode import decode, samples, scores
from smellkit.gcode.channels import PLACES
from smellkit.gcode.decoder import SensorDecoder, fields
from smellkit.gcode.encoder import MachineEncoder, encoder_loss, remember
from smellkit.gcode.encoder import build as build_encoder
from smellkit.gcode.grammar import HEADS
from smellkit.gcode.window_decoder import MachineReader, Recall
from smellkit.losses import focal
from smellkit.options import accepted
from smellkit.runs import Run
from smellkit.task import Batch, Task, Tensors

PIECES = list(HEADS.values())


def reader(
    *,
    data: str = "",
    protocol: str = "G",
    fold: int = 0,
    split_seed: int = 7,
    channels: str = "all",
    without: str = "",
    width: int = 128,
    layers: int = 1,
    dropout: float = 0.2,
    hide_node: float = 0.15,
    hide_position: float = 0.7,
    jitter: float = 0.0,
    waves: bool = True,
    structure: bool = True,
    sums: bool = True,
    recall: bool = True,
    gamma: float = 0.0,
    smoothing: float = 0.05,
    heads: float = 0.3,
    locate: float = 3.0,
    moment: float = 1.0,
    thin: int = 1,
) -> Task:
    """Encoder and decoder as one: operation, line and tokens of a window of `data` ("" is the sample).

    `channels` and `without` choose the inputs (see `smellkit.gcode.channels.keep`); `gamma` and `smoothing` shape the
    token loss, `heads` weighs the structured heads, `locate` the guess of the (perhaps hidden) position, `moment` that
    of the line at each step; `thin` keeps one training window in so many.
    """
    prepared = samples.prepare(
        data,
        protocol=protocol,
        fold=fold,
        seed=split_seed,
        channel_set=channels,
        without=without,
        thin=thin,
    )
    grammar = prepared.grammar
    remembers = recall and bool(prepared.mask[PLACES].all())

    def build() -> MachineReader:
        model = MachineReader(
            grammar,
            cardinalities=prepared.scaling.cardinalities,
            spread=prepared.spread,
            width=width,
            layers=layers,
            dropout=dropout,
            hide_node=hide_node,
            hide_position=hide_position,
            jitter=jitter,
            waves=waves,
            structure=structure,
            sums=sums,
            recall=Recall(*prepared.paths(), lines=len(grammar)) if remembers else None,
        )
        if model.sums is not None:
            windows = samples.Windows(prepared, prepared.parts.train)
            model.sums.prepare(windows.__getitems__(range(len(windows)))["continuous"])
        return model

    def loss(outputs: Batch, batch: Batch) -> Tensor:
        known = batch["line"] >= 0
        said = batch["open"] != 0
        total = focal(outputs["token"][said], batch["open"][said], gamma=gamma, smoothing=smoothing)
        for operation, line in zip(outputs["operations"].unbind(1), outputs["lines"].unbind(1), strict=True):
            total = total + focal(operation, batch["operation"], smoothing=smoothing)
            total = total + focal(line[known], batch["line"][known], smoothing=smoothing)
        if locate:
            place = batch["continuous"][:, ::4, PLACES]
            total = total + locate * F.smooth_l1_loss(outputs["place"], place)
        if moment:
            total = total + moment * F.cross_entropy(outputs["moment"].flatten(0, 1), batch["moment"].flatten())
        return total + heads * structured_loss(outputs["parts"][said], grammar.fields[batch["open"][said]], gamma)

    def score(outputs: Batch, batch: Batch) -> dict[str, float]:
        found = decode.forced(grammar, outputs["line"], outputs["token"], batch["open"])
        target = batch["published"].numpy()
        operation = float((outputs["operation"].argmax(dim=1) == batch["operation"]).float().mean())
        line = float((outputs["line"].argmax(dim=1) == batch["line"]).float().mean())
        learned = float((outputs["learned"].argmax(dim=1) == batch["line"]).float().mean())
        token = scores.accuracy(grammar.published[found].numpy(), target)
        return {
            "accuracy": (operation + learned) / 2,
            "operation": operation,
            "line": line,
            "learned": learned,
            "token": token,
            "place": -float((outputs["place"] - batch["continuous"][:, ::4, PLACES]).abs().mean()),
        }

    def load() -> dict[str, Dataset]:
        return dict(samples.windows_of(prepared))

    return Task("gcode-reader", load, build, loss, score)


def structured_loss(logits: Tensor, fields: Tensor, gamma: float = 0.0) -> Tensor:
    """Mean cross-entropy over the ten structured heads, each on the tokens that have its field."""
    losses = []
    for place, piece in enumerate(torch.split(logits, PIECES, dim=-1)):
        has = fields[:, place] >= 0
        if has.any():
            losses.append(focal(piece[has], fields[has, place], gamma=gamma))
    return torch.stack(losses).mean() if losses else F.softmax(logits, dim=-1).sum() * 0


def encoder(
    *,
    data: str = "",
    protocol: str = "S",
    fold: int = 0,
    split_seed: int = 7,
    channels: str = "all",
    without: str = "",
    noise: float = 0.1,
    reconstruction: float = 0.3,
    waves: bool = False,
    thin: int = 1,
) -> Task:
    """The published encoder: operation of a window, with its input restored from a noisy copy.

    `waves` (not as claimed) shows it the position as waves too. The best epoch has the largest accuracy less the
    weighted error of the restored input. `thin` keeps one training window in so many.
    """
    prepared = samples.prepare(
        data, protocol=protocol, fold=fold, seed=split_seed, channel_set=channels, without=without, thin=thin
    )

    def loss(outputs: Batch, batch: Batch) -> Tensor:
        return encoder_loss(outputs, batch, reconstruction=reconstruction)

    def score(outputs: Batch, batch: Batch) -> dict[str, float]:
        right = (outputs["operation"].argmax(dim=1) == batch["operation"]).float().mean()
        restored = -float(F.mse_loss(outputs["restored"], batch["continuous"]))
        both = float(right) + reconstruction * restored
        return {"accuracy": float(right), "restored": restored, "objective": both}

    def build() -> MachineEncoder:
        return build_encoder(prepared, noise=noise, waves=waves)

    return Task("gcode-encoder", lambda: dict(samples.windows_of(prepared)), build, loss, score, watch="objective")


ENCODER = encoder


def decoder(
    *,
    encoder: str = "gcode-encoder",
    gamma: float = 0.0,
    smoothing: float = 0.1,
    heads: float = 0.3,
    dropout: float = 0.3,
    frozen: bool = True,
    width: int = 192,
    layers: int = 4,
) -> Task:
    """The published decoder over the memory of a finished run of `gcode-encoder`, on the same data and split.

    With `frozen` the memory is computed once into data/work and the encoder is not even in the model; without it
    encoder and decoder are trained together, from the encoder's weights on. `width` and `layers` are as claimed.
    """
    asked, prepared = _split_of(encoder)
    table = fields(prepared.vocabulary)

    def trained() -> MachineEncoder:
        return trained_encoder(encoder)

    def load() -> dict[str, Dataset]:
        parts = samples.windows_of(prepared)
        if not frozen:
            return dict(parts)
        model, sets = trained(), dict[str, Dataset]()
        for name, windows in parts.items():
            kept = remember(model, windows, key=f"{asked} {name}")
            sets[name] = Tensors(
                memory=kept["memory"],
                logits=kept["operation"],
                operation=windows.operation,
                published=windows.published[windows.label],
            )
        return sets

    def build() -> nn.Module:
        first = trained()
        size = {"memory": first.width, "width": width, "layers": layers}
        model = SensorDecoder(prepared.vocabulary, dropout=dropout, **size)
        return model if frozen else Together(first, model)

    def loss(outputs: Batch, batch: Batch) -> Tensor:
        target = batch["published"]
        said = target != 0
        total = focal(outputs["token"][said], target[said], gamma=gamma, smoothing=smoothing)
        if heads:
            total = total + heads * structured_loss(outputs["parts"][said], table[target[said]], gamma)
        return total if frozen else total + encoder_loss(outputs, batch, reconstruction=0.3)

    def score(outputs: Batch, batch: Batch) -> dict[str, float]:
        found, target = outputs["token"].argmax(dim=-1), batch["published"]
        right = (outputs["operation"].argmax(dim=1) == batch["operation"]).float().mean()
        return {
            "accuracy": scores.accuracy(found.numpy(), target.numpy()),
            "numbers": scores.accuracy(found.numpy(), target.numpy(), kind="numbers", vocabulary=prepared.vocabulary),
            "operation": float(right),
            **head_scores(outputs["parts"], table[target]),
        }

    return Task("gcode-decoder", load, build, loss, score)


def head_scores(logits: Tensor, fields: Tensor) -> dict[str, float]:
    """Share of tokens that each structured head gets right, teacher-forced, among those that have its field.

    `digits` are right when the sign and all digits that a number has are; a head whose field no token has is left out.
    """
    best = torch.stack([piece.argmax(dim=-1) for piece in torch.split(logits, PIECES, dim=-1)], dim=-1)
    right, has = best == fields, fields >= 0
    rows = {name: (right[..., place], has[..., place]) for place, name in enumerate(("type", "command", "parameter"))}
    rows["digits"] = ((right | ~has)[..., 3:].all(dim=-1), has[..., 3:].any(dim=-1))
    return {name: float(hit[said].float().mean()) for name, (hit, said) in rows.items() if said.any()}


def trained_encoder(name: str) -> MachineEncoder:
    """The encoder of the finished run `name` of `gcode-encoder`."""
    run = runs.latest(name, made_by="`smellkit train gcode-encoder`")
    asked, prepared = _split_of(name)
    model = build_encoder(prepared, noise=asked.get("noise", 0.1), waves=asked.get("waves", False))
    weights.fill(model, weights.load(run.folder)[0], where=str(run.folder)).eval()
    return model


def two_stages(run: Run) -> tuple[MachineEncoder, SensorDecoder]:
    """Encoder and decoder of a finished run of `gcode-decoder`."""
    encoder, (_, prepared) = trained_encoder(run.params["encoder"]), _split_of(run.params["encoder"])
    size = {name: run.params[name] for name in ("width", "layers") if name in run.params}
    decoder = SensorDecoder(prepared.vocabulary, memory=encoder.width, **size)
    kept = weights.load(run.folder)[0]
    whole = decoder if run.params.get("frozen", True) else Together(encoder, decoder)
    weights.fill(whole, kept, where=str(run.folder)).eval()
    return encoder, decoder


def _split_of(name: str) -> tuple[dict, samples.Prepared]:
    """What the run `name` of `gcode-encoder` was asked for, and its data."""
    run = runs.latest(name, made_by="`smellkit train gcode-encoder`")
    asked = {option: run.params[option] for option in accepted(ENCODER) if option in run.params}
    prepared = samples.prepare(
        asked.get("data", ""),
        protocol=asked.get("protocol", "S"),
        fold=asked.get("fold", 0),
        seed=asked.get("split_seed", 7),
        channel_set=asked.get("channels", "all"),
        without=asked.get("without", ""),
        thin=asked.get("thin", 1),
    )
    return asked, prepared


class Together(nn.Module):
    """Encoder and decoder in one model, for training both."""

    def __init__(self, encoder: MachineEncoder, decoder: SensorDecoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, batch: Batch) -> Batch:
        seen = self.encoder(batch)
        outputs = self.decoder(batch | {"memory": seen["memory"], "logits": seen["operation"]})
        return outputs | {"restored": seen["restored"]}
