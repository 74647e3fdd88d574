"""Silence when the program ends: at its normal end and on SIGTERM, which would skip both `finally` and `atexit`."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import weakref
from typing import Protocol


class Player(Protocol):
    """Something that may leave a scent in the air."""

    def close(self) -> None: ...


# The process has one end, so there is one set of players and one handler.
_players: weakref.WeakSet[Player] = weakref.WeakSet()
_before: dict[int, object] = {}  # what handled SIGTERM before, by process: a forked child is not ours to end


def watch(player: Player) -> None:
    """Close `player` when the program ends, unless `forget` came first."""
    _players.add(player)
    atexit.unregister(_close_all)  # once is enough
    atexit.register(_close_all)
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is not _on_term:
        _before[os.getpid()] = signal.signal(signal.SIGTERM, _on_term)


def forget(player: Player) -> None:
    """It was closed; the last one gives the signal handler back."""
    _players.discard(player)
    on_main = threading.current_thread() is threading.main_thread()
    if not _players and on_main and signal.getsignal(signal.SIGTERM) is _on_term:
        signal.signal(signal.SIGTERM, _before.pop(os.getpid(), None) or signal.SIG_DFL)  # type: ignore[arg-type]


def _close_all() -> None:
    for player in list(_players):
        player.close()


def _on_term(number: int, frame: object) -> None:
    before = _before.get(os.getpid())
    try:
        _close_all()
    finally:
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
