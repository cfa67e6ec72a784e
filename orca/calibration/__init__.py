"""Calibration: tables in CASA's format, and what they do to visibilities."""
