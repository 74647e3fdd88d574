import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smellkit.device import frames
from smellkit.device.frames import REQUESTS, Parser
from smellkit.errors import DeviceError

UID = "56FF6A067875535658261267"
A7 = bytes.fromhex("F5A796013D55")
D1 = bytes.fromhex("F5D10018F5010001020000A2" + UID + "0004F855082755")

VENDOR = {  # what the vendor's own package produces
    frames.read_channel(): "F527002755",
    frames.set_handset(160): "F526A000C655",
    frames.wake(): "F5510003F57155020F55",
    frames.stop(): "F551000BF501000102FFFF0202045503B055",
    frames.play(1, 10_000): "F5510013F501000102FFFF010000000100002710023B55042655",
    frames.play(1, 10_000, device=30011): "F5510013F501000102753B01000000010000271000ED55038855",
    frames.set_channel(150, UID): "F5510018F501000002FFFF22" + UID + "96070B5508D055",
}


def golden(kind):
    folder = os.environ.get("SMELLKIT_DATA")
    if not folder or not (Path(folder) / "neckwear/golden_frames.json").exists():
        pytest.skip("the golden frames are not here: set SMELLKIT_DATA to the folder that contains neckwear/")
    vectors = json.loads((Path(folder) / "neckwear/golden_frames.json").read_text())["vectors"]
    return [row for row in vectors if row["kind"] == kind]


def build(row):
    args, channel = row["args"], row["channel"]
    match row["call"]:
        case "getUuid":
            return frames.read_channel()
        case "setHandset":
            return frames.set_handset(*args)
        case "setNeckWearChl":
            return frames.set_channel(*args)
        case "wakeUp":
            return frames.wake(channel=channel)
        case "stopPlay":
            return frames.stop(channel=channel)
        case "playSmell":
            return frames.play(args[0], args[1] * 1000, channel=channel)
        case "playSmellForDevice":
            return frames.play(args[0], args[1] * 1000, device=args[2], channel=channel)
    raise AssertionError(row["call"])


def parse(stream, sizes=None):
    parser, parsed, at = Parser(), [], 0
    for size in sizes or [len(stream)]:
        parsed += parser.feed(stream[at : at + size])
        at += size
    parsed += parser.feed(stream[at:])
    return parsed + parser.expire(), parser


@pytest.mark.parametrize("built, hexed", VENDOR.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_request_has_the_vendors_bytes(built, hexed):
    assert built.hex().upper() == hexed


def test_every_golden_request_is_built_and_one_above_65_seconds_is_refused():
    for row in golden("encode"):
        expected = bytes.fromhex(row["expected_hex"])
        if row["call"].startswith("playSmell") and row["args"][1] > 65:
            with pytest.raises(DeviceError, match="65000"):
                build(row)
            assert frames.checksum(expected[1:-3]) == int.from_bytes(expected[-3:-1], "big")
        else:
            assert build(row) == expected, row["id"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_every_golden_stream_gives_its_frames_errors_and_drops(size):
    for row in golden("decode"):
        stream = bytes.fromhex(row["stream_hex"])
        parsed, parser = parse(stream, [size] * (len(stream) // size))
        assert len(parsed) == len(row["expected_frames"]), row["id"]
        for frame, expected in zip(parsed, row["expected_frames"], strict=True):
            assert frame.command == int(expected["cmd"], 16)
            assert frame.value == expected.get("value")
            assert frame.channel == expected.get("channel")
            if "inner" in expected:
                assert frame.inner == bytes.fromhex(expected["inner_hex"])
                assert frame.inner.function == int(expected["inner"]["function"], 16)
                assert frame.inner.uid == bytes.fromhex(expected["inner"]["uid"])
                assert frame.inner.status == expected["inner"]["status"]
        assert set(parser.errors) >= set(row["expected_errors"]), row["id"]
        assert bool(parser.errors) == bool(row["expected_errors"]), row["id"]
        assert parser.dropped == row["dropped_bytes"], row["id"]


@pytest.mark.parametrize("bad", [0, 13, -1, float("nan"), 3.0, True, "3", None, [3]])
def test_a_bad_scent_is_refused_before_any_byte(bad):
    with pytest.raises(DeviceError, match="scent"):
        frames.play(bad, 1000)


@pytest.mark.parametrize("bad", [0, -1, 65_001, 65_600, 65.6, float("nan"), float("inf"), True, "1000", None])
def test_a_bad_duration_is_refused_before_any_byte(bad):
    with pytest.raises(DeviceError, match="milliseconds"):
        frames.play(3, bad)


@pytest.mark.parametrize("bad", [-1, 256, True, "5", 1.5])
def test_a_bad_channel_is_refused_everywhere(bad):
    for call in (
        lambda: frames.set_handset(bad),
        lambda: frames.set_channel(bad, UID),
        lambda: frames.wake(channel=bad),
        lambda: frames.stop(channel=bad),
        lambda: frames.play(1, 1, channel=bad),
    ):
        with pytest.raises(DeviceError):
            call()


@pytest.mark.parametrize("bad", ["", "56", b"short", UID + "00", "zz" * 12, None, 12])
def test_a_bad_uid_is_refused(bad):
    with pytest.raises(DeviceError, match="uid"):
        frames.set_channel(150, bad)


def test_a_bad_sum_shows_both_sums():
    _, parser = parse(bytes.fromhex("F5A796013E55"))
    assert "checksum" in parser.errors
    assert "013D" in parser.errors[0].detail and "013E" in parser.errors[0].detail


def test_an_inner_frame_is_never_reported_as_an_outer_one():
    inner = D1[4:-3]
    parsed, parser = parse(inner)
    assert parsed == [] and parser.dropped == len(inner)


def test_a_wrong_inner_sum_is_a_fault_of_its_own_and_drops_nothing():
    body = bytes([0xD1, 0, 0x18]) + D1[4:-5] + bytes([D1[-5] ^ 1, 0x55])
    stream = b"\xf5" + body + frames.checksum(body).to_bytes(2, "big") + b"\x55"
    parsed, parser = parse(stream)
    assert parsed == [] and parser.errors == ["inner_checksum"] and parser.dropped == 0


def test_a_false_length_does_not_swallow_the_reply_behind_it():
    parser = Parser()
    assert parser.feed(bytes.fromhex("F5D100FF") + A7) == []
    assert [frame.value for frame in parser.expire()] == [150]
    assert parser.dropped == 4 and parser.waiting == 0


def test_no_more_than_262_bytes_wait():
    parser = Parser()
    for _ in range(2000):
        parser.feed(b"\xf5\xd1\x00\xff")
        assert parser.waiting < 262


def test_the_faults_kept_are_bounded():
    parser = Parser()
    for _ in range(3000):
        parser.feed(b"\xf5\xa7\x00\x00\x01\x55")
    assert 1000 <= len(parser.errors) <= 2000 and parser.dropped == 18_000


def test_the_firmwares_side_reads_every_request_with_the_same_parser():
    parser = Parser(REQUESTS)
    parsed = parser.feed(b"".join(VENDOR))
    assert [frame.raw for frame in parsed] == list(VENDOR)
    assert [frame.inner.function for frame in parsed if frame.inner] == [0x71, 0x02, 0x01, 0x01, 0x22]
    assert parser.errors == []


def short(command, value):
    body = bytes([command, value])
    return b"\xf5" + body + frames.checksum(body).to_bytes(2, "big") + b"\x55"


def answer(uid, status, channel):
    inner = b"\x01\x00\x01\x02\x00\x00\xa2" + uid + bytes([status])
    inner = b"\xf5" + inner + frames.checksum(inner).to_bytes(2, "big") + b"\x55"
    body = bytes([0xD1, channel, len(inner)]) + inner
    return b"\xf5" + body + frames.checksum(body).to_bytes(2, "big") + b"\x55"


byte = st.integers(0, 255)
good = st.builds(short, st.sampled_from([0xA6, 0xA7]), byte) | st.builds(
    answer, st.binary(min_size=12, max_size=12), byte, byte
)
junk = st.binary(max_size=40) | st.lists(st.sampled_from(b"\xf5\x55\xa7\xd1\x00\xff"), max_size=40).map(bytes)


@settings(max_examples=300, deadline=None)
@given(st.lists(good | junk, max_size=8).map(b"".join), st.lists(st.integers(1, 50), max_size=30))
def test_any_chunking_gives_the_same(stream, sizes):
    whole, one = parse(stream)
    cut, other = parse(stream, sizes)
    assert whole == cut and one.dropped == other.dropped and one.errors == other.errors
    assert one.dropped + sum(len(frame.raw) for frame in whole) <= len(stream)


@settings(max_examples=100, deadline=None)
@given(st.lists(good, min_size=1, max_size=5))
def test_good_frames_all_come_through_and_nothing_is_dropped(sent):
    parsed, parser = parse(b"".join(sent))
    assert [frame.raw for frame in parsed] == sent and parser.dropped == 0 and parser.errors == []


@pytest.mark.parametrize("sent", [A7, bytes.fromhex("F5A60000A655"), bytes.fromhex("F5A7F5019C55"), D1])
def test_every_single_bit_flip_of_a_known_frame_is_rejected(sent):
    for bit in range(len(sent) * 8):
        flipped = bytearray(sent)
        flipped[bit // 8] ^= 1 << bit % 8
        parsed, parser = parse(bytes(flipped))
        assert parsed == [] and parser.errors, bit


@settings(max_examples=300, deadline=None)
@given(good, st.data())
def test_every_single_bit_flip_is_rejected(sent, data):
    bit = data.draw(st.integers(0, len(sent) * 8 - 1))
    flipped = bytearray(sent)
    flipped[bit // 8] ^= 1 << bit % 8
    parsed, parser = parse(bytes(flipped))
    assert all(frame.raw not in (sent, bytes(flipped)) for frame in parsed)
    assert parser.errors


@settings(max_examples=300, deadline=None)
@given(junk, good)
def test_a_good_frame_after_garbage_is_found_once_the_line_was_silent(noise, sent):
    parser = Parser()
    parser.feed(noise)
    parser.expire()
    assert [frame.raw for frame in parser.feed(sent)] == [sent]


def test_a_million_fuzzed_bytes_raise_nothing_and_are_all_accounted_for():
    draw = random.Random(5)
    parser, taken, sent = Parser(), 0, 0
    while sent < 1_000_000:
        kind = draw.random()
        chunk = draw.randbytes(draw.randrange(1, 600))
        if kind < 0.3:
            chunk = bytes(draw.choices(b"\xf5\x55\xa6\xa7\xd1\x00\x18\xff", k=len(chunk)))
        elif kind < 0.6:
            cut = bytearray(draw.choice([A7, D1]) * 3)
            cut[draw.randrange(len(cut))] ^= 1 << draw.randrange(8)
            chunk = bytes(cut[: draw.randrange(1, len(cut) + 1)])
        sent += len(chunk)
        taken += sum(len(frame.raw) for frame in parser.feed(chunk))
        if draw.random() < 0.1:
            taken += sum(len(frame.raw) for frame in parser.expire())
    taken += sum(len(frame.raw) for frame in parser.expire())
    hollow = sum(7 + len(fault.raw) for fault in parser.errors if fault.startswith("inner_"))
    assert 0 <= sent - taken - parser.dropped <= hollow + 262 * 1000
    assert parser.waiting == 0
