"""A serial port of any kind as four calls that never block and fail in one way only."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from smellkit.device.errors import PortError, PortLost, WriteBlocked

try:
    from termios import error as termios_error
except ImportError:  # Windows
    termios_error = OSError  # type: ignore[assignment, misc]

BAUD = 115200
_CHUNK = 512

# pyserial's SerialException is an OSError; a bare OSError comes from in_waiting and dtr; termios.error is neither;
# a closed port answers with TypeError, ValueError or AttributeError, depending on the call.
GONE = (OSError, termios_error, TypeError, ValueError, AttributeError)


class Link:
    """Bytes in, bytes out, over an open pyserial object (its timeout is 0: reading never waits)."""

    def __init__(self, port: Any, *, name: str):
        self._port = port
        self._blocked = False
        self.name = name
        self.telnet = "rfc2217" in type(port).__module__  # whoever writes to the bare socket must double FF

    def read(self) -> bytes:
        """What has arrived, at most a few kilobytes; PortLost when the port went away."""
        data = b""
        with self._watched("reading"):
            while len(data) < 4096 and (more := self._port.read(_CHUNK)):
                data += more
        return data

    def write(self, data: bytes) -> None:
        """Send all of `data` within the write timeout; WriteBlocked or PortLost if that fails."""
        with self._watched("writing", data):
            self._port.write(data)

    def fileno(self) -> int | None:
        """The descriptor behind the port, where there is one: to wait on it, or to hand it to the guard."""
        with suppress(*GONE):
            return self._port.fileno()
        with suppress(*GONE):
            return self._port._socket.fileno()  # rfc2217
        return None

    @property
    def wakes(self) -> bool:
        """Whether waiting on `fileno()` says when there is something to read."""
        return not self.telnet and self.fileno() is not None

    def close(self) -> None:
        """Close, whatever state the port is in."""
        if self._blocked:  # a play frame that waits in the kernel must not outlive a stop; else it is the stop itself
            with suppress(*GONE):
                self._port.reset_output_buffer()
        with suppress(*GONE):
            if "protocol_socket" in type(self._port).__module__:
                self._port.is_open = False  # pyserial's own close sleeps 0.3 s here: too long before an error
                self._port._socket.close()
            self._port.close()

    @contextmanager
    def _watched(self, doing: str, data: bytes = b"") -> Iterator[None]:
        try:
            yield
        except GONE as why:
            if type(why).__name__ == "SerialTimeoutException":
                self._blocked = True
                raise WriteBlocked(
                    f"{self.name} takes no bytes",
                    port=self.name,
                    frame=data,
                    remedy="unplug the handset, plug it in again; a device that plays ends by its own timer",
                ) from why
            raise PortLost(
                f"{self.name} went away while {doing}",
                port=self.name,
                frame=data,
                got=f"{type(why).__name__}: {why}",
                remedy="plug the handset in again: it is found by its name; a device that plays ends by its own timer",
            ) from why


def open_link(url: str, *, write_timeout: float = 0.2) -> Link:
    """Open COM3, /dev/ttyUSB0, socket://host:port, rfc2217://host:port or loop://; PortError says why not."""
    import serial

    options: dict[str, Any] = {"baudrate": BAUD, "timeout": 0}
    telnet = url.startswith("rfc2217://")
    if not telnet:  # pyserial refuses the option there
        options["write_timeout"] = write_timeout
    if "://" not in url:
        options["exclusive"] = True  # refuse a second program, and be refused by it
    try:
        port = serial.serial_for_url(url, **options)
        if telnet:
            port._socket.settimeout(write_timeout)  # a write there has no bound of its own
    except (*GONE, NotImplementedError) as why:
        raise _diagnosis(url, why) from why
    return Link(port, name=url)


def _diagnosis(url: str, why: Exception) -> PortError:
    """An error that names the port, the cause and the remedy."""
    cause, remedy = _cause(url, why)
    return PortError(f"Could not open {url}: {cause}", port=url, got=f"{type(why).__name__}: {why}", remedy=remedy)


def _cause(url: str, why: Exception) -> tuple[str, str]:
    listing = "`smellkit neckwear ports` lists what is there"
    if "://" in url:
        if isinstance(why, ValueError):
            return "no such kind of address", "socket://host:port, rfc2217://host:port, or a plain port name"
        return "nobody answers there", "start the server first, and check host and port"
    if re.fullmatch(r"COM0*", url, re.IGNORECASE):
        return "no such port: COM names begin with COM1", listing
    number = getattr(why, "errno", None) or _errno(why)
    with suppress(OSError):
        mode = Path(url).stat().st_mode
        if stat.S_ISDIR(mode):
            return "it is a directory", listing
        if not stat.S_ISCHR(mode):
            return "it is not a serial port", listing
    if number in (errno.EAGAIN, errno.EBUSY, errno.EWOULDBLOCK):
        return "another program uses it", "close that program or the notebook that holds it, then try again"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied", "sudo usermod -aG dialout $USER, then log in again"
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO):
        return "it is not there", f"plug the handset in; {listing}"
    if number == errno.ENOTTY or isinstance(why.__context__, termios_error):
        return "it is not a serial port", listing
    return "the port refuses", f"unplug it and plug it in again; {listing}"


def _errno(why: Exception) -> int | None:
    """pyserial hides the number in the text, or in the exception that it replaced."""
    inner = why.__context__
    if inner is not None and inner.args and isinstance(inner.args[0], int):
        return inner.args[0]
    found = re.search(r"\[Errno (\d+)\]|\((\d+), '", str(why))
    return int(found[1] or found[2]) if found else None
