"""FUME: two frames, one from a camera for each gas, in; a mask for each and a health class out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit.errors import OptionError
from smellkit.plume.attention import ChannelAttention, CrossModalAttention, SelfAttention
from smellkit.plume.encoders import ENCODERS, Features, resize
from smellkit.plume.heads import HEADS, Classifier, mean
from smellkit.task import Batch

GASES = ("co2", "ch4")
FUSIONS = ("full", "self", "cross", "concat", "mean")
CERTAIN = 20.0  # logit of the background where there is no frame


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
        head: str = "fusion",
        shared: bool = True,
        fusion: str = "full",
        hidden: tuple[int, ...] = (256, 128),
    ):
        super().__init__()
        if fusion not in FUSIONS:
            raise OptionError(f"There is no fusion {fusion!r}", hint="one of " + ", ".join(FUSIONS))
        self.encoders = nn.ModuleList(ENCODERS[encoder]() for _ in range(1 if shared else 2))
        low, high = ENCODERS[encoder].low, ENCODERS[encoder].high
        self.heads = nn.ModuleList(HEADS[head](low, high) for _ in GASES)
        self.exchange = Exchange(high, fusion)
        self.classifier = Classifier(high, hidden)

    def forward(self, batch: Batch) -> Batch:
        frames, present = [batch[gas] for gas in GASES], batch["present"]
        seen = encode(self.encoders, frames)
        high, joined = self.exchange(seen[0].high, seen[1].high, present)
        outputs = {"class_logits": self.classifier(mean(joined))}
        for place, gas in enumerate(GASES):
            logits = self.heads[place](Features(seen[place].low, high[place]))
            outputs[f"{gas}_logits"] = where_present(resize(logits, frames[place].shape[-2:]), present[:, place])
        return outputs


class Exchange(nn.Module):
    """What each stream learns from the other, and both of them as one."""

    def __init__(self, channels: int, fusion: str):
        super().__init__()
        attentive = fusion in ("full", "self", "cross")
        own = fusion in ("full", "self")
        self.own = nn.ModuleList(SelfAttention(channels) if own else nn.Identity() for _ in GASES)
        self.cross = CrossModalAttention(channels) if fusion in ("full", "cross") else None
        self.join = None if fusion == "mean" else _join(channels, attentive=attentive)

    def forward(self, co2: Tensor, ch4: Tensor, present: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        co2, ch4 = self.own[0](co2), self.own[1](ch4)
        if self.cross is not None:
            co2, ch4 = self.cross(co2, ch4, present)
        there = present[:, :, None, None, None]
        known = co2 * there[:, 0], ch4 * there[:, 1]
        if self.join is None:
            return (co2, ch4), (known[0] + known[1]) / there.sum(dim=1).clamp(min=1)
        return (co2, ch4), self.join(torch.cat(known, dim=1))


def _join(channels: int, *, attentive: bool) -> nn.Sequential:
    size = 3 if attentive else 1
    convolution = nn.Conv2d(2 * channels, channels, size, padding=size // 2, bias=attentive)  # as counted
    loud = [ChannelAttention(2 * channels)] if attentive else []
    return nn.Sequential(*loud, convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


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


def encode(encoders: nn.ModuleList, frames: list[Tensor]) -> list[Features]:
    """Features of every frame: in one pass where there is one encoder."""
    if len(encoders) > 1:
        return [encoder(frame) for encoder, frame in zip(encoders, frames, strict=True)]
    low, high = encoders[0](torch.cat(frames))
    return [Features(*pair) for pair in zip(low.chunk(len(frames)), high.chunk(len(frames)), strict=True)]


def where_present(logits: Tensor, present: Tensor) -> Tensor:
    """`logits` (B, 3, H, W), but background where there is no frame; `present` (B,)."""
    nothing = torch.zeros(logits.shape[1]).to(logits)
    nothing[0] = CERTAIN
    return torch.where(present[:, None, None, None] > 0, logits, nothing[:, None, None])
