"""`python -m smellkit.study.mutations --count 1000`: break files by seed, and count answers that change in silence.

What it breaks and how is written in tests/mutations.py, where the tests do the same.
"""

import runpy
import sys

from smellkit import paths

if __name__ == "__main__":
    sys.path.insert(0, str(paths.HOME / "tests"))
    runpy.run_module("mutations", run_name="__main__", alter_sys=True)
