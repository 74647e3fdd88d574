"""What a person has to look at before a run, because the link can't tell: cartridges, power, radio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def lines(scents: Iterable[int] = (), *, names: Sequence[str] = ()) -> list[str]:
    """Return the list to go through. `scents` are the ones that will play; `names` the 12 of the cartridges."""
    used = sorted(set(scents))
    which = ", ".join(_say(scent, names) for scent in used) if used else "all 12"
    return [
        f"Cartridges {which} are in their slots (worn: 1 to 6 left, 7 to 12 right) and not empty: smell each one.",
        "The NeckWear is charged and switched on; its battery can't be asked over this link.",
        "The handset is plugged in, nothing else uses its port, and `smellkit neckwear probe` answers.",
        "Handset and NeckWear are on the same radio channel, within a few metres.",
        "The wearer has agreed to these scents, has no known allergy to them, and can take the device off.",
        "The room is aired. Nothing confirms a stop: a play ends by its own timer within 10 s at the latest.",
    ]


def _say(scent: int, names: Sequence[str]) -> str:
    return f"{scent} ({names[scent - 1]})" if len(names) >= scent else str(scent)
