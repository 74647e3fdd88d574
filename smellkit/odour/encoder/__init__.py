"""Name the substance in a window of sensor values: protocol, models, benchmark, audit, calibration, prediction."""
