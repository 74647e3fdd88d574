"""The loop from player to nose and back: play, sniff, compare, adjust. Player, air, nose are virtual, time is fake."""

import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner

from smellkit.checks import read_json
from smellkit.cli import bench
from smellkit.device.board import Board
from smellkit.device.enose import Nose, Row
from smellkit.device.errors import PortLost
from smellkit.device.neckwear import NeckWear
from smellkit.device.virtual import VirtualNeckWear
from smellkit.errors import OptionError
from smellkit.odour.scents import SCENTS
from smellkit.sensors import GROVE, SENSORS
from smellkit.simulate.chamber import Chamber
from smellkit.study.odour import reproduce as study
from smellkit.study.odour.reproduce import (
    EXPONENTS,
    STANDARDS_SEED,
    STRANGE,
    Belief,
    Room,
    Sniffing,
    answers,
    errors,
    reproduce,
    targets,
    wanted,
)

SNIFFING = Sniffing(exponents=EXPONENTS)
PAIR = {"banana": 0.5, "garlic": 0.5}


@pytest.fixture(scope="module")
def standards():
    room = Room(STANDARDS_SEED, uneven=0.0, rate=2.0)
    return answers(room.nose, room.neck, sniffing=SNIFFING)


def silent(room, *, after=0.0):
    """Whether nothing is in the air, `after` seconds on."""
    room.clock.sleep(after)
    return not room.device.emitting


# near the target


def test_the_air_comes_near_to_seeded_targets_and_nearer_than_without_a_loop(standards):
    alone, closed = [], []
    for seed, target in enumerate(targets(12), 1):
        room = Room(seed, rate=2.0)
        result = reproduce(room.nose, room.neck, target, standards=standards, sniffing=SNIFFING)
        assert result.sniffs <= 12 and result.reason == "near the target"
        closed.append(errors(room.play(result.best.played), target)["mae"])
        alone.append(errors(Room(seed, rate=2.0).play(target), target)["mae"])
    assert np.median(closed) <= 0.05 and max(closed) <= 0.05
    assert np.mean(closed) < np.mean(alone) / 2


def test_a_cartridge_that_fades_in_the_middle_is_made_up_for(standards):
    room = Room(4, rate=2.0, fade=200.0)
    result = reproduce(room.nose, room.neck, PAIR, standards=standards, sniffing=SNIFFING, near=0.0, budget=8)
    blind = Room(4, rate=2.0, fade=200.0)
    assert len(result.steps) == 6 and result.best.error < 0.02
    assert errors(room.play(result.best.played), PAIR)["worst"] < errors(blind.play(PAIR), PAIR)["worst"]


def test_the_twelve_column_board_closes_the_loop_too(standards):
    room = Room(5, rate=1.0, columns=SENSORS)
    result = reproduce(room.nose, room.neck, PAIR, standards=standards, sniffing=SNIFFING)
    assert errors(room.play(result.best.played), PAIR)["worst"] < 0.1


def test_strengths_of_cartridges_are_found_in_units_of_the_standards(standards):
    room = Room(6, rate=2.0)
    result = reproduce(room.nose, room.neck, PAIR, standards=standards, sniffing=SNIFFING)
    true = [room.chamber.strengths[SCENTS.index(name)] for name in PAIR]
    strengths = [result.strengths[name] for name in PAIR]
    assert strengths[0] / strengths[1] == pytest.approx(true[0] / true[1], rel=0.5)


def test_without_standards_shares_are_of_how_strongly_the_sensors_answer():
    room = Room(7, rate=2.0)
    result = reproduce(room.nose, room.neck, PAIR, sniffing=SNIFFING, near=0.001)
    assert sum(result.best.sniffed.values()) == pytest.approx(1)
    played = [result.best.played[name] * result.strengths[name] for name in PAIR]
    assert played[0] / sum(played) == pytest.approx(0.5, abs=0.06)


def test_sniffs_that_repeat_make_the_loop_believe_them_rather_than_what_was_played():
    alone = np.array([[0.2, 0.5, 0.4, 0.2], [0.4, 0.2, 0.2, 0.3]])
    power, played, less = np.array(EXPONENTS), np.array([0.6, 0.4]), np.array([1.2, 0.8])  # the second fades
    change = power * np.log1p((played * less) @ np.expm1(alone / power))
    belief, off = Belief.first(2), []
    for _ in range(6):
        belief, rest = belief.updated(change, alone, played, EXPONENTS)
        off.append(abs(np.diff(belief.logs - np.log(less)))[0])
    assert off[-1] < off[0] < abs(np.diff(np.log(less)))[0] and off[-1] < 0.1 and rest < 0.01
    assert belief.updated(np.array([0.4, 0.0, 0.4, 0.0]), alone, played, EXPONENTS)[1] > STRANGE


# how it ends


def test_the_best_step_is_kept_and_not_the_last(standards):
    room = Room(8, rate=2.0)
    target = {"pear": 0.3, "cumin": 0.3, "apple": 0.4}
    result = reproduce(room.nose, room.neck, target, standards=standards, sniffing=SNIFFING, near=0.0, gain=1.9)
    assert result.best.error == min(step.error for step in result.steps) < result.steps[-1].error


def test_it_ends_with_the_budget_and_says_so(standards):
    room = Room(9, rate=2.0)
    result = reproduce(room.nose, room.neck, PAIR, standards=standards, sniffing=SNIFFING, near=0.0, budget=4)
    assert (result.sniffs, len(result.strengths), len(result.steps)) == (4, 2, 2)
    assert result.reason == "no sniff is left" and result.failure is None and silent(room)
    sniffs = [piece.start for piece in room.device.air if piece.start > 0]
    assert len({round(start / 300) for start in sniffs}) >= 4  # four times in the air, and no more
    assert room.clock.now() - 1000 < 4 * 345


def test_nothing_is_left_in_the_air_at_the_end(standards):
    room = Room(10, rate=2.0)
    reproduce(room.nose, room.neck, PAIR, standards=standards, sniffing=SNIFFING)
    assert silent(room) and not room.neck.playing
    assert room.neck.log.entries[-1]["what"] == "stop"


def test_an_empty_cartridge_ends_it_by_name():
    clocked = Room(12, rate=2.0)
    clocked.device._left[1] = 0.0
    result = reproduce(clocked.nose, clocked.neck, PAIR, sniffing=SNIFFING)
    assert result.reason.startswith("banana moves the sensors") and "cartridge" in result.failure.hint
    assert result.best is None and silent(clocked)


def test_a_smell_that_its_scents_do_not_explain_ends_it(standards):
    room = Room(13, rate=2.0)
    read, strange = room.nose.read, SCENTS.index("almond")

    def with_almond(**options):  # somebody comes in with almonds, once both scents have been sniffed alone
        row = read(**options)
        if row.time > 800 and room.device.emitting:
            room.chamber._air[strange] += 1.0
        return row

    room.nose.read = with_almond
    target = {"garlic": 0.5, "mandarin_orange": 0.5}
    result = reproduce(room.nose, room.neck, target, standards=standards, sniffing=SNIFFING)
    assert "differs" in result.reason and silent(room)


# what goes wrong


@pytest.mark.parametrize("time", [305, 330, 1005])
def test_a_lost_port_in_the_middle_ends_it_and_leaves_no_scent_behind(time, standards):
    room = Room(14, rate=2.0)
    read = room.nose.read

    def unplugged_at(**options):
        row = read(**options)
        if row.time > time:
            room.device.unplug()
        return row

    room.nose.read = unplugged_at
    result = reproduce(room.nose, room.neck, PAIR, standards=standards, sniffing=SNIFFING)
    assert isinstance(result.failure, PortLost) and result.reason == result.failure.what
    assert room.device.air and silent(room, after=1.1)  # no longer than the slot that was in the air


def test_a_nose_that_is_gone_stops_the_player_at_once():
    room = Room(15, rate=2.0)
    read = room.nose.read

    def gone(**options):
        row = read(**options)
        if row.time > 320:
            assert room.device.emitting
            raise PortLost("The sensor board is gone")
        return row

    room.nose.read = gone
    result = reproduce(room.nose, room.neck, PAIR, sniffing=SNIFFING)
    assert result.reason == "The sensor board is gone" and silent(room)


def test_rows_that_were_lost_end_it():
    room = Room(16, rate=2.0)
    read = room.nose.read

    def broken(**options):
        row = read(**options)
        return Row(row.time, row.values, run=int(row.time > 320))

    room.nose.read = broken
    assert "lost" in reproduce(room.nose, room.neck, PAIR, sniffing=SNIFFING).reason
    assert silent(room)


@pytest.mark.parametrize("meddle", [lambda neck: neck.stop(), lambda neck: neck.play(7, seconds=20)])
def test_somebody_else_at_the_player_ends_it(meddle):
    room = Room(17, rate=2.0)
    read, done = room.nose.read, []

    def meddled(**options):
        row = read(**options)
        if row.time > 320 and not done:
            done.append(meddle(room.neck))
        return row

    room.nose.read = meddled
    result = reproduce(room.nose, room.neck, PAIR, sniffing=SNIFFING)
    assert "something else" in result.reason and silent(room) and result.sniffs == 0


def test_an_interrupt_leaves_silence():
    room = Room(18, rate=2.0)
    read = room.nose.read

    def pressed(**options):
        if room.device.emitting:
            raise KeyboardInterrupt
        return read(**options)

    room.nose.read = pressed
    with pytest.raises(KeyboardInterrupt):
        reproduce(room.nose, room.neck, PAIR, sniffing=SNIFFING)
    assert silent(room)


@pytest.mark.parametrize(
    "target, words",
    [
        ({}, "add up to 0"),
        ({"banana": 0.5}, "add up to 0.5"),
        ({"banana": 1.5, "garlic": -0.5}, "share of scent 11"),
        ({"banana": float("nan")}, "share of scent 1"),
        ({"bananna": 1.0}, "no scent 'bananna'"),
        ({"orange": 0.5, "mandarin_orange": 0.5}, "twice"),
    ],
)
def test_a_target_that_is_none_is_refused_before_anything_is_played(target, words):
    room = Room(19)
    with pytest.raises(OptionError, match=words):
        reproduce(room.nose, room.neck, target)
    assert room.device.received == []


def test_what_cannot_be_measured_is_refused_before_anything_is_played(standards):
    room = Room(20)
    with pytest.raises(OptionError, match="budget is 2"):
        reproduce(room.nose, room.neck, PAIR, budget=2)
    with pytest.raises(OptionError, match="no standard of garlic"):
        reproduce(room.nose, room.neck, PAIR, standards={"banana": standards["banana"]})
    room.nose.columns = GROVE[:3]
    with pytest.raises(OptionError, match="nose has no CO"):
        reproduce(room.nose, room.neck, PAIR)
    with pytest.raises(OptionError, match="exponents"):
        Sniffing(exponents=(0.5,))
    with pytest.raises(OptionError, match="window"):
        Sniffing(window=60)
    assert room.device.received == []


def test_odorants_are_known_by_both_names():
    assert wanted({"orange": 1.0})["mandarin_orange"] == 1.0


# the chamber


def test_a_scent_in_the_air_moves_the_board_and_decays_when_it_ends():
    room = Room(21, rate=2.0)
    clean = np.mean([room.nose.read().values for _ in range(20)], axis=0)
    room.neck.play(SCENTS.index("garlic") + 1, seconds=60)
    while room.neck.playing or not room.device.air:
        smelled = room.nose.read().values
    assert np.all(np.array(smelled) > clean)
    air = room.chamber._air.copy()
    for _ in range(2 * 60):
        room.nose.read()
    assert room.chamber._air.sum() < 0.01 * air.sum()


def test_the_chamber_is_the_same_again_from_its_seed_and_cartridges_differ():
    first, second = (Room(22, rate=2.0) for _ in range(2))
    assert [first.nose.read() for _ in range(5)] == [second.nose.read() for _ in range(5)]
    strengths = first.chamber.strengths
    assert max(strengths) / min(strengths) > 2 and not np.allclose(strengths, Room(23).chamber.strengths)


class ChamberBoard(Board):
    """A virtual board in a chamber, on a port, in real time: for a `Nose` with the chamber's columns."""

    def __init__(self, chamber):
        self._chamber = chamber
        super().__init__([",".join("0" for _ in chamber.columns)], rate=chamber.rate, nose="smellnet-mixture")

    def _print(self):
        while True:
            values = self._chamber.row(self._chamber.now())
            yield ",".join(f"{value:.10g}" for value in values).encode() + b"\r\n"


def test_both_virtual_devices_close_the_loop_on_real_ports_in_real_time():
    device = VirtualNeckWear()
    chamber = Chamber(device, seed=3, rate=20.0)
    began, threads = time.monotonic(), threading.active_count()
    brief = Sniffing(seconds=2.5, air=0.6, window=0.5, exponents=EXPONENTS)
    board, neck = ChamberBoard(chamber), NeckWear.open("virtual", virtual=device)
    with board, neck, Nose(board.port, nose="smellnet-mixture") as nose:
        result = reproduce(nose, neck, {"pear": 1.0}, sniffing=brief, budget=2)
    assert result.reason == "near the target" and result.strengths["pear"] > 0
    assert {piece.scent for piece in device.air} == {SCENTS.index("pear") + 1} and not device.emitting
    assert time.monotonic() - began < 60 and threading.active_count() <= threads


# the bench


def test_the_bench_compares_the_loop_with_playing_once_and_writes_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setitem(study.MIXTURE_BOARD, "rate", 2.0)  # less to reckon
    study_out = tmp_path / "reproduce.json"
    done = CliRunner().invoke(bench, ["reproduce", "--seeds", "2", "--json", str(study_out)], catch_exceptions=False)
    assert done.exit_code == 0 and study.OPEN in done.output
    rows = read_json(study_out)["rows"]
    assert set(rows) == {study.OPEN, *study.CASES}
    assert rows["closed loop, four columns at 10 Hz"]["all"]["median_mae"]["value"] <= 0.05
