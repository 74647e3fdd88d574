"""Two gases over a cow's rumen fluid, seen by two cameras: where the plume is, and whether the rumen is healthy."""
