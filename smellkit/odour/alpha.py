"""The alpha stage: the 50 channels of an odour encoder, weighted and summed into one odour vector, then a mixture.

window --- encoder ---> z (50) --- alpha ---> odour vector --- head ---> beta (12 ratios) and presence (12)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smellkit.task import Batch


class AlphaSum(nn.Module):
    """Blend the encoder's odour channels into one odour vector.

        z (batch, 50) --- alpha (50, dim): one learned direction a channel ---> sum_i z_i * alpha_i  (batch, dim)

    `weights()` gives what each channel contributes, for the plots.
    """

    def __init__(self, channels: int = 50, dim: int = 256):
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(channels, dim) / channels**0.5)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.alpha

    def weights(self) -> Tensor:
        """Length of each channel's direction, (50,): how loudly it is heard."""
        return self.alpha.detach().norm(dim=1)


class MixtureHead(nn.Module):
    """Ratios of the components, each behind a gate that says whether it is there at all.

    odour (batch, dim) -> hidden -> ratio logits (12), presence logits (12)
    beta = softmax(ratio logits + log sigmoid(presence logits))
    """

    def __init__(self, dim: int = 256, *, scents: int = 12, hidden: int = 128, dropout: float = 0.1):
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout))
        self.ratio = nn.Linear(hidden, scents)
        self.presence = nn.Linear(hidden, scents)

    def forward(self, odour: Tensor) -> Batch:
        hidden = self.body(odour)
        presence = self.presence(hidden)
        gated = self.ratio(hidden) + F.logsigmoid(presence)
        return {"presence": presence, "log_beta": F.log_softmax(gated, dim=-1), "beta": gated.softmax(dim=-1)}


class AlphaMixture(nn.Module):
    """Encoder, alpha stage and mixture head in one: dict in, dict out.

    `frozen` is the first of the two stages: the encoder keeps its weights, its running statistics and its evaluation
    mode, whatever the trainer does. Without it everything learns (fine-tuning).
    """

    def __init__(
        self, encoder: nn.Module, *, channels: int = 50, dim: int = 128, scents: int = 12, frozen: bool = True
    ):
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.alpha = AlphaSum(channels, dim)
        self.head = MixtureHead(dim, scents=scents)
        if frozen:
            encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> AlphaMixture:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()  # dropout and running statistics too
        return self

    def forward(self, batch: Batch) -> Batch:
        encoded = self.encoder(batch)
        odour = self.alpha(encoded["z"])
        return {"z": encoded["z"], "odour": odour, **self.head(odour)}

    def learning(self) -> Iterator[nn.Parameter]:
        """Parameters that learn in this stage."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)


def mixture_loss(outputs: Batch, batch: Batch, *, presence: float = 0.3) -> Tensor:
    """KL divergence from the true ratios `batch["ratios"]`, plus `presence` x cross-entropy of the gates."""
    ratios = batch["ratios"]
    ratios = ratios / ratios.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    divergence = F.kl_div(outputs["log_beta"], ratios, reduction="batchmean")
    gates = F.binary_cross_entropy_with_logits(outputs["presence"], (ratios > 0).to(ratios.dtype))
    return divergence + presence * gates
