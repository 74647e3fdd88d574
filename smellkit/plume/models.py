"""FUME, its variants, the published baselines with a network, and every model by name.

Two frames, one from a camera for each gas, in; a mask for each and a health class out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit.errors import OptionError
from smellkit.options import nearest
from smellkit.plume import GASES
from smellkit.plume.layers import (
    ENCODERS,
    HEADS,
    HIDDEN,
    ChannelAttention,
    Classifier,
    CrossModalAttention,
    Features,
    SelfAttention,
    mean,
    resize,
)
from smellkit.plume.plumenet import PlumeNet, where_present
from smellkit.task import Batch

FUSIONS = ("full", "self", "cross", "concat", "mean")


class FUME(nn.Module):
    """Two streams of features, exchanged, then a head for each mask and one for the class.

        co2 --encoder--> low ------------------------------> head --> co2_logits (B, 3, H, W)
                         high -- self --+
                                      cross --> fusion -- mean --> classifier --> class_logits (B, 3)
                         high -- self --+
        ch4 --encoder--> low ------------------------------> head --> ch4_logits (B, 3, H, W)

    `shared` streams have one encoder. `fusion`: "full" has self-, cross-modal and channel attention, "self" and "cross"
    only one of the first two, "concat" is a 1x1 convolution, "mean" has no parameters. A gas that is not there
    (`present` 0) tells the class nothing, and its mask is background. Source: arXiv 2601.08205.
    """

    def __init__(
        self,
        encoder: str = "fast-scnn",
        *,
        shared: bool = True,
        fusion: str = "full",
        hidden: tuple[int, ...] | None = None,
    ):
        super().__init__()
        if fusion not in FUSIONS:
            raise OptionError(f"There is no fusion {fusion!r}", hint="one of " + ", ".join(FUSIONS))
        self.encoders = nn.ModuleList(ENCODERS[encoder]() for _ in range(1 if shared else 2))
        low, high = ENCODERS[encoder].low, ENCODERS[encoder].high
        self.heads = nn.ModuleList(HEADS[encoder](low, high) for _ in GASES)
        self.fusion = Fusion(high, fusion)
        self.classifier = Classifier(high, hidden or HIDDEN[encoder])

    def forward(self, batch: Batch) -> Batch:
        frames, present = [batch[gas] for gas in GASES], batch["present"]  # (B, 1, H, W) each, (B, 2)
        features = self.encode(frames)
        high, joined = self.fusion(features[0].high, features[1].high, present)
        outputs = {"class_logits": self.classifier(mean(joined))}
        for place, gas in enumerate(GASES):
            logits = self.heads[place](Features(features[place].low, high[place]))
            outputs[f"{gas}_logits"] = where_present(resize(logits, frames[place].shape[-2:]), present[:, place])
        return outputs

    def encode(self, frames: list[Tensor]) -> list[Features]:
        """Features of every frame: in one pass where there is one encoder."""
        if len(self.encoders) > 1:
            return [encoder(frame) for encoder, frame in zip(self.encoders, frames, strict=True)]
        low, high = self.encoders[0](torch.cat(frames))
        return [Features(*pair) for pair in zip(low.chunk(2), high.chunk(2), strict=True)]


class Fusion(nn.Module):
    """What each stream learns from the other, (B, C, h, w) twice, and both of them as one, (B, C, h, w)."""

    def __init__(self, channels: int, fusion: str):
        super().__init__()
        alone = fusion in ("full", "self")
        self.self_attention = nn.ModuleList(SelfAttention(channels) if alone else nn.Identity() for _ in GASES)
        self.cross = CrossModalAttention(channels) if fusion in ("full", "cross") else None
        self.join = None
        if fusion != "mean":
            attentive = fusion != "concat"
            size = 3 if attentive else 1
            convolution = nn.Conv2d(2 * channels, channels, size, padding=size // 2, bias=attentive)  # as counted
            weighed = [ChannelAttention(2 * channels)] if attentive else []
            self.join = nn.Sequential(*weighed, convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, co2: Tensor, ch4: Tensor, present: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        co2, ch4 = self.self_attention[0](co2), self.self_attention[1](ch4)
        if self.cross is not None:
            co2, ch4 = self.cross(co2, ch4, present)
        mask = present[:, :, None, None, None]
        known = co2 * mask[:, 0], ch4 * mask[:, 1]  # a missing gas tells the class nothing
        if self.join is None:
            return (co2, ch4), (known[0] + known[1]) / mask.sum(dim=1).clamp(min=1)
        return (co2, ch4), self.join(torch.cat(known, dim=1))


class OneFrame(nn.Module):
    """A model of single frames. It takes single ones (`frame`, `gas`), or a pair, whose frames it sees one by one.

    Of a pair it gives a mask for each frame, and the class that both frames' log-probabilities agree on;
    `each_class_logits` (B, 2, 3) is what each frame gives, for the loss.
    """

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        """`logits` (B, 3, H, W) and `class_logits` (B, 3), or one of them."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Batch:
        if "frame" in batch:
            return self.look(batch["frame"], batch["gas"])
        present = batch["present"]
        gas = torch.arange(len(GASES), device=present.device).repeat_interleave(len(present))
        single = self.look(torch.cat([batch[name] for name in GASES]), gas)  # (2 B, ...): all CO2, then all CH4
        outputs = {}
        if "logits" in single:
            for place, logits in enumerate(single["logits"].chunk(len(GASES))):
                outputs[f"{GASES[place]}_logits"] = where_present(logits, present[:, place])
        if "class_logits" in single:
            each = torch.stack(single["class_logits"].chunk(len(GASES)), dim=1)
            agreed = (each.log_softmax(dim=-1) * present[:, :, None]).sum(dim=1)
            outputs |= {"each_class_logits": each, "class_logits": agreed}
        return outputs


class SegmentationOnly(OneFrame):
    """The mask of one frame."""

    def __init__(self, encoder: str = "fast-scnn"):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.head = HEADS[encoder](self.encoder.low, self.encoder.high)

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        return {"logits": resize(self.head(self.encoder(frame)), frame.shape[-2:])}


class ClassificationOnly(OneFrame):
    """The class from one frame."""

    def __init__(self, encoder: str = "fast-scnn"):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.classifier = Classifier(self.encoder.high, HIDDEN[encoder])

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        return {"class_logits": self.classifier(mean(self.encoder(frame).high))}


class GasAware(OneFrame):
    """The class from one frame and from which gas the camera films, by an embedding of 64 or 128 numbers."""

    def __init__(self, encoder: str = "fast-scnn", *, embedding: int = 64):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.gas = nn.Embedding(len(GASES), embedding)
        self.classifier = Classifier(self.encoder.high + embedding, HIDDEN[encoder])

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        pooled = mean(self.encoder(frame).high)
        return {"class_logits": self.classifier(torch.cat([pooled, self.gas(gas)], dim=1))}


class EarlyFusion(nn.Module):
    """Both frames as two channels of one picture: one mask, which must do for both gases, and the class."""

    def __init__(self, encoder: str = "fast-scnn"):
        super().__init__()
        self.encoder = ENCODERS[encoder](channels=len(GASES))
        self.head = HEADS[encoder](self.encoder.low, self.encoder.high)
        self.classifier = Classifier(self.encoder.high, HIDDEN[encoder][:1])

    def forward(self, batch: Batch) -> Batch:
        present = batch["present"]
        features = self.encoder(torch.cat([batch[gas] for gas in GASES], dim=1) * present[:, :, None, None])
        mask = resize(self.head(features), batch[GASES[0]].shape[-2:])
        outputs = {f"{gas}_logits": where_present(mask, present[:, place]) for place, gas in enumerate(GASES)}
        return outputs | {"class_logits": self.classifier(mean(features.high))}


class Sized(nn.Module):
    """A model that sees every frame at `size` (rows, columns) and answers at the size that the frame has.

    `tasks` are as many learned weights of losses, handed on as `log_variance`.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int], *, tasks: int = 0):
        super().__init__()
        self.model, self.size = model, size
        self.log_variance = nn.Parameter(torch.zeros(tasks)) if tasks else None

    def forward(self, batch: Batch) -> Batch:
        size = batch[GASES[0]].shape[-2:]
        if size != torch.Size(self.size):
            batch = batch | {gas: to_size(batch[gas], self.size) for gas in GASES}
        outputs = self.model(batch)
        if self.log_variance is not None:
            outputs["log_variance"] = self.log_variance
        return {name: resize(x, size) if x.ndim == 4 and x.shape[-2:] != size else x for name, x in outputs.items()}


def to_size(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames (B, 1, H, W) at `size`: means over pixels where they become fewer, bilinear where they become more."""
    if frames.shape[-2] > size[0] and frames.shape[-1] > size[1]:
        return F.adaptive_avg_pool2d(frames, size)
    return resize(frames, size)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "fume": partial(FUME, fusion="concat", hidden=(256,)),  # the published headline has no attention
    "fume-attention": FUME,
    "fume-separate": partial(FUME, shared=False),
    "fume-resnet": partial(FUME, "resnet", shared=False),
    "fume-resnet-shared": partial(FUME, "resnet"),
    "fume-resnet-plain": partial(FUME, "resnet", shared=False, fusion="concat"),
    "plumenet": PlumeNet,
    "segmentation-only": SegmentationOnly,
    "classification-only": ClassificationOnly,
    "gas-aware": GasAware,
    "gas-aware-128": partial(GasAware, embedding=128),
    "early-fusion": EarlyFusion,
    "segmentation-only-resnet": partial(SegmentationOnly, "resnet"),
    "classification-only-resnet": partial(ClassificationOnly, "resnet"),
    "gas-aware-resnet": partial(GasAware, "resnet"),
    "early-fusion-resnet": partial(EarlyFusion, "resnet"),
}


def build(name: str, **options) -> nn.Module:
    """The model called `name`, untrained."""
    if name not in MODELS:
        raise OptionError(f"There is no model {name!r}", hint=nearest(name, MODELS))
    other = options.keys() - inspect.signature(MODELS[name]).parameters
    if other:
        raise OptionError(f"The model {name} has no {' and no '.join(sorted(other))}", hint="that is for fume alone")
    return MODELS[name](**options)
