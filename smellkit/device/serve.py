"""Put a virtual device where a client can reach it: a pty, a TCP port of this machine, or memory."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from smellkit.device.errors import PortError


class Device(Protocol):
    """The side of a virtual device that a server needs: bytes in, bytes out, when it wants to speak."""

    plugged: bool
    takes_bytes: bool

    def receive(self, data: bytes) -> None: ...
    def send(self) -> bytes: ...
    def due(self) -> float: ...
    def tick(self) -> None: ...


class _Server:
    """A thread that carries bytes between a device and whoever talks to it. Close it, or use `with`."""

    port = ""  # what a client opens

    def __init__(self, device: Device, *, now):
        self.device = device
        self._now = now
        self._ear, self._mouth = os.pipe()
        self._thread = threading.Thread(target=self._loop, name=f"virtual {self.port}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and let go of every descriptor."""
        if self._thread.is_alive():
            os.write(self._mouth, b"x")
            self._thread.join(5)
        if self._ear >= 0:
            os.close(self._ear)
            os.close(self._mouth)
            self._ear = self._mouth = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _loop(self) -> None:
        try:
            while True:
                self.device.tick()
                self._follow()
                wire = self._wire()
                reading = [fd for fd in (self._ear, *self._listening()) if fd is not None]
                if wire is not None and self.device.takes_bytes:
                    reading.append(wire)
                # a look at least every 20 ms: a test pulls the plug from another thread
                ready, _, _ = select.select(reading, [], [], max(0.0, min(0.02, self.device.due() - self._now())))
                if self._ear in ready:
                    if wire is not None and wire in ready:
                        self._read(wire)  # what was sent before the end was heard
                    return
                if wire is not None and wire in ready:
                    self._read(wire)  # before the next client takes its place
                self._accept(ready)
                self._speak()
        finally:
            self._hang_up()

    def _speak(self) -> None:
        data, wire = self.device.send(), self._wire()
        if data and wire is not None and self.device.plugged:
            with suppress(OSError):  # nobody reads: a real handset's bytes are lost too
                os.write(wire, data)

    def _read(self, wire: int) -> None:
        try:
            data = os.read(wire, 4096)
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

    def _listening(self) -> list[int | None]:
        return []

    def _accept(self, ready: list[int]) -> None: ...
    def _client_left(self) -> None: ...
    def _hang_up(self) -> None: ...


class PtyServer(_Server):
    """A device on a pseudo-terminal. `link` names a symbolic link that follows it: its stable name.

    Pulled out, the terminal is hung up; plugged in, it comes back under another path, as a USB port may.
    """

    def __init__(self, device: Device, *, now, link: Path | str | None = None):
        self._link = Path(link) if link else None
        self._master: int | None = None
        self._slave: int | None = None
        self._plug()
        super().__init__(device, now=now)

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
            part = self._link.with_name(self._link.name + ".part")
            part.unlink(missing_ok=True)
            part.symlink_to(self._path)
            part.replace(self._link)

    def _follow(self) -> None:
        if self.device.plugged and self._master is None:
            self._plug()
        elif not self.device.plugged and self._master is not None:
            self._hang_up()

    def _wire(self) -> int | None:
        return self._master

    def _hang_up(self) -> None:
        if self._link:
            self._link.unlink(missing_ok=True)
        for end in (self._slave, self._master):
            if end is not None:
                os.close(end)
        self._master = self._slave = None


class TcpServer(_Server):
    """A device on 127.0.0.1, for clients in any language; one client at a time, the newest one."""

    def __init__(self, device: Device, *, now, port: int = 0):
        self._client: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._number = port
        self._listen()
        super().__init__(device, now=now)

    @property
    def port(self) -> str:  # type: ignore[override]
        """The address to open with pyserial."""
        return f"socket://127.0.0.1:{self._number}"

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._number))  # this machine only: a scent player is nobody else's business
        except OSError as why:
            listener.close()
            raise PortError(
                f"Could not listen on 127.0.0.1:{self._number}",
                got=str(why),
                remedy="another --tcp number, or 0 for a free one",
            ) from why
        listener.listen(4)
        listener.setblocking(False)
        self._number = listener.getsockname()[1]
        self._listener = listener

    def _follow(self) -> None:
        if self.device.plugged and self._listener is None:
            with suppress(PortError):  # the next round tries again
                self._listen()
        elif not self.device.plugged and self._listener is not None:
            self._hang_up()

    def _wire(self) -> int | None:
        return self._client.fileno() if self._client else None

    def _listening(self) -> list[int | None]:
        return [self._listener.fileno() if self._listener else None]

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


class MemoryPort:
    """What pyserial's Serial is to the driver, straight into a device: for the fake clock.

    `fail` makes the next call raise that exception, as a port that goes away does. `clock.advance` is called when
    a write blocks.
    """

    def __init__(self, device: Device, *, clock, write_timeout: float = 0.2):
        if not device.plugged:
            raise PortError("Could not open memory: it is not there", port="memory", remedy="plug it in")
        self._device, self._clock, self._timeout = device, clock, write_timeout
        self.fail: BaseException | None = None
        self.is_open = True
        self._pending = b""

    def read(self, size: int = 1) -> bytes:
        """Bytes that are due, at most `size`."""
        self._check("read")
        self._pending += self._device.send()
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    def write(self, data: bytes) -> int:
        """All of `data`, or SerialTimeoutException after the write timeout."""
        self._check("write")
        self._device.tick()
        if not self._device.takes_bytes:
            from serial import SerialTimeoutException

            self._clock.advance(self._timeout)
            raise SerialTimeoutException("Write timeout")
        self._device.receive(data)
        return len(data)

    def reset_output_buffer(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Forget the device."""
        self.is_open = False

    def _check(self, doing: str) -> None:
        self._device.tick()
        error: Any = self.fail
        if error is None and not self._device.plugged:
            from serial import SerialException

            error = SerialException(f"{doing} failed: [Errno {errno.EIO}] Input/output error")
        if error is not None:
            raise error
