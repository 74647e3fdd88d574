"""The bytes of the handset's link: every request as a function, every reply found in a stream. No I/O, no time.

    short frame     F5 command data... sum16 55
    forward frame   F5 51 channel length payload[length] sum16 55        a reply carries D1
    inner frame     F5 source(3) destination(3) function data sum16 55   the payload of a forward frame
    inner wake      F5 71 55                                             no address, no sum

sum16 adds the bytes between head and checksum, big-endian. Nothing is escaped: F5 and 55 occur inside frames, so the
parser goes by length, never by delimiter.
"""

import operator
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from smellkit.device.errors import ArgumentError

SCENT_NUMBERS = range(1, 13)
MAX_MILLISECONDS = 65_000  # above 65.535 s the vendor's own checksum is wrong: what firmware expects there is unknown
EVERYONE = 0xFFFF  # the address that every device listens to
FORWARD = 0  # in a table of lengths: 7 + the frame's own length byte
REPLIES: Mapping[int, int] = {0xA7: 6, 0xA6: 6, 0xD1: FORWARD}  # command -> bytes of the whole frame
REQUESTS: Mapping[int, int] = {0x27: 5, 0x26: 6, 0x51: FORWARD}  # what a handset listens to

_HANDSET = bytes([0x01, 0x00, 0x01])  # source: type, then a two-byte address
_SETUP = bytes([0x01, 0x00, 0x00])  # the source that set_channel uses
_NECKWEAR = 0x02  # type of the destination
_SHORT = 6  # bytes of a short frame that carries one value
_KEEP = 1000  # faults remembered: a line that is noisy for a week must not fill the memory
_FAULTS = {  # why bytes were refused, and what is said of them
    "skipped": "bytes that begin no frame: {digits}",
    "unknown_command": "no command that is known: {digits}",
    "tail": "expected 55, got {tail:02X} at the end of {digits}",
    "checksum": "bytes add up to {total:04X}, the frame says {claimed:04X}: {digits}",
    "incomplete_timeout": "the line fell silent after {digits}",
    "inner_malformed": "not an inner frame: {digits}",
    "inner_checksum": "bytes inside add up to {total:04X}, the inner frame says {claimed:04X}: {digits}",
}


def read_channel() -> bytes:
    """Ask the handset for its radio channel; it answers A7 with the channel as value."""
    return outer(bytes([0x27]))


def set_handset(channel: int) -> bytes:
    """Set the radio channel (0 to 255) of the handset; it answers A6, value 0 for done."""
    return outer(bytes([0x26, whole("channel", channel, 0, 255)]))


def set_channel(channel: int, uid: bytes | str) -> bytes:
    """Set the radio channel of the NeckWear with this 12-byte `uid` (bytes or hex); the answer echoes the uid."""
    number = whole("channel", channel, 0, 255)
    try:
        value = bytes.fromhex(uid) if isinstance(uid, str) else bytes(memoryview(uid))
    except (TypeError, ValueError):
        value = b""
    if len(value) != 12:
        raise ArgumentError(f"uid is {uid!r}", remedy="12 bytes, or their 24 hex digits")
    return _forward(_inner(_SETUP, EVERYONE, 0x22, value + bytes([number])), 0)


def wake(*, channel: int = 0) -> bytes:
    """Wake every NeckWear on this forward channel. Nothing acknowledges it."""
    return _forward(bytes([0xF5, 0x71, 0x55]), channel)


def stop(*, channel: int = 0) -> bytes:
    """Stop whatever plays. Nothing acknowledges it: the timer inside each play frame is the last safety net."""
    return _forward(_inner(_HANDSET, EVERYONE, 0x02, b""), channel)


def play(scent: int, milliseconds: int, *, device: int = EVERYONE, channel: int = 0) -> bytes:
    """Play `scent` (1 to 12) for 1 to 65 000 ms on one device address, or on all. Nothing acknowledges it."""
    number = whole("scent", scent, 1, 12)
    duration = whole("milliseconds", milliseconds, 1, MAX_MILLISECONDS)
    address = whole("device", device, 0, 0xFFFF)
    data = bytes([0, 0, 0, number]) + duration.to_bytes(4, "big")
    return _forward(_inner(_HANDSET, address, 0x01, data), channel)


def outer(body: bytes) -> bytes:
    """`body` with head, sum and tail."""
    return b"\xf5" + body + checksum(body).to_bytes(2, "big") + b"\x55"


def _inner(source: bytes, address: int, function: int, data: bytes) -> bytes:
    return outer(source + bytes([_NECKWEAR]) + address.to_bytes(2, "big") + bytes([function]) + data)


def _forward(payload: bytes, channel: int) -> bytes:
    return outer(bytes([0x51, whole("channel", channel, 0, 255), len(payload)]) + payload)


def whole(name: str, value: int, low: int, high: int) -> int:
    """`value` as a whole number from `low` to `high`; ArgumentError names it otherwise. True and text are none."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} is {value!r}", remedy=f"a whole number from {low} to {high}") from None
    if not low <= number <= high:
        raise ArgumentError(f"{name} is {number}", remedy=f"a whole number from {low} to {high}")
    return number


def checksum(body: bytes) -> int:
    """Sum of the bytes, mod 65536: of everything between head and checksum."""
    return sum(body) & 0xFFFF


class Inner(bytes):
    """The bytes of a sound inner frame, which also know their parts; the wake has neither address nor data.

    `function`: 01 play, 02 stop, 22 set channel, 71 wake; a reply adds 80. `uid` and `status` (0 is done) are those of
    a set-channel request (22) and its reply (A2), None elsewhere.
    """

    def __init__(self, raw: bytes):
        wakes = len(raw) == 3
        self.function = raw[1] if wakes else raw[7]
        self.address = None if wakes else int.from_bytes(raw[5:7], "big")
        self.data = b"" if wakes else raw[8:-3]
        tuned = self.function in (0x22, 0xA2) and len(self.data) == 13
        self.uid = self.data[:12] if tuned else None
        self.status = self.data[12] if tuned and self.function == 0xA2 else None


class Frame(NamedTuple):
    """One sound frame: `value` of a short one (None without data), or `channel` and `inner` of a forwarded one."""

    command: int
    raw: bytes
    value: int | None = None
    channel: int | None = None
    inner: Inner | None = None


class Fault(str):
    """Why bytes were refused: a plain word, such as "checksum", with the bytes in `raw` and the story in `detail`.

    The inner_ ones are about a sound forward frame around something else than a sound inner frame.
    """

    raw: bytes
    total: int  # what the bytes really add up to

    def __new__(cls, kind: str, raw: bytes = b"", total: int = 0):
        fault = super().__new__(cls, kind)
        fault.raw, fault.total = raw, total
        return fault

    @property
    def detail(self) -> str:
        """What was expected and what came; for a wrong sum, both sums."""
        claimed, digits = int.from_bytes(self.raw[-3:-1], "big"), self.raw.hex().upper()
        return _FAULTS[self].format(total=self.total, claimed=claimed, tail=self.raw[-1], digits=digits)


class Parser:
    """Frames out of bytes, in any chunking.

    >>> Parser().feed(bytes.fromhex("F5A796013D55"))[0].value
    150

    `errors` is the list of `Fault`, newest last (the last 1000 at least); `dropped` counts the bytes that belong to no
    frame. The parser has no clock: call `expire()` when the line was silent for the inter-byte timeout (50 ms).
    Another link's parser says where a frame may begin, how long it is, its sum, and what it means.
    """

    def __init__(self, lengths: Mapping[int, int] = REPLIES):
        self.errors: list[Fault] = []
        self.dropped = 0
        self._lengths = dict(lengths)
        self._head = re.compile(b"\xf5(?:[" + re.escape(bytes(lengths)) + b"]|\\Z)", re.DOTALL)
        self._known: dict[bytes, Any] = {}  # sound short frames: there are 256 a command, and a look-up finds them fast
        self._buffer = b""
        self._reported: set[str] = set()  # kinds of fault already noted for the present run of dropped bytes

    @property
    def waiting(self) -> int:
        """Bytes of a frame that is not complete yet: at most 264."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Any]:
        """Take the next bytes and return the frames that they complete."""
        frames: list[Any] = []
        self._buffer = self._scan(self._buffer + bytes(data), frames)
        return frames

    def expire(self) -> list[Any]:
        """Give up on a frame that stays cut, and return those found in its bytes. Nothing is left waiting."""
        frames: list[Any] = []
        while self._buffer:
            stale = self._buffer
            self.dropped += 1
            self._note("incomplete_timeout", stale)
            self._buffer = self._scan(stale[1:], frames)
        self._reported.clear()
        return frames

    def _scan(self, data: bytes, frames: list[Any]) -> bytes:
        position = 0
        while True:
            while frame := self._known.get(data[position : position + _SHORT]):
                self._reported.clear()
                frames.append(frame)
                position += _SHORT
            candidate = self._head.search(data, position)
            start = candidate.start() if candidate else len(data)
            self._skip(data[position:start])
            position = start + self._length(data, start)
            if len(data) < position:
                return data[start:]
            self._reported.clear()
            raw = data[start:position]
            if fault := self._fault(raw):
                self._note(fault, raw)
                self.dropped += 1
                position = start + 1  # one byte only: a sound frame may begin inside a false one
            elif frame := self._read(raw):
                frames.append(frame)
                if len(raw) == _SHORT:
                    self._known[raw] = frame

    def _length(self, data: bytes, start: int) -> int:
        """Bytes of the frame that begins at `start`; as long as its length has not come, the most it may have."""
        length = self._lengths[data[start + 1]] if len(data) > start + 1 else _SHORT
        return length or 7 + (data[start + 3] if len(data) > start + 3 else 255)

    def _sum(self, body: bytes) -> int:
        return checksum(body)

    def _read(self, raw: bytes) -> Any:
        """The frame of sound bytes, or None and a fault where a forward frame has no sound one inside."""
        if len(raw) <= _SHORT:
            return Frame(raw[1], raw, raw[2] if len(raw) == _SHORT else None)
        inside = raw[4:-3]
        if inside not in (b"\xf5\x71\x55", b"\xf5\xf1\x55"):
            if len(inside) < 11 or inside[0] != 0xF5 or inside[-1] != 0x55:
                return self._note("inner_malformed", inside)
            if self._fault(inside):
                return self._note("inner_checksum", inside)
        return Frame(raw[1], raw, None, raw[2], Inner(inside))

    def _fault(self, raw: bytes) -> str:
        if raw[-1] != 0x55:
            return "tail"
        return "" if self._sum(raw[1:-3]) == raw[-3] << 8 | raw[-2] else "checksum"

    def _skip(self, gone: bytes) -> None:
        """Drop bytes that begin no frame; one fault of a kind for a run of them, however it was cut."""
        self.dropped += len(gone)
        heads = gone.count(0xF5)
        kinds = {"unknown_command": heads > 0, "skipped": heads < len(gone)}
        for kind in sorted(kinds, reverse=gone[:1] == b"\xf5"):  # in the order of the stream, in any chunking
            if kinds[kind] and kind not in self._reported:
                self._reported.add(kind)
                self._note(kind, gone[:32])

    def _note(self, kind: str, raw: bytes) -> None:
        self.errors.append(Fault(kind, raw, self._sum(raw[1:-3]) if kind.endswith("checksum") else 0))
        if len(self.errors) > 2 * _KEEP:
            del self.errors[:-_KEEP]
