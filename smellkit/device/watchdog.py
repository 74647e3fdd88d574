"""Silence when the program ends: its own end closes the players, and a process of its own is the last hand on the port.

`close_at_end` closes a player at the normal end and on SIGTERM, which would skip both `finally` and `atexit`. Killed, a
program does nothing any more: there the `Watchdog` sends stop.

`python -m smellkit.device.watchdog` reads JSON lines from its standard input, a socket (or a pipe on Windows):

    {"stop": HEX, "url": "...", "telnet": false, "fd": true}    the port in use; its descriptor comes with the line
    {"release": true}                                           the port went away: let go of the descriptor
    {"bye": true}                                               all is silent: end

When the line falls dead without a bye, or the parent process ends, it sends stop three times and ends. It imports
nothing but the standard library, so that it is there within a moment.
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
import weakref
from collections.abc import Callable
from typing import Any, Protocol

STOPS, STOP_GAP = 3, 0.05


class Watchdog:
    """The parent's end: start it, name the port in use, say goodbye."""

    def __init__(self, stop: bytes):
        self._stop = stop.hex()
        ours: Any = None
        theirs: Any = subprocess.PIPE
        if os.name != "nt":
            ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "smellkit.device.watchdog"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal reaches a whole group: not this one
        )
        if ours:
            theirs.close()
            ours.settimeout(1.0)
        self._line = ours

    @classmethod
    def start(cls, stop: bytes, *, note: Callable[[str], None]) -> Watchdog | None:
        """A watchdog that watches, or None and a note why there is none: playing goes on without."""
        try:
            watchdog = cls(stop)
        except OSError as why:
            note(f"no watchdog: {why}")
            return None
        if watchdog.ready():
            return watchdog
        note("no watchdog: it does not answer")
        watchdog.close()
        return None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ready(self, seconds: float = 10.0) -> bool:
        """Wait until it watches."""
        out = self._process.stdout
        assert out is not None
        if os.name == "nt":
            return bool(out.readline())
        return bool(select.select([out], [], [], seconds)[0]) and bool(out.readline())

    def follow(self, *, url: str, fileno: int | None, telnet: bool) -> None:
        """This port is in use from now on."""
        self._send({"stop": self._stop, "url": url, "telnet": telnet, "fd": fileno is not None}, fileno)

    def release(self) -> None:
        """The port went away."""
        self._send({"release": True})

    def close(self) -> None:
        """All is silent: let it end, and wait for that."""
        self._send({"bye": True})
        if self._line:
            self._line.close()
        elif self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(2.0)
        if self._process.stdout:
            self._process.stdout.close()

    def _send(self, message: dict[str, Any], fileno: int | None = None) -> None:
        data = json.dumps(message).encode() + b"\n"
        with contextlib.suppress(OSError):  # a watchdog that died hears nothing; the play frames stay bounded
            if self._line:
                socket.send_fds(self._line, [data], [] if fileno is None else [fileno])
            elif self._process.stdin:
                self._process.stdin.write(data)
                self._process.stdin.flush()


class Player(Protocol):
    """Something that may leave a scent in the air."""

    def close(self) -> None: ...


# The process has one end, so there is one set of players and one handler.
_players: weakref.WeakSet[Player] = weakref.WeakSet()
_before: dict[int, object] = {}  # what handled SIGTERM before, by process: a forked child is not ours to end


def close_at_end(player: Player) -> None:
    """Close `player` when the program ends, unless `forget` came first."""
    _players.add(player)
    atexit.unregister(_close_all)  # once is enough
    atexit.register(_close_all)
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is not _on_term:
        _before[os.getpid()] = signal.signal(signal.SIGTERM, _on_term)


def forget(player: Player) -> None:
    """It was closed; the last one gives the signal handler back."""
    _players.discard(player)
    on_main = threading.current_thread() is threading.main_thread()
    if not _players and on_main and signal.getsignal(signal.SIGTERM) is _on_term:
        signal.signal(signal.SIGTERM, _before.pop(os.getpid(), None) or signal.SIG_DFL)  # type: ignore[arg-type]


def _close_all() -> None:
    for player in list(_players):
        player.close()


def _on_term(number: int, frame: object) -> None:
    before = _before.get(os.getpid())
    try:
        _close_all()
    finally:
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


class _Watch:
    """The watchdog's own state: the port in use, by descriptor or by name."""

    def __init__(self) -> None:
        self.fd = -1
        self.message: dict[str, Any] = {}

    def take(self, line: bytes, descriptors: list[int]) -> bool:
        """Obey one line; False for goodbye."""
        message = json.loads(line)
        if message.get("bye"):
            return False
        self.drop()
        if not message.get("release"):
            self.message = message
            self.fd = descriptors.pop(0) if message.get("fd") and descriptors else -1
        return True

    def drop(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.message = -1, {}

    def silence(self) -> None:
        """Send stop, repeatedly, whatever fails."""
        if not self.message:
            return
        stop = bytes.fromhex(self.message["stop"])
        if self.message["telnet"]:
            stop = stop.replace(b"\xff", b"\xff\xff")
        for number in range(STOPS):
            if number:
                time.sleep(STOP_GAP)
            try:
                self._write(stop)
            except Exception:  # whatever it was, the next try may do
                continue
        self.drop()

    def _write(self, stop: bytes) -> None:
        if self.fd < 0:
            return self._write_by_name(stop)
        while stop and select.select([], [self.fd], [], 0.1)[1]:
            stop = stop[os.write(self.fd, stop) :]
        return None

    def _write_by_name(self, stop: bytes) -> None:
        """Windows has no descriptor to hand over, but there a dead program's port is free again."""
        import serial

        with serial.serial_for_url(self.message["url"], baudrate=115200, write_timeout=0.1) as port:
            port.write(stop if "rfc2217" not in self.message["url"] else bytes.fromhex(self.message["stop"]))


def main() -> None:
    """Watch until goodbye, or until the parent is gone."""
    watch = _Watch()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def shut_down(*_: object) -> None:
        watch.silence()
        os._exit(0)

    signal.signal(signal.SIGTERM, shut_down)  # the machine shuts down
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout.write("watching\n")
    sys.stdout.flush()
    goodbye = _watch_pipe(watch) if os.name == "nt" else _watch_socket(watch)
    if not goodbye:
        watch.silence()


def _watch_pipe(watch: _Watch) -> bool:
    return any(not watch.take(line, []) for line in sys.stdin.buffer)


def _watch_socket(watch: _Watch) -> bool:
    """True for goodbye, False when the parent vanished."""
    line = socket.socket(fileno=os.dup(0))
    os.close(0)
    watched: list[Any] = [line]
    with contextlib.suppress(OSError, AttributeError):
        # a forked child of the parent may keep the socket open: the parent's own end is what counts
        watched.append(os.pidfd_open(os.getppid()))
    buffer, descriptors = b"", []
    while True:
        ready, _, _ = select.select(watched, [], [])
        if line not in ready:
            return False
        try:
            data, fresh, _, _ = socket.recv_fds(line, 4096, 4)
        except OSError:
            return False
        if not data:
            return False
        descriptors += fresh
        buffer += data
        while b"\n" in buffer:
            message, buffer = buffer.split(b"\n", 1)
            if not watch.take(message, descriptors):
                return True


if __name__ == "__main__":
    main()
