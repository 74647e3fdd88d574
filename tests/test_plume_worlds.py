"""Other simulators, and the study that leaves one of them out: small frames, one short training."""

import numpy as np
import pytest
import torch

from smellkit import options
from smellkit.errors import OptionError
from smellkit.plume import GAS, TUBE
from smellkit.simulate import plume as simulate
from smellkit.simulate import plume_worlds
from smellkit.simulate.plume_worlds import WORLDS
from smellkit.study import score
from smellkit.study.plume import worlds

SIZE = (48, 64)


def film(world, number=0, *, ph=6.2, frames=2, **options):
    drawn = np.random.default_rng([4, number])
    return plume_worlds.film(world, ph, frames=frames, size=SIZE, random=drawn, **options)


@pytest.mark.parametrize("world", [*WORLDS, "mixed"])
def test_a_video_of_another_simulator_holds_tube_and_gas_that_moves(world):
    videos = [film(world, number)[1] for number in range(6)]
    for video in videos:
        assert video.frames.shape == video.masks.shape == (2, 2, *SIZE)
        assert (video.masks == TUBE).mean() > 0.002 and np.ptp(video.frames) > 40
    gas = [(video.masks == GAS).mean() for video in videos]
    assert 0.01 < np.mean(gas) < 0.4
    assert any((video.masks[0] != video.masks[1]).any() for video in videos)


@pytest.mark.parametrize("world", WORLDS)
def test_a_seed_is_a_video_and_a_gas_that_was_not_filmed_is_blank(world):
    one, same, other = film(world)[1], film(world)[1], film(world, 1)[1]
    assert (one.frames == same.frames).all() and (one.frames != other.frames).any()
    alone = film(world, gases=(1,))[1]
    assert not alone.frames[:, 0].any() and alone.frames[:, 1].any()


@pytest.mark.parametrize("world", WORLDS)
def test_more_methane_is_more_contrast_in_every_simulator(world):
    emitted, video = zip(*(film(world, number, ph=5.0 + 0.05 * number, frames=1) for number in range(30)), strict=True)
    contrast = np.log([one.contrast[0, 1] + 1e-6 for one in video])
    assert np.corrcoef(np.array(emitted)[:, 1], contrast)[0, 1] > 0.25


def test_what_is_mixed_for_training_holds_nothing_of_the_simulator_that_is_never_trained_on():
    drawn = [part for parts in plume_worlds.MIXED for part in parts]
    assert not set(drawn) & set(WORLDS["advected"])
    assert {*WORLDS["cone"], *WORLDS["particles"]} < set(drawn)


def test_simulators_take_turns_in_one_folder(tmp_path):
    plans = simulate.plan(12, frames=1, world="own,cone,own,particles", shares=(1, 0, 0))
    assert [plan.world for plan in plans] == ["", "cone", "", "particles"] * 3
    with pytest.raises(OptionError, match="cones.*\n.*cone"):
        simulate.plan(12, world="own,cones")
    own, mixed = (simulate.plan(6, frames=1, world=world, shares=(1, 0, 0)) for world in ("", "own,cone"))
    one, other = (simulate.film(plans[2], number=2, size=(64, 48), seed=7)[1] for plans in (own, mixed))
    assert (one.frames == other.frames).all()  # a guest does not change what our own simulator draws


def test_weights_and_the_true_emission_are_scored_on_every_simulator(tmp_path, monkeypatch):
    monkeypatch.setenv("SMELLKIT_WORK", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(worlds, "PAIRS", 9)
    monkeypatch.setattr(worlds, "VIDEOS", 3)
    torch.set_num_threads(1)
    result = worlds.travel("plume", worlds=["cone"], progress=lambda line: None)
    rows, seen, alone = result["rows"], "shipped weights, videos", "shipped weights, frames of videos"
    assert set(rows) == {"shipped weights", seen, alone, worlds.EMISSION}
    assert all(set(rows[name]) == {*worlds.OWN, "cone"} for name in ("shipped weights", worlds.EMISSION))
    gain, both = result["videos"]["cone"]["miou"], [rows[name]["cone"]["miou"]["value"] for name in (seen, alone)]
    assert gain["low"] <= gain["value"] <= gain["high"] and gain["value"] == pytest.approx(both[0] - both[1])
    assert rows[worlds.EMISSION]["cone"]["balanced"]["value"] > 0.5
    miou = rows["shipped weights"]["cone"]["miou"]
    assert miou["low"] <= miou["value"] <= miou["high"]
    films = {f"simulator {world}, videos" for world in (worlds.OWN[0], *WORLDS)}
    scored = {f"simulator {world}" for world in (*worlds.OWN, *WORLDS)}
    assert set(options.resolve(score.TESTED["plume"].outcomes)("")) == scored | films
