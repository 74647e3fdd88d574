"""The bytes of the link that answers (serial at 19200 baud, or BLE): every command as a function, every frame found.

    F5  source(2)  target(2)  command  length  data[length]  crc16(2, high byte first)  55

The CRC is that of Modbus (A001 reflected, initial FFFF) over source to data. A reply has the code of its command.
Nothing is escaped, so the parser goes by length. Source: the vendor's unified terminal protocol; which commands a given
player implements has to be asked of it: one that it lacks is answered with its own code and a failure flag.
"""

import itertools
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from smellkit.device import frames
from smellkit.device.errors import ArgumentError

STOP, PLAY, STATE, DEVICE_ID, CARTRIDGES, STATUS, MIX = 0x00, 0x02, 0x03, 0x04, 0x0E, 0x11, 0x13
COMMANDS = {STOP, PLAY, STATE, DEVICE_ID, CARTRIDGES, STATUS, 0x12, MIX}
MAX_MILLISECONDS = 86_400_000
DONE = 0  # first byte of a reply: done or accepted; 1 is over
OURS, _PLAYER_TO_PC = bytes.fromhex("11000001"), bytes.fromhex("11010000")
_AROUND = 10  # bytes of a frame without data
_BATTERY = {3.00: 0, 3.45: 5, 3.68: 10, 3.74: 20, 3.77: 30, 3.79: 40, 3.82: 50, 3.87: 60, 3.92: 70, 3.98: 80, 4.06: 90,
            4.20: 100}  # fmt: skip


def stop() -> bytes:
    """Stop whatever plays; answered with 0 when that is done."""
    return request(STOP, b"\0")


def play(scent: int, milliseconds: int, *, script: int = 1) -> bytes:
    """Play `scent` (1 to 12) for 1 to 86 400 000 ms; answered with 0 when accepted, 1 when it is over."""
    number, script = frames.whole("scent", scent, 1, 12), frames.whole("script", script, 0, 255)
    duration = frames.whole("milliseconds", milliseconds, 1, MAX_MILLISECONDS)
    return request(PLAY, struct.pack(">BIB", number, duration, script))


def state() -> bytes:
    """Ask what it is doing; answered with 0 for idle, anything else for not idle."""
    return request(STATE)


def device_id() -> bytes:
    """Ask for its 12-byte number."""
    return request(DEVICE_ID)


def cartridges() -> bytes:
    """Ask which scent lies in which channel: 12 bits each, packed."""
    return request(CARTRIDGES, bytes([len(frames.SCENT_NUMBERS)]))


def status() -> bytes:
    """Ask for voltage, channel, scent id and what is left of the play."""
    return request(STATUS, b"\0")


def mix(volumes: Sequence[int]) -> bytes:
    """Play twelve channels at once, each with a volume, at least one above 0; it has no duration.

    One byte a channel, two where a volume is above 255. Answered with 0 when accepted, 2 and a channel when that one is
    over, 1 when all are.
    """
    try:
        numbers = [frames.whole(f"volume of channel {n}", volume, 0, 0xFFFF) for n, volume in enumerate(volumes, 1)]
    except TypeError:
        numbers = []
    if len(numbers) != 12 or not any(numbers):
        raise ArgumentError(f"volumes are {volumes!r}", remedy="12 whole numbers, at least one of them above 0")
    width = 1 if max(numbers) <= 255 else 2
    return request(MIX, b"".join(number.to_bytes(width, "big") for number in numbers))


def request(command: int, data: bytes = b"", *, addresses: bytes = OURS) -> bytes:
    """A frame from this computer to the player, or between other `addresses`."""
    body = addresses + bytes([command, len(data)]) + data
    return b"\xf5" + body + crc16(body).to_bytes(2, "big") + b"\x55"


def reply(command: int, data: bytes) -> bytes:
    """A frame from the player to this computer."""
    return request(command, data, addresses=_PLAYER_TO_PC)


def crc16(body: bytes) -> int:
    """The sum of Modbus over `body`."""
    crc = 0xFFFF
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


class StatusReply(NamedTuple):
    """What a status reply says: volts, the channel and scent id that play, and the seconds that are left of it."""

    volts: float
    channel: int
    scent: int
    left: float

    @property
    def battery(self) -> float:
        """Per cent, from the voltage, piecewise linear as the vendor has it."""
        for (low, less), (high, more) in itertools.pairwise(_BATTERY.items()):
            if self.volts < high:
                return less + max(0.0, (self.volts - low) / (high - low)) * (more - less)
        return 100.0


class DirectFrame(NamedTuple):
    """One sound frame: its command, the whole of it, and its data."""

    command: int
    raw: bytes
    data: bytes
    inner: None = None  # what a forwarded frame of the handset has

    @property
    def value(self) -> int | None:
        """The first byte of the data: what most replies are about."""
        return self.data[0] if self.data else None

    def status(self) -> StatusReply | None:
        """What a status reply says; None for a refusal or another command."""
        if self.command != STATUS or len(self.data) != 8:
            return None
        volts, channel, scent, left = struct.unpack(">BBHI", self.data)
        return StatusReply(round(volts * 0.02, 2), channel, scent, left / 1000)

    def scents(self) -> tuple[int, ...] | None:
        """The scent ids of the channels from 1 on, as a cartridge reply says; None for a refusal."""
        if self.command != CARTRIDGES or len(self.data) < 3:
            return None
        digits = self.data.hex()
        return tuple(int(digits[at : at + 3], 16) for at in range(0, len(digits) - 2, 3))


class Parser(frames.Parser):
    """Frames out of bytes, in any chunking; the rest is as in the handset's parser.

    >>> Parser().feed(bytes.fromhex("F51101000003010040EA55"))[0].value
    0
    """

    def __init__(self) -> None:
        super().__init__()
        self._head = re.compile(b"\xf5(?:.{4}[" + re.escape(bytes(COMMANDS)) + b"]|.{0,4}\\Z)", re.DOTALL)

    def _length(self, data: bytes, start: int) -> int:
        return _AROUND + (data[start + 6] if len(data) > start + 6 else 255)

    def _sum(self, body: bytes) -> int:
        return crc16(body)

    def _read(self, raw: bytes) -> DirectFrame:
        return DirectFrame(raw[5], raw, raw[7:-3])
