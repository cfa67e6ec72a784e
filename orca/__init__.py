"""ORCA: calibrated, flagged, averaged and imaged data from the OVRO-LWA telescope."""

__version__ = "0.1.0"
