"""The faults that tests put into files: they come with the kit."""

from smellkit.study.faults import *  # noqa: F403
