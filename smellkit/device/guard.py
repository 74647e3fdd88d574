"""Silence when the program ends, is signalled or loses its player: who keeps the watchdog, and what it says.

One watchdog process serves all players of this program. It is watched in turn: it answers a ping twice a second, and
when it dies it is started again; until then no play frame is longer than `Timing.unguarded`. Signals reach it from the
C level (`signals.py`), whatever the interpreter is doing.
"""

import atexit
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from smellkit.device import signals, watchdog
from smellkit.device.clock import readable

PING = 0.4  # seconds between two questions to the watchdog
HANGS = 3.0  # seconds without an answer: it is there and does nothing
AGAIN = 0.5  # seconds until it is started again
STARTS = 10.0  # seconds that it may take to start

Player = Any  # an `Engine`: whatever may leave a scent in the air


class Guard:
    """The program's end of the watchdog process: one for all players, there while any of them is `watched`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.alive = False
        self.players: dict[int, Player] = {}  # every one with a real port: one that its owner forgot is still here
        self._process: subprocess.Popen | None = None
        self._line: Any = None
        self._keys = itertools.count(1)
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """The watchdog's number, 0 for none."""
        return self._process.pid if self._process else 0

    def enter(self, player: Player) -> None:
        """Close `player` when the program ends; where it is to be `watched`, wait until that is so, at most 10 s."""
        with self.lock:
            player.key = next(self._keys)
            self.players[player.key] = player
            if not player.watched:
                return
            if self._process is None:
                self._start()
            else:
                self.follow(player)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="smellkit guard", daemon=True)
                self._thread.start()
        listen_to_signals()
        deadline = time.monotonic() + STARTS
        while not self.alive and time.monotonic() < deadline:
            time.sleep(0.005)

    def watches(self, player: Player) -> bool:
        """Whether the watchdog process answers, and can reach the player's port."""
        return player.watched and self.alive and not (player.link and player.link.alone)

    def follow(self, player: Player) -> None:
        """The link is another one, or none; the old one is closed only afterwards: its number stays its own."""
        with self.lock:
            if player.key not in self.players or not player.watched:
                return
            link, number = player.link, None
            message: dict[str, Any] = {"do": "follow" if link else "release", "key": player.key}
            if link:
                number = None if os.name == "nt" or link.alone else link.fileno()
                message |= {"url": link.name, "telnet": link.telnet, "alone": link.alone, "fd": number is not None}
                message |= {"stop": player.dialect.stop().hex(), "name": player.name, "baud": player.dialect.baud}
                message["answers"] = player.dialect.answers
            self.send(message, *([] if number is None else [number]))

    def leave(self, player: Player, *, silent: bool) -> None:
        """The player is gone. Unless it is `silent` for certain, the watchdog sends stop."""
        with self.lock:
            if self.players.pop(player.key, None) is None or not player.watched:
                return
            self.send({"do": "release" if silent else "silence", "key": player.key})

    def end(self) -> None:
        """Let the watchdog go; it ends by the end of its line."""
        with self.lock:
            thread, process, line = self._thread, self._process, self._line
            self._thread = self._process = self._line = None
            self.alive = False
        _end(process, line)
        if thread:
            thread.join(3 * PING)

    def forked(self) -> None:
        """This is a child process: nothing here is its own."""
        for player in self.players.values():
            player.forked()
        if self._line:
            self._line.close()
        self.__init__()  # type: ignore[misc]

    # the process

    def _start(self) -> None:
        ours: Any = None
        theirs: Any = subprocess.PIPE
        if os.name != "nt":
            ours, theirs = socket.socketpair()
            ours.settimeout(0.2)
        command = [sys.executable, "-I", str(Path(watchdog.__file__).resolve())]  # -I: nothing here can stand in for it
        try:
            self._process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=subprocess.PIPE if os.name == "nt" else subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal reaches a whole group: not this one
                cwd=Path(sys.executable).anchor,
            )
        except OSError as why:
            self._tell_players(f"no watchdog: {why}")
            return
        finally:
            if ours:
                theirs.close()
        self._line = ours or self._process.stdout
        self.send_signals()
        for player in self.players.values():
            self.follow(player)

    def send_signals(self) -> None:
        """Where the numbers of signals arrive, where there is such a place."""
        if files := signals.files():
            self.send({"do": "signals"}, *files)

    def send(self, message: dict[str, Any], *files: int) -> None:
        """A line to the watchdog; one that died hears nothing, and `_listen` notices."""
        data = json.dumps(message).encode() + b"\n"
        with self.lock, contextlib.suppress(OSError, ValueError):
            if os.name != "nt" and self._line:
                socket.send_fds(self._line, [data], [fd for fd in files if fd >= 0])
            elif self._process and self._process.stdin:
                self._process.stdin.write(data)
                self._process.stdin.flush()

    def _listen(self) -> None:
        """The guard's thread: hears the watchdog, notices its end, starts it again."""
        buffer, until = b"", 0.0
        while self._thread is threading.current_thread():
            if (line := self._line) is None:
                buffer, until = b"", 0.0
                self._again()
                continue
            data = _heard(line, PING)
            if data:
                until = 0.0
                *messages, buffer = (buffer + data).split(b"\n")
                for message in messages:
                    self._hear(json.loads(message))
            elif data == b"" or (until and time.monotonic() > until):
                self._lost(line, "it hangs" if data is None else "it is gone")
            elif not until:
                until = time.monotonic() + (HANGS if self.alive else STARTS)
                self.send({"do": "ping"})

    def _hear(self, message: dict[str, Any]) -> None:
        if "pong" in message and not self.alive:
            self.alive = True
            self._tell_players("the watchdog watches")
        if why := message.get("stop"):
            self._order(why, message["keys"])

    def _order(self, why: str, keys: list[int]) -> None:
        for player in filter(None, map(self.players.get, keys)):
            player.order(why, partial(self._stopped, player.key))
        self.send({"do": "taken"})

    def _stopped(self, key: int, job: Any) -> None:
        self.send({"do": "stopped", "key": key, "confirmed": bool(job.result and job.result.confirmed)})

    def _lost(self, line: Any, why: str) -> None:
        with self.lock:
            if self._line is not line:  # it was let go of meanwhile
                return
            process, self._process, self._line = self._process, None, None
            self.alive = False
        if process:
            process.kill()
        _end(process, line)
        self._tell_players(f"no watchdog: {why}")

    def _again(self) -> None:
        if signals.heard(AGAIN):
            self._order("a signal", list(self.players))
        with self.lock:
            if self._thread and self._process is None:
                self._start()

    def _tell_players(self, why: str) -> None:
        for player in list(self.players.values()):
            if player.watched:
                player.guard_changed(why)


def _heard(line: Any, seconds: float) -> bytes | None:
    """Bytes of the watchdog; nothing at its end, None while it is silent."""
    try:
        if os.name == "nt":
            return line.readline()
        return line.recv(65536) if readable([line.fileno()], seconds) else None
    except (OSError, ValueError):
        return b""


def _end(process: subprocess.Popen | None, line: Any) -> None:
    """Close the watchdog's line and wait for its end."""
    if process is None:
        return
    with contextlib.suppress(OSError):
        if process.stdin:
            process.stdin.close()
        else:
            line.shutdown(socket.SHUT_RDWR)
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(2.0)
    if line:
        line.close()


guard = Guard()  # the program has one end and one watchdog
_former: list[Any] = []  # what handled SIGTERM before


def enter(player: Player) -> None:
    """Guard `player` until `guard.leave`, and end its scent when the program ends."""
    atexit.unregister(_close_all)  # once is enough
    atexit.register(_close_all)
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is not _on_term:
        _former[:] = [signal.signal(signal.SIGTERM, _on_term)]
    guard.enter(player)


def settle() -> None:
    """Give signals back after the last player, and let the watchdog go; only the main thread may."""
    if threading.current_thread() is threading.main_thread() and not guard.players:
        _give_back_term()
        signals.give_back()
        guard.end()


def listen_to_signals() -> None:
    """Have signals of this program end every scent at once. Does something on the main thread only."""
    if signals.take(passed_on=bool(guard.pid)):
        guard.send_signals()


def _close_all() -> None:
    for player in list(guard.players.values()):
        player.close()


def _give_back_term() -> None:
    if signal.getsignal(signal.SIGTERM) is _on_term:
        signal.signal(signal.SIGTERM, _former.pop() or signal.SIG_DFL)


def _in_child() -> None:
    try:
        guard.forked()
        _give_back_term()  # not ours to end; and a handler in Python misses a sleep that begins at that very moment
    finally:
        signals.in_child()  # whatever failed: a child whose signals stay blocked can't be ended


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=signals.block, after_in_parent=signals.unblock, after_in_child=_in_child)


def _on_term(number: int, frame: object) -> None:
    former = _former[0] if _former else signal.SIG_DFL
    try:
        _close_all()
    finally:
        if callable(former):
            former(number, frame)
        elif former is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
