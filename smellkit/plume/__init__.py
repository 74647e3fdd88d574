"""Plumes of two gases: masks of CO2 and CH4 in paired frames, and the health of the rumen (FUME, arXiv 2601.08205)."""

GASES = ("co2", "ch4")
CLASSES = ("Healthy", "Transitional", "Acidotic")
BACKGROUND, TUBE, GAS = 0, 1, 2  # values of a mask
