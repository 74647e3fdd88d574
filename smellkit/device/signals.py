"""Signals from the C level: what the interpreter's own handler writes at once, whatever the interpreter is doing.

The process has one place for them, so there is one pair of sockets: the C handler writes to one end, and whoever has
the other (the watchdog) reads the numbers and passes them on to whoever had the place before.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from smellkit.device.clock import readable
from smellkit.device.watchdog import ENDING

_pair: list[socket.socket] = []
_before: list[int] = []  # who had the place before
_masks: list[Any] = []  # signals that were blocked before a fork
_idle: list[Any] = []  # the kernel's event loop that was asked to listen while it is idle


def take(*, passed_on: bool) -> bool:
    """Take the place, on the main thread; whether the files are others now.

    Somebody who has it keeps it until what he waits for is `passed_on`.
    """
    if threading.current_thread() is not threading.main_thread() or os.name == "nt":
        return False
    if not _pair:
        _pair.extend(socket.socketpair())
        for end in _pair:
            end.setblocking(False)
    ours = _pair[0].fileno()
    former = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
    if former >= 0 and former != ours and not passed_on:
        signal.set_wakeup_fd(former, warn_on_full_buffer=False)
        return False
    _listen_when_idle()
    if former == ours and _before:
        return False
    _before[:] = [former]
    return True


def files() -> tuple[int, ...]:
    """Where the numbers arrive, and where to pass them on (-1: nowhere); nothing before `take`."""
    return (_pair[1].fileno(), *_before) if _before else ()


def heard(seconds: float) -> bool:
    """Whether a signal that ends programs comes within `seconds`, while nobody else reads them."""
    if not _pair:
        time.sleep(seconds)
        return False
    with contextlib.suppress(OSError):
        return bool(readable([_pair[1].fileno()], seconds) and ENDING.intersection(_pair[1].recv(4096)))
    return False


def give_back() -> None:
    """Leave the place to whoever had it; on the main thread."""
    if _before:
        former = signal.set_wakeup_fd(_before[0], warn_on_full_buffer=False)
        if former != _pair[0].fileno():  # somebody else's by now
            signal.set_wakeup_fd(former, warn_on_full_buffer=False)
    _drop()


def _drop() -> None:
    for end in _pair:
        end.close()
    _pair.clear()
    _before.clear()


def block() -> None:
    """Before a fork: no signal may come to the child before `in_child` has let go."""
    _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ENDING))


def unblock() -> None:
    """After a fork, in the parent."""
    if _masks:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def in_child() -> None:
    """After a fork, in the child: the place is the parent's, and what is written there would end its scents."""
    with contextlib.suppress(ValueError):
        if _pair:
            signal.set_wakeup_fd(-1)
    _drop()
    unblock()


def _listen_when_idle() -> None:
    """A notebook's kernel ignores an interrupt while it is idle: hear it then too, and do nothing else about it."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    loop: Any = getattr(getattr(shell, "kernel", None), "io_loop", None)
    if loop is None or loop in _idle:
        return
    _idle.append(loop)

    def idle() -> None:
        handler = signal.getsignal(signal.SIGINT)
        if handler is signal.SIG_IGN:
            signal.signal(signal.SIGINT, _hear_only)
        elif handler is not _hear_only:  # a cell is running
            loop.call_later(0.5, idle)

    loop.add_callback(idle)


def _hear_only(number: int, frame: object) -> None:
    """The C handler has told whoever reads."""
