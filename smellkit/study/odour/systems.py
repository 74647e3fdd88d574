"""Everything that the benchmark can fit, by name: a network, a classical peer, or several of them averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smellkit.errors import OptionError
from smellkit.odour.encoder import BODIES, SUMMARIES, Encoder
from smellkit.odour.features import describe
from smellkit.odour.recordings import ENVIRONMENT, GAS
from smellkit.odour.windows import Protocol, Windows
from smellkit.study.odour import adapt
from smellkit.study.odour.baselines import PEERS
from smellkit.windows import Array

Scorer = Callable[[Array], Array]  # windows (windows, steps, channels) -> log-probabilities (windows, classes)


@dataclass(frozen=True)
class System:
    """What to fit, on which view of the recordings, and in which table of the report it belongs."""

    members: tuple[str, ...]  # of BODIES or PEERS
    protocol: Protocol = Protocol()
    table: str = "strict"
    train_stride: int = 20
    calibrated: bool = False  # worth more fits, on parts of the training split
    augment: dict[str, Any] = field(default_factory=dict)  # of the networks, see `Augment`
    adversary: float = 0.0  # of the networks, see `Opponent`
    adapt: str = ""  # how summary features of a scored set are brought near those of the training: a key of ADAPT


FREE, REBUILT = Protocol("level-free"), Protocol("rebuilt")  # rebuilt from the strict differences alone
CURVES = ("curve-mlp", "curve-trees")  # look at whole curves, and at differences beside them
TEAM = ("curve-trees", *3 * ("curve-mlp",))


def curves(members: tuple[str, ...], protocol: Protocol = REBUILT, **how: Any) -> System:
    """A system that looks at whole curves, trained on a window every 10 rows."""
    return System(members, protocol, **{"train_stride": 10, **how})


SYSTEMS: dict[str, System] = {
    **{name: System((name,), calibrated=name == "summary-mlp") for name in [*BODIES, *PEERS]},
    **{name: curves((name,), calibrated=name == "curve-mlp") for name in CURVES},
    **{name: System((name,), train_stride=50) for name in ("minirocket", "hydra")},
    "ensemble": curves(TEAM, calibrated=True),
    "level-free/summary-mlp": System(("summary-mlp",), FREE, "level-free"),
    "level-free/curve-mlp": curves(("curve-mlp",), FREE, table="level-free"),
    "level-free/ensemble": curves(TEAM, FREE, table="level-free"),
    "confounded/11 level-free": curves(TEAM, Protocol("level-free", (*GAS, *ENVIRONMENT)), table="confounded"),
    "confounded/12 absolute": System(
        ("extratrees",), Protocol("absolute", (*GAS, "Benzene", *ENVIRONMENT)), "confounded"
    ),
    "confounded/conductance": System(("summary-mlp",), Protocol("conductance"), "confounded", calibrated=True),
}


def find(name: str) -> System:
    """The system called `name`."""
    from smellkit.options import nearest

    if name not in SYSTEMS:
        raise OptionError(f"There is no model {name!r}", hint=nearest(name, SYSTEMS))
    return SYSTEMS[name]


def fit(system: System, train: Windows, *, seed: int = 1, name: str = "bench") -> Scorer:
    """Fit `system` on the windows `train` (cut at its `train_stride`) and return what scores new windows.

    Nothing is held out here: how long to train was chosen by cross-validation before. The average is of
    log-probabilities. `name` is the run folder of the networks.
    """
    scorers: list[Scorer] = []
    for number, member in enumerate(system.members):
        if member in PEERS:
            scorers.append(PEERS[member](seed=seed + number).fit(train.values, train.target).scores)
        else:
            scorers.append(fit_network(member, train, system=system, seed=seed + 100 * number, name=name))
    return lambda windows: _average(system.members, [scorer(windows) for scorer in scorers])


def fit_network(
    model: str, train: Windows, *, seed: int, name: str, system: System = System(()), **changes: Any
) -> Scorer:
    """Train a network on all of `train`, as `system` augments it, and return its scorer.

    `changes` replace settings of the network's recipe.
    """
    from smellkit import checkpoint as weights
    from smellkit.odour.encoder_task import RECIPES, make, of_windows, settled
    from smellkit.train import fit as fit_task

    some = train[np.arange(0, len(train), max(1, len(train) // 500))]
    splits = {"train": train, "valid": some}
    task = of_windows(lambda: splits, model=model, augment=system.augment, adversary=system.adversary)
    run = fit_task(settled(task), replace(RECIPES[model], seed=seed, **changes), name=f"{name}/{model}")
    network = make(model, train.values.shape[1:], classes=len(train.classes))
    kept = {key: value for key, value in weights.load(run.folder)[0].items() if not key.startswith("opponent.")}
    weights.fill(network, kept, where=str(run.folder)).eval()
    return adapting(network, model, train, system.adapt) if system.adapt else scorer_of(network)


def adapting(network: Encoder, model: str, train: Windows, how: str) -> Scorer:
    """What scores the windows of a day after it has looked at all of them, see `adapt`."""
    lag = SUMMARIES[model]
    source = describe(train.values, lag=lag)

    def scores(windows: Array) -> Array:
        return scorer_of(adapt.adapted(network, how, source, describe(windows, lag=lag)))(windows)

    return scores


def scorer_of(network: torch.nn.Module, *, batch: int = 512) -> Scorer:
    """Log-probabilities of windows by a network, in batches."""

    @torch.no_grad()
    def scores(windows: Array) -> Array:
        parts = torch.from_numpy(np.asarray(windows, np.float32)).split(batch)
        return torch.cat([network({"window": part})["logits"].log_softmax(1) for part in parts]).numpy()

    return scores


def _average(members: Sequence[str], parts: list[NDArray]) -> Array:
    """Mean log-probabilities of equal members, then of different ones: each kind has the same say."""
    from scipy.special import log_softmax

    kinds = [[part for other, part in zip(members, parts, strict=True) if other == member] for member in set(members)]
    return log_softmax(np.mean([np.mean(kind, axis=0) for kind in kinds], axis=0), axis=1).astype(np.float32)
