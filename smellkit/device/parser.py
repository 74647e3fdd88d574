"""Find sound frames in a stream of bytes that may be cut, noisy or false. It goes by length, never by delimiter."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

LONGEST = 262  # bytes: a forward frame with a length byte of 255
FORWARD = 0  # in a table of lengths: 7 + the frame's own length byte
REPLIES: Mapping[int, int] = {0xA7: 6, 0xA6: 6, 0xD1: FORWARD}  # command -> bytes of the whole frame
REQUESTS: Mapping[int, int] = {0x27: 5, 0x26: 6, 0x51: FORWARD}  # what a handset listens to

_SHORT = 6  # bytes of a short frame that carries one value
_KEEP = 1000  # faults remembered: a line that is noisy for a week must not fill the memory


def checksum(body: bytes) -> int:
    """Sum of the bytes, mod 65536: of everything between head and checksum."""
    return sum(body) & 0xFFFF


class Inner(bytes):
    """The bytes of a sound inner frame, which also know their parts."""

    @property
    def function(self) -> int:
        """What is asked or answered: 01 play, 02 stop, 22 set channel, 71 wake; a reply adds 80."""
        return self[1] if len(self) == 3 else self[7]

    @property
    def address(self) -> int | None:
        """Destination address; None for the wake, which has none."""
        return None if len(self) == 3 else int.from_bytes(self[5:7], "big")

    @property
    def data(self) -> bytes:
        """The bytes after the function."""
        return b"" if len(self) == 3 else bytes(self[8:-3])

    @property
    def uid(self) -> bytes | None:
        """The 12-byte uid that a set-channel request (22) or its reply (A2) carries."""
        return self.data[:12] if self.function in (0x22, 0xA2) and len(self.data) == 13 else None

    @property
    def status(self) -> int | None:
        """The status byte of a reply A2: 0 is done."""
        return self.data[12] if self.function == 0xA2 and len(self.data) == 13 else None


class Frame(NamedTuple):
    """One sound frame: `value` of a short one (None without data), or `channel` and `inner` of a forwarded one."""

    command: int
    raw: bytes
    value: int | None = None
    channel: int | None = None
    inner: Inner | None = None


class Fault(str):
    """Why bytes were refused: a plain word, such as "checksum", with the bytes in `raw` and the story in `detail`.

    skipped, unknown_command, tail, checksum, incomplete_timeout; inner_malformed and inner_checksum for a sound
    forward frame around something else than a sound inner frame.
    """

    raw: bytes

    def __new__(cls, kind: str, raw: bytes = b""):
        fault = super().__new__(cls, kind)
        fault.raw = raw
        return fault

    @property
    def kind(self) -> str:
        """The word itself."""
        return str(self)

    @property
    def detail(self) -> str:
        """What was expected and what came; for a wrong sum, both sums."""
        told = self.raw.hex().upper()
        if self.endswith("checksum"):
            total, said = checksum(self.raw[1:-3]), int.from_bytes(self.raw[-3:-1], "big")
            return f"bytes add up to {total:04X}, the frame says {said:04X}: {told}"
        if self == "tail":
            return f"expected 55, got {told[-2:]} at the end of {told}"
        return {
            "skipped": "bytes that begin no frame: ",
            "unknown_command": "no command that is known: ",
            "incomplete_timeout": "the line fell silent after ",
            "inner_malformed": "not an inner frame: ",
        }.get(self, "") + told


class Parser:
    """Frames out of bytes, in any chunking.

    >>> Parser().feed(bytes.fromhex("F5A796013D55"))[0].value
    150

    `errors` is the list of `Fault`, newest last (the last 1000 at least); `dropped` counts the bytes that belong to no
    frame. The parser has no clock: call `expire()` when the line was silent for the inter-byte timeout (50 ms).
    """

    def __init__(self, lengths: Mapping[int, int] = REPLIES):
        self.errors: list[Fault] = []
        self.dropped = 0
        self._lengths = dict(lengths)
        self._candidate = re.compile(b"\xf5[" + re.escape(bytes(self._lengths)) + b"]", re.DOTALL)
        self._short = _short_frames(tuple(self._lengths.items()))
        self._buffer = b""
        self._run: set[str] = set()  # what was already said about the present run of dropped bytes

    @property
    def waiting(self) -> int:
        """Bytes of a frame that is not complete yet: at most 261."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete."""
        frames: list[Frame] = []
        self._buffer = self._scan(self._buffer + bytes(data), frames)
        return frames

    def expire(self) -> list[Frame]:
        """Give up on a frame that stays cut, and return those found in its bytes. Nothing is left waiting."""
        frames: list[Frame] = []
        while self._buffer:
            stale = self._buffer
            self._refuse("incomplete_timeout", stale)
            self._buffer = self._scan(stale[1:], frames)
        self._run.clear()
        return frames

    def _scan(self, data: bytes, frames: list[Frame]) -> bytes:
        """Append the frames in `data` and return the bytes that may still become one."""
        position = 0
        while True:
            while frame := self._short.get(data[position : position + _SHORT]):
                self._run.clear()
                frames.append(frame)
                position += _SHORT
            found = self._candidate.search(data, position)
            if found is None:
                keep = len(data) - 1 if position < len(data) and data[-1] == 0xF5 else len(data)
                self._skip(data[position:keep])
                return data[keep:]
            start = found.start()
            self._skip(data[position:start])
            length = self._lengths[data[start + 1]]
            if length == FORWARD:
                if len(data) < start + 4:
                    return data[start:]
                length = 7 + data[start + 3]
            if len(data) < start + length:
                return data[start:]
            self._run.clear()
            raw = data[start : start + length]
            fault = _fault(raw)
            if fault:
                self._refuse(fault, raw)
                position = start + 1  # one byte only: a sound frame may begin inside a false one
                continue
            position = start + length
            if length <= _SHORT:
                frames.append(Frame(raw[1], raw, raw[2] if length == _SHORT else None))
            elif inner := self._open(raw[4:-3]):
                frames.append(Frame(raw[1], raw, None, raw[2], inner))

    def _open(self, payload: bytes) -> Inner | None:
        """The inner frame, or None and a fault. The outer frame was sound, so none of its bytes is dropped."""
        if payload in (b"\xf5\x71\x55", b"\xf5\xf1\x55"):
            return Inner(payload)
        if len(payload) < 11 or payload[0] != 0xF5 or payload[-1] != 0x55:
            self._note("inner_malformed", payload)
        elif _fault(payload):
            self._note("inner_checksum", payload)
        else:
            return Inner(payload)
        return None

    def _skip(self, gone: bytes) -> None:
        """Drop bytes that begin no frame; one fault of a kind for a run of them, however it was cut."""
        if not gone:
            return
        self.dropped += len(gone)
        heads = gone.count(0xF5)
        kinds = {"unknown_command": heads > 0, "skipped": heads < len(gone)}
        for kind in sorted(kinds, reverse=gone[0] == 0xF5):  # in the order of the stream, in any chunking
            if kinds[kind] and kind not in self._run:
                self._run.add(kind)
                self._note(kind, gone[:32])

    def _refuse(self, kind: str, raw: bytes) -> None:
        """Drop one byte: the head of `raw`."""
        self.dropped += 1
        self._note(kind, raw)

    def _note(self, kind: str, raw: bytes) -> None:
        self.errors.append(Fault(kind, raw))
        if len(self.errors) > 2 * _KEEP:
            del self.errors[:-_KEEP]


def _fault(raw: bytes) -> str:
    """What is wrong with a whole frame: "tail", "checksum" or nothing."""
    if raw[-1] != 0x55:
        return "tail"
    return "" if sum(raw[1:-3]) & 0xFFFF == raw[-3] << 8 | raw[-2] else "checksum"


@functools.cache
def _short_frames(lengths: tuple[tuple[int, int], ...]) -> dict[bytes, Frame]:
    """Every sound short frame with a value. There are so few (256 a command) that finding one is a look-up."""
    table = {}
    for command in (command for command, length in lengths if length == _SHORT):
        for value in range(256):
            raw = bytes([0xF5, command, value, *(command + value).to_bytes(2, "big"), 0x55])
            table[raw] = Frame(command, raw, value)
    return table
