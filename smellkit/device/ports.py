"""Serial ports with names, and the name of a port that stays when its number changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HANDSETS = {(0x10C4, 0xEA60)}  # Silicon Labs CP210x: the bridge in the NeckWear's handset, and in many other things


@dataclass(frozen=True)
class Port:
    """One serial port: what to open, what it is, and whether it may be the handset."""

    device: str
    name: str
    serial_number: str
    vid: int | None
    pid: int | None
    location: str
    likely: bool

    @property
    def stable(self) -> tuple[int | None, int | None, str, str]:
        """What stays when the port comes back under another path: the bridge's own number, else the socket it is in."""
        return self.vid, self.pid, self.serial_number, "" if self.serial_number else self.location


def list_ports() -> list[Port]:
    """Every serial port of this machine, likely handsets first."""
    from serial.tools import list_ports as tools

    ports = [
        Port(
            device=found.device,
            name=found.description or "n/a",
            serial_number=found.serial_number or "",
            vid=found.vid,
            pid=found.pid,
            location=found.location or "",
            likely=(found.vid, found.pid) in HANDSETS,
        )
        for found in tools.comports()
    ]
    return sorted(ports, key=lambda port: (not port.likely, port.device))


class StableName:
    """Follow one port: `url()` gives the path that it has now.

    A link such as /dev/serial/by-id/... or an address such as socket://... is its own stable name. Any other port is
    known by its USB numbers, read once while it is there.
    """

    def __init__(self, url: str):
        self._url = url
        self._identity = None
        if "://" not in url and not Path(url).is_symlink():
            self._identity = next((port.stable for port in list_ports() if port.device == url and port.vid), None)

    def url(self) -> str:
        """Where the port is now, or was when it is nowhere."""
        if self._identity is None:
            return self._url
        same = [port.device for port in list_ports() if port.stable == self._identity]
        return same[0] if len(same) == 1 else self._url
