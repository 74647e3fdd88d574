"""smellkit: from a gas-sensor recording to a scent that someone can smell."""

__version__ = "0.1.0"
