"""The twelve columns of SmellNet's board, by what they are, as its description in data/noses lists them."""

from smellkit import noses

SMELLNET, MIXTURE = noses.load("smellnet"), noses.load("smellnet-mixture")
SENSORS = tuple(SMELLNET.columns)
GAS = SMELLNET.gas  # the input of the published protocol
GROVE = MIXTURE.gas  # they keep their scale between days; SmellNet-Mixture has these alone
PPM = SMELLNET.of(unit="ppm")  # estimates of the firmware
FULL = float(SMELLNET.columns["CO"].span[1])  # the largest count of a 10-bit converter
OVERFLOW = 2.0**32 - 1  # what the firmware writes for an estimate that does not fit an unsigned integer
ENVIRONMENT = SENSORS[7:]
