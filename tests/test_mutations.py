"""Broken files, every fault of every kind: refused by name, answered as before, or answered with a word about it."""

import functools
from collections import Counter

import mutations
import pytest

KINDS = range(len(mutations.KINDS))
EACH = max(len(kind.faults) for kind in mutations.KINDS)  # as many broken files of each kind, and all faults of it


@functools.cache
def broken(kind):
    """What went wrong with broken files of the kind at a place, and how many ended how."""
    said: list[str] = []
    return said, mutations.run(EACH, kinds=mutations.KINDS[kind : kind + 1], progress=said.append)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: mutations.KINDS[kind].name)
def test_no_broken_file_is_a_traceback_or_a_silent_change_of_an_answer(own_folders, kind):
    said, ends = broken(kind)
    assert not said
    assert ends["refused"] > EACH / 4


def test_most_faults_are_refused_some_do_not_matter_and_some_are_warned_of(own_folders):
    ends = sum((broken(kind)[1] for kind in KINDS), Counter())
    assert ends["refused"] > 300 and ends["same"] > 10 and ends["warned"] > 3
