"""The product of experts: beta is always a mixture, an absent sense changes nothing, and two overrule a third."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from smellkit.odour.experts import Experts, compositions, divergence
from smellkit.odour.senses import Probe, fit_probe
from smellkit.study.odour.fusion import kind
from smellkit.study.odour.hybrid import tensors_of

TABLE = compositions(np.array([[0.6, 0.3, 0.1] + [0.0] * 9]))
PRIOR = np.append(np.full(len(TABLE), 0.98 / len(TABLE)), 0.02)
CONFUSION = 0.9 * np.eye(12) + 0.1 / 12
EXPERTS = Experts(
    TABLE,
    PRIOR,
    {"picture": 6.0, "text": 5.0, "smell": 1.0, "votes": 0.5, "network": 0.5},
    {"picture": 1e-3, "text": 1e-3, "smell": 0.02},
    {"picture": 1.0, "text": 1.0},
    {"picture": CONFUSION, "text": CONFUSION},
)
shares = arrays.arrays(float, 12, elements=st.floats(0, 1)).map(lambda row: (row + 1e-9) / (row + 1e-9).sum())


def shows(*scents):
    row = np.zeros(12)
    row[list(scents)] = 1 / len(scents)
    return (0.97 * row + 0.03 / 12)[None]


def smells(composition, *, sure=0.98):
    """What a look-up believes that found one composition."""
    belief = (1 - sure) * PRIOR
    belief[EXPERTS.indices(composition[None])[0]] += sure
    return belief[None]


def test_the_compositions_are_singles_pairs_in_tenths_even_triples_and_what_was_recorded():
    assert TABLE.shape == (12 + 66 * 9 + 220 + 1, 12)
    np.testing.assert_allclose(TABLE.sum(axis=1), 1)
    kinds = [kind(row) for row in TABLE]
    assert kinds.count("1") == 12 and kinds.count("3") == 220 and kinds[-1] == "other"


@settings(max_examples=60)
@given(picture=shares, text=shares, smell=shares, known=st.floats(0, 1))
def test_beta_is_a_mixture_whatever_the_senses_say(picture, text, smell, known):
    belief = EXPERTS.voted(np.eye(3)[:1], np.full((1, 3), 1 / 3), np.eye(12)[:3], smell[None], np.array([known]))
    posterior = EXPERTS.fuse(belief, EXPERTS.seen("picture", picture[None]), EXPERTS.seen("text", text[None]))
    beta = EXPERTS.decide(posterior)
    assert beta.min() >= 0 and abs(beta.sum() - 1) < 1e-6
    assert abs(posterior.sum() - 1) < 1e-9


def test_a_mixture_of_thirds_adds_up_to_one():
    recorded = np.zeros((1, 12))
    recorded[0, :3] = 0.33  # as its label says
    table = compositions(recorded)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("odd", ["smell", "picture", "text"])
def test_two_senses_that_agree_overrule_a_third_that_is_sure(odd):
    one, other = np.eye(12)[4], np.eye(12)[9]
    belief = smells(other if odd == "smell" else one)
    shown = [EXPERTS.seen(sense, shows(9 if odd == sense else 4)) for sense in ("picture", "text")]
    assert EXPERTS.decide(EXPERTS.fuse(belief, *shown))[0].argmax() == 4


def test_pictures_tell_what_is_there_and_the_smell_how_much():
    known = 0.8 * np.eye(12)[0] + 0.2 * np.eye(12)[4]
    other = 0.8 * np.eye(12)[0] + 0.2 * np.eye(12)[7]
    belief = 0.5 * smells(known) + 0.5 * smells(other)
    beta = EXPERTS.decide(EXPERTS.fuse(belief, EXPERTS.seen("picture", shows(0, 4))))[0]
    np.testing.assert_allclose(beta, known, atol=1e-9)


def test_equal_shares_are_told_apart_by_what_is_expected():
    first = np.zeros(12)
    first[[2, 6]] = 0.5
    louder = np.zeros(12)
    louder[[2, 6]] = 0.2, 0.8
    posterior = 0.7 * smells(first, sure=1.0) + 0.3 * smells(louder, sure=1.0)
    beta = EXPERTS.decide(posterior)[0]
    assert beta.argmax() == 6 and abs(beta[6] - 0.5) < 2e-3 and abs(beta.sum() - 1) < 1e-9


def test_a_board_of_single_substances_may_say_none_of_the_twelve():
    none = EXPERTS.named(np.zeros((1, 12)), np.array([1.0]))[0]
    assert none[-1] > 0.9
    mango = EXPERTS.named(np.eye(12)[4:5], np.array([0.0]))[0]
    assert mango.argmax() == 4


def test_the_divergence_is_zero_for_what_was_expected_and_positive_else():
    rows = shows(1, 2)
    np.testing.assert_allclose(divergence(rows, rows), 0, atol=1e-12)
    assert divergence(rows, shows(3)) > 1


def test_a_probe_says_what_it_has_not_seen_and_knows_what_is_strange():
    random = np.random.default_rng(3)
    scent = np.repeat(np.arange(12), 10)
    directions = random.normal(size=(12, 40)) * 3
    rows = directions[scent] + random.normal(size=(120, 40))
    probe, unseen = fit_probe(rows, scent, np.tile(np.arange(5), 24))
    assert (unseen.argmax(axis=1) == scent).mean() > 0.95
    np.testing.assert_allclose(unseen.sum(axis=1), 1)
    again = Probe(**{name: array.numpy() for name, array in tensors_of(probe).items()})
    np.testing.assert_allclose(again.shares(rows), probe.shares(rows), atol=1e-3)
    assert probe.strange(rows).mean() < 0.05
    assert probe.strange(-10 * directions[:3]).all()
