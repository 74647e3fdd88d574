"""Broken files, every fault of every kind: refused by name, answered as before, or answered with a word about it."""

import mutations


def test_no_broken_file_is_a_traceback_or_a_silent_change_of_an_answer(own_folders):
    said: list[str] = []
    ends = mutations.run(len(mutations.KINDS) * max(len(kind.faults) for kind in mutations.KINDS), progress=said.append)
    assert not said
    assert ends["refused"] > 300 and ends["same"] > 10 and ends["warned"] > 3
