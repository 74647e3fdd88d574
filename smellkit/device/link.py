"""A serial port of any kind: found, opened, followed when its path changes.

Player and board are reached through this file and no other. Whatever a port does when it goes away, its user sees one
error: PortLost.
"""

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
from urllib.parse import urlsplit

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

    def __init__(self, port: Any, *, name: str, lock: int | None = None):
        self._port = port
        self._lock, self._blocked = lock, False
        self.name = name
        self.telnet = "rfc2217" in type(port).__module__  # whoever writes to the bare socket must double FF
        self.alone = getattr(port, "alone", False)  # nobody but this program can write to it

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

    def close(self, *, silently: bool = False) -> None:
        """Let go of it; `silently` without a word to the port, which is the parent's of a forked child."""
        if not silently:
            with suppress(ImportError, *GONE):
                import fcntl

                fcntl.flock(self._port.fileno(), fcntl.LOCK_UN)  # whoever has a copy of the descriptor holds up nobody
            with suppress(*GONE):
                if self._blocked:  # a play frame that waits in the kernel must not outlive a stop
                    self._port.reset_output_buffer()  # where none waits, it is the stop itself that does
        with suppress(*GONE):
            if "protocol_socket" in type(self._port).__module__:
                self._port.is_open = False  # pyserial's own close sleeps 0.3 s here: too long before an error
                self._port._socket.close()
            self._port.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    @contextmanager
    def _watched(self, doing: str, data: bytes = b"") -> Iterator[None]:
        try:
            yield
        except GONE as why:
            kind, what = PortLost, f"{self.name} went away while {doing}"
            if type(why).__name__ == "SerialTimeoutException" or (data and isinstance(why, TimeoutError)):
                self._blocked, kind, what = True, WriteBlocked, f"{self.name} takes no bytes"
            got = f"{type(why).__name__}: {why}"
            remedy = "plug the device in again: it is found by its name; one that plays ends by its own timer"
            raise kind(what, port=self.name, frame=data, got=got, remedy=remedy) from why


def connector(url: str, *, baud: int = BAUD, write_timeout: float = 0.2) -> Callable[[], Link]:
    """A function that opens the port `url`, now and whenever it went away, wherever it is by then."""
    if not isinstance(url, str) or not url or "\0" in url or len(url) > 1000:
        raise PortError(f"port is {str(url)[:60]!r}", remedy=f"a port's name; {_LISTING}")
    now_at = follow(url)
    return lambda: open_link(now_at(), baud=baud, write_timeout=write_timeout)


def open_link(url: str, *, baud: int = BAUD, write_timeout: float = 0.2) -> Link:
    """Open COM3, /dev/ttyUSB0, socket://host:port, rfc2217://host:port, loop:// or ble:NAME; PortError says why not."""
    if url.startswith("ble:"):
        from smellkit.device.ble import BlePort

        return Link(BlePort(url.removeprefix("ble:"), write_timeout=write_timeout), name=url)
    import serial

    kind = url.partition("://")[0] if "://" in url else ""
    if kind and kind not in KINDS:
        raise _diagnosis(url, ValueError(f"{kind}:// is not supported"))
    options: dict[str, Any] = {"baudrate": baud, "timeout": 0}
    if kind != "rfc2217":  # pyserial refuses the option there
        options["write_timeout"] = write_timeout
    if not kind:
        options["exclusive"] = True  # refuse a second program, and be refused by it
    lock = _lock_address(url) if kind in ("socket", "rfc2217") else None
    try:
        port = serial.serial_for_url(url, **options)
        if kind == "rfc2217":
            port._socket.settimeout(write_timeout)  # a write there has no bound of its own
    except (*GONE, NotImplementedError) as why:
        if lock is not None:
            os.close(lock)
        raise _diagnosis(url, why) from why
    link = Link(port, name=url, lock=lock)
    if (link.fileno() or 0) > 1023:
        link.close()
        remedy = "close some of them; or restart the kernel"
        raise PortError(f"Could not open {url}: this program has more than 1,023 files open", port=url, remedy=remedy)
    return link


def _lock_address(url: str) -> int | None:
    """One driver an address: an address of a network, unlike a serial port, lets any number of clients in."""
    where = urlsplit(url)
    host = where.hostname or ""
    with suppress(OSError):
        host = socket.gethostbyname(host)
    try:
        import fcntl

        path = next(private_folders()) / re.sub(r"[^\w.-]", "_", f"{host}-{where.port}.lock")[-100:]
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (ImportError, StopIteration, ValueError, OSError):  # Windows, no folder, no port: the server decides
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as why:
        os.close(file)
        if isinstance(why, BlockingIOError):
            raise PortError(f"Could not open {url}: {_BUSY[0]}", port=url, got=str(why), remedy=_BUSY[1]) from why
        return None
    return file


_BUSY = "another program uses it", "close that program or the notebook that holds it, then try again"
_CAUSES = {  # number of the system -> what it means, what to do
    errno.ENAMETOOLONG: ("its name is too long", _LISTING),
    errno.EISDIR: ("it is a directory", _LISTING),
    errno.ENOTTY: ("it is not a serial port", _LISTING),
    **dict.fromkeys((errno.EAGAIN, errno.EBUSY, errno.EWOULDBLOCK), _BUSY),
    **dict.fromkeys((errno.EACCES, errno.EPERM), ("permission denied",
                                                  "sudo usermod -aG dialout $USER, then log in again")),
    **dict.fromkeys((errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO), ("it is not there",
                                                                         f"plug the device in; {_LISTING}")),
}  # fmt: skip


def _diagnosis(url: str, why: Exception) -> PortError:
    if "://" in url and isinstance(why, ValueError):
        cause, remedy = "no such kind of address", "socket://host:port, rfc2217://host:port, or a plain port name"
    elif "://" in url:
        cause, remedy = "nobody answers there", "start the server first, and check host and port"
    elif re.fullmatch(r"COM0*", url, re.IGNORECASE):
        cause, remedy = "no such port: COM names begin with COM1", _LISTING
    else:
        unknown = "the port refuses", f"unplug it and plug it in again; {_LISTING}"
        cause, remedy = _CAUSES.get(_number(url, why), unknown)
    return PortError(f"Could not open {url}: {cause}", port=url, got=f"{type(why).__name__}: {why}", remedy=remedy)


def _number(url: str, why: Exception) -> int:
    """The system's number of a failure: pyserial hides it in the text, or in the exception that it replaced."""
    with suppress(OSError, ValueError):
        mode = Path(url).stat().st_mode
        if not stat.S_ISCHR(mode):
            return errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOTTY
    hidden = re.search(r"\[Errno (\d+)\]|\((\d+), '", str(why))
    numbers = [getattr(why, "errno", None), *getattr(why.__context__, "args", ())[:1]]
    numbers += [int(hidden[1] or hidden[2])] if hidden else []
    return next((number for number in numbers if isinstance(number, int)), 0)


def pauses(first: float = 0.1, cap: float = 5.0) -> Iterator[float]:
    """Seconds between looks for a port that went away: hardly any, then `first`, doubled up to `cap`."""
    yield 0.01  # first let those know who wait
    while True:
        yield first
        first = min(cap, 2 * first)


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
        Port(port.device, port.description or "n/a", port.serial_number or "", port.vid, port.pid, port.location or "",
             (port.vid, port.pid) in HANDSETS) for port in tools.comports()
    ]  # fmt: skip
    return sorted(ports, key=lambda port: (not port.likely, port.device))


def follow(url: str) -> Callable[[], str]:
    """Follow one port: a function that gives the path that it has now, or had when it is nowhere.

    A link such as /dev/serial/by-id/... or an address such as socket://... is its own stable name. Any other port is
    known by its USB numbers, read once while it is there.
    """
    identity = None
    with suppress(OSError):  # a name that is none is for whoever opens it
        if "://" not in url and not Path(url).is_symlink():
            identity = next((port.stable for port in list_ports() if port.device == url and port.vid), None)

    def now_at() -> str:
        same = [port.device for port in list_ports() if port.stable == identity] if identity else []
        return same[0] if len(same) == 1 else url

    return now_at
