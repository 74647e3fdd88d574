"""The bytes of the NeckWear link: every request as a function, and what a reply says. No I/O, no time.

    short frame     F5 command data... sum16 55
    forward frame   F5 51 channel length payload[length] sum16 55        a reply carries D1
    inner frame     F5 source(3) destination(3) function data sum16 55   the payload of a forward frame
    inner wake      F5 71 55                                             no address, no sum

sum16 adds the bytes between head and checksum, big-endian. Nothing is escaped: F5 and 55 occur inside frames.
"""

from __future__ import annotations

import operator

from smellkit.device.errors import ArgumentError
from smellkit.device.parser import REPLIES, REQUESTS, Fault, Frame, Inner, Parser, checksum

__all__ = [
    "REPLIES", "REQUESTS", "SCENTS", "MAX_MILLISECONDS", "EVERYONE", "Fault", "Frame", "Inner", "Parser", "checksum",
    "read_channel", "set_handset", "set_channel", "wake", "stop", "play",
]  # fmt: skip

SCENTS = range(1, 13)
MAX_MILLISECONDS = 65_000  # above 65.535 s the vendor's own checksum is wrong: what firmware expects there is unknown
EVERYONE = 0xFFFF  # the address that every device listens to

_HANDSET = bytes([0x01, 0x00, 0x01])  # source: type, then a two-byte address
_SETUP = bytes([0x01, 0x00, 0x00])  # the source that set_channel uses
_NECKWEAR = 0x02  # type of the destination


def read_channel() -> bytes:
    """Ask the handset for its radio channel; it answers A7 with the channel as value."""
    return _outer(bytes([0x27]))


def set_handset(channel: int) -> bytes:
    """Set the radio channel (0 to 255) of the handset; it answers A6, value 0 for done."""
    return _outer(bytes([0x26, _whole("channel", channel, 0, 255)]))


def set_channel(channel: int, uid: bytes | str) -> bytes:
    """Set the radio channel of the NeckWear with this 12-byte `uid` (bytes or hex); the answer echoes the uid."""
    number = _whole("channel", channel, 0, 255)
    return _forward(_inner(_SETUP, EVERYONE, 0x22, _uid(uid) + bytes([number])), 0)


def wake(*, channel: int = 0) -> bytes:
    """Wake every NeckWear on this forward channel. Nothing acknowledges it."""
    return _forward(bytes([0xF5, 0x71, 0x55]), channel)


def stop(*, channel: int = 0) -> bytes:
    """Stop whatever plays. Nothing acknowledges it: the timer inside each play frame is the last safety net."""
    return _forward(_inner(_HANDSET, EVERYONE, 0x02, b""), channel)


def play(scent: int, milliseconds: int, *, device: int = EVERYONE, channel: int = 0) -> bytes:
    """Play `scent` (1 to 12) for 1 to 65 000 ms on one device address, or on all. Nothing acknowledges it."""
    number = _whole("scent", scent, 1, 12)
    duration = _whole("milliseconds", milliseconds, 1, MAX_MILLISECONDS)
    address = _whole("device", device, 0, 0xFFFF)
    data = bytes([0, 0, 0, number]) + duration.to_bytes(4, "big")
    return _forward(_inner(_HANDSET, address, 0x01, data), channel)


def _outer(body: bytes) -> bytes:
    return b"\xf5" + body + checksum(body).to_bytes(2, "big") + b"\x55"


def _inner(source: bytes, address: int, function: int, data: bytes) -> bytes:
    return _outer(source + bytes([_NECKWEAR]) + address.to_bytes(2, "big") + bytes([function]) + data)


def _forward(payload: bytes, channel: int) -> bytes:
    return _outer(bytes([0x51, _whole("channel", channel, 0, 255), len(payload)]) + payload)


def _whole(name: str, value: int, low: int, high: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} is {value!r}", remedy=f"a whole number from {low} to {high}") from None
    if not low <= number <= high:
        raise ArgumentError(f"{name} is {number}", remedy=f"a whole number from {low} to {high}")
    return number


def _uid(uid: bytes | str) -> bytes:
    try:
        value = bytes.fromhex(uid) if isinstance(uid, str) else bytes(memoryview(uid))
    except (TypeError, ValueError):
        value = b""
    if len(value) != 12:
        raise ArgumentError(f"uid is {uid!r}", remedy="12 bytes, or their 24 hex digits")
    return value
