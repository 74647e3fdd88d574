"""Nose, recogniser and player, joined and kept going by one thread. No widgets in here.

nose -- rows --> worker thread: recogniser -- answer --> on_change, at most four times a second
any thread: play, mix, stop ------------------------------> player     (never through the worker: it may be busy)
"""

from __future__ import annotations

import collections
import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smellkit.device import guard
from smellkit.device.board import Board
from smellkit.device.clock import Clock
from smellkit.device.enose import Nose, Row
from smellkit.device.errors import LinkError
from smellkit.device.neckwear import NeckWear
from smellkit.device.playlist import Playlist
from smellkit.errors import SmellkitError
from smellkit.odour.live import Recogniser
from smellkit.odour.pipeline import Mixture, Played

SPAN = 120  # rows that are drawn
ENOUGH = 60  # rows that tell how fast they come
SILENCE = 5.0  # seconds without a row that are worth a word
REDRAW = 0.25  # seconds between two pictures
PAGE = 4.0  # seconds without a sign of life from the page after which a scent ends


def on_worker(job: Callable[..., None]) -> Callable[..., None]:
    """A method that returns at once: the session's worker thread, begun with the first of them, does the `job`."""

    @functools.wraps(job)
    def enqueue(session: Session, *args: Any, **kwargs: Any) -> None:
        if session._stop.is_set():
            return
        session._jobs.put(functools.partial(job, session, *args, **kwargs))
        with session._lock:
            if session._thread is None:
                session._thread = threading.Thread(target=session._work, name="smellkit panel", daemon=True)
                session._thread.start()

    return enqueue


class Session(contextlib.AbstractContextManager):
    """A nose and a player while somebody works with them: nothing open before `connect`, nothing left after `close`.

    `on_change` is called from the worker thread whenever there is something new to show; read the attributes then.
    """

    def __init__(self, *, recogniser: Callable[[], Recogniser], on_change: Callable[[], None] = lambda: None):
        self.rows: collections.deque[Row] = collections.deque(maxlen=SPAN)
        self.answer: Mixture | None = None
        self.plan: Playlist | None = None
        self.plan_began = 0.0
        self.message = ""  # what came of the last click, if it is worth a word
        self.trouble = ""  # what is wrong with the board at this moment
        self.busy = ""  # what the worker is doing that takes a while
        self.nose: Nose | None = None
        self.player: NeckWear | None = None
        self.board: Board | None = None
        self.recogniser: Recogniser | None = None
        self.page_heard = False  # the page gives signs of life, so that its end is the scent's too
        self._make = recogniser
        self._on_change = on_change
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._run = 0

    @property
    def connected(self) -> bool:
        """Whether both devices are open."""
        return self.nose is not None and self.player is not None

    @property
    def playing(self) -> tuple[int, float]:
        """The scent that the player was asked to emit at this moment, 0 for none, and the seconds left of the play."""
        status = self.player.status() if self.player else None
        return (status.requested or 0, status.left) if status else (0, 0.0)

    @on_worker
    def connect(
        self,
        *,
        nose: str = "virtual",
        player: str = "virtual",
        source: Any = None,
        rate: float = 1.0,
        recogniser: Callable[[], Recogniser] | None = None,
    ) -> None:
        """Open both devices, on the worker thread. A virtual nose replays `source` at `rate` rows a second.

        `recogniser` makes another one than the session began with.
        """
        if recogniser is not None and recogniser is not self._make:
            self._make, self.recogniser = recogniser, None
        self._disconnect()
        try:
            described = self._prepare().nose
            self._changed("Opening the ports")
            if nose == "virtual":
                self.board = Board(source, rate=rate, nose=described)
            self.nose = Nose.open(self.board.port if self.board else nose, nose=described)
            self.player = NeckWear.open(player)
            if not self._stop.is_set():  # else it was closed meanwhile
                self._changed("Waking the player")
                self.player.wake()
        except BaseException:
            self._disconnect()
            raise

    @on_worker
    def replay(self, source: Any) -> None:
        """Have the virtual board replay another recording, and begin to recognise anew."""
        if self.board:
            self.board.change(source)  # its header begins another run

    @on_worker
    def show(self, picture: Path | None, text: str) -> None:
        """Fuse a picture's file and a text with what is sniffed, on the worker thread; None and "" for neither."""
        recogniser = self._prepare()
        self._changed("Looking and reading")
        alone = recogniser.show(picture=picture, text=text)
        if not self.rows:
            self.answer = alone

    def disconnect(self) -> None:
        """Stop and close both devices; `connect` opens them again."""
        self.stop()
        on_worker(Session._disconnect)(self)

    def play(self, scent: int | None = None, *, seconds: float = 10, mixture: bool = False) -> Played | None:
        """Play `scent` now, or what is recognised: the largest share, or the `mixture` as a sequence of slots.

        `message` says why, when nothing is played.
        """
        if self.page_heard:  # somebody clicked
            self.keep()
        self.message, played = "", None
        try:
            if self.player is None:
                self.message = "Connect first."
            elif scent is not None:
                self.plan = None
                self.player.play(scent, seconds=seconds)
            elif self.answer is None:
                self.message = "Nothing is recognised yet: wait for the first window, or choose a scent."
            else:
                played = self.answer.play(self.player, seconds=seconds, mixture=mixture)
                reason = self.answer.mixture_reason if mixture else self.answer.reason
                self.message = "" if played else f"Nothing is played: {reason}."
                self.plan, self.plan_began = played.plan, Clock.now()
        except SmellkitError as why:
            self.message = str(why)
        self._changed()
        return played

    def keep(self) -> None:
        """The page is there and seen: a scent may go on for a while. Without a first such sign it is not waited for."""
        self.page_heard = True
        if self.player:
            self.player.keep(PAGE)

    def stop(self) -> None:
        """Silence at once, from any thread."""
        self.plan = None
        try:
            if self.player:
                self.player.stop()
                self.message = ""
        except LinkError as why:
            self.message = str(why)
        self._changed()

    def close(self) -> None:
        """Stop, close both devices, end the thread; a second time does nothing."""
        self._stop.set()
        if self.player:
            self.player.close()  # here and first: silence does not wait for the worker
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)
        self._disconnect()
        guard.settle()

    def __exit__(self, *_) -> None:
        self.close()

    def _changed(self, busy: str = "") -> None:
        self.busy = busy or self.busy
        if not self._stop.is_set():
            self._on_change()

    # the worker

    def _work(self) -> None:
        drawn = 0.0
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                self._guarded(self._jobs.get(timeout=0.05))
                drawn = 0.0
            self._guarded(self._sniff)
            if time.monotonic() - drawn > REDRAW and not self._stop.is_set():
                self._changed()
                drawn = time.monotonic()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as why:  # the thread has to live on: without it the panel would freeze without a word
            self.message = str(why) if isinstance(why, SmellkitError) else f"{type(why).__name__}: {why}"
        finally:
            self.busy = ""

    def _prepare(self) -> Recogniser:
        self.message = ""
        if self.recogniser is None:
            self._changed("Preparing the recogniser")
            self.recogniser = self._make()
        return self.recogniser

    def _disconnect(self) -> None:
        player, nose, board = self.player, self.nose, self.board
        self.player = self.nose = self.board = self.plan = None
        self._forget()
        for device in (player, nose, board):
            if device is not None:
                device.close()

    def _forget(self) -> None:
        self.rows.clear()
        self.answer, self.trouble = None, ""
        if self.recogniser:
            self.recogniser.restart()

    def _sniff(self) -> None:
        nose, recogniser = self.nose, self.recogniser
        if nose is None or recogniser is None:
            return
        for row in nose.rows():
            if row.run != self._run:  # rows are missing in between: a window across the gap would lie
                self._forget()
                self._run = row.run
            self.rows.append(row)
            answer = recogniser.add(row.values) or self.answer
            self.trouble = self._other_pace()
            self.answer = None if self.trouble else answer
        state = nose.status()
        if state["lost"]:
            self.trouble = f"The sensor board is gone: {state['lost']}. Plug it in again: it is looked for."
        elif state["outside"]:
            self._forget()
            self.trouble = f"Another board than expected: {state['outside']}."
        elif state["silent"] > SILENCE:
            self.trouble = f"The sensor board has been silent for {state['silent']:.0f} s. Check its cable."

    def _other_pace(self) -> str:
        """Why windows of a real board, which replays nothing, would span another time than the weights know; or ""."""
        if self.board or self.recogniser is None or len(self.rows) < ENOUGH:
            return ""
        measured = (len(self.rows) - 1) / max(self.rows[-1].time - self.rows[0].time, 1e-9)
        known = self.recogniser.nose
        if known.at_pace(measured):
            return ""
        return f"Rows come {measured:.3g} a second, and the weights know {known.rate:.3g}: nothing is recognised."
