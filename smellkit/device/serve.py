"""Put a virtual device, player or board, where a client can reach it: on a pty or on a TCP port of this machine."""

import io
import os
import socket
import tempfile
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from smellkit.device.clock import Clock, readable
from smellkit.device.errors import PortError

LOOK = 0.02  # seconds between looks at the plug, which another thread may pull, and at the end


class Server(AbstractContextManager):
    """A thread that carries bytes between a virtual device and its client. Close it, or use `with`.

    A device has `receive(data)`, `send()` for what is due, `due()` for when, `tick()` to let time act, and says whether
    it is `plugged` and `takes_bytes`. `port` is what a client opens.
    """

    port = ""
    folder: Any = None  # what goes with it at the end

    def __init__(self, device: Any):
        self.device = device
        self._closed, self._there = False, True
        self._wire: Any = None  # to the client: a raw file that never waits
        self._listener: Any = None
        self._appear()
        self._thread = threading.Thread(target=self._loop, name=f"virtual {self.port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and let go of every descriptor."""
        self._closed = True
        self._thread.join(5)
        if self.folder:
            self.folder.cleanup()

    def __exit__(self, *_):
        self.close()

    def _loop(self) -> None:
        try:
            while not self._closed:
                self._turn()
        finally:
            self._vanish()

    def _turn(self) -> None:
        self.device.tick()
        if (plugged := self.device.plugged) != self._there:  # once: another thread may plug it in meanwhile
            with suppress(PortError):  # the next turn tries again
                self._appear() if plugged else self._vanish()
                self._there = plugged
        door = self._listener.fileno() if self._listener else -1
        wire = self._wire.fileno() if self._wire and self.device.takes_bytes else -1
        seconds = max(0.0, min(LOOK, self.device.due() - Clock.now()))
        ready = readable([number for number in (door, wire) if number >= 0], seconds)
        if wire in ready:
            self._read()  # before the next client takes its place, and what was sent before the end
        if door in ready:
            self._accept()
        data = self.device.send()
        with suppress(OSError):  # nobody reads: a real device's bytes are lost too
            while data and self._wire and self.device.plugged:
                data = data[self._wire.write(data) or len(data) :]

    def _read(self) -> None:
        try:
            data = self._wire.read(4096)
        except OSError:
            data = b""
        if data:
            self.device.receive(data)
        elif data is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._wire:
            self._wire.close()
        self._wire = None

    def _appear(self) -> None: ...
    def _vanish(self) -> None: ...
    def _accept(self) -> None: ...


class PtyServer(Server):
    """A device on a pseudo-terminal. `link` names a symbolic link that follows it: its stable name.

    Pulled out, the terminal is hung up; plugged in, it comes back under another path, as a USB port may.
    """

    def __init__(self, device: Any, *, link: Path | str | None = None):
        self._link = Path(link) if link else None
        super().__init__(device)

    def _appear(self) -> None:
        import tty

        master, self._slave = os.openpty()
        for end in (master, self._slave):
            tty.setraw(end)  # a fresh pty is cooked and echoes; its slave is held open, so that clients may come and go
        os.set_blocking(master, False)
        self._wire, self._path = io.FileIO(master, "r+"), os.ttyname(self._slave)
        self.port = str(self._link or self._path)
        if self._link:
            if self._link.is_symlink() and not self._link.exists():  # left by one that was killed
                self._link.unlink()
            try:
                self._link.symlink_to(self._path)
            except OSError as why:
                self._vanish()
                remedy = "a name that does not exist yet, in a folder that does"
                raise PortError(f"Could not make the link {self._link}", got=str(why), remedy=remedy) from why

    def _vanish(self) -> None:
        if self._wire:
            with suppress(OSError):  # never what somebody else has put there
                if self._link and str(self._link.readlink()) == self._path:
                    self._link.unlink()
            os.close(self._slave)
            self._hang_up()


class TcpServer(Server):
    """A device on 127.0.0.1, for clients in any language; one client at a time, the newest one."""

    def __init__(self, device: Any, *, port: int = 0):
        self._number = port
        super().__init__(device)

    def _appear(self) -> None:
        address = ("127.0.0.1", self._number)  # this machine only: a scent player is nobody else's business
        try:
            self._listener = socket.create_server(address, backlog=4)
        except OSError as why:
            remedy = "another --tcp number, or 0 for a free one"
            raise PortError(f"Could not listen on 127.0.0.1:{self._number}", got=str(why), remedy=remedy) from why
        self._listener.setblocking(False)
        self._number = self._listener.getsockname()[1]
        self.port = f"socket://127.0.0.1:{self._number}"

    def _vanish(self) -> None:
        self._hang_up()
        listener, self._listener = self._listener, None
        if listener:
            listener.close()

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            client, _ = self._listener.accept()
            self._hang_up()
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._wire = client.makefile("rwb", buffering=0)
            client.close()  # the file keeps it


def serve_here(device: Any, *, name: str) -> Server:
    """Serve `device` to this program alone: on a pty with a stable name where there are any, on TCP elsewhere."""
    try:
        import tty  # noqa: F401
    except ImportError:
        return TcpServer(device)
    folder = tempfile.TemporaryDirectory(prefix="smellkit-")
    server = PtyServer(device, link=Path(folder.name) / name)
    server.folder = folder
    return server
