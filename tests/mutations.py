"""The faults that tests put into files: they come with the kit."""

from smellkit.study.mutations import *  # noqa: F403
