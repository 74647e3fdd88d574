"""How fast recordings become windows: from their files, and from the cache."""

from __future__ import annotations

import time

from smellkit import cache
from smellkit.gcode import data


def reading(folder: str = "") -> dict[str, float]:
    """Seconds until the windows of all recordings are there: `first_s` with an empty cache, `again_s` from it.

    `ratio` is the first over the second. Processor time, so that another job on the machine counts little.
    """

    def seconds() -> float:
        start = time.process_time()
        data.load(folder)
        return time.process_time() - start

    with cache.empty():
        first, again = seconds(), seconds()
    return {"first_s": first, "again_s": again, "ratio": first / again}
