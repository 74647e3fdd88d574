"""Smell, picture and text, fused into mixture ratios over the twelve scents; any of them may be missing.

    smell  (ds)  -- alpha ---+
    vision (dv)  -- linear --+-- tokens + modality embeddings -- strategy --> odour scene -- softmax --> beta (12)
    text   (dt)  -- linear --+

The tokens are embeddings (z of the encoder, those of the scene encoder), or the evidence that the product of experts
sees: `experts` is what ships, this is the network that it is compared with. A missing modality is masked: its token is
never looked at, so that its content, whatever it is, changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smellkit.odour.mixture import AlphaSum
from smellkit.task import Batch

MODALITIES = ("smell", "picture", "text")  # the order of the columns of `present`
STRATEGIES = ("attention", "concatenation", "addition")


class Fusion(nn.Module):
    """Three embeddings in, beta over twelve scents out.

    A batch holds "smell" (batch, ds), "picture" (batch, dv), "text" (batch, dt) and "present" (batch, 3), a mask in the
    order of `MODALITIES`. Strategies:

    - attention: a summary token and the present modalities' tokens through a TransformerEncoder;
    - concatenation: tokens side by side, a learned stand-in for each missing one, through a small network;
    - addition: the mean of the present tokens, through the same small network.

    In training each modality is hidden with probability `dropout`, but never the last one that is there.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int],
        *,
        strategy: str = "attention",
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
        scents: int = 12,
    ):
        super().__init__()
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy {strategy!r}, not one of {STRATEGIES}")
        self.strategy, self.dropout = strategy, dropout
        smell, picture, text = sizes
        self.alpha = AlphaSum(smell, width)
        self.picture = nn.Sequential(nn.Linear(picture, width), nn.GELU(), nn.Dropout(0.2), nn.Linear(width, width))
        self.text = nn.Sequential(nn.Linear(text, width), nn.GELU(), nn.Dropout(0.2), nn.Linear(width, width))
        self.modality = nn.Parameter(torch.randn(len(MODALITIES), width) / width**0.5)
        self.norm = nn.LayerNorm(width)
        if strategy == "attention":
            self.summary = nn.Parameter(torch.randn(width) / width**0.5)
            layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
            self.mix: nn.Module = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        else:
            inputs = width * (len(MODALITIES) if strategy == "concatenation" else 1)
            self.stand_in = nn.Parameter(torch.randn(len(MODALITIES), width) / width**0.5)
            small = (nn.Linear(inputs, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))
            self.mix = nn.Sequential(*small)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, scents))

    def forward(self, batch: Batch) -> Batch:
        present = batch["present"].bool()  # (batch, 3)
        if self.training and self.dropout:
            present = hide(present, self.dropout)
        # What is absent may hold anything, NaN too: it becomes 0 here, and its token is masked below.
        smell, picture, text = (
            torch.where(present[:, i : i + 1], batch[name], 0.0) for i, name in enumerate(MODALITIES)
        )
        # One token a modality, all of one width: 3 x (batch, width) -> (batch, 3, width)
        tokens = torch.stack([self.alpha(smell), self.picture(picture), self.text(text)], dim=1)
        scene = self.fuse(self.norm(tokens) + self.modality, present)  # (batch, width)
        logits = self.head(scene)  # (batch, 12)
        return {"scene": scene, "log_beta": logits.log_softmax(dim=-1), "beta": logits.softmax(dim=-1)}

    def fuse(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Blend tokens (batch, 3, width), of which only the `present` (batch, 3) may count, into (batch, width)."""
        there = present.unsqueeze(-1)  # (batch, 3, 1)
        if self.strategy == "attention":
            summary = self.summary.expand(len(tokens), 1, -1)  # (batch, 1, width), always there
            absent = torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)  # (batch, 4)
            mixed = self.mix(torch.cat([summary, tokens], dim=1), src_key_padding_mask=absent)  # (batch, 4, width)
            return mixed[:, 0]
        if self.strategy == "concatenation":
            return self.mix(
                torch.where(there, tokens, self.stand_in).flatten(1)
            )  # (batch, 3 * width) -> (batch, width)
        count = present.sum(dim=1, keepdim=True).clamp(min=1)  # (batch, 1)
        return self.mix(torch.where(there, tokens, 0.0).sum(dim=1) / count)


def hide(present: Tensor, probability: float) -> Tensor:
    """Hide each present modality with `probability`; where that would hide all of them, all stay."""
    kept = present & (torch.rand(present.shape, device=present.device) >= probability)
    return torch.where(kept.any(dim=1, keepdim=True), kept, present)
