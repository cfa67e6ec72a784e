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
    single = _single_rows(recording)
    many = {"ANTENNA": _antenna_columns(recording), "FEED": _feed_columns(recording)}
    for name, cells in single.items():
        with ct.table(f"{path}/{name}", readonly=False, ack=False) as table:
            table.addrows(1)
            for column, value in cells.items():
                table.putcell(column, 0, value)
    for name, columns in many.items():
        with ct.table(f"{path}/{name}", readonly=False, ack=False) as table:
            table.addrows(len(recording.antenna_names))
            for column, values in columns.items():
                table.putcol(column, values)


def _antenna_columns(recording: Recording) -> dict[str, Any]:
    n = len(recording.antenna_names)
    return {
        "NAME": list(recording.antenna_names),
        "STATION": list(recording.antenna_names),
        "TYPE": ["GROUND-BASED"] * n,
        "MOUNT": ["X-Y"] * n,
        "POSITION": recording.positions_m,
        "OFFSET": np.zeros((n, 3)),
        "DISH_DIAMETER": np.full(n, 2.0),
        "FLAG_ROW": np.zeros(n, bool),
    }


def _feed_columns(recording: Recording) -> dict[str, Any]:
    n = len(recording.antenna_names)
    zero = np.zeros(n, np.int32)
    return {
        "ANTENNA_ID": np.arange(n, dtype=np.int32),
        "FEED_ID": zero,
        "SPECTRAL_WINDOW_ID": zero - 1,
        "BEAM_ID": zero - 1,
        "NUM_RECEPTORS": zero + 2,
        "TIME": np.full(n, recording.start_s),
        "INTERVAL": np.full(n, _HUGE_S),
        "BEAM_OFFSET": np.zeros((n, 2, 2)),
        "POLARIZATION_TYPE": {"shape": [n, 2], "array": ["X", "Y"] * n},
        "POL_RESPONSE": np.tile(np.eye(2, dtype=np.complex64), (n, 1, 1)),
        "POSITION": np.zeros((n, 3)),
        "RECEPTOR_ANGLE": np.zeros((n, 2)),
    }


def _single_rows(recording: Recording) -> dict[str, dict[str, Any]]:
    """The only row of each of the subtables that have one."""
    n_channels = len(recording.frequency_hz)
    width = np.full(n_channels, recording.channel_width_hz)
    direction = np.array([recording.phase_centre_rad])
    window = {
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
    }
    polarization = {
        "NUM_CORR": len(CORRELATION_TYPES),
        "CORR_TYPE": np.array(CORRELATION_TYPES, np.int32),
        "CORR_PRODUCT": np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32),
    }
    observation = {
        "TELESCOPE_NAME": TELESCOPE_NAME,
        "TIME_RANGE": np.array([recording.start_s, recording.start_s + recording.integration_s]),
        "OBSERVER": "",
        "PROJECT": "",
        "SCHEDULE_TYPE": "",
        "RELEASE_DATE": 0.0,
        "LOG": np.array([""]),
        "SCHEDULE": np.array([""]),
    }
    field = {"NAME": "ZENITH", "CODE": "", "TIME": recording.start_s, "NUM_POLY": 0, "SOURCE_ID": -1}
    field |= dict.fromkeys(("DELAY_DIR", "PHASE_DIR", "REFERENCE_DIR"), direction)
    state = {"SIG": True, "REF": False, "OBS_MODE": "OBSERVE_TARGET", "CAL": 0.0, "LOAD": 0.0, "SUB_SCAN": 0}
    rows: dict[str, dict[str, Any]] = {
        "FIELD": field,
        "SPECTRAL_WINDOW": window,
        "POLARIZATION": polarization,
        "DATA_DESCRIPTION": {"SPECTRAL_WINDOW_ID": 0, "POLARIZATION_ID": 0},
        "OBSERVATION": observation,
        "PROCESSOR": {"TYPE": "CORRELATOR", "SUB_TYPE": ""},
        "STATE": state,
    }
    return {name: row | {"FLAG_ROW": False} for name, row in rows.items()}
