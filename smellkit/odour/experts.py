"""Fusion as a product of experts: what smell, picture and text say of every composition that the air may have.

    smell    votes of known mixtures, or the posterior mean --- session known? --+
    picture  mean shares m, 12 ---- exp(-n KL(m || what that composition shows)) +-- product --> p(composition)
    text     mean shares m, 12 ---- exp(-n KL(m || what that composition says)) -+      --> beta: least expected error

Compositions are the single scents, pairs in tenths, even triples, every mixture that was recorded, and last "none of
the twelve". A sense is never believed without a rest of uncertainty, so that two that agree overrule a third. The
concentrations n, uncertainties and the prior are learned (`study.odour.fusion`); a sense that is absent is left out.
"""

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.special import entr, softmax

from smellkit.odour.scents import SCENTS, to_channels

FloatArray = NDArray[np.float64]
TENTHS = tuple(tenth / 10 for tenth in range(1, 10))
CLOSE = 0.02  # two compositions are the same when no share differs by more
TILT = 1e-3
ONE = 0.8  # of the belief before a single picture or sentence, for single scents
REST = 1e-3  # of votes, for a mixture that got none
FLAT = np.full((1, len(SCENTS)), 1 / len(SCENTS))
LEAK = 0.1  # of the mean shares of a composition: what a sense says beside it


@dataclass(frozen=True)
class Experts:
    """The learned numbers of the product, by name of the sense (picture, text, smell)."""

    compositions: FloatArray  # (m, 12), each of sum 1, in channel order
    prior: FloatArray  # (m + 1,), the last one for none of the twelve
    concentration: Mapping[str, float]
    uncertainty: Mapping[str, float]  # of a sense: the share of its belief that does not hang on what it saw
    tail: Mapping[str, float]  # concentration of what is doubted, of picture and text
    confusion: Mapping[str, FloatArray]  # (12, 12), mean shares of what is one scent, of picture and text

    def flat(self, n: int = 1, *, single: bool = False) -> FloatArray:
        """What is believed before any sense speaks, (n, m + 1); mostly `single` scents, as people speak of one."""
        prior, one = self.prior, np.append(self._single, False)
        if single:
            prior = np.where(one, ONE * prior / prior[one].sum(), (1 - ONE) * prior / prior[~one].sum())
        return np.tile(prior, (n, 1))

    def seen(self, sense: str, shares: ArrayLike) -> FloatArray:
        """Likelihood of each composition, (n, m + 1), given the (mean) shares (n, 12) that pictures or texts show."""
        shares = np.asarray(shares, np.float64)
        there = self.compositions > 0  # the mean scene of each shows every component alike, however much there is
        shown = there / there.sum(axis=1, keepdims=True) @ self.confusion[sense]  # (m, 12)
        away = divergence(shares, (1 - LEAK) * shown + LEAK / len(SCENTS))
        likelihood = np.exp(-self.concentration[sense] * away)
        tail = np.exp(-self.tail[sense] * np.append(away, divergence(shares, FLAT), axis=1))
        return np.pad(likelihood, ((0, 0), (0, 1))) + self.uncertainty[sense] * tail

    def voted(
        self, votes: NDArray, network: NDArray, mixtures: NDArray, posterior_mean: NDArray, known: NDArray
    ) -> FloatArray:
        """What the mixture board says of windows, (n, m + 1), by how far the session is known (n,).

        `votes` of the look-up and the `network` (n, k) are for `mixtures` (k, 12), in the data's order as the mean.
        """
        both = {"votes": votes, "network": network}
        logs = sum(self.concentration[name] * np.log(shares + REST) for name, shares in both.items())
        looked_up = np.zeros((len(votes), len(self.prior)))
        np.add.at(looked_up.T, self.indices(to_channels(mixtures)), softmax(logs, axis=1).T)
        mean = to_channels(posterior_mean / np.maximum(posterior_mean.sum(axis=1, keepdims=True), 1e-9))
        blurred = (1 - LEAK) * self.compositions + LEAK / len(SCENTS)
        likelihood = np.exp(-self.concentration["smell"] * divergence(mean, blurred))
        guessed = self.prior * np.pad(likelihood, ((0, 0), (0, 1)))
        guessed /= guessed.sum(axis=1, keepdims=True)
        known = np.asarray(known)[:, None]
        return self._uncertain(known * looked_up + (1 - known) * guessed)

    def named(self, inside: NDArray, outside: NDArray) -> FloatArray:
        """What a board of substances says, (n, m + 1): `inside` (n, 12) of the twelve, `outside` (n,) of any other."""
        # The nose has smelled single substances alone: all mixtures together are a tenth.
        single = np.append(self._single, True)
        weight = np.where(single, 1.0, 0.1 * len(SCENTS) * self.prior / self.prior[~single].sum())
        each = np.concatenate([inside @ self.compositions.T, outside[:, None]], axis=1) * weight
        return self._uncertain(each / np.maximum(each.sum(axis=1, keepdims=True), 1e-300))

    def _uncertain(self, belief: FloatArray) -> FloatArray:
        return (1 - self.uncertainty["smell"]) * belief + self.uncertainty["smell"] * self.prior

    @property
    def _single(self) -> NDArray[np.bool_]:
        """Which compositions (m,) are of one scent."""
        return self.compositions.max(axis=1) > 1 - CLOSE

    def fuse(self, belief: FloatArray, *likelihoods: FloatArray) -> FloatArray:
        """Posterior over compositions, (n, m + 1): what the smell believes (or `flat`), times each likelihood."""
        posterior = math.prod(likelihoods, start=belief)
        return posterior / posterior.sum(axis=1, keepdims=True)

    def decide(self, posterior: NDArray) -> FloatArray:
        """Beta (n, 12): the composition of least expected error; equal shares in it are told apart by up to `TILT`."""
        chosen = self.compositions[(posterior[:, :-1] @ self._error).argmin(axis=1)]
        alike = chosen[:, :, None] == chosen[:, None, :]  # (n, 12, 12)
        expected = self.mean(posterior)
        tilt = expected - np.einsum("nij,nj->ni", alike, expected) / alike.sum(axis=2)
        return chosen + TILT * np.where(chosen > 0, tilt, 0.0)

    @functools.cached_property
    def _error(self) -> FloatArray:
        return cdist(self.compositions, self.compositions, "cityblock")

    def mean(self, posterior: NDArray) -> FloatArray:
        """The expected shares (n, 12), of what is believed to be among the twelve."""
        inside = posterior[:, :-1] @ self.compositions
        return inside / np.maximum(inside.sum(axis=1, keepdims=True), 1e-300)

    def expected_error(self, posterior: NDArray, beta: NDArray) -> FloatArray:
        """How much of the shares beta (n, 12) is expected to be wrong, added up, (n,): from 0 to 2."""
        return (posterior[:, :-1] * cdist(beta, self.compositions, "cityblock")).sum(axis=1)

    def indices(self, mixtures: NDArray) -> NDArray[np.int64]:
        """The row of `compositions` of each mixture (k, 12) in channel order: the nearest one."""
        mixtures = np.asarray(mixtures, np.float64) / np.sum(mixtures, axis=1, keepdims=True)
        return cdist(mixtures, self.compositions, "chebyshev").argmin(axis=1)


def divergence(shares: NDArray, expected: NDArray) -> FloatArray:
    """KL(shares || expected) in nats for every pair, (n, 12) and (m, 12) to (n, m)."""
    return -entr(shares).sum(axis=1, keepdims=True) - shares @ np.log(expected).T


def compositions(recorded: NDArray) -> FloatArray:
    """All compositions (m, 12); `recorded` (k, 12) in channel order are added where they are none of the regular."""
    one = np.eye(len(SCENTS))
    pairs = [share * a + (1 - share) * b for a, b in itertools.combinations(one, 2) for share in TENTHS]
    rows = [*one, *pairs, *(sum(three) / 3 for three in itertools.combinations(one, 3))]
    for row in np.asarray(recorded, np.float64) / np.sum(recorded, axis=1, keepdims=True):
        if np.abs(np.array(rows) - row).max(axis=1).min() > CLOSE:
            rows.append(row)
    return np.array(rows)
