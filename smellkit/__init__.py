"""smellkit: from a gas-sensor recording to a scent that someone can smell.

>>> from smellkit import NeckWear, Nose, Pipeline
"""

from pkgutil import resolve_name
from typing import Any

__version__ = "0.1.0"
_LAZY = {  # name -> "module:attribute": importing the kit itself loads neither torch nor a serial port
    "Pipeline": "smellkit.odour.pipeline:Pipeline",
    "NeckWear": "smellkit.device.neckwear:NeckWear",
    "Nose": "smellkit.device.enose:Nose",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'smellkit' has no attribute {name!r}")
    return resolve_name(_LAZY[name])


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
