"""The twelve columns of SmellNet's board, by what they are, as its description in data/noses lists them."""

from __future__ import annotations

from smellkit import noses

SMELLNET, MIXTURE = noses.load("smellnet"), noses.load("smellnet-mixture")
SENSORS = tuple(SMELLNET.columns)
RANGES = {name: column.span for name, column in SMELLNET.columns.items()}
GAS = SMELLNET.gas  # the input of the published protocol
GROVE = MIXTURE.gas  # they keep their scale between days; SmellNet-Mixture has these alone
PPM = SMELLNET.of(unit="ppm")  # estimates of the firmware
FULL = RANGES[GROVE[0]][1]  # the largest count of a 10-bit converter
OVERFLOW = 2.0**32 - 1  # what the firmware writes for an estimate that does not fit an unsigned integer
ENVIRONMENT = SENSORS[7:]
