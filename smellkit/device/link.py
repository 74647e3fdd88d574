"""A serial port of any kind: found, opened, followed when its path changes.

Player and board are reached through this file and no other. Whatever a port does when it goes away, its user sees one
error: PortLost.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smellkit.device.errors import PortError, PortLost, WriteBlocked
from smellkit.device.watchdog import private_folders

try:
    from termios import error as termios_error
except ImportError:  # Windows
    termios_error = OSError  # type: ignore[assignment, misc]

BAUD = 115200  # of the NeckWear's handset
HANDSETS = {(0x10C4, 0xEA60)}  # Silicon Labs CP210x: the bridge in the NeckWear's handset, and in many other things
KINDS = ("socket", "rfc2217", "loop")  # pyserial has more: its spy prints, its hwgrep guesses
_CHUNK = 512
_LISTING = "`smellkit neckwear ports` lists what is there"

# pyserial's SerialException is an OSError; a bare OSError comes from in_waiting and dtr; termios.error is neither;
# a closed port answers with TypeError, ValueError or AttributeError, depending on the call.
GONE = (OSError, termios_error, TypeError, ValueError, AttributeError)


class Link:
    """Bytes in, bytes out, over an open pyserial object (its timeout is 0: reading never waits)."""

    def __init__(self, port: Any, *, name: str, lock: AddressLock | None = None):
        self._port = port
        self._lock = lock or AddressLock()
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
        """The descriptor behind the port, where there is one: to wait on it, or to hand it to the watchdog."""
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
        self._lock.release()

    def abandon(self) -> None:
        """Let go without a word to the port: it is the parent's, and this is a forked child."""
        self._blocked = False
        self.close()

    @contextmanager
    def _watched(self, doing: str, data: bytes = b"") -> Iterator[None]:
        ends = "a device that plays ends by its own timer"
        try:
            yield
        except GONE as why:
            if type(why).__name__ == "SerialTimeoutException":
                self._blocked = True
                remedy = f"unplug the device, plug it in again; {ends}"
                raise WriteBlocked(f"{self.name} takes no bytes", port=self.name, frame=data, remedy=remedy) from why
            raise PortLost(
                f"{self.name} went away while {doing}",
                port=self.name,
                frame=data,
                got=f"{type(why).__name__}: {why}",
                remedy=f"plug the device in again: it is found by its name; {ends}",
            ) from why


def connector(url: str, *, baud: int = BAUD, write_timeout: float = 0.2) -> Callable[[], Link]:
    """A function that opens the port `url`, now and whenever it went away, wherever it is by then."""
    if not isinstance(url, str) or not url or "\0" in url or len(url) > 1000:
        raise PortError(f"port is {str(url)[:60]!r}", remedy=f"a port's name; {_LISTING}")
    stable = StableName(url)
    return lambda: open_link(stable.url(), baud=baud, write_timeout=write_timeout)


def open_link(url: str, *, baud: int = BAUD, write_timeout: float = 0.2) -> Link:
    """Open COM3, /dev/ttyUSB0, socket://host:port, rfc2217://host:port or loop://; PortError says why not."""
    import serial

    options: dict[str, Any] = {"baudrate": baud, "timeout": 0}
    telnet = url.startswith("rfc2217://")
    if "://" in url and url.partition("://")[0] not in KINDS:
        raise _diagnosis(url, ValueError(f"{url.partition('://')[0]}:// is not supported"))
    lock = AddressLock(url)
    if not telnet:  # pyserial refuses the option there
        options["write_timeout"] = write_timeout
    if "://" not in url:
        options["exclusive"] = True  # refuse a second program, and be refused by it
    try:
        port = serial.serial_for_url(url, **options)
        if telnet:
            port._socket.settimeout(write_timeout)  # a write there has no bound of its own
    except (*GONE, NotImplementedError) as why:
        lock.release()
        raise _diagnosis(url, why) from why
    link = Link(port, name=url, lock=lock)
    if (link.fileno() or 0) > 1023:
        link.close()
        raise PortError(
            f"Could not open {url}: this program has more than 1,023 files open",
            port=url,
            remedy="close some of them; or restart the kernel",
        )
    return link


class AddressLock:
    """One driver an address: an address of a network, unlike a serial port, lets any number of clients in."""

    def __init__(self, url: str = ""):
        self._file: int | None = None
        kind, _, rest = url.partition("://")
        if kind not in ("socket", "rfc2217"):
            return
        host, _, port = rest.partition("?")[0].partition("/")[0].rpartition(":")
        with suppress(OSError):
            host = socket.gethostbyname(host)
        try:
            import fcntl

            path = next(private_folders()) / f"{host}-{port}.lock".replace("/", "_").replace("\\", "_")[-100:]
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as why:
            self.release()
            raise PortError(
                f"Could not open {url}: another program uses it",
                port=url,
                got=str(why),
                remedy="close that program or the notebook that holds it, then try again",
            ) from why
        except (ImportError, StopIteration, OSError):  # Windows, or no folder of one's own: the server decides
            self.release()

    def release(self) -> None:
        """Let the next one in."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _diagnosis(url: str, why: Exception) -> PortError:
    """An error that names the port, the cause and the remedy."""
    cause, remedy = _cause(url, why)
    return PortError(f"Could not open {url}: {cause}", port=url, got=f"{type(why).__name__}: {why}", remedy=remedy)


def _cause(url: str, why: Exception) -> tuple[str, str]:
    if "://" in url:
        if isinstance(why, ValueError):
            return "no such kind of address", "socket://host:port, rfc2217://host:port, or a plain port name"
        return "nobody answers there", "start the server first, and check host and port"
    if re.fullmatch(r"COM0*", url, re.IGNORECASE):
        return "no such port: COM names begin with COM1", _LISTING
    number = getattr(why, "errno", None) or _errno(why)
    if number == errno.ENAMETOOLONG:
        return "its name is too long", _LISTING
    with suppress(OSError, ValueError):
        mode = Path(url).stat().st_mode
        if stat.S_ISDIR(mode):
            return "it is a directory", _LISTING
        if not stat.S_ISCHR(mode):
            return "it is not a serial port", _LISTING
    if number in (errno.EAGAIN, errno.EBUSY, errno.EWOULDBLOCK):
        return "another program uses it", "close that program or the notebook that holds it, then try again"
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied", "sudo usermod -aG dialout $USER, then log in again"
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO):
        return "it is not there", f"plug the device in; {_LISTING}"
    if number == errno.ENOTTY or isinstance(why.__context__, termios_error):
        return "it is not a serial port", _LISTING
    return "the port refuses", f"unplug it and plug it in again; {_LISTING}"


def _errno(why: Exception) -> int | None:
    """pyserial hides the number in the text, or in the exception that it replaced."""
    inner = why.__context__
    if inner is not None and inner.args and isinstance(inner.args[0], int):
        return inner.args[0]
    number = re.search(r"\[Errno (\d+)\]|\((\d+), '", str(why))
    return int(number[1] or number[2]) if number else None


class BackOff:
    """Pauses between looks for a port that went away: hardly one, then `first` seconds, doubled up to `cap`."""

    def __init__(self, *, first: float = 0.1, cap: float = 5.0):
        self._first, self._cap = first, cap
        self.reset()

    def reset(self) -> None:
        """The port is fine again."""
        self._pause = 0.0

    def next(self) -> float:
        """Seconds until the next look."""
        pause = max(self._pause, 0.01)  # first let those know who wait
        self._pause = min(self._cap, max(self._first, 2 * self._pause))
        return pause


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
            device=port.device,
            name=port.description or "n/a",
            serial_number=port.serial_number or "",
            vid=port.vid,
            pid=port.pid,
            location=port.location or "",
            likely=(port.vid, port.pid) in HANDSETS,
        )
        for port in tools.comports()
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
        with suppress(OSError):  # a name that is none is for whoever opens it
            if "://" not in url and not Path(url).is_symlink():
                self._identity = next((port.stable for port in list_ports() if port.device == url and port.vid), None)

    def url(self) -> str:
        """Where the port is now, or was when it is nowhere."""
        if self._identity is None:
            return self._url
        same = [port.device for port in list_ports() if port.stable == self._identity]
        return same[0] if len(same) == 1 else self._url
