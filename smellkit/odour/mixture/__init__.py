"""From a window to the ratios of twelve odorants: models, alpha stage, calibration to today's session, prediction."""
