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
    {"do": "ping"}

and answers with {"pong": true} and {"stop": "why", "keys": [1]}. When the line falls dead or the program ends, it sends
stop three times to every port that was not released, and ends.
"""

import contextlib
import json
import os
import select
import signal
import socket
import socketserver
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

STOPS, STOP_GAP = 3, 0.05
SILENT = 0.5  # seconds from a kill or a signal to silence at most, on a busy machine; 0.1 on a quiet one
CONFIRMS = 4.0  # seconds in which a player that answers has confirmed a stop, or has not
LIFE = 10.0  # seconds without a word from the program: stopped or held, and a mixture has no end of its own
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
    """One port in use, by descriptor or by name, and the stops that are `left` to send on it."""

    def __init__(self, message: dict[str, Any], fd: int):
        self.message, self.fd, self.name = message, fd, message["name"]
        self.left = 0
        self.took = False  # whether a stop went out
        self.confirmed: bool | None = False  # None: the program has not said yet what became of its stops
        self._lock = threading.RLock()  # a descriptor that was let go of is soon another file's

    def called(self, name: str) -> bool:
        """Whether `name` is one of its names, of which a port may have several; none is all ports'."""
        return not name or os.path.realpath(name) in map(os.path.realpath, (self.name, self.message["url"]))

    def write(self, *, first: bool = False) -> None:
        """Send one stop, the first or if any is left, whatever fails."""
        with self._lock, contextlib.suppress(Exception):  # whatever it was, the next try may do
            if first or self.left > 0:
                self.left = max(0, self.left - 1)
                if not self.message.get("alone"):  # else nobody but the program can reach it
                    self.took = self._sent(bytes.fromhex(self.message["stop"])) or self.took

    def _sent(self, stop: bytes) -> bool:
        if self.fd < 0 and os.name != "nt":  # it was let go of
            return False
        if self.fd < 0:  # Windows has no descriptor to hand over, but there a dead program's port is free again
            import serial

            with serial.serial_for_url(self.message["url"], self.message["baud"], write_timeout=0.1) as port:
                port.write(stop)
            return True
        if self.message["telnet"]:
            stop = stop.replace(b"\xff", b"\xff\xff")
        while stop and _ready([self.fd], 0.1, select.POLLOUT):
            stop = stop[os.write(self.fd, stop) :]
        return not stop

    def drop(self) -> None:
        """Let go of it."""
        with self._lock:
            self.left, fd, self.fd = 0, self.fd, -1
        if fd >= 0:
            os.close(fd)


def _ready(descriptors: list[int], seconds: float, what: int) -> list[int]:
    poller = select.poll()
    for fd in descriptors:
        poller.register(fd, what)
    return [fd for fd, _ in poller.poll(1000 * seconds)]


def silence(ports: list[_Port], *, before: Callable[[], None] = lambda: None) -> None:
    """Send three stops on each port, or one and those until the program has taken over, which may be told `before`."""
    for port in ports:
        port.left = STOPS
    before()
    for port in ports:
        port.write(first=True)  # whatever the program has said by now
    while any(port.left > 0 for port in ports):
        time.sleep(STOP_GAP)
        for port in ports:
            port.write()


def _leave(port: _Port) -> None:
    silence([port])
    port.drop()


class Watch:
    """All the ports, and whoever may order a stop. `send` gives a message to the program."""

    def __init__(self, send: Callable[[dict[str, Any]], None]):
        self.ports: dict[int, _Port] = {}
        self.signals = self.before = -1
        self._send = send

    def take(self, line: bytes, descriptors: list[int]) -> None:
        """Obey one line."""
        message = json.loads(line)
        do, key = message["do"], message.get("key", 0)
        if do in ("follow", "release", "silence") and (port := self.ports.pop(key, None)):
            if do == "silence":
                threading.Thread(target=_leave, args=(port,)).start()  # the end of this process waits for it
            else:
                port.drop()
        if do == "follow":
            self.ports[key] = _Port(message, descriptors.pop(0) if message["fd"] and descriptors else -1)
        elif do == "stopped" and key in self.ports:
            self.ports[key].confirmed = message["confirmed"]
        elif do == "signals":
            self.signals, self.before = (*descriptors, -1, -1)[:2]
            descriptors.clear()
        elif do == "taken":
            for port in self.ports.values():
                port.left = 0
        elif do == "ping":
            self._send({"pong": True})

    def order(self, why: str, meant: Callable[[_Port], bool] = lambda port: True) -> list[_Port]:
        """Somebody wants silence on the ports that are `meant`: the program is told first, so that it renews nothing.

        Returns those ports; some may not have taken a stop.
        """
        ports = {key: port for key, port in list(self.ports.items()) if meant(port)}
        for port in ports.values():
            port.took, port.confirmed = False, None if port.message.get("answers") else False
        if ports:
            silence(list(ports.values()), before=lambda: self._send({"stop": why, "keys": list(ports)}))
        return list(ports.values())

    def signalled(self) -> None:
        """Signal numbers came from the program's own C handler, past its interpreter."""
        with contextlib.suppress(OSError):
            numbers = os.read(self.signals, 4096)
            if self.before >= 0:
                with contextlib.suppress(OSError):
                    os.write(self.before, numbers)  # an event loop that waited for them before
            for number in ENDING.intersection(numbers):
                threading.Thread(target=self.order, args=(signal.Signals(number).name,)).start()


@contextlib.contextmanager
def _door(watch: Watch, program: int) -> Iterator[None]:
    """The private socket on which other processes of the same user may order a stop, where there can be one."""

    class Client(socketserver.StreamRequestHandler):
        timeout = 5.0  # one that says nothing

        def handle(self) -> None:
            order, _, name = self.rfile.readline(4096).decode(errors="replace").strip().partition(" ")
            sent = (
                watch.order("an order from another process", partial(_Port.called, name=name))
                if order == "stop"
                else []
            )
            until = time.monotonic() + CONFIRMS
            while any(port.confirmed is None for port in sent) and time.monotonic() < until:
                time.sleep(0.005)
            called = "a program of the kit"
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{program}/cmdline").read_bytes().replace(b"\0", b" ")
                called = words.decode(errors="replace").strip()[:200]
            reply: dict[str, Any] = {"pid": program, "program": called}
            reply["ports"] = [port.name for port in sent]
            reply["sent"] = [port.name for port in sent if port.took or port.confirmed]
            reply["confirmed"] = [port.name for port in sent if port.confirmed]
            self.wfile.write(json.dumps(reply).encode() + b"\n")

    server, before = None, os.umask(0o177)
    for path in [folder / f"{program}.sock" for folder in private_folders()]:
        with contextlib.suppress(OSError):  # a name that is too long for a socket
            path.unlink(missing_ok=True)
            server = socketserver.ThreadingUnixStreamServer(str(path), Client)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            break
    os.umask(before)
    try:
        yield
    finally:
        if server:
            path.unlink(missing_ok=True)


def order_stop(port: str = "") -> list[dict[str, Any]]:
    """Have every program of this user that holds players send stop, on one port or on all; what each answered.

    A reply has `pid`, `program`, `ports` that were meant, and of those `sent`, which took it, and `confirmed`, whose
    player said so.
    """
    replies, lines = [], []
    doors = [door for folder in private_folders() for door in sorted(folder.glob("*.sock"))]
    for door in doors if hasattr(socket, "AF_UNIX") else []:  # all of them first, then the answers
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(1.0)  # one that hangs holds up the others
        lines.append(line)
        with contextlib.suppress(OSError):
            line.connect(str(door))
            line.sendall(f"stop {port}".strip().encode() + b"\n")
            line.settimeout(CONFIRMS + 1.0)
    for line in lines:
        with line, contextlib.suppress(OSError, ValueError):
            replies.append(json.loads(line.recv(65536)))
    return [reply for reply in replies if reply["ports"]]


def main() -> None:
    """Listen until the program is gone; then all three stops everywhere, whatever fails."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    line = None if os.name == "nt" else socket.socket(fileno=os.dup(0))

    def send(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with contextlib.suppress(OSError):
            line.send(data, socket.MSG_DONTWAIT) if line else os.write(1, data)

    watch = Watch(send)
    # the machine shuts down
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(silence(list(watch.ports.values()))))  # type: ignore[func-returns-value]
    try:
        with contextlib.ExitStack() as stack:
            if line:
                stack.enter_context(_door(watch, os.getppid()))
            send({"pong": True})
            if line:
                _listen(line, watch)
            else:
                for order in sys.stdin.buffer:
                    watch.take(order, [])
    finally:
        silence(list(watch.ports.values()))


def _listen(line: socket.socket, watch: Watch) -> None:
    """Lines from the program and its signals, on everything but Windows, until the program vanished."""
    parent, buffer, fresh = -1, b"", list[int]()
    with contextlib.suppress(OSError, AttributeError):
        # a forked child of the program may keep the socket open: the program's own end is what counts
        parent = os.pidfd_open(os.getppid())
    ended, held = False, False
    while not ended:
        sources = [fd for fd in (line.fileno(), parent, watch.signals) if fd >= 0]
        ready = _ready(sources, LIFE, select.POLLIN)
        if not ready and not held:  # stopped, or its interpreter is: what has no end of its own would go on
            watch.order("no sign of life from the program", lambda port: port.message.get("answers", False))
        held = not ready
        ended = parent in ready
        if line.fileno() in ready:  # first: a port that was just named is to be stopped too
            try:
                data, descriptors, _, _ = socket.recv_fds(line, 65536, 16)
            except OSError:
                return
            fresh += descriptors
            *lines, buffer = (buffer + data).split(b"\n")
            for each in lines:
                watch.take(each, fresh)
            ended = ended or not data
        if watch.signals in ready:
            watch.signalled()


if __name__ == "__main__":
    main()
