"""Silence when the program ends, is signalled or loses its player: who keeps the watchdog, and what it says.

One watchdog process serves all players of this program. It is watched in turn: it answers a ping twice a second, and
when it dies it is started again; until then no play frame is longer than `Timing.unguarded`. Signals reach it from the
C level (`signal.set_wakeup_fd`), whatever the interpreter is doing.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from smellkit.device import signals, watchdog

PING = 0.4  # seconds between two questions to the watchdog
HANGS = 3.0  # seconds without an answer: it is there and does nothing
AGAIN = 0.5  # seconds until it is started again


class Player(Protocol):
    """Something that may leave a scent in the air."""

    def order(self, why: str) -> None: ...
    def guard_changed(self, why: str) -> None: ...
    def close(self) -> object: ...
    def forked(self) -> None: ...


class Guard:
    """The parent's end of the watchdog process: one for the whole program, there while any player is."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process: subprocess.Popen | None = None
        self._line: Any = None
        self._ports: dict[int, tuple[dict[str, Any], int]] = {}  # what is followed: the message, a descriptor of ours
        self._players: dict[int, Player] = {}
        self._next_key = 1
        self._thread: threading.Thread | None = None
        self._let_go: int | None = None  # the key of a port that the watchdog is asked to let go of
        self.alive = False

    @property
    def pid(self) -> int:
        """The watchdog's process id, 0 for none."""
        return self._process.pid if self._process else 0

    def join(self, player: Player) -> int:
        """Guard this player from now on; return its key. Waits until the watchdog answers, at most 10 s."""
        with self._lock:
            key, self._next_key = self._next_key, self._next_key + 1
            self._players[key] = player
            if self._process is None:
                self._start()
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="smellkit guard", daemon=True)
                self._thread.start()
        listen_to_signals()
        deadline = time.monotonic() + 10
        while not self.alive and time.monotonic() < deadline:
            time.sleep(0.005)
        return key

    def follow(
        self, key: int, *, url: str, name: str, stop: bytes, fileno: int | None, telnet: bool, baud: int
    ) -> None:
        """This port is in use from now on."""
        message = {"do": "follow", "key": key, "stop": stop.hex(), "url": url, "name": name, "telnet": telnet}
        message |= {"fd": fileno is not None, "baud": baud}
        with self._lock:
            self.release(key)
            own = -1 if fileno is None or os.name == "nt" else os.dup(fileno)  # a port's number is soon another file's
            self._ports[key] = message, own
            self._send(message, own)

    def release(self, key: int) -> None:
        """The port went away."""
        with self._lock:
            self._forget(key)
            self._send({"do": "release", "key": key})

    def taken(self) -> None:
        """The players send the stops that the watchdog told of by themselves."""
        self._send({"do": "taken"})

    def leave(self, key: int, *, silent: bool) -> None:
        """The player is gone. Unless it is `silent` for certain, the watchdog sends stop."""
        with self._lock:
            if self._players.pop(key, None) is None:
                return
            last = not self._players and not signals.passed_on()  # else an event loop hears signals through it
            if silent:
                self.release(key)
                self._let_go = None if last else key
            elif not last:
                self._send({"do": "silence", "key": key})
                self._forget(key)
        if last:
            self.end(silent=silent)
        deadline = time.monotonic() + 0.5  # it has a descriptor of the port: who opens it next shall find it free
        while not last and silent and self._let_go == key and time.monotonic() < deadline:
            time.sleep(0.002)

    def end(self, *, silent: bool = True) -> None:
        """Let the watchdog go, when no player is left: with goodbye, or with stops where it is not `silent`."""
        with self._lock:
            if self._players:
                return
            if silent:
                self._send({"do": "bye"})
            thread, process, line = self._thread, self._process, self._line
            self._process = self._line = None
            self.alive = False
        _end(process, line, at_once=not silent)
        for key in list(self._ports):
            self._forget(key)
        if thread and thread is not threading.current_thread():
            thread.join(3 * PING)

    def forked(self) -> None:
        """This is a child process: nothing here is its own."""
        for _, own in self._ports.values():
            if own >= 0:
                os.close(own)
        if self._line:
            self._line.close()
        self.__init__()  # type: ignore[misc]

    def _forget(self, key: int) -> None:
        _, own = self._ports.pop(key, (None, -1))
        if own >= 0:
            os.close(own)

    def send_signals(self) -> None:
        """Give the watchdog the place where signals arrive."""
        if files := signals.files():
            self._send({"do": "signals"}, *files)

    # the process

    def _start(self) -> None:
        ours: Any = None
        theirs: Any = subprocess.PIPE
        if os.name != "nt":
            ours, theirs = socket.socketpair()
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
        if ours:
            ours.settimeout(0.2)
        self._line = ours or self._process.stdout
        self.send_signals()
        for message, own in self._ports.values():
            self._send(message, own)

    def _send(self, message: dict[str, Any], *files: int) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError, ValueError):  # one that died hears nothing: `_listen` notices
            if os.name != "nt" and self._line:
                socket.send_fds(self._line, [data], [fd for fd in files if fd >= 0])
            elif self._process and self._process.stdin:
                self._process.stdin.write(data)
                self._process.stdin.flush()

    def _listen(self) -> None:
        """The guard's thread: hears the watchdog, notices its end, starts it again; ends with the last player."""
        buffer, until = b"", 0.0
        while True:
            with self._lock:
                line = self._line
                if not self._players:
                    self._thread = None
                    return
            if line is None:
                buffer, until = b"", 0.0
                self._again()
                continue
            data = _heard(line, PING)
            if data is None and not until:
                until = time.monotonic() + HANGS if self.alive else time.monotonic() + 10
                self._send({"do": "ping"})
            elif data == b"" or (data is None and time.monotonic() > until):
                self._lost(line, "it hangs" if data is None else "it is gone")
            elif data:
                until = 0.0
                *messages, buffer = (buffer + data).split(b"\n")
                for message in messages:
                    self._hear(json.loads(message))

    def _hear(self, message: dict[str, Any]) -> None:
        if "pong" in message and not self.alive:
            self.alive = True
            self._tell_players("the watchdog watches")
        if message.get("released") == self._let_go:
            self._let_go = None
        if why := message.get("stop"):
            self._order(why, message.get("keys", []))

    def _order(self, why: str, keys: list[int]) -> None:
        for player in [player for key, player in list(self._players.items()) if key in keys]:
            player.order(why)
        self.taken()

    def _lost(self, line: Any, why: str) -> None:
        with self._lock:
            if self._line is not line:  # said goodbye meanwhile
                return
            process, self._process, self._line = self._process, None, None
            self.alive = False
        if process:
            process.kill()
        _end(process, line)
        self._tell_players(f"no watchdog: {why}")

    def _again(self) -> None:
        """Hear signals in its place for a moment, then start it again."""
        if signals.heard(AGAIN):
            self._order("a signal", list(self._players))
        with self._lock:
            if self._players and self._process is None:
                self._start()

    def _tell_players(self, why: str) -> None:
        for player in list(self._players.values()):
            player.guard_changed(why)


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
    if at_once and os.name != "nt":
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
    if process.stdin:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(2.0)
    if line:
        line.close()


class Watched:
    """One player's place with the guard: its port, wherever it goes. `stop` are the bytes that silence it."""

    def __init__(self, *, stop: bytes, name: str, baud: int):
        self._message: dict[str, Any] = {"stop": stop, "name": name, "baud": baud}
        self._lock = threading.Lock()
        self._key = 0
        self._link: Any = None

    def start(self, player: Player) -> None:
        """The player lives: guard it."""
        self._key = _guard.join(player)
        self.on_link(self._link)

    def on_link(self, link: Any) -> None:
        """The player's link is another one; None for none."""
        with self._lock:
            self._link = link
            if self._key and link is None:
                _guard.release(self._key)
            elif self._key:
                _guard.follow(self._key, url=link.name, fileno=link.fileno(), telnet=link.telnet, **self._message)

    def leave(self, silent: bool) -> None:
        """The player is gone."""
        if self._key:
            _guard.leave(self._key, silent=silent)

    @property
    def alive(self) -> bool:
        """Whether the watchdog process answers."""
        return _guard.alive

    @property
    def pid(self) -> int:
        """Its process id, 0 for none."""
        return _guard.pid


# The process has one end and one watchdog.
_guard = Guard()
_open: set[Player] = set()  # every player with a real port: one that its owner forgot is still here
_handlers: dict[int, Any] = {}  # what handled SIGTERM before, by process: a forked child is not ours to end


def close_at_end(player: Player) -> None:
    """Close `player` when the program ends, unless `forget` came first."""
    _open.add(player)
    atexit.unregister(_close_all)  # once is enough
    atexit.register(_close_all)
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is not _on_term:
        _handlers[os.getpid()] = signal.signal(signal.SIGTERM, _on_term)


def forget(player: Player) -> None:
    """It was closed."""
    _open.discard(player)


def settle() -> None:
    """Give signals back after the last player; only the main thread may."""
    if threading.current_thread() is not threading.main_thread() or _open:
        return
    if signal.getsignal(signal.SIGTERM) is _on_term:
        signal.signal(signal.SIGTERM, _handlers.pop(os.getpid(), None) or signal.SIG_DFL)
    signals.give_back()
    _guard.end()


def listen_to_signals() -> None:
    """Have signals of this program end every scent at once. Does something on the main thread only."""
    if signals.take(passed_on=bool(_guard.pid)):
        _guard.send_signals()


def _close_all() -> None:
    for player in list(_open):
        player.close()


def _in_child() -> None:
    """After a fork: ports, watchdog and signals are the parent's."""
    for player in list(_open):
        player.forked()
    _open.clear()
    _guard.forked()
    signals.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=signals.block, after_in_parent=signals.unblock, after_in_child=_in_child)


def _on_term(number: int, frame: object) -> None:
    former = _handlers.get(os.getpid())
    try:
        _close_all()
    finally:
        if callable(former):
            former(number, frame)
        elif former is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
