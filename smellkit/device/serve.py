"""Put a virtual device, player or board, where a client can reach it: on a pty or on a TCP port of this machine."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from smellkit.device.clock import Clock, readable
from smellkit.device.errors import PortError

LOOK = 0.02  # seconds between looks at the plug, which another thread may pull


class Device(Protocol):
    """The side of a virtual device that a server needs: bytes in, bytes out, when it wants to send."""

    plugged: bool
    takes_bytes: bool

    def receive(self, data: bytes) -> None: ...
    def send(self) -> bytes: ...
    def due(self) -> float: ...
    def tick(self) -> None: ...


class Server:
    """A thread that carries bytes between a device and its client. Close it, or use `with`."""

    port = ""  # what a client opens

    def __init__(self, device: Device):
        self.device = device
        self._bell, self._ring = socket.socketpair()
        self._thread = threading.Thread(target=self._loop, name=f"virtual {self.port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and let go of every descriptor."""
        if self._thread.is_alive():
            with suppress(OSError):
                self._ring.send(b"x")
            self._thread.join(5)
        self._bell.close()
        self._ring.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _loop(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._hang_up()

    def _turn(self) -> bool:
        """One look at plug, client and device; False at the end."""
        self.device.tick()
        self._follow()
        wire = self._wire()
        reading = [self._bell.fileno(), *self._listening()]
        if wire is not None and self.device.takes_bytes:
            reading.append(wire)
        ready = readable(reading, max(0.0, min(LOOK, self.device.due() - Clock.now())))
        if wire is not None and wire in ready:
            self._read()  # before the next client takes its place, and what was sent before the end
        if self._bell.fileno() in ready:
            return False
        self._accept(ready)
        self._send()
        return True

    def _send(self) -> None:
        data = self.device.send()
        if self._wire() is not None and self.device.plugged:
            with suppress(OSError):  # nobody reads: a real device's bytes are lost too
                while data:
                    data = data[self._put(data) :]

    def _read(self) -> None:
        try:
            data = self._get()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.device.receive(data)
        else:
            self._client_left()

    # what differs between the kinds

    def _follow(self) -> None:
        """Make the port look as the device's plug is."""

    def _wire(self) -> int | None:
        raise NotImplementedError

    def _get(self) -> bytes:
        raise NotImplementedError

    def _put(self, data: bytes) -> int:
        raise NotImplementedError

    def _listening(self) -> list[int]:
        return []

    def _accept(self, ready: list[int]) -> None: ...
    def _client_left(self) -> None: ...
    def _hang_up(self) -> None: ...


class PtyServer(Server):
    """A device on a pseudo-terminal. `link` names a symbolic link that follows it: its stable name.

    Pulled out, the terminal is hung up; plugged in, it comes back under another path, as a USB port may.
    """

    def __init__(self, device: Device, *, link: Path | str | None = None):
        self._link = Path(link) if link else None
        self._master: int | None = None
        self._slave: int | None = None
        self._plug()
        super().__init__(device)

    @property
    def port(self) -> str:  # type: ignore[override]
        """The path to open."""
        return str(self._link) if self._link else self._path

    def _plug(self) -> None:
        import tty

        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)  # a fresh pty is cooked and echoes; held open, so that clients may come and go
        os.set_blocking(self._master, False)
        self._path = os.ttyname(self._slave)
        if self._link:
            if self._link.is_symlink() and not self._link.exists():  # left by one that was killed
                self._link.unlink()
            try:
                self._link.symlink_to(self._path)
            except OSError as why:
                os.close(self._slave)
                os.close(self._master)
                remedy = "a name that does not exist yet, in a folder that does"
                raise PortError(f"Could not make the link {self._link}", got=str(why), remedy=remedy) from why

    def _follow(self) -> None:
        if self.device.plugged and self._master is None:
            self._plug()
        elif not self.device.plugged and self._master is not None:
            self._hang_up()

    def _wire(self) -> int | None:
        return self._master

    def _get(self) -> bytes:
        return os.read(self._master or 0, 4096)

    def _put(self, data: bytes) -> int:
        return os.write(self._master or 0, data)

    def _hang_up(self) -> None:
        if self._link and self._master is not None:
            with suppress(OSError):  # never what somebody else has put there
                if str(self._link.readlink()) == self._path:
                    self._link.unlink()
        for end in (self._slave, self._master):
            if end is not None:
                os.close(end)
        self._master = self._slave = None


class TcpServer(Server):
    """A device on 127.0.0.1, for clients in any language; one client at a time, the newest one."""

    def __init__(self, device: Device, *, port: int = 0):
        self._client: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._number = port
        self._listen()
        super().__init__(device)

    @property
    def port(self) -> str:  # type: ignore[override]
        """The address to open with pyserial."""
        return f"socket://127.0.0.1:{self._number}"

    def _listen(self) -> None:
        address = ("127.0.0.1", self._number)  # this machine only: a scent player is nobody else's business
        try:
            self._listener = socket.create_server(address, backlog=4)
        except OSError as why:
            remedy = "another --tcp number, or 0 for a free one"
            raise PortError(f"Could not listen on 127.0.0.1:{self._number}", got=str(why), remedy=remedy) from why
        self._listener.setblocking(False)
        self._number = self._listener.getsockname()[1]

    def _follow(self) -> None:
        if self.device.plugged and self._listener is None:
            with suppress(PortError):  # the next round tries again
                self._listen()
        elif not self.device.plugged and self._listener is not None:
            self._hang_up()

    def _wire(self) -> int | None:
        return self._client.fileno() if self._client else None

    def _get(self) -> bytes:
        return self._client.recv(4096) if self._client else b""

    def _put(self, data: bytes) -> int:
        return self._client.send(data) if self._client else len(data)

    def _listening(self) -> list[int]:
        return [self._listener.fileno()] if self._listener else []

    def _accept(self, ready: list[int]) -> None:
        if self._listener and self._listener.fileno() in ready:
            with suppress(BlockingIOError):
                client, _ = self._listener.accept()
                self._client_left()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._client = client

    def _client_left(self) -> None:
        if self._client:
            self._client.close()
            self._client = None

    def _hang_up(self) -> None:
        self._client_left()
        if self._listener:
            self._listener.close()
            self._listener = None


class HereServer(PtyServer):
    """A device for this program alone, on a pty whose stable name is in a folder that goes with it."""

    def __init__(self, device: Device, *, name: str):
        self._folder = tempfile.TemporaryDirectory(prefix="smellkit-")
        super().__init__(device, link=Path(self._folder.name) / name)

    def close(self) -> None:
        """End the thread and take the folder away."""
        super().close()
        with suppress(OSError):
            self._folder.cleanup()


def serve_here(device: Device, *, name: str) -> Server:
    """Serve `device` to this program, on a pty where there are any and on TCP elsewhere (Windows)."""
    return HereServer(device, name=name) if has_terminals() else TcpServer(device)


def has_terminals() -> bool:
    """Whether this system has pseudo-terminals."""
    try:
        import pty
        import tty
    except ImportError:
        return False
    return bool(pty and tty)
