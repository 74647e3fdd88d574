"""Every model by name, and how large it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from smellkit.errors import OptionError
from smellkit.options import nearest
from smellkit.plume.baselines import ClassificationOnly, EarlyFusion, GasAware, SegmentationOnly
from smellkit.plume.fume import FUME
from smellkit.plume.plumenet import PlumeNet
from smellkit.task import Batch

SIZE = (480, 640)  # of the published counts

resnet = partial(FUME, "resnet", head="deeplab", hidden=(512, 256))

MODELS: dict[str, Callable[..., nn.Module]] = {
    "fume": partial(FUME, fusion="concat", hidden=(256,)),  # the published headline has no attention
    "fume-attention": FUME,
    "fume-separate": partial(FUME, shared=False),
    "fume-resnet": partial(resnet, shared=False),
    "fume-resnet-shared": resnet,
    "fume-resnet-plain": partial(resnet, shared=False, fusion="concat"),
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


class Counts(NamedTuple):
    """Parameters, and multiply-accumulates for what the model takes at once: a pair of frames, or a single frame."""

    parameters: int
    macs: int


def build(name: str, **options) -> nn.Module:
    """The model called `name`, untrained."""
    if name not in MODELS:
        raise OptionError(f"There is no model {name!r}", hint=nearest(name, MODELS))
    other = options.keys() - inspect.signature(MODELS[name]).parameters
    if other:
        raise OptionError(f"The model {name} has no {' and no '.join(sorted(other))}", hint="that is for fume alone")
    return MODELS[name](**options)


def counts(name: str, *, size: tuple[int, int] = SIZE) -> Counts:
    """Count the model `name` at frames of `size`, without memory for its weights; models of one frame get one."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build(name).eval()
        batch = blank(1, size=size, single=hasattr(model, "look"))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(batch)
    return Counts(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)


def blank(count: int, *, size: tuple[int, int], single: bool = False) -> Batch:
    """A batch of grey frames, both gases present."""
    frames = torch.zeros(count, 1, *size)
    if single:
        return {"frame": frames, "gas": torch.zeros(count, dtype=torch.long)}
    return {"co2": frames, "ch4": frames, "present": torch.ones(count, 2)}
