"""A simulated nose, and the sample that it writes: recordings, mixtures, drawings and words that anyone may copy."""

from smellkit.odour.simulate.sample import SEED, Size, write_sample

__all__ = ["SEED", "Size", "write_sample"]
