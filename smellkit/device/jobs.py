"""What is asked of the driver's worker: jobs that a caller waits for, and the times that the link keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from smellkit.device.frames import Frame

NEVER = math.inf
Kind = tuple[int, int]  # command, and the inner function of a forwarded frame (else 0)


@dataclass(frozen=True)
class Timing:
    """Seconds and counts of the link, as the specification of the NeckWear has them."""

    gap: float = 0.2  # at least between two commands; a stop does not wait for it
    reply: float = 0.5  # until a request is repeated
    tries: int = 3
    inter_byte: float = 0.05
    stops: int = 3
    stop_gap: float = 0.05
    wakes: int = 3
    wake_gap: float = 1.0
    idle: float = 240.0  # the device sleeps after 300 s without a command
    frame: float = 10.0  # the longest single play frame: the device falls silent by itself after it
    renew: float = 1.0  # a longer play is renewed this long before its frame ends
    write: float = 0.2  # bound of one write
    late: float = 2.0  # a reply may come this late and is still known as one to an older request
    back_off: float = 0.1  # the second look for a lost port; doubles up to the cap
    cap: float = 2.0
    patience: float = 1.0  # how long closing looks for a lost port while a scent may be in the air


class Job:
    """What a caller waits for: `done`, then `result` or `error`."""

    def __init__(self, what: str):
        self.what = what
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def finish(self, result: Any = None, error: Exception | None = None) -> None:
        """Done, once; later calls change nothing."""
        if not self.done:
            self.result, self.error = result, error
            self.done = True


class Note(NamedTuple):
    """One play frame of a score."""

    start: float  # seconds after the first frame
    scent: int
    seconds: float
    renewal: bool = False


class Score(Job):
    """Play frames at absolute offsets, and when they are over."""

    def __init__(self, what: str, notes: list[Note], *, seconds: float, stop_after: bool = False):
        super().__init__(what)
        self.notes = notes
        self.seconds = seconds
        self.stop_after = stop_after
        self.next = 0
        self.began: float | None = None
        self.played: list[Note] = []  # what was really sent: start and seconds as sent


class Request(Job):
    """A frame that has a reply: `matches` knows the right one, `read` gives the result or raises Refused."""

    def __init__(
        self,
        what: str,
        frame: bytes,
        kind: Kind,
        *,
        matches: Callable[[Frame], bool] = lambda frame: True,
        read: Callable[[Frame], Any],
        wakes: bool = False,
    ):
        super().__init__(what)
        self.frame, self.kind, self.matches, self.read, self.wakes = frame, kind, matches, read, wakes
        self.tries = 0
        self.first = self.last = 0.0
        self.troubles: list[str] = []


@dataclass(frozen=True)
class Stopped:
    """A stop that was sent `sent` times. Nothing confirms it: if the radio lost every one, silence comes in `bound` s.

    `missed(p)` is the chance that it lost every one, when it loses a frame with probability `p`.
    """

    sent: int
    bound: float
    confirmed: bool = False

    def missed(self, p: float) -> float:
        """Chance that no stop arrived; 0.3 ** 3 = 2.7 % for p = 0.3."""
        return p**self.sent
