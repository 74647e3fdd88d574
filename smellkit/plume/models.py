"""FUME, its variants, the published baselines with a network, and every model by name.

Two frames, one from a camera for each gas, in; a mask for each and a health class out.
"""

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit.errors import OptionError
from smellkit.options import check
from smellkit.plume import GASES
from smellkit.plume.layers import ENCODERS, HEADS, HIDDEN, Attention, ChannelAttention, Classifier, conv, resize
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

    def __init__(self, encoder: str = "fast-scnn", *, shared: bool = True, fusion: str = "full", hidden=None):
        super().__init__()
        check([fusion], FUSIONS, "There is no fusion")
        self.encoders = nn.ModuleList(ENCODERS[encoder]() for _ in range(1 if shared else 2))
        low, high = ENCODERS[encoder].low, ENCODERS[encoder].high
        self.heads = nn.ModuleList(HEADS[encoder](low, high) for _ in GASES)
        self.fusion = Fusion(high, fusion)
        self.classifier = Classifier(high, hidden or HIDDEN[encoder])

    def forward(self, batch: Batch) -> Batch:
        frames, present = [batch[gas] for gas in GASES], batch["present"]  # (B, 1, H, W) each, (B, 2)
        if len(self.encoders) > 1:
            features = (encoder(frame) for encoder, frame in zip(self.encoders, frames, strict=True))
            low, high = zip(*features, strict=True)
        else:  # all frames in one pass
            low, high = (x.chunk(2) for x in self.encoders[0](torch.cat(frames)))
        high, joined = self.fusion(*high, present)
        outputs = {"class_logits": self.classifier(joined.mean(dim=(2, 3)))}
        for index, gas in enumerate(GASES):
            logits = self.heads[index](low[index], high[index])
            outputs[f"{gas}_logits"] = where_present(resize(logits, frames[index].shape[-2:]), present[:, index])
        return outputs


class Fusion(nn.Module):
    """What each stream learns from the other, (B, C, h, w) twice, and both of them as one, (B, C, h, w)."""

    def __init__(self, channels: int, fusion: str):
        super().__init__()
        alone = GASES if fusion in ("full", "self") else ()
        self.self_attention = nn.ModuleList(Attention(channels, channels // 8) for _ in alone)
        self.cross = Attention(channels, max(channels // 8, 64)) if fusion in ("full", "cross") else None
        self.join = None
        if fusion != "mean":
            attentive = fusion != "concat"
            joined = conv(2 * channels, channels, 3 if attentive else 1, bias=attentive)  # as counted
            weighed = [ChannelAttention(2 * channels)] if attentive else []
            self.join = nn.Sequential(*weighed, *joined)

    def forward(self, co2: Tensor, ch4: Tensor, present: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        there = present[:, :, None, None, None].unbind(dim=1)
        if self.self_attention:
            co2, ch4 = (attention(x, x) for attention, x in zip(self.self_attention, (co2, ch4), strict=True))
        if self.cross is not None:
            co2, ch4 = self.cross(co2, ch4, there[1]), self.cross(ch4, co2, there[0])
        known = co2 * there[0], ch4 * there[1]  # a missing gas tells the class nothing
        if self.join is None:
            return (co2, ch4), (known[0] + known[1]) / (there[0] + there[1]).clamp(min=1)
        return (co2, ch4), self.join(torch.cat(known, dim=1))


class OneFrame(nn.Module):
    """A model of single frames, which sees those of a pair one by one: their `masks`, the class (`health`), or both.

    With an `embedding` of as many numbers the class knows which gas the camera films. Of a pair it gives a mask for
    each frame, and the class that both frames' log-probabilities agree on; `each_class_logits` (B, 2, 3) is what each
    frame gives, for the loss.
    """

    def __init__(self, encoder: str = "fast-scnn", *, masks: bool = False, health: bool = False, embedding: int = 0):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.head = HEADS[encoder](self.encoder.low, self.encoder.high) if masks else None
        self.gas = nn.Embedding(len(GASES), embedding) if embedding else None
        self.classifier = Classifier(self.encoder.high + embedding, HIDDEN[encoder]) if health else None

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        """`logits` (B, 3, H, W) and `class_logits` (B, 3), or one of them."""
        (low, high), outputs = self.encoder(frame), {}
        if self.head is not None:
            outputs["logits"] = resize(self.head(low, high), frame.shape[-2:])
        if self.classifier is not None:
            pooled = [high.mean(dim=(2, 3))] + ([self.gas(gas)] if self.gas is not None else [])
            outputs["class_logits"] = self.classifier(torch.cat(pooled, dim=1))
        return outputs

    def forward(self, batch: Batch) -> Batch:
        present = batch["present"]
        gas = torch.arange(len(GASES), device=present.device).repeat_interleave(len(present))
        single = self.look(torch.cat([batch[name] for name in GASES]), gas)  # (2 B, ...): all CO2, then all CH4
        outputs = {}
        if "logits" in single:
            for index, logits in enumerate(single["logits"].chunk(len(GASES))):
                outputs[f"{GASES[index]}_logits"] = where_present(logits, present[:, index])
        if "class_logits" in single:
            each = torch.stack(single["class_logits"].chunk(len(GASES)), dim=1)
            agreed = (each.log_softmax(dim=-1) * present[:, :, None]).sum(dim=1)
            outputs |= {"each_class_logits": each, "class_logits": agreed}
        return outputs


class EarlyFusion(nn.Module):
    """Both frames as two channels of one picture: one mask, which must do for both gases, and the class."""

    def __init__(self, encoder: str = "fast-scnn"):
        super().__init__()
        self.encoder = ENCODERS[encoder](channels=len(GASES))
        self.head = HEADS[encoder](self.encoder.low, self.encoder.high)
        self.classifier = Classifier(self.encoder.high, HIDDEN[encoder][:1])

    def forward(self, batch: Batch) -> Batch:
        present = batch["present"]
        low, high = self.encoder(torch.cat([batch[gas] for gas in GASES], dim=1) * present[:, :, None, None])
        mask = resize(self.head(low, high), batch[GASES[0]].shape[-2:])
        outputs = {f"{gas}_logits": where_present(mask, present[:, index]) for index, gas in enumerate(GASES)}
        return outputs | {"class_logits": self.classifier(high.mean(dim=(2, 3)))}


class Sized(nn.Module):
    """A model that sees every frame at `size` (rows, columns) and answers at the size that the frame has.

    With `mirrored` it answers, unless it learns, by the mean of the logits of frames and of mirrored frames.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int], *, mirrored: bool = False):
        super().__init__()
        self.model, self.size, self.mirrored = model, size, mirrored

    def forward(self, batch: Batch) -> Batch:
        size = batch[GASES[0]].shape[-2:]
        if size != torch.Size(self.size):
            batch = {name: to_size(x, self.size) if x.ndim == 4 else x for name, x in batch.items()}
        outputs = self.twice(batch) if self.mirrored and not self.training else self.model(batch)
        return {name: resize(x, size) if x.ndim == 4 and x.shape[-2:] != size else x for name, x in outputs.items()}

    def twice(self, batch: Batch) -> Batch:
        """The mean of the answers to frames and to mirrored frames."""
        both = {name: torch.cat([x, x.flip(-1)]) for name, x in batch.items() if x.ndim == 4}
        outputs = self.model(both | {"present": batch["present"].repeat(2, 1)})
        halves = {name: x.chunk(2) for name, x in outputs.items()}
        return {
            name: (one + (other.flip(-1) if other.ndim == 4 else other)) / 2 for name, (one, other) in halves.items()
        }


def normalise(frames: Tensor) -> Tensor:
    """From 0..1 to -1..1."""
    return (frames - 0.5) / 0.5


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
    "plumenet-one-camera": partial(PlumeNet, one_camera=True),
    "segmentation-only": partial(OneFrame, masks=True),
    "classification-only": partial(OneFrame, health=True),
    "gas-aware": partial(OneFrame, health=True, embedding=64),
    "gas-aware-128": partial(OneFrame, health=True, embedding=128),
    "early-fusion": EarlyFusion,
    "segmentation-only-resnet": partial(OneFrame, "resnet", masks=True),
    "classification-only-resnet": partial(OneFrame, "resnet", health=True),
    "gas-aware-resnet": partial(OneFrame, "resnet", health=True, embedding=64),
    "early-fusion-resnet": partial(EarlyFusion, "resnet"),
}


def build(name: str, **options) -> nn.Module:
    """The model called `name`, untrained."""
    check([name], MODELS, "There is no model")
    other = options.keys() - inspect.signature(MODELS[name]).parameters
    if other:
        raise OptionError(f"The model {name} has no {' and no '.join(sorted(other))}", hint="leave that out")
    return MODELS[name](**options)
