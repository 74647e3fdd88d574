"""The task "odour-fusion": the network that the product of experts, which ships, is compared with.

    smell  (ds)  -- alpha ---+
    picture (dv) -- linear --+-- tokens + modality embeddings -- strategy --> odour scene -- softmax --> beta (12)
    text   (dt)  -- linear --+

The tokens are made of the evidence that the experts see, or in the plain form of embeddings (z of the encoder, those of
the scene encoder). A missing modality is masked: its token is never looked at, so that its content changes nothing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smellkit import checkpoint, train
from smellkit.errors import OptionError
from smellkit.odour.mixture import AlphaSum
from smellkit.study.odour.mixture_task import mixture_scores
from smellkit.study.odour.scenes import Scenes, read_scenes
from smellkit.task import Batch, Task

MODALITIES = ("smell", "picture", "text")  # the order of the columns of `present`
STRATEGIES = ("attention", "concatenation", "addition")
INPUTS = ("evidence", "embeddings")


class SenseFusion(nn.Module):
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
        sizes: Sequence[int],
        *,
        strategy: str = "attention",
        width: int = 64,
        layers: int = 2,
        dropout: float = 0.2,
    ):
        super().__init__()
        if strategy not in STRATEGIES:
            raise OptionError(f"There is no strategy {strategy!r}", hint=f"one of {', '.join(STRATEGIES)}")
        self.strategy, self.dropout = strategy, dropout
        smell, picture, text = sizes
        self.alpha = AlphaSum(smell, width)
        self.picture, self.text = (
            nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Dropout(0.2), nn.Linear(width, width))
            for size in (picture, text)
        )
        self.modality = nn.Parameter(torch.randn(len(MODALITIES), width) / width**0.5)
        self.norm = nn.LayerNorm(width)
        if strategy == "attention":
            self.summary = nn.Parameter(torch.randn(width) / width**0.5)
            layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True)
            self.mix: nn.Module = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        else:
            inputs = width * (len(MODALITIES) if strategy == "concatenation" else 1)
            self.stand_in = nn.Parameter(torch.randn(len(MODALITIES), width) / width**0.5)
            small = (nn.Linear(inputs, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))
            self.mix = nn.Sequential(*small)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 12))

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
            return self.mix(torch.cat([summary, tokens], dim=1), src_key_padding_mask=absent)[:, 0]
        if self.strategy == "concatenation":  # (batch, 3 * width) -> (batch, width)
            return self.mix(torch.where(there, tokens, self.stand_in).flatten(1))
        count = present.sum(dim=1, keepdim=True).clamp(min=1)  # (batch, 1)
        return self.mix(torch.where(there, tokens, 0.0).sum(dim=1) / count)


def hide(present: Tensor, probability: float) -> Tensor:
    """Hide each present modality with `probability`; where that would hide all of them, all stay."""
    kept = present & (torch.rand(present.shape, device=present.device) >= probability)
    return torch.where(kept.any(dim=1, keepdim=True), kept, present)


def fusion_loss(outputs: Batch, batch: Batch) -> Tensor:
    """Cross-entropy between true ratios and beta."""
    return -(batch["ratios"] * outputs["log_beta"]).sum(dim=-1).mean()


def one_hot_loss(outputs: Batch, batch: Batch) -> Tensor:
    """The plain form: the loudest scent alone is the target."""
    return nn.functional.nll_loss(outputs["log_beta"], batch["ratios"].argmax(dim=1))


def fusion_scores(outputs: Batch, batch: Batch) -> dict[str, float]:
    """Scores of a split: accuracy of the strongest scent (any of them where several are), and those of the mixture."""
    beta, ratios = outputs["beta"].detach().numpy(), batch["ratios"].numpy()
    score = -float(fusion_loss(outputs, batch).detach())
    return {"score": score, "accuracy": float(correct(beta, ratios).mean()), **mixture_scores(beta, ratios)}


def correct(beta: NDArray, ratios: NDArray) -> NDArray[np.bool_]:
    """Whether the largest beta (n, 12) is a scent of the largest true ratio, (n,)."""
    return ratios[np.arange(len(beta)), beta.argmax(axis=1)] >= ratios.max(axis=1) - 1e-6


def task(
    *,
    data: str = "",
    scene: str = "",
    revision: str = "",
    inputs: str = "evidence",
    strategy: str = "attention",
    dropout: float = 0.2,
    width: int = 64,
    layers: int = 2,
    encoder: str = "mixture",
    seed: int = 7,
) -> Task:
    """Fusion of smell, picture and text on mixture recordings, as a task for the trainer.

    data: a SmellNet folder, "" for the sample; scene: "compact", "light", or a Qwen-VL folder or hub name (with
    `revision`), "" for the best installed; inputs: "evidence" of each sense, or "embeddings" with one-hot targets;
    encoder: whose 50 channels are the smell of the plain form; seed: of the splits of pictures and descriptions.
    """
    if inputs not in INPUTS:
        raise OptionError(f"There are no inputs {inputs!r}", hint=" or ".join(INPUTS))
    read = functools.cache(lambda: read_scenes(data, scene=scene, revision=revision, encoder=encoder, seed=seed))
    return of(read, inputs=inputs, strategy=strategy, dropout=dropout, width=width, layers=layers)


def of(read: Callable[[], Scenes], *, inputs: str = "evidence", **shape: Any) -> Task:
    """The task on the scenes that `read()` gives; `shape` are options of `SenseFusion`."""
    plain = inputs == "embeddings"

    def load():
        return {name: read().tensors(name, plain=plain) for name in read().smells}

    def build() -> nn.Module:
        sample = read().tensors("valid", plain=plain).tensors
        return SenseFusion([sample[name].shape[1] for name in MODALITIES], **shape)

    return Task("odour-fusion", load, build, one_hot_loss if plain else fusion_loss, fusion_scores, watch="score")


def fitted(scenes: Scenes, *, name: str, settings: train.Settings, **options: Any) -> nn.Module:
    """Train a network on scenes that are read already and return it; the run is called `name`."""
    made = of(lambda: scenes, **options)
    run = train.fit(made, settings, name=name, params=options)
    return checkpoint.restore(made.build(), run.folder)


@torch.no_grad()
def beta(model: nn.Module, batch: Batch, subset) -> Tensor:
    """The network's beta (n, 12) for a batch when only the modalities numbered in `subset` are there."""
    present = torch.tensor([i in subset for i in range(len(MODALITIES))]).repeat(len(batch["smell"]), 1)
    return model.eval()({**batch, "present": present})["beta"]
