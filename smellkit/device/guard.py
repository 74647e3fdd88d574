"""Silence when the program ends, is signalled or loses its player: who keeps the watchdog, and what it says.

One watchdog process serves all players of this program. It is watched in turn: it answers a ping twice a second, and
when it dies it is started again; until then no play frame is longer than `Timing.unguarded`. Signals reach it from the
C level (`signals.py`), whatever the interpreter is doing.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import select
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

PING = 0.4  # seconds between two questions to the watchdog
HANGS = 3.0  # seconds without an answer: it is there and does nothing
AGAIN = 0.5  # seconds until it is started again
STARTS = 10.0  # seconds that it may take to start


Player = Any  # an `Engine`: whatever may leave a scent in the air


class Watched:
    """One player's place with the guard: its port, wherever it goes. `stop` are the bytes that silence it."""

    def __init__(self, *, stop: bytes, name: str, baud: int, answers: bool = False, guard: Guard | None = None):
        self._guard = guard or _guard
        self.message: dict[str, Any] = {"stop": stop.hex(), "name": name, "baud": baud, "answers": answers}
        self.player: Player = None
        self.key, self.fd = 0, -1  # a descriptor of ours: a port's number is soon another file's
        self._link: Any = None

    def start(self, player: Player) -> None:
        """The player lives: guard it. Waits until the watchdog answers, at most 10 s."""
        self.player = player
        self._guard.join(self)
        self.on_link(self._link)

    def on_link(self, link: Any) -> None:
        """The player's link is another one; None for none."""
        self._link = link
        if not self.key:
            return
        with self._guard.lock:
            self.drop()
            self.message.pop("url", None)
            if link:
                number = None if os.name == "nt" or link.alone else link.fileno()
                self.fd = -1 if number is None else os.dup(number)
                self.message |= {"url": link.name, "telnet": link.telnet, "fd": self.fd >= 0, "alone": link.alone}
            self._guard.follow(self)

    def leave(self, silent: bool) -> None:
        """The player is gone. Unless it is `silent` for certain, the watchdog sends stop."""
        if self.key:
            self._guard.leave(self, silent=silent)

    def drop(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def alive(self) -> bool:
        """Whether the watchdog process answers, and can reach the port."""
        return self._guard.alive and not self.message.get("alone")

    @property
    def pid(self) -> int:
        return self._guard.pid


class Guard:
    """The parent's end of the watchdog process: one for the whole program, there while any player is."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.alive = False
        self._process: subprocess.Popen | None = None
        self._line: Any = None
        self._watched: dict[int, Watched] = {}
        self._keys = itertools.count(1)
        self._thread: threading.Thread | None = None
        self._let_go: int | None = None  # the key of a port that the watchdog is asked to let go of

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def join(self, watched: Watched) -> None:
        with self.lock:
            watched.key = next(self._keys)
            self._watched[watched.key] = watched
            if self._process is None:
                self._start()
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="smellkit guard", daemon=True)
                self._thread.start()
        listen_to_signals()
        deadline = time.monotonic() + STARTS
        while not self.alive and time.monotonic() < deadline:
            time.sleep(0.005)

    def follow(self, watched: Watched) -> None:
        do = "follow" if "url" in watched.message else "release"
        self.send({"do": do, "key": watched.key, **watched.message}, watched.fd)

    def leave(self, watched: Watched, *, silent: bool) -> None:
        """The player is gone. Unless it is `silent` for certain, the watchdog sends stop."""
        key = watched.key
        with self.lock:
            if self._watched.pop(key, None) is None:
                return
            last = not self._watched and not signals.passed_on()  # else an event loop hears signals through it
            self._let_go = key if silent and not last else None
            if silent or not last:
                self.send({"do": "release" if silent else "silence", "key": key})
            watched.drop()
        if last:
            self.end(silent=silent)
        deadline = time.monotonic() + 0.5  # it has a descriptor of the port: who opens it next shall find it free
        while self._let_go == key and time.monotonic() < deadline:
            time.sleep(0.002)

    def end(self, *, silent: bool = True) -> None:
        """Let the watchdog go, when no player is left: with goodbye, or with stops where it is not `silent`."""
        with self.lock:
            if self._watched:
                return
            if silent:
                self.send({"do": "bye"})
            thread, process, line = self._thread, self._process, self._line
            self._process = self._line = None
            self.alive = False
        _end(process, line, at_once=not silent)
        if thread and thread is not threading.current_thread():
            thread.join(3 * PING)

    def forked(self) -> None:
        """This is a child process: nothing here is its own."""
        for watched in self._watched.values():
            watched.drop()
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
        for watched in self._watched.values():
            self.follow(watched)

    def send_signals(self) -> None:
        if files := signals.files():
            self.send({"do": "signals"}, *files)

    def send(self, message: dict[str, Any], *files: int) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self.lock, contextlib.suppress(OSError, ValueError):  # one that died hears nothing: `_listen` notices
            if os.name != "nt" and self._line:
                socket.send_fds(self._line, [data], [fd for fd in files if fd >= 0])
            elif self._process and self._process.stdin:
                self._process.stdin.write(data)
                self._process.stdin.flush()

    def _listen(self) -> None:
        """The guard's thread: hears the watchdog, notices its end, starts it again; ends with the last player."""
        buffer, until = b"", 0.0
        while True:
            with self.lock:
                line = self._line
                if not self._watched:
                    self._thread = None
                    return
            if line is None:
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
        if message.get("released") == self._let_go:
            self._let_go = None
        if why := message.get("stop"):
            self._order(why, message.get("keys", []))

    def _order(self, why: str, keys: list[int]) -> None:
        for key in keys:
            if watched := self._watched.get(key):
                watched.player.order(why, partial(self._stopped, key))
        self.send({"do": "taken"})

    def _stopped(self, key: int, job: Any) -> None:
        self.send({"do": "stopped", "key": key, "confirmed": bool(job.result and job.result.confirmed)})

    def _lost(self, line: Any, why: str) -> None:
        with self.lock:
            if self._line is not line:  # said goodbye meanwhile
                return
            process, self._process, self._line = self._process, None, None
            self.alive = False
        if process:
            process.kill()
        _end(process, line)
        self._tell_players(f"no watchdog: {why}")

    def _again(self) -> None:
        if signals.heard(AGAIN):
            self._order("a signal", list(self._watched))
        with self.lock:
            if self._watched and self._process is None:
                self._start()

    def _tell_players(self, why: str) -> None:
        for watched in list(self._watched.values()):
            watched.player.guard_changed(why)


def _heard(line: Any, seconds: float) -> bytes | None:
    """Bytes of the watchdog; nothing at its end, None while it is silent."""
    try:
        if os.name == "nt":
            return line.readline()
        poller = select.poll()
        poller.register(line, select.POLLIN)
        return line.recv(65536) if poller.poll(1000 * seconds) else None
    except (OSError, ValueError):
        return b""


def _end(process: subprocess.Popen | None, line: Any, *, at_once: bool = False) -> None:
    """Wait for the end of the watchdog's process; `at_once` closes its line, so that it sends stop."""
    if process is None:
        return
    with contextlib.suppress(OSError):
        if at_once and os.name != "nt":
            line.shutdown(socket.SHUT_RDWR)
        if process.stdin:
            process.stdin.close()
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(2.0)
    if line:
        line.close()


# The process has one end and one watchdog.
_guard = Guard()
_open: set[Player] = set()  # every player with a real port: one that its owner forgot is still here
_former: list[Any] = []  # what handled SIGTERM before


def close_at_end(player: Player) -> None:
    """Close `player` when the program ends, unless `forget` came first."""
    _open.add(player)
    atexit.unregister(_close_all)  # once is enough
    atexit.register(_close_all)
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is not _on_term:
        _former[:] = [signal.signal(signal.SIGTERM, _on_term)]


def forget(player: Player) -> None:
    """It was closed."""
    _open.discard(player)


def settle() -> None:
    """Give signals back after the last player; only the main thread may."""
    if threading.current_thread() is not threading.main_thread() or _open:
        return
    _give_back_term()
    signals.give_back()
    _guard.end()


def listen_to_signals() -> None:
    """Have signals of this program end every scent at once. Does something on the main thread only."""
    if signals.take(passed_on=bool(_guard.pid)):
        _guard.send_signals()


def _close_all() -> None:
    for player in list(_open):
        player.close()


def _give_back_term() -> None:
    if signal.getsignal(signal.SIGTERM) is _on_term:
        signal.signal(signal.SIGTERM, _former.pop() or signal.SIG_DFL)


def _in_child() -> None:
    try:
        for player in list(_open):
            player.forked()
        _open.clear()
        _guard.forked()
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
