"""The 155 continuous and 4 categorical channels of the published system, by node and by modality."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smellkit.errors import OptionError
from smellkit.options import nearest

OPERATIONS = (  # class number = place in this list
    "adaptive",
    "adaptive150025",
    "face",
    "face150025",
    "pocket",
    "pocket150025",
    "damageadaptive",
    "damageface",
    "damagepocket",
)
NODES = {  # what the published rules select from each sensor node
    "frame_b2": "Ax Ay Az ColorA Gx Gy Gz Mx Mz Pressure Proximity",
    "frame_l2": "Ax Ay Az ColorA ColorR Gx Gy Gz Mx My Mz Pressure Proximity",
    "frame_l3": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity RMS",
    "frame_r1": "Ax Ay Az ColorA ColorG Gx Gy Gz Mx My Mz Pressure Proximity",
    "frame_r2": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity",
    "spindle1": "Ax Ay Az Gx Gy Gz My Mz Pressure RMS Temperature",
    "spindle2": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure",
    "xa_motor": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure RMS",
    "y_bed__1": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity Temperature",
    "y_bed__2": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity RMS",
    "y_bed__3": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity",
    "y_bed__4": "Ax Ay Az ColorA Gx Gy Gz Mx My Mz Pressure Proximity RMS Temperature",
}
POSITION = ("mpox", "mpoy", "mpoz")  # mm, from the controller: it nearly gives the line away
CURRENT = ("spindle_A", "x_motor_A", "y_motor_A", "z_motor_A")
CONTINUOUS = tuple(
    sorted([*POSITION, *CURRENT, *(f"{node}.{name}" for node, names in NODES.items() for name in names.split())])
)
CATEGORICAL = ("stat", "unit", "dist", "coor")
LABEL, CLOCK = "gcode_string", "t_console"
PLACES = [CONTINUOUS.index(name) for name in POSITION]  # where the position is among the 155

_KINDS = {
    "A": "accelerometer",
    "G": "gyroscope",
    "M": "magnetometer",
    "Pressure": "pressure",
    "Temperature": "temperature",
    "Proximity": "proximity",
    "Color": "colour",
    "RMS": "microphone",
}
CHANNELS = ("all", "no-position", "no-position-z", "centred")


def modality(channel: str) -> str:
    """Which kind of sensor a continuous channel is: one of the values of `MODALITIES`."""
    if channel in POSITION:
        return "position"
    if channel in CURRENT:
        return "current"
    quantity = channel.split(".")[1]
    return next(kind for start, kind in reversed(_KINDS.items()) if quantity.startswith(start))


def node(channel: str) -> str:
    """The sensor node of a continuous channel; the controller's own are `position` and `current`."""
    return channel.split(".")[0] if "." in channel else modality(channel)


MODALITIES = tuple(dict.fromkeys(modality(channel) for channel in CONTINUOUS))


def keep(channels: str = "all", *, without: str = "") -> NDArray[np.bool_]:
    """Which of the 155 channels are used, as a mask: a channel set, less the modalities in `without` (commas).

    `all`; `no-position` leaves out machine position; `no-position-z` also standardises every recording by itself;
    `centred` standardises like that but keeps the position, in mm from the middle of the recording.
    """
    if channels not in CHANNELS:
        raise OptionError(f"There is no channel set {channels!r}", hint=nearest(channels, CHANNELS))
    gone = {name.strip() for name in without.split(",") if name.strip()}
    for name in gone - set(MODALITIES):
        raise OptionError(f"There is no modality {name!r}", hint=nearest(name, MODALITIES))
    if channels.startswith("no-position"):
        gone.add("position")
    return np.array([modality(channel) not in gone for channel in CONTINUOUS])
