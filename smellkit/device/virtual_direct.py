"""The player's side of the link that answers: a virtual NeckWear that speaks for itself, with the faults of the other.

What no document says is marked *inferred*; a mixture lasts until it is stopped, because its frame has no duration.
"""

from __future__ import annotations

from typing import Any

from smellkit.device import direct
from smellkit.device.virtual import Air, VirtualNeckWear

MIXTURE = -1  # what `emitting` is while several scents are in the air
_LACKING = (direct.MIX, direct.CARTRIDGES, direct.STATUS, direct.STATE)  # in the order in which a player may lack them


class VirtualDirect(VirtualNeckWear):
    """A NeckWear on its own serial line. It never sleeps; `volumes` is the mixture that it gives now.

    `radio_loss` loses frames on the way to it, `silence` its answers, and `lacks` refuses that many commands.
    """

    volumes: tuple[int, ...] = ()

    def _fresh_parser(self) -> Any:
        return direct.Parser()

    @property
    def air(self) -> list[Air]:
        """Every interval of scent in the air so far, oldest first; the scents of a mixture lie side by side."""
        with self._lock:
            now = super().air
            if self._scent == MIXTURE:
                now = now[:-1] + [Air(channel, self._since) for channel in self._mixed()]
            return now

    def _mixed(self) -> list[int]:
        return [channel for channel, volume in enumerate(self.volumes, 1) if volume]

    def _obey(self, frame: Any, now: float) -> None:
        if self._chance("echo"):
            self._post(now, frame.raw)
        if self._chance("radio_loss") or self._battery <= 0:
            return
        command, data = frame.command, frame.data
        if command in _LACKING[: int(self.faults.get("lacks", 0))]:
            self._say(now, command, b"\x01")
        elif command == direct.STOP:
            self._silence(now)
            self._say(now, command, b"\0")
        elif command == direct.PLAY and len(data) == 6 and 1 <= data[0] <= 12:
            self._play(data[0], int.from_bytes(data[1:5], "big") / 1000, now)
            self._say(now, command, b"\0")
        elif command == direct.MIX and len(data) in (12, 24):
            self._mix(data, now)
            self._say(now, command, b"\0")
        elif command == direct.STATE:
            self._say(now, command, bytes([min(0x0C, 6 + self._scent) if self._scent > 0 else 7 * bool(self._scent)]))
        elif command == direct.DEVICE_ID:
            self._say(now, command, self.uid)
        elif command == direct.CARTRIDGES:
            self._say(now, command, bytes.fromhex("".join(f"{channel:03x}" for channel in range(1, 13))))
        elif command == direct.STATUS:
            scent = max(0, self._scent)
            left = max(0, round(1000 * (self._until - now))) if scent else 0
            self._say(now, command, bytes([195, scent]) + scent.to_bytes(2, "big") + left.to_bytes(4, "big"))
        else:
            self._say(now, command, b"\x01")

    def _mix(self, data: bytes, now: float) -> None:
        """*Inferred*: a mixture takes the place of what plays, and lasts until it is stopped."""
        self._silence(now)
        width = len(data) // 12
        self.volumes = tuple(int.from_bytes(data[at : at + width], "big") for at in range(0, len(data), width))
        for channel in self._mixed():
            self._record("air on", channel)
        self._scent, self._since, self._until = MIXTURE, now, float("inf")

    def _silence(self, now: float) -> None:
        if self._scent != MIXTURE:
            super()._silence(now)
            return
        for channel in self._mixed():
            self._past.append(Air(channel, self._since, now))
            self._record("air off", channel)
        self._scent, self.volumes = 0, ()

    def _account(self, now: float) -> None:
        if self._scent != MIXTURE:
            super()._account(now)

    def _say(self, now: float, command: int, data: bytes) -> None:
        self._answer(now, direct.reply(command, data))
