"""The twelve columns of the electronic nose, listed here and nowhere else: what each sensor is and what it may say."""

from __future__ import annotations

FULL = 1023.0  # the largest count of a 10-bit converter
RANGES = {  # column -> lowest and highest value, in the order of the files
    "NO2": (0.0, FULL),  # counts of the Grove multichannel sensor v2, over a load resistor
    "C2H5OH": (0.0, FULL),
    "VOC": (0.0, FULL),
    "CO": (0.0, FULL),
    "Alcohol": (0.0, 65535.0),  # "ppm" of an uncalibrated regression: MQ-135
    "LPG": (0.0, 65535.0),  # MQ-9
    "Benzene": (0.0, 65535.0),  # MQ-3: overflows in a third of the rows, so it is not one of GAS
    "Temperature": (-150.0, 150.0),  # degrees Celsius, BME680; wide enough for what a stuck sensor says
    "Pressure": (0.0, 1200.0),  # hPa
    "Humidity": (0.0, 100.0),  # %
    "Gas_Resistance": (0.0, 1e6),  # kOhm
    "Altitude": (-2000.0, 50000.0),  # m, from the pressure
}
SENSORS = tuple(RANGES)
GROVE = SENSORS[:4]  # they keep their scale between days; SmellNet-Mixture has these alone
GAS = SENSORS[:6]  # the input of the published protocol
PPM = SENSORS[4:7]  # estimates of the firmware
OVERFLOW = 2.0**32 - 1  # what the firmware writes for an estimate that does not fit an unsigned integer
ENVIRONMENT = SENSORS[7:]
