"""The errors that a reader can act on: what was wrong, where, and what to try."""

TRY = "\n  Try: "  # between the two


class SmellkitError(Exception):
    """What happened, then what to try. The command line prints it and exits with 1, without a traceback."""

    def __init__(self, what: str, *, hint: str = ""):
        super().__init__(f"{what}{TRY}{hint}" if hint else what)
        self.what = what
        self.hint = hint

    def _render_traceback_(self) -> list[str]:  # in a notebook: without the way that led there
        return [f"{type(self).__name__}: {self}"]


class DataError(SmellkitError):
    """A recording, table, picture or description that can't be read as what it should be."""


class WeightsError(SmellkitError):
    """A checkpoint that is absent, damaged, or made for a model of another shape."""


class OptionError(SmellkitError):
    """A parameter, option or name that does not exist, or a value of the wrong type."""


class DeviceError(SmellkitError):
    """The scent player or the sensor board did not do what was asked. Subclasses live in `smellkit.device`."""


class WriteError(SmellkitError, OSError):
    """A file that can't be written: the disk is full, or nobody may write there. What was there before is unchanged."""
