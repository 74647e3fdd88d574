"""The last hand on the ports: a process of its own that sends stop when its program dies, is signalled, or is told to.

    program (guard.py) -- JSON lines and descriptors --> this -- stop --> the ports
    signals of the program, straight from its C handler -->
    `smellkit neckwear stop` of the same user, over a private socket -->

It is started by its path in isolated mode, imports nothing but the standard library, and reads from standard input

    {"do": "follow", "key": 1, "stop": HEX, "url": "...", "telnet": false, "name": "...", "fd": true, "answers": false}
    {"do": "release", "key": 1}   {"do": "silence", "key": 1}    let go of it; send stop, then let go of it
    {"do": "signals"}             descriptors that come along: signal numbers, and who wanted them before
    {"do": "taken"}               the program sends the stops that it was told of by itself
    {"do": "stopped", "key": 1, "confirmed": true}               what became of them
    {"do": "ping"}   {"do": "bye"}

and answers with {"pong": true}, {"released": 1} and {"stop": "why"}. When the line falls dead without a bye, or the
program ends, it sends stop three times to every port and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STOPS, STOP_GAP = 3, 0.05
SILENT = 0.5  # seconds from a kill or a signal to silence at most, on a busy machine; 0.1 on a quiet one
CONFIRMS = 4.0  # seconds in which a player that answers has confirmed a stop, or has not
ENDING = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)}


def private_folders() -> Iterator[Path]:
    """This user's own folders for sockets and locks, mode 700, best first: the first is used, all are searched."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    own = [Path(base, "smellkit") for base in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}") if base]
    shared = [Path(base, f"smellkit-{user}") for base in (tempfile.gettempdir(), "/tmp")]
    for folder in dict.fromkeys(own + shared):
        if not folder.parent.is_dir():
            continue
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            about = folder.lstat()
            if stat.S_ISDIR(about.st_mode) and (os.name == "nt" or about.st_uid == user):
                if os.name != "nt":
                    folder.chmod(0o700)
                yield folder


class _Port:
    """One port in use, by descriptor or by name, and the stops that are due on it."""

    def __init__(self, message: dict[str, Any], fd: int):
        self.message, self.fd = message, fd
        self.name = message["name"]
        self.left, self.due = 0, 0.0
        self.leaves = self.took = False
        self.confirmed: bool | None = False  # None: the program has not said yet what became of its stops

    def write(self) -> None:
        """Send one stop, whatever fails; `took` says whether it went out."""
        stop = bytes.fromhex(self.message["stop"])
        self.left -= 1
        self.due = time.monotonic() + STOP_GAP
        self.took = False
        if self.message.get("alone"):  # only the program can reach it
            return
        with contextlib.suppress(Exception):  # whatever it was, the next try may do
            if self.fd < 0:  # Windows has no descriptor to hand over, but there a dead program's port is free again
                import serial

                url, baud = self.message["url"], self.message["baud"]
                with serial.serial_for_url(url, baudrate=baud, write_timeout=0.1) as port:
                    port.write(stop)
                stop = b""
            elif self.message["telnet"]:
                stop = stop.replace(b"\xff", b"\xff\xff")
            while stop and _ready([self.fd], 0.1, select.POLLOUT):
                stop = stop[os.write(self.fd, stop) :]
            self.took = not stop

    def drop(self) -> None:
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.fd)


def _ready(descriptors: list[int], seconds: float, what: int) -> list[int]:
    poller = select.poll()
    for fd in descriptors:
        poller.register(fd, what)
    return [fd for fd, _ in poller.poll(1000 * seconds)]


class Watch:
    """All the ports, and whoever may order a stop. `tell` sends a line to the program."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]):
        self.ports: dict[int, _Port] = {}
        self.signals = self.before = -1
        self._tell = tell

    def take(self, line: bytes, descriptors: list[int]) -> bool:
        """Obey one line; False for goodbye."""
        message = json.loads(line)
        do, key = message["do"], message.get("key", 0)
        if do == "follow":
            self._drop(key)
            self.ports[key] = _Port(message, descriptors.pop(0) if message["fd"] and descriptors else -1)
        elif do == "release":
            self._drop(key)
            self._tell({"released": key})
        elif do == "silence" and key in self.ports:
            self.ports[key].leaves = True
            self.burst([self.ports[key]])
        elif do == "stopped" and key in self.ports:
            self.ports[key].confirmed = message["confirmed"]
        elif do == "signals":
            self.signals, self.before = (*descriptors, -1, -1)[:2]
            descriptors.clear()
        elif do == "taken":
            for port in self.ports.values():
                port.left = port.left if port.leaves else 0
        elif do == "ping":
            self._tell({"pong": True})
        return do != "bye"

    def burst(self, ports: list[_Port]) -> None:
        for port in ports:
            port.left = STOPS
        for port in ports:
            port.write()

    def order(self, why: str, name: str = "") -> list[_Port]:
        """Somebody wants silence, on one port or on all: the program is told first, so that it renews nothing.

        Returns the ports that it was for; some may not have taken a stop.
        """
        keys = [key for key, port in self.ports.items() if name in ("", port.name, port.message["url"])]
        ports = [self.ports[key] for key in keys]
        for port in ports:
            port.confirmed = None if port.message.get("answers") else False
        if keys:
            self._tell({"stop": why, "keys": keys})
        self.burst(ports)
        return ports

    def go_on(self) -> float:
        """Send the stops that are due; seconds until the next one, at most a minute."""
        due = time.monotonic() + 60.0
        for key, port in list(self.ports.items()):
            if port.left > 0 and time.monotonic() >= port.due:
                port.write()
            if port.left > 0:
                due = min(due, port.due)
            elif port.leaves:
                self._drop(key)
        return max(0.0, due - time.monotonic())

    def silence(self) -> None:
        """The program is gone: all three stops everywhere, whatever fails."""
        self.burst(list(self.ports.values()))
        while any(port.left > 0 for port in self.ports.values()):
            time.sleep(min(STOP_GAP, self.go_on()))

    def signalled(self) -> None:
        """Signal numbers came from the program's own C handler, past its interpreter."""
        with contextlib.suppress(OSError):
            numbers = os.read(self.signals, 4096)
            if self.before >= 0:
                with contextlib.suppress(OSError):
                    os.write(self.before, numbers)  # an event loop that waited for them before
            for number in ENDING.intersection(numbers):
                self.order(signal.Signals(number).name)

    def _drop(self, key: int) -> None:
        if port := self.ports.pop(key, None):
            port.drop()


class _Door:
    """The private socket on which other processes of the same user may order a stop."""

    def __init__(self, watch: Watch, program: int):
        self._watch, self._program = watch, program
        self._clients: dict[int, socket.socket] = {}  # they have said nothing yet
        self._waiting: list[tuple[socket.socket, float, list[_Port]]] = []  # until when, for what to be confirmed
        self._path = next(private_folders()) / f"{program}.sock"
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._path))
        finally:
            os.umask(before)
        self._listener.listen(8)
        self._listener.setblocking(False)

    def descriptors(self) -> list[int]:
        return [self._listener.fileno(), *self._clients]

    def serve(self, ready: list[int]) -> float:
        """Let clients in, and answer those who ask; seconds until somebody has waited long enough."""
        for fd in ready:
            with contextlib.suppress(OSError):
                if fd == self._listener.fileno():
                    client, _ = self._listener.accept()
                    client.setblocking(False)
                    self._clients[client.fileno()] = client
                elif fd in self._clients:
                    client = self._clients.pop(fd)
                    order, _, name = client.recv(4096).decode(errors="replace").strip().partition(" ")
                    sent = self._watch.order("an order from another process", name) if order == "stop" else []
                    self._waiting.append((client, time.monotonic() + CONFIRMS, sent))
        waiting, self._waiting = self._waiting, []
        for client, until, sent in waiting:
            if time.monotonic() < until and any(port.confirmed is None for port in sent):
                self._waiting.append((client, until, sent))
                continue
            with client, contextlib.suppress(OSError):
                program = "a program of the kit"
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{self._program}/cmdline").read_bytes().replace(b"\0", b" ")
                    program = words.decode(errors="replace").strip()[:200]
                reply = {"pid": self._program, "program": program}
                reply["ports"] = [port.name for port in self._watch.ports.values()]
                reply["sent"] = [port.name for port in sent if port.took or port.confirmed]
                reply["confirmed"] = [port.name for port in sent if port.confirmed]
                client.sendall(json.dumps(reply).encode() + b"\n")
        return 0.2 if self._waiting else 60.0

    def close(self) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)


def order(what: str, port: str = "") -> list[dict[str, Any]]:
    """Send "stop" or "who" to every program of this user that holds players; what each answered.

    With a `port` only programs that hold it are asked to stop, and only there. A reply has `pid`, `program`, `ports`,
    and for a stop `sent`, the ports that took it, and `confirmed`, those whose player said so.
    """
    replies, lines = [], []
    doors = [door for folder in private_folders() for door in sorted(folder.glob("*.sock"))]
    for door in doors if hasattr(socket, "AF_UNIX") else []:  # all of them first, then the answers
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(1.0)
        lines.append(line)
        with contextlib.suppress(OSError):
            line.connect(str(door))
            line.sendall(f"{what} {port}".strip().encode() + b"\n")
            line.settimeout(CONFIRMS + 1.0)
    for line in lines:
        with line, contextlib.suppress(OSError, ValueError):
            replies.append(json.loads(line.recv(65536)))
    return [reply for reply in replies if reply["ports"] and (what != "stop" or reply["sent"])]


def main() -> None:
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    goodbye = _watch_pipe() if os.name == "nt" else _Watching().run()
    if not goodbye:
        os._exit(0)


def _watch_pipe() -> bool:
    """Windows: lines from a pipe, and an answer on standard output."""

    def tell(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    watch = Watch(tell)
    tell({"pong": True})
    goodbye = any(not watch.take(line, []) for line in sys.stdin.buffer)
    if not goodbye:
        watch.silence()
    return goodbye


class _Watching:
    """What comes from where, on everything but Windows."""

    def __init__(self) -> None:
        self._line = socket.socket(fileno=os.dup(0))
        os.close(0)
        self._watch = Watch(self._tell)
        self._parent = -1
        with contextlib.suppress(OSError, AttributeError):
            # a forked child of the parent may keep the socket open: the parent's own end is what counts
            self._parent = os.pidfd_open(os.getppid())
        self._door: _Door | None = None
        with contextlib.suppress(OSError, StopIteration):  # no private folder: nobody else may order, all else goes on
            self._door = _Door(self._watch, os.getppid())
        self._buffer, self._fresh = b"", list[int]()

    def run(self) -> bool:
        """True for goodbye, False when the parent vanished."""
        goodbye = None

        def end(*_: object) -> None:
            if not goodbye:
                self._watch.silence()
            if self._door:
                self._door.close()

        signal.signal(signal.SIGTERM, lambda *_: end() or os._exit(0))  # type: ignore  # the machine shuts down
        self._tell({"pong": True})
        try:
            while goodbye is None:
                goodbye = self._turn()
        finally:
            end()
        return goodbye

    def _turn(self) -> bool | None:
        line, signals = self._line.fileno(), self._watch.signals
        sources = [line, self._parent, signals, *(self._door.descriptors() if self._door else [])]
        seconds = min(self._watch.go_on(), self._door.serve([]) if self._door else 60.0)
        ready = _ready([fd for fd in sources if fd >= 0], seconds, select.POLLIN)
        goodbye = self._listen() if line in ready else None  # first: a port that was just named is to be stopped too
        if signals in ready:
            self._watch.signalled()
        if self._door:
            self._door.serve(ready)
        return False if goodbye is None and self._parent in ready else goodbye

    def _listen(self) -> bool | None:
        try:
            data, fresh, _, _ = socket.recv_fds(self._line, 65536, 16)
        except OSError:
            return False
        self._fresh += fresh
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if not all(self._watch.take(line, self._fresh) for line in lines):
            return True
        return None if data else False

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._line.send(json.dumps(message).encode() + b"\n", socket.MSG_DONTWAIT)


if __name__ == "__main__":
    main()
