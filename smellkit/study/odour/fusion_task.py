"""The fusion network as a task for the trainer: on the evidence of each sense, or in its plain form on embeddings."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from smellkit.errors import OptionError
from smellkit.odour.mixture_task import mixture_scores
from smellkit.study.odour.fusion_network import MODALITIES, Fusion
from smellkit.study.odour.scenes import Scenes, read_scenes
from smellkit.task import Batch, Task

INPUTS = ("evidence", "embeddings")


def fusion_loss(outputs: Batch, batch: Batch) -> Tensor:
    """Cross-entropy between true ratios and beta."""
    return -(batch["ratios"] * outputs["log_beta"]).sum(dim=-1).mean()


def one_hot_loss(outputs: Batch, batch: Batch) -> Tensor:
    """The plain form: the loudest scent alone is the target."""
    return nn.functional.nll_loss(outputs["log_beta"], batch["ratios"].argmax(dim=1))


def fusion_scores(outputs: Batch, batch: Batch) -> dict[str, float]:
    """Scores of a split: accuracy of the strongest scent (any of them where several are), and those of the mixture."""
    beta, ratios = outputs["beta"].detach(), batch["ratios"]
    return {"accuracy": float(correct(beta, ratios).float().mean()), **mixture_scores(beta.numpy(), ratios.numpy())}


def correct(beta: Tensor, ratios: Tensor) -> Tensor:
    """Whether the largest beta is a scent of the largest true ratio, (n,)."""
    chosen = ratios.gather(1, beta.argmax(dim=1, keepdim=True)).squeeze(1)
    return chosen >= ratios.max(dim=1).values - 1e-6


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
    without: str = "",
    encoder: str = "mixture",
    seed: int = 7,
) -> Task:
    """Fusion of smell, picture and text on mixture recordings, as a task for the trainer.

    data: a SmellNet folder, "" for the sample; scene: "compact", "light", or a Qwen-VL folder or hub name (with
    `revision`), "" for the best installed; inputs: "evidence" of each sense, or "embeddings" with one-hot targets;
    without: a modality that is absent throughout ("smell", "picture" or "text"), for comparisons; encoder: whose 50
    channels are the smell of the plain form; seed: of the splits of pictures and descriptions.
    """
    if without and without not in MODALITIES:
        raise OptionError(f"There is no modality {without!r}", hint=f"one of {', '.join(MODALITIES)}")
    if inputs not in INPUTS:
        raise OptionError(f"There are no inputs {inputs!r}", hint=" or ".join(INPUTS))
    read = functools.cache(lambda: read_scenes(data, scene=scene, revision=revision, encoder=encoder, seed=seed))
    return of(read, inputs=inputs, strategy=strategy, dropout=dropout, width=width, layers=layers, without=without)


def of(read, *, inputs: str = "evidence", without: str = "", only: str = "", **shape) -> Task:
    """The task on the scenes that `read()` gives; `shape` are options of `Fusion`."""
    plain = inputs == "embeddings"
    present = [(not only or name == only) and name != without for name in MODALITIES]

    def load():
        return {name: read().tensors(name, present=present, plain=plain) for name in read().smells}

    def build() -> nn.Module:
        sample = read().tensors("valid", plain=plain).tensors
        sizes = sample["smell"].shape[1], sample["picture"].shape[1], sample["text"].shape[1]
        return Fusion(sizes, **shape)

    def score(outputs: Batch, batch: Batch) -> dict[str, float]:
        return {"score": -float(fusion_loss(outputs, batch)), **fusion_scores(outputs, batch)}

    return Task("odour-fusion", load, build, one_hot_loss if plain else fusion_loss, score, watch="score")


def fitted(scenes: Scenes, *, name: str, settings, **options) -> nn.Module:
    """Train a network on scenes that are read already and return it; the run is called `name`."""
    from smellkit import checkpoint, train

    made = of(lambda: scenes, **options)
    run = train.fit(made, settings, name=name, params=options)
    model = made.build()
    checkpoint.fill(model, checkpoint.load(run.folder)[0], where=str(run.folder))
    return model.eval()


def beta(model: nn.Module, batch: Batch, subset) -> Tensor:
    """The network's beta (n, 12) for a batch when only the modalities numbered in `subset` are there."""
    present = torch.tensor([i in subset for i in range(len(MODALITIES))]).repeat(len(batch["smell"]), 1)
    with torch.no_grad():
        return model.eval()({**batch, "present": present})["beta"]
