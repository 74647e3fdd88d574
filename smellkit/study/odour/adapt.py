"""Bring another day's features near those of the training recordings, without a label of that day.

Both look at all the windows of the day at once. A day that holds only some of the substances is not like the training
split even where its sensors are: that is what these methods can't know.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from smellkit.odour.encoder import Encoder

Affine = tuple[Tensor, Tensor]  # matrix (features, features) and offset (features,)


def standard(source: Tensor, target: Tensor) -> Affine:
    """Give each feature of `target` (windows, features) the mean and deviation that it has in `source`."""
    scale = source.std(0) / target.std(0).clamp_min(0.1)
    return torch.diag(scale), source.mean(0) - target.mean(0) * scale


def coral(source: Tensor, target: Tensor, *, shrink: float = 0.5) -> Affine:
    """Give all features of `target` together the mean and covariance of `source`, both shrunk towards the identity.

    Source: Sun, Feng and Saenko, arXiv 1511.05547; turned round, so that one network serves every day.
    """
    matrix = _power(_covariance(target, shrink), -0.5) @ _power(_covariance(source, shrink), 0.5)
    return matrix, source.mean(0) - target.mean(0) @ matrix


ADAPT: dict[str, Callable[[Tensor, Tensor], Affine]] = {"standard": standard, "coral": coral}


@torch.no_grad()
def adapted(network: Encoder, how: str, source: Tensor, target: Tensor) -> Encoder:
    """A copy of `network` that sees summary features `target` (windows, features) as if they were of `source`."""
    found = copy.deepcopy(network)
    normal = found.body.get_submodule("normal")
    matrix, offset = ADAPT[how](normal(source), normal(target))
    layer = nn.Linear(*matrix.shape)
    layer.weight.copy_(matrix.T)
    layer.bias.copy_(offset)
    found.body.set_submodule("normal", nn.Sequential(normal, layer))
    return found.eval()


def _covariance(x: Tensor, shrink: float) -> Tensor:
    return (1 - shrink) * torch.cov(x.T) + shrink * torch.eye(x.shape[1])


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix.double())
    return ((vectors * values.clamp_min(1e-6).pow(exponent)) @ vectors.T).float()
