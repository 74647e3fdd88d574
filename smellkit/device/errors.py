"""What can go wrong on the way to player and board: one family, each with what a reader needs to act."""

from smellkit.errors import DeviceError


class LinkError(DeviceError):
    """A failure on the link, with `port`, `frame` (hex), `expected`, `got`, `elapsed` (seconds) and `remedy`."""

    def __init__(self, what: str, *, port: str = "", frame: bytes = b"", expected: str = "", got: str = "",
                 elapsed: float | None = None, remedy: str = ""):  # fmt: skip
        self.port, self.frame, self.expected, self.got = port, bytes(frame).hex().upper(), expected, got
        self.elapsed, self.remedy = elapsed, remedy
        facts = {"port": port, "frame": self.frame, "expected": expected, "got": got}
        if elapsed is not None:
            facts["elapsed"] = f"{elapsed:.3f} s"
        listing = "; ".join(f"{name} {value}" for name, value in facts.items() if value)
        super().__init__(f"{what} ({listing})" if listing else what, hint=remedy)


class PortError(LinkError):
    """The port could not be opened: absent, busy, not permitted, not a serial port."""


class PortLost(LinkError):
    """The port went away, or never answers a write: unplugged, reset, closed by the other side."""


class WriteBlocked(PortLost):
    """A write did not end within its bound."""


class NoReply(LinkError):
    """No sound reply to a request within its bound."""


class Refused(LinkError):
    """A sound reply that says no."""


class ArgumentError(LinkError, ValueError):
    """A value that must not reach the device; no byte was sent."""


class Closed(LinkError):
    """The device object was closed before."""
