"""A player over Bluetooth Low Energy that looks like an open serial port: the extra `smellkit[ble]`, through bleak.

Not tried on hardware. Service and characteristic (ffff0, ffff1) are unverified, so the characteristic is looked for by
the end of its number. Only this program can reach the player: no watchdog sends stop for it, so plays are renewed in
frames of two seconds, which the player ends by itself.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from smellkit.device.errors import PortError

FIND, CONNECT = 5.0, 10.0  # seconds
PIECE = 20  # bytes that fit into one write of any version


class BlePort:
    """What `Link` needs of a port; what the player says comes out of a socket, so that a driver can wait for it."""

    alone = True  # nobody else can write to it, the watchdog neither

    def __init__(self, name: str, *, write_timeout: float):
        try:
            import bleak
        except ImportError as why:
            remedy = "pip install 'smellkit[ble]'"
            raise PortError("Bluetooth needs the package bleak", port=f"ble:{name}", remedy=remedy) from why
        self._write_timeout = write_timeout
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._loop, self._client = asyncio.new_event_loop(), None
        self._thread = threading.Thread(target=self._loop.run_forever, name="smellkit ble", daemon=True)
        self._thread.start()
        try:
            self._run(self._connect(bleak, name), FIND + CONNECT)
        except OSError as why:
            self.close()
            remedy = "is it switched on, near, and not connected to a phone? Is Bluetooth on?"
            raise PortError(f"Could not open ble:{name}: {why}", port=f"ble:{name}", remedy=remedy) from why

    async def _connect(self, bleak: Any, name: str) -> None:
        device = await bleak.BleakScanner.find_device_by_filter(
            lambda device, said: name in (device.address, device.name, said.local_name), timeout=FIND
        )
        if device is None:
            raise OSError("nobody of that name or address is near")
        self._client = client = bleak.BleakClient(device, disconnected_callback=lambda _: self._hang_up())
        await client.connect()
        characteristics = [char for service in client.services for char in service.characteristics]
        self._char = next((char for char in characteristics if char.uuid.split("-")[0].endswith("fff1")), None)
        if self._char is None:
            raise OSError(
                f"it has no characteristic fff1, but {', '.join(char.uuid for char in characteristics) or 'none'}"
            )
        await client.start_notify(self._char, lambda _, data: self._theirs.sendall(data))

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._theirs.shutdown(socket.SHUT_RDWR)

    def _run(self, work: Coroutine, seconds: float) -> None:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            future.result(seconds)
        except OSError:  # TimeoutError too
            future.cancel()
            raise
        except Exception as why:  # bleak lets through what each system's own library raises
            raise OSError(f"{type(why).__name__}: {why}") from why

    def read(self, size: int) -> bytes:
        """What the player said, at most `size` bytes, without waiting; OSError once it is gone."""
        try:
            data = self._ours.recv(size)
        except BlockingIOError:
            return b""
        if not data:
            raise OSError("the player hung up")
        return data

    def write(self, data: bytes) -> None:
        """All of `data`, or TimeoutError after the write timeout."""
        for at in range(0, len(data), PIECE):
            self._run(self._client.write_gatt_char(self._char, data[at : at + PIECE]), self._write_timeout)  # type: ignore

    def fileno(self) -> int:
        """What becomes readable when the player says something, or is gone."""
        return self._ours.fileno()

    def reset_output_buffer(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Disconnect and end the thread; in a forked child, which has no such thread, only let go."""
        if self._thread.is_alive():
            with suppress(OSError):
                if self._client:
                    self._run(self._client.disconnect(), 2.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(2.0)
            self._loop.close()
        self._ours.close()
        self._theirs.close()
