"""The link that answers: frames, parser, and the fault catalogue D1 to D18 once more, where a stop is confirmed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_device_faults import GONE, MIX, World, until

from smellkit.device import direct, frames
from smellkit.device import watchdog as watchdog_file
from smellkit.device.errors import ArgumentError, LinkError, NoReply, PortError, PortLost, Refused, WriteBlocked
from smellkit.device.jobs import Timing
from smellkit.device.neckwear import NeckWear
from smellkit.device.serve import PtyServer, TcpServer
from smellkit.device.virtual import VirtualDirect, VirtualNeckWear
from smellkit.simulate.faulty_player import FaultyDirect, FaultyNeckWear

GOLDEN = Path(os.environ.get("SMELLKIT_DATA", "/nowhere")) / "neckwear" / "golden_direct.json"
OWN = {  # worked out by hand from the layout, and by another CRC than the one under test
    "stop": (direct.stop(), "F5110000010001006D1A55"),
    "play 5 for 10 s": (direct.play(5, 10_000), "F511000001020605000027100129CE55"),
    "state": (direct.state(), "F51100000103006A5255"),
    "device id": (direct.device_id(), "F51100000104005A5055"),
    "status": (direct.status(), "F511000001110100684A55"),
    "a mixture of channels 1 and 2": (direct.mix([245, 85] + [0] * 10), "F511000001130CF5550000000000000000000002B955"),
}
QUICK = Timing(gap=0.02, wake_gap=0.01)


@pytest.mark.parametrize("what", OWN)
def test_a_frame_has_the_bytes_of_the_layout(what):
    frame, digits = OWN[what]
    assert frame.hex().upper() == digits


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs SMELLKIT_DATA with neckwear/golden_direct.json")
def test_every_golden_request_and_reply():
    vectors = json.loads(GOLDEN.read_text())["vectors"]
    for vector in vectors:
        assert getattr(direct, vector["call"])(*vector["args"]).hex().upper() == vector["request_hex"], vector["id"]
        (frame,) = direct.Parser().feed(bytes.fromhex(vector["reply_hex"]))
        assert frame.raw.hex().upper() == vector["reply_hex"] and frame.command == frame.raw[5]
    assert len(vectors) >= 11


@pytest.mark.parametrize(
    "call",
    [
        lambda: direct.play(0, 1),
        lambda: direct.play(13, 1),
        lambda: direct.play(1, 0),
        lambda: direct.play(1, 86_400_001),
        lambda: direct.play(True, 1),
        lambda: direct.play(1, 1, script=256),
        lambda: direct.mix([0] * 12),
        lambda: direct.mix([1] * 11),
        lambda: direct.mix([1.5] * 12),
        lambda: direct.mix(None),
        lambda: direct.mix([-1] + [1] * 11),
    ],
)
def test_a_value_that_must_not_reach_the_device_makes_no_frame(call):
    with pytest.raises(ArgumentError):
        call()


def test_a_status_reply_gives_volts_channel_scent_and_what_is_left():
    (frame,) = direct.Parser().feed(bytes.fromhex("F5110100001108B806010200002710FE8155"))
    assert frame.status() == direct.StatusReply(3.68, 6, 0x0102, 10.0) and frame.status().battery == pytest.approx(10)
    assert direct.StatusReply(2.5, 0, 0, 0).battery == 0 and direct.StatusReply(4.4, 0, 0, 0).battery == 100
    assert direct.StatusReply(3.225, 0, 0, 0).battery == pytest.approx(2.5)


def test_packed_scents_are_read_and_a_refusal_is_none():
    reply = direct.Parser().feed(direct.reply(direct.CARTRIDGES, bytes.fromhex("123125")))[0]
    assert reply.scents() == (0x123, 0x125)
    refusal = direct.Parser().feed(direct.reply(direct.CARTRIDGES, b"\1"))[0]
    assert refusal.scents() is None and refusal.status() is None


STREAM = b"".join(direct.reply(command, bytes(range(n))) for n, command in enumerate(sorted(direct.COMMANDS)))


@given(st.binary(max_size=60), st.lists(st.integers(1, 30), max_size=30))
def test_any_chunking_gives_the_same_frames_and_drops(noise, sizes):
    stream = noise + STREAM + noise
    whole = direct.Parser()
    frames_of_one = whole.feed(stream) + whole.expire()
    pieces, parsed, rest = direct.Parser(), [], stream
    for size in [*sizes, len(stream)]:
        parsed += pieces.feed(rest[:size])
        rest = rest[size:]
    parsed += pieces.expire()
    assert parsed == frames_of_one and pieces.dropped == whole.dropped and pieces.errors == whole.errors
    assert whole.dropped + sum(len(frame.raw) for frame in parsed) == len(stream)


def test_every_single_bit_flip_is_rejected():
    good = direct.reply(direct.STATUS, bytes.fromhex("B806010200002710"))
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        parser = direct.Parser()
        assert good not in [frame.raw for frame in parser.feed(bytes(bad)) + parser.expire()]
        assert not [frame for frame in parser.feed(b"") if frame.command == direct.STATUS]


def test_a_million_bytes_of_noise_raise_nothing_and_a_good_frame_is_found_after_the_gap():
    draw, parser = random.Random(4), direct.Parser()
    for _ in range(2000):
        parser.feed(bytes(draw.choices(b"\xf5\x55\x11\x00\x02\x13\xff", k=500)))
    parser.expire()
    assert [frame.value for frame in parser.feed(direct.reply(direct.STOP, b"\0"))] == [0]


# the driver


def test_d1_a_play_that_nobody_acknowledges_is_an_error_and_a_stop_too():
    world = World(link="direct", silence=1.0)
    world.neck.play(3, seconds=30)
    with pytest.raises(NoReply, match="does not acknowledge"):
        world.neck.wait()
    with pytest.raises(NoReply, match="not confirmed") as caught:
        world.neck.stop()
    assert caught.value.frame == direct.stop().hex().upper()
    world.clock.sleep(1)
    assert not world.device.emitting  # the stops arrived all the same
    with pytest.raises(NoReply):
        world.neck.probe()


@pytest.mark.parametrize("seconds", [1, 2, 10])
def test_d1_a_short_play_that_nobody_acknowledges_was_not_played_either(seconds):
    world = World(link="direct")
    obey = world.device._obey
    world.device._obey = lambda frame, now: None if frame.command == direct.PLAY else obey(frame, now)
    world.neck.play(3, seconds=seconds)
    with pytest.raises(NoReply, match="does not acknowledge the play"):
        world.neck.wait()
    world.device.lacks = (direct.MIX,)
    world.neck.play_mixture(MIX, seconds=9)
    with pytest.raises(NoReply, match="does not acknowledge the play"):
        world.neck.wait()


def test_a_late_answer_to_a_short_play_is_waited_for():
    world = World(link="direct", late=1.0)
    world.neck.play(3, seconds=0.5)
    world.neck.wait()
    assert world.neck.ended == "played" and len(world.device.air) == 1


@pytest.mark.parametrize("seed", range(20))
def test_d2_late_answers_confirm_what_they_belong_to(seed):
    world = World(link="direct", late=0.6, duplicate=0.2, seed=seed)
    draw = random.Random(seed)
    for _ in range(10):
        world.neck.play(draw.randint(1, 12), seconds=20)
        world.clock.sleep(draw.uniform(0.1, 3))
        assert world.neck.stop().confirmed
        assert not world.device.emitting


def test_d2_an_answer_to_an_older_stop_confirms_no_newer_one():
    world = World(link="direct")
    world.neck.play(3, seconds=30)
    world.clock.sleep(1)
    world.device.faults["silence"] = 1.0
    with pytest.raises(NoReply):
        world.neck.stop()
    world.neck.play(4, seconds=30)
    world.clock.sleep(0.1)
    lost = world.device._obey
    world.device._obey = lambda frame, now: None  # from here on nothing arrives at the player
    world.device._post(world.clock.now() + 0.05, direct.reply(direct.STOP, b"\0"))  # the old answer
    with pytest.raises(NoReply, match="not confirmed"):
        world.neck.stop()
    world.device._obey = lost
    assert world.device.emitting == 4


@pytest.mark.parametrize(
    "faults", [{"split": 1.0}, {"garbage": 1.0, "false_length": 0.3}, {"duplicate": 1.0, "echo": 1.0}]
)
def test_d3_d4_d6_pieces_noise_and_echoes_keep_no_answer_away(faults):
    world = World(link="direct", seed=5, **faults)
    for _ in range(20):
        world.neck.play(3, seconds=5)
        world.clock.sleep(1)
        assert world.neck.stop().confirmed


@pytest.mark.parametrize("fault", ["wrong_sum", "wrong_tail", "cut"])
def test_d5_a_damaged_answer_confirms_nothing(fault):
    world = World(link="direct", **{fault: 1.0})
    with pytest.raises(NoReply):
        world.neck.stop()
    with pytest.raises(NoReply):
        world.neck.probe()


@pytest.mark.parametrize("why", GONE, ids=lambda why: type(why).__name__)
def test_d7_every_way_to_go_away_is_one_error_and_nothing_is_replayed(why):
    world = World(link="direct")
    world.neck.play(3, seconds=30)
    world.clock.sleep(4)
    plays = world.sent("play")
    world.port.fail = why
    with pytest.raises(PortLost):
        world.neck.wait()
    world.clock.sleep(60)
    assert world.neck.status().connected and world.sent("play") == plays and not world.device.emitting


def test_d8_two_hundred_replugs_are_found_again_and_silenced_first():
    world, draw = World(link="direct"), random.Random(8)
    for turn in range(200):
        if world.neck.status().connected:
            world.neck.play(1 + turn % 12, seconds=20)
            world.clock.sleep(1)
        world.device.unplug()
        world.clock.sleep(draw.choice([0.02, 0.5, 3.0, 30.0]))
        heard = len(world.device.received)
        world.device.plug()
        world.clock.sleep(5)
        assert world.neck.status().connected and not world.device.emitting
        assert world.device.received[heard][1] == direct.stop()


def test_d9_a_player_that_restarts_is_not_played_into_again():
    world = World(link="direct", reset=6.0)
    world.neck.play(3, seconds=8)
    world.neck.wait()
    world.clock.sleep(60)
    assert len(world.device.air) == 1


def test_d10_a_port_that_is_none_is_refused():
    with pytest.raises(PortError):
        NeckWear.open("/dev/nothing-here", link="direct", watchdog=False)
    with pytest.raises(ArgumentError, match="link is"):
        NeckWear.open("virtual", link="telepathy")


def test_d11_a_blocked_write_ends_within_its_bound():
    world = World(link="direct", blocked=2.0)
    world.neck.play(3, seconds=30)
    world.clock.sleep(3)
    assert world.took(lambda: pytest.raises(WriteBlocked, world.neck.stop)) <= 0.3
    world.clock.sleep(5)
    assert not world.device.emitting and world.neck.status().connected


def test_d12_leaving_the_block_is_a_confirmed_silence_or_an_error():
    world = World(link="direct")
    with world.neck as neck:
        neck.play(3, seconds=60)
        world.clock.sleep(3)
    assert not world.device.emitting
    world = World(link="direct")
    with pytest.raises(NoReply, match="not confirmed"), world.neck as neck:
        neck.play(3, seconds=60)
        world.clock.sleep(3)
        world.device.faults["silence"] = 1.0


@pytest.mark.parametrize(
    "scent, seconds", [(0, 1), (13, 1), (True, 1), ("3", 1), (3, -1), (3, float("nan")), (3, 3601)]
)
def test_d14_a_bad_argument_sends_no_byte(scent, seconds):
    world = World(link="direct")
    with pytest.raises(ArgumentError):
        world.neck.play(scent, seconds=seconds)
    with pytest.raises(ArgumentError, match="no radio channel"):
        world.neck.set_handset(3)
    world.clock.sleep(3)
    assert world.device.received == []


@pytest.mark.parametrize("lacks", range(5))
def test_d15_what_a_player_lacks_is_unknown_and_never_guessed(lacks):
    world = World(link="direct", lacks=lacks)
    world.neck.probe()
    status = world.neck.status()
    assert (status.cartridges == "unknown") == (lacks >= 2)
    assert (status.battery == "unknown") == (lacks >= 3)
    assert (status.state == "unknown") == (lacks >= 4)
    assert status.said_at.startswith("20")


def test_d15_status_says_what_the_player_said_and_when():
    world = World(link="direct")
    assert world.neck.status().battery == "unknown"
    world.neck.play(3, seconds=30)
    world.clock.sleep(1)
    world.neck.probe()
    status = world.neck.status()
    assert (
        0 < status.battery <= 100 and status.cartridges == tuple(range(1, 13)) and status.state.startswith("not idle")
    )
    world.neck.stop()
    world.neck.probe()
    assert world.neck.status().state == "idle"


def test_d16_a_radio_that_loses_a_third_is_still_confirmed():
    confirmed = 0
    for seed in range(300):
        world = World(link="direct", radio_loss=0.3, silence=0.3, seed=seed)
        world.neck.play(3, seconds=25)
        world.clock.sleep(4)
        try:
            confirmed += world.neck.stop().confirmed
            assert not world.device.emitting
        except NoReply:
            continue
    assert confirmed >= 298


def test_d16_a_stop_is_confirmed_whenever_an_answer_came():
    for seed in range(300):
        world = World(link="direct", silence=0.8, late=0.5, seed=seed)
        world.neck.play(3, seconds=25)
        world.clock.sleep(4)
        called = world.clock.now()
        try:
            world.neck.stop()
        except NoReply:
            answers = [e for e in world.neck.log.entries if e["what"] == "done" and e["hex"][10:12] == "00"]
            assert not [answer for answer in answers if answer["at"] > called]


def test_d17_slots_come_on_time_where_the_player_has_no_mixtures():
    world = World(link="direct", lacks=1, jitter=random.Random(17))
    plan = world.neck.play_mixture(MIX, seconds=120)
    world.neck.wait()
    air = world.device.air
    assert [one.scent for one in air] == [scent for _, scent, _ in plan.slots]
    assert max(abs(one.start - air[0].start - slot[0]) for one, slot in zip(air, plan.slots, strict=True)) <= 0.05


def test_d18_a_full_disk_costs_no_stop():
    world = World(link="direct", log="/dev/full")
    world.neck.play(3, seconds=20)
    world.clock.sleep(5)
    assert world.neck.stop().confirmed and not world.device.emitting


def test_a_player_that_refuses_is_an_error():
    world = World(link="direct")
    answer, refusal = world.device._answer, direct.reply(direct.PLAY, b"\5")
    world.device._play = lambda *_: None
    world.device._answer = lambda now, reply: answer(now, refusal if reply[5] == direct.PLAY else reply)
    world.neck.play(3, seconds=20)
    with pytest.raises(Refused, match="refused to play"):
        world.neck.wait()


def test_a_play_is_renewed_and_a_lost_answer_costs_nothing():
    world = World(link="direct", silence=0.3, seed=2)
    world.neck.play(3, seconds=60)
    world.neck.wait()
    (air,) = world.device.air
    assert air.end - air.start == pytest.approx(60, abs=0.2)


def test_a_mixture_is_one_frame_and_ends_in_time_while_it_is_watched():
    with NeckWear.open("virtual", link="direct", timing=QUICK) as neck:
        plan = neck.play_mixture([0.5, 0, 0.5] + [0] * 9, seconds=3)
        until(lambda: neck.virtual.emitting)
        assert neck.virtual.volumes[:3] == (50, 0, 50) and neck.status().bound == float("inf")
        neck.wait()
        assert {air.scent for air in neck.virtual.air} == {1, 3}
        assert neck.virtual.air[0].end - neck.virtual.air[0].start == pytest.approx(plan.seconds, abs=0.5)
        assert neck.status().bound == 0
    with NeckWear.open("virtual", link="direct", watchdog=False) as neck:  # nobody would end it: slots
        neck.play_mixture([0.5, 0, 0.5] + [0] * 9, seconds=3)
        until(lambda: neck.virtual.emitting)
        assert neck.virtual.volumes == ()


@pytest.fixture
def mixing(tmp_path):
    """A program that plays a mixture, which has no end of its own; the player, and the number of the watchdog.

    The watchdog waits 3 s for a sign of life in place of 10.
    """
    sooner = Path(watchdog_file.__file__).read_text(encoding="utf-8").replace("LIFE = 10.0", "LIFE = 3.0")
    (tmp_path / "watchdog.py").write_text(sooner, encoding="utf-8")
    code = "import sys, time\nfrom smellkit.device import guard\nfrom smellkit.device.neckwear import NeckWear\n"
    code += f"guard.watchdog.__file__ = {str(tmp_path / 'watchdog.py')!r}\n"
    code += "neck = NeckWear.open(sys.argv[1], link='direct')\nneck.play_mixture([0.5, 0.5] + [0] * 10)\n"
    code += "print(guard.guard.pid, flush=True)\ntime.sleep(100)"
    device = VirtualDirect()
    with (
        PtyServer(device) as server,
        subprocess.Popen([sys.executable, "-c", code, server.port], stdout=subprocess.PIPE) as child,
    ):
        watchdog = int(child.stdout.readline())
        until(lambda: device.emitting)
        yield device, child, watchdog
        child.kill()


def test_a_mixture_ends_when_its_watchdog_dies(mixing):
    device, _, watchdog = mixing
    os.kill(watchdog, signal.SIGKILL)
    until(lambda: not device.emitting, 2.0)


def test_a_mixture_ends_when_its_program_is_stopped_in_a_terminal_and_does_not_go_on(mixing):
    device, child, _ = mixing
    child.send_signal(signal.SIGSTOP)
    until(lambda: not device.emitting, 8.0)
    child.send_signal(signal.SIGCONT)
    time.sleep(1.0)
    assert not device.emitting and len(device.air) == 2


def test_a_player_that_says_it_has_no_mixtures_is_given_slots_at_once():
    device = FaultyDirect(faults={"lacks": 1})
    with NeckWear.open("virtual", link="direct", virtual=device, timing=QUICK) as neck:
        neck.play_mixture([0.5, 0, 0.5] + [0] * 9, seconds=2.2, slot=1, gap=0)
        until(lambda: device.emitting in (1, 3), 2.0)
        assert neck.status().bound <= 2.2 and device.volumes == ()
        neck.wait()
        assert {air.scent for air in device.air} == {1, 3}


@pytest.mark.parametrize("kind, link", [(VirtualNeckWear, "handset"), (VirtualDirect, "direct")])
@pytest.mark.parametrize("server", [PtyServer, TcpServer])
def test_auto_finds_who_answers_and_plays_nothing(kind, link, server):
    device = kind()
    with server(device) as served, NeckWear.open(served.port, link="auto", watchdog=False) as neck:
        assert neck.link == link == neck.status().link
        neck.play(3, seconds=20)
        until(lambda: device.emitting == 3)
        assert neck.stop().confirmed == (link == "direct")
        until(lambda: not device.emitting)
    assert len(device.air) == 1


def test_auto_says_that_nothing_answered():
    with PtyServer(FaultyNeckWear(faults={"silence": 1.0})) as served:
        with pytest.raises(NoReply, match="Nothing answered") as caught:
            NeckWear.open(served.port, link="auto", watchdog=False, timing=Timing(reply=0.05))
        assert served.port in str(caught.value)
    with pytest.raises(LinkError):
        NeckWear.open("loop://", link="auto", watchdog=False, timing=Timing(reply=0.05))


def test_the_watchdog_speaks_the_same_link():
    device = VirtualDirect()
    with PtyServer(device) as served:
        neck = NeckWear.open(served.port, link="direct", timing=QUICK)
        neck.play(3, seconds=60)
        until(lambda: device.emitting)
        neck._engine.last_resort = neck._engine.order = lambda *_: None
        neck._engine._do_schedule = lambda: 1 / 0
        neck._engine._runner.kick()
        until(lambda: not device.emitting, 2.0)
        assert frames.stop() not in [raw for _, raw in device.received]
        neck.close()


def test_d6_an_echo_of_the_stop_confirms_nothing():
    world = World(link="direct", echo=1.0, silence=1.0)
    with pytest.raises(NoReply, match="not confirmed"):
        world.neck.stop()
