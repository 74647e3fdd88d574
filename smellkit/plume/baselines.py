"""The published baselines with a network: each leaves out a task, or a way of joining the gases."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smellkit.plume.encoders import ENCODERS, Features, resize
from smellkit.plume.fume import GASES, where_present
from smellkit.plume.heads import HEADS, Classifier, mean
from smellkit.task import Batch

WIDTHS = {"fast-scnn": (256, 128), "resnet": (512, 256)}
HEAD = {"fast-scnn": "fusion", "resnet": "deeplab"}


class OneFrame(nn.Module):
    """A model of single frames. It takes single ones (`frame`, `gas`), or a pair, whose frames it sees one by one.

    Of a pair it says a mask for each frame, and the class that both frames' log-probabilities agree on;
    `each_class_logits` (B, 2, 3) is what each frame says, for the loss.
    """

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        """`logits` (B, 3, H, W) and `class_logits` (B, 3), or one of them."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Batch:
        if "frame" in batch:
            return self.look(batch["frame"], batch["gas"])
        present = batch["present"]
        gas = torch.arange(len(GASES), device=present.device).repeat_interleave(len(present))
        seen = self.look(torch.cat([batch[name] for name in GASES]), gas)
        outputs = {}
        if "logits" in seen:
            for place, logits in enumerate(seen["logits"].chunk(len(GASES))):
                outputs[f"{GASES[place]}_logits"] = where_present(logits, present[:, place])
        if "class_logits" in seen:
            each = torch.stack(seen["class_logits"].chunk(len(GASES)), dim=1)
            agreed = (each.log_softmax(dim=-1) * present[:, :, None]).sum(dim=1)
            outputs |= {"each_class_logits": each, "class_logits": agreed}
        return outputs


class SegmentationOnly(OneFrame):
    """The mask of one frame."""

    def __init__(self, encoder: str = "fast-scnn"):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.head = HEADS[HEAD[encoder]](self.encoder.low, self.encoder.high)

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        return {"logits": resize(self.head(self.encoder(frame)), frame.shape[-2:])}


class ClassificationOnly(OneFrame):
    """The class from one frame."""

    def __init__(self, encoder: str = "fast-scnn"):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.classifier = Classifier(self.encoder.high, WIDTHS[encoder])

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        return {"class_logits": self.classifier(mean(self.encoder(frame).high))}


class GasAware(OneFrame):
    """The class from one frame, told which gas the camera sees, by an embedding of 64 or 128 numbers."""

    def __init__(self, encoder: str = "fast-scnn", *, embedding: int = 64):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        self.gas = nn.Embedding(len(GASES), embedding)
        self.classifier = Classifier(self.encoder.high + embedding, WIDTHS[encoder])

    def look(self, frame: Tensor, gas: Tensor) -> Batch:
        seen = mean(self.encoder(frame).high)
        return {"class_logits": self.classifier(torch.cat([seen, self.gas(gas)], dim=1))}


class EarlyFusion(nn.Module):
    """Both frames as two channels of one picture: one mask, which must do for both gases, and the class."""

    def __init__(self, encoder: str = "fast-scnn"):
        super().__init__()
        self.encoder = ENCODERS[encoder](channels=len(GASES))
        self.head = HEADS[HEAD[encoder]](self.encoder.low, self.encoder.high)
        self.classifier = Classifier(self.encoder.high, WIDTHS[encoder][:1])

    def forward(self, batch: Batch) -> Batch:
        there = batch["present"][:, :, None, None]
        seen: Features = self.encoder(torch.cat([batch[gas] for gas in GASES], dim=1) * there)
        mask = resize(self.head(seen), batch[GASES[0]].shape[-2:])
        outputs = {f"{gas}_logits": where_present(mask, batch["present"][:, i]) for i, gas in enumerate(GASES)}
        return outputs | {"class_logits": self.classifier(mean(seen.high))}
