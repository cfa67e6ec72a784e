"""An empty Measurement Set as the telescope's recorder makes it, with all its subtables filled.

The recorder names no storage manager, so every column of the main table is in one StandardStMan, and DATA and FLAG,
whose shape is not fixed, are cell after cell in that manager's array file: untiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from casacore import tables as ct

TELESCOPE_NAME = "OVRO_MMA"
"""The name under which casacore's list of observatories, and so wsclean and CASA, know this place."""
SIGMA = 9999.0
WEIGHT = 1.0
CORRELATION_TYPES = (9, 10, 11, 12)
"""XX, XY, YX, YY in casacore's Stokes numbers."""
_TOPOCENTRIC = 5
_HUGE_S = 1e30


@dataclass(frozen=True)
class Recording:
    """One integration of one subband.

    Attributes
    ----------
    antenna_names, positions_m
        Names, and (n_antennas, 3) geocentric positions (ITRF).
    frequency_hz, channel_width_hz
        Centres of the channels, and the width of one.
    start_s, integration_s
        MJD seconds UTC of the start, and the length.
    phase_centre_rad
        Right ascension and declination (J2000).
    fill_level
        Share of the packets that arrived, the table keyword FILL_LEVEL_0.
    """

    antenna_names: tuple[str, ...]
    positions_m: np.ndarray
    frequency_hz: np.ndarray
    channel_width_hz: float
    start_s: float
    integration_s: float
    phase_centre_rad: tuple[float, float]
    fill_level: float = 1.0

    @property
    def centroid_s(self) -> float:
        """MJD seconds UTC of the middle of the integration."""
        return self.start_s + self.integration_s / 2

    @property
    def epoch_year(self) -> float:
        """Julian epoch of the middle, such as 2026.03."""
        return 2000.0 + (self.centroid_s / 86400.0 - 51544.5) / 365.25

    @property
    def baselines(self) -> tuple[np.ndarray, np.ndarray]:
        """ANTENNA1 and ANTENNA2 of each row: for each i, all j >= i (int32)."""
        first, second = np.triu_indices(len(self.antenna_names))
        return first.astype(np.int32), second.astype(np.int32)


def create_recording(path: Path, recording: Recording, uvw_m: np.ndarray) -> ct.table:
    """Make a Measurement Set of one integration; all columns but DATA and FLAG are filled.

    Parameters
    ----------
    path : Path
        Where; nothing may be there.
    recording : Recording
    uvw_m : (n_antennas, 3) float
        UVW of each antenna; a baseline's is that of ANTENNA2 minus that of ANTENNA1.

    Returns
    -------
    casacore table
        Open for writing; the caller writes DATA (complex64) and FLAG, (n_channels, 4) a row, and closes it.
    """
    data = ct.makearrcoldesc("DATA", 0j, valuetype="complex", ndim=2)
    table = ct.default_ms(str(path), ct.maketabdesc([data]))
    first, second = recording.baselines
    n_rows = first.size
    table.addrows(n_rows)
    table.putkeyword("FILL_LEVEL_0", float(recording.fill_level))
    time = np.full(n_rows, recording.start_s)
    length = np.full(n_rows, recording.integration_s)
    zero = np.zeros(n_rows, np.int32)
    columns = {
        "TIME": time,
        "TIME_CENTROID": np.full(n_rows, recording.centroid_s),
        "INTERVAL": length,
        "EXPOSURE": length,
        "ANTENNA1": first,
        "ANTENNA2": second,
        "UVW": uvw_m[second] - uvw_m[first],
        "WEIGHT": np.full((n_rows, 4), WEIGHT, np.float32),
        "SIGMA": np.full((n_rows, 4), SIGMA, np.float32),
        "FLAG_ROW": np.zeros(n_rows, bool),
        "SCAN_NUMBER": zero + 1,
    }
    ids = ("ARRAY_ID", "DATA_DESC_ID", "FEED1", "FEED2", "FIELD_ID", "OBSERVATION_ID", "PROCESSOR_ID", "STATE_ID")
    for name, values in (columns | dict.fromkeys(ids, zero)).items():
        table.putcol(name, values)
    _fill_subtables(path, recording)
    return table


def _fill_subtables(path: Path, recording: Recording) -> None:
    n_antennas, n_channels = len(recording.antenna_names), len(recording.frequency_hz)
    names = list(recording.antenna_names)
    width = np.full(n_channels, recording.channel_width_hz)
    direction = np.array([recording.phase_centre_rad])
    end_s = recording.start_s + recording.integration_s
    antenna_zero = np.zeros(n_antennas, np.int32)
    subtables: dict[str, tuple[int, dict[str, Any]]] = {
        "ANTENNA": (
            n_antennas,
            {
                "NAME": names,
                "STATION": names,
                "TYPE": ["GROUND-BASED"] * n_antennas,
                "MOUNT": ["X-Y"] * n_antennas,
                "POSITION": recording.positions_m,
                "OFFSET": np.zeros((n_antennas, 3)),
                "DISH_DIAMETER": np.full(n_antennas, 2.0),
                "FLAG_ROW": np.zeros(n_antennas, bool),
            },
        ),
        "FEED": (
            n_antennas,
            {
                "ANTENNA_ID": np.arange(n_antennas, dtype=np.int32),
                "FEED_ID": antenna_zero,
                "SPECTRAL_WINDOW_ID": antenna_zero - 1,
                "BEAM_ID": antenna_zero - 1,
                "NUM_RECEPTORS": antenna_zero + 2,
                "TIME": np.full(n_antennas, recording.start_s),
                "INTERVAL": np.full(n_antennas, _HUGE_S),
                "BEAM_OFFSET": np.zeros((n_antennas, 2, 2)),
                "POLARIZATION_TYPE": {"shape": [n_antennas, 2], "array": ["X", "Y"] * n_antennas},
                "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (n_antennas, 1, 1)),
                "POSITION": np.zeros((n_antennas, 3)),
                "RECEPTOR_ANGLE": np.zeros((n_antennas, 2)),
            },
        ),
        "FIELD": (
            1,
            {
                "NAME": "ZENITH",
                "CODE": "",
                "TIME": recording.start_s,
                "NUM_POLY": 0,
                "SOURCE_ID": -1,
                "DELAY_DIR": direction,
                "PHASE_DIR": direction,
                "REFERENCE_DIR": direction,
                "FLAG_ROW": False,
            },
        ),
        "SPECTRAL_WINDOW": (
            1,
            {
                "NAME": "",
                "NUM_CHAN": n_channels,
                "REF_FREQUENCY": float(recording.frequency_hz[n_channels // 2]),
                "CHAN_FREQ": np.asarray(recording.frequency_hz, float),
                "CHAN_WIDTH": width,
                "EFFECTIVE_BW": width,
                "RESOLUTION": width,
                "TOTAL_BANDWIDTH": float(width.sum()),
                "MEAS_FREQ_REF": _TOPOCENTRIC,
                "NET_SIDEBAND": 1,
                "IF_CONV_CHAIN": 0,
                "FREQ_GROUP": 0,
                "FREQ_GROUP_NAME": "",
                "FLAG_ROW": False,
            },
        ),
        "POLARIZATION": (
            1,
            {
                "NUM_CORR": 4,
                "CORR_TYPE": np.array(CORRELATION_TYPES, np.int32),
                "CORR_PRODUCT": np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32),
                "FLAG_ROW": False,
            },
        ),
        "DATA_DESCRIPTION": (1, {"SPECTRAL_WINDOW_ID": 0, "POLARIZATION_ID": 0, "FLAG_ROW": False}),
        "OBSERVATION": (
            1,
            {
                "TELESCOPE_NAME": TELESCOPE_NAME,
                "TIME_RANGE": np.array([recording.start_s, end_s]),
                "OBSERVER": "",
                "PROJECT": "",
                "SCHEDULE_TYPE": "",
                "RELEASE_DATE": 0.0,
                "LOG": np.array([""]),
                "SCHEDULE": np.array([""]),
                "FLAG_ROW": False,
            },
        ),
        "PROCESSOR": (1, {"TYPE": "CORRELATOR", "SUB_TYPE": "", "FLAG_ROW": False}),
        "STATE": (
            1,
            {
                "SIG": True,
                "REF": False,
                "OBS_MODE": "OBSERVE_TARGET",
                "CAL": 0.0,
                "LOAD": 0.0,
                "SUB_SCAN": 0,
                "FLAG_ROW": False,
            },
        ),
    }
    for name, (rows, columns) in subtables.items():
        with ct.table(f"{path}/{name}", readonly=False, ack=False) as table:
            table.addrows(rows)
            for column, value in columns.items():
                if rows == 1:
                    table.putcell(column, 0, value)
                else:
                    table.putcol(column, value)
