"""A mixture becomes a sequence of slots: the shares, the order, the bounds."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smellkit.device import playlist
from smellkit.errors import OptionError

EVEN = [1 / 12] * 12


def mixture(**shares):
    beta = [0.0] * 12
    for name, share in shares.items():
        beta[int(name[1:]) - 1] = share
    return beta


@st.composite
def mixtures(draw):
    weights = draw(st.lists(st.one_of(st.just(0), st.integers(1, 1000)), min_size=12, max_size=12))
    weights[draw(st.integers(0, 11))] += 1
    return [weight / sum(weights) for weight in weights]


plans = {
    "seconds": st.floats(5, 400),
    "slot": st.floats(1, 5),
    "gap": st.floats(0, 1),
    "keep": st.integers(1, 12),
}


def variation(made):
    """Total variation between planned and achieved shares."""
    return sum(abs(a - p) for a, p in zip(made.achieved, made.planned, strict=True)) / 2


def drawn(beta, *, seconds, slot, gap, keep):
    return playlist.render(beta, seconds=max(seconds, slot + gap), slot=slot, gap=gap, keep=keep)


def test_a_minute_has_27_slots_of_two_seconds():
    made = playlist.render(mixture(s3=0.5, s7=0.3, s12=0.2))
    assert len(made.slots) == 27
    assert made.slots[0][0] == 0 and made.slots[1][0] == pytest.approx(2.2)
    assert made.seconds == pytest.approx(59.4)
    counts = [sum(scent == n for _, scent, _ in made.slots) for n in (3, 7, 12)]
    assert counts == [14, 8, 5]  # 13.5, 8.1, 5.4: the largest remainder takes the 27th


def test_what_does_not_fit_is_left_out_and_reported():
    made = playlist.render(mixture(s1=0.3, s2=0.25, s3=0.2, s4=0.15, s5=0.1))
    assert made.lost == pytest.approx(0.1)
    assert made.planned[0] == pytest.approx(0.3 / 0.9) and made.planned[4] == 0
    assert {scent for _, scent, _ in made.slots} == {1, 2, 3, 4}


def test_ties_go_to_the_lowest_scent():
    made = playlist.render(EVEN, keep=4, seconds=2.2 * 6)
    assert {scent for _, scent, _ in made.slots} == {1, 2, 3, 4}
    assert [round(share * 6) for share in made.achieved[:4]] == [2, 2, 1, 1]
    assert playlist.apportion([0.1, 0.9], 5) == [1, 4]  # 0.5 and 4.5, which differ in the last bit
    assert playlist.top(EVEN) == 1


def test_three_slots_of_2_2_seconds_fit_into_6_6():
    assert len(playlist.render(mixture(s1=1.0), seconds=6.6).slots) == 3  # 6.6 / 2.2 is 2.9999999999999996


@given(mixtures(), st.fixed_dictionaries(plans))
@settings(max_examples=300, deadline=None)
def test_shares_keep_the_published_bounds(beta, plan):
    made = drawn(beta, **plan)
    number, scents = len(made.slots), sum(share > 0 for share in made.planned)
    assert number == math.floor(max(plan["seconds"], plan["slot"] + plan["gap"]) / (plan["slot"] + plan["gap"]) + 1e-9)
    assert math.fsum(made.planned) == pytest.approx(1) and math.fsum(made.achieved) == pytest.approx(1)
    assert made.error <= (scents - 1) / (scents * number) + 1e-9
    assert variation(made) <= scents / (4 * number) + 1e-9
    assert made.lost == pytest.approx(1 - sum(sorted(beta)[-plan["keep"] :]), abs=1e-9)


@given(mixtures(), st.fixed_dictionaries(plans))
@settings(max_examples=300, deadline=None)
def test_at_any_moment_each_scent_is_within_one_slot_of_its_share(beta, plan):
    made = drawn(beta, **plan)
    played = [0] * 12
    for turn, (_, scent, _) in enumerate(made.slots, 1):
        played[scent - 1] += 1
        for count, planned, achieved in zip(played, made.planned, made.achieved, strict=True):
            assert abs(count - turn * planned) < 1 + 1e-6
            assert abs(count - turn * achieved) < 1 + 1e-6


@given(mixtures(), st.fixed_dictionaries(plans))
@settings(max_examples=100, deadline=None)
def test_slots_never_overlap_and_end_in_time(beta, plan):
    made = drawn(beta, **plan)
    for (start, _, seconds), (after, _, _) in zip(made.slots, made.slots[1:], strict=False):
        assert after - (start + seconds) == pytest.approx(plan["gap"], abs=1e-6)
    assert made.slots[-1][0] + plan["slot"] <= max(plan["seconds"], plan["slot"] + plan["gap"]) + 1e-6


def test_the_bounds_are_reached():
    made = playlist.render(mixture(s1=0.25, s2=0.25, s3=0.25, s4=0.25), seconds=2.2)  # one slot for four scents
    assert made.error == pytest.approx(3 / 4)
    made = playlist.render(mixture(s1=0.25, s2=0.25, s3=0.25, s4=0.25), seconds=4.4)
    assert variation(made) == pytest.approx(4 / (4 * 2))


@pytest.mark.parametrize(
    ("beta", "says"),
    [
        ([0.5, 0.5], "2 shares"),
        ([1.0] + [0.0] * 12, "13 shares"),
        ([0.5] + [0.0] * 11, "add up to 0.5"),
        ([-0.1, 1.1] + [0.0] * 10, "scent 1 is -0.1"),
        ([math.nan, 1.0] + [0.0] * 10, "scent 1 is nan"),
        ([math.inf] + [0.0] * 11, "scent 1 is inf"),
        ([True] + [0.0] * 11, "scent 1 is True"),
        (["1"] + [0.0] * 11, "scent 1 is '1'"),
        (7, "mixture of 7"),
        (None, "mixture of None"),
    ],
)
def test_a_wrong_mixture_is_refused(beta, says):
    with pytest.raises(OptionError, match=says):
        playlist.render(beta)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slot": 0.9}, {"slot": 5.1}, {"slot": "2"}, {"gap": -0.1}, {"gap": math.nan}, {"seconds": 1},
        {"seconds": math.inf}, {"seconds": 1e9}, {"keep": 0}, {"keep": 13}, {"keep": True}, {"keep": 2.0},
    ],
)  # fmt: skip
def test_a_wrong_time_is_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        playlist.render(EVEN, **wrong)


def test_a_flat_mixture_is_not_played():
    assert playlist.abstains(EVEN) and playlist.abstains(EVEN, mixture=True)
    halves = mixture(s2=0.5, s9=0.5)
    assert playlist.abstains(halves)  # as one scent it is a guess
    assert not playlist.abstains(halves, mixture=True)
    assert not playlist.abstains(mixture(s2=0.6, s9=0.4))
    assert playlist.top(mixture(s2=0.4, s9=0.6)) == 9
