"""The truth beside simulated data: gains as arrays and as CASA tables, and the sky of each integration."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from orca import naming, sky, telescope
from orca.calibration.tables import make_solutions, write_table
from orca.errors import InvalidDataError
from orca.ms.layout import Recording

FOLDER = "truth"


@dataclass(frozen=True)
class Truth:
    """The gains of a subband: gains = exp(+2 pi i delay (frequency - delay_reference_hz)) * bandpass.

    Attributes
    ----------
    antenna_names : tuple of n_antennas str
    frequency_hz : (n_channels,) float
    gains : (n_antennas, n_channels, 2) complex64
        0 for what is dead. Their phase is continuous over the subbands.
    bandpass : like gains
        Without the delay, whose phase between `delay_reference_hz` and the frequency at which the simulated delays turn
        none is left in it.
    delays_ns : (n_antennas, 2) float
    delay_reference_hz : float
        The middle of the channels, as in the table of delays.
    dead_polarizations : (n_antennas, 2) bool
        X and Y that hear nothing.
    """

    antenna_names: tuple[str, ...]
    frequency_hz: np.ndarray
    gains: np.ndarray
    bandpass: np.ndarray
    delays_ns: np.ndarray
    delay_reference_hz: float
    dead_polarizations: np.ndarray

    @property
    def dead(self) -> np.ndarray:
        """Antennas that hear nothing in either polarization, (n_antennas,) bool."""
        return np.asarray(self.dead_polarizations.all(axis=1))


@dataclass(frozen=True)
class TruthPaths:
    """Where the truth of a subband is: arrays, and CASA tables of kind B Jones and K Jones."""

    arrays: Path
    bandpass: Path
    delay: Path


def truth_paths(root: Path, subband: str) -> TruthPaths:
    """The files that `write` makes for a subband below the root of simulated data."""
    folder = Path(root) / FOLDER
    return TruthPaths(
        folder / f"{subband}.truth.npz", folder / f"{subband}.truth.bandpass", folder / f"{subband}.truth.delay"
    )


def sky_path(root: Path, observation: naming.Observation) -> Path:
    """The JSON file with the sources of an integration."""
    return Path(root) / FOLDER / f"{naming.stamp(observation.start)}_{observation.subband}.sky.json"


def make_truth(
    antenna_names: tuple[str, ...],
    frequency_hz: np.ndarray,
    gains: np.ndarray,
    delays_ns: np.ndarray,
    dead_polarizations: np.ndarray,
) -> Truth:
    """Take gains (n_antennas, n_channels, 2) apart into bandpass and delays (n_antennas, 2)."""
    reference = float(np.mean(frequency_hz))
    turns = delays_ns[:, None, :] * 1e-9 * (frequency_hz - reference)[None, :, None]
    gains = np.where(dead_polarizations[:, None, :], 0, gains)
    return Truth(
        antenna_names,
        np.asarray(frequency_hz, float),
        gains.astype(np.complex64),
        (gains * np.exp(-2j * np.pi * turns)).astype(np.complex64),
        delays_ns,
        reference,
        dead_polarizations,
    )


def read_truth(root: Path, subband: str) -> Truth:
    """Read back what `write` wrote. Raises InvalidDataError for the file of an older simulator."""
    path = truth_paths(root, subband).arrays
    with np.load(path) as file:
        arrays = dict(file)
    if set(arrays) != {field.name for field in fields(Truth)}:
        raise InvalidDataError("is of another version of the simulator", path, "Simulate again, with --force")
    return Truth(
        antenna_names=tuple(str(name) for name in arrays.pop("antenna_names")),
        delay_reference_hz=float(arrays.pop("delay_reference_hz")),
        **arrays,
    )


def contradicts(root: Path, subband: str, truth: Truth) -> Path | None:
    """The file that holds other gains for this subband, from an earlier simulation; None if there is none."""
    path = truth_paths(root, subband).arrays
    if not path.is_file():
        return None
    try:
        old = read_truth(root, subband)
    except InvalidDataError:
        return path
    same = old.antenna_names == truth.antenna_names and np.array_equal(old.gains, truth.gains)
    return None if same and np.array_equal(old.frequency_hz, truth.frequency_hz) else path


def write(root: Path, subband: str, truth: Truth, recording: Recording, like_ms: Path) -> None:
    """Write the gains of a subband: arrays (npz) and the two CASA tables."""
    paths = truth_paths(root, subband)
    paths.arrays.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        paths.arrays,
        antenna_names=np.array(truth.antenna_names),
        frequency_hz=truth.frequency_hz,
        gains=truth.gains,
        bandpass=truth.bandpass,
        delays_ns=truth.delays_ns,
        delay_reference_hz=np.array(truth.delay_reference_hz),
        dead_polarizations=truth.dead_polarizations,
    )
    for kind, path, values in (
        ("B Jones", paths.bandpass, np.where(truth.bandpass == 0, 1, truth.bandpass)),
        ("K Jones", paths.delay, truth.delays_ns[:, None, :]),
    ):
        solutions = make_solutions(
            kind,
            values,
            time_s=recording.centroid_s,
            antenna_names=truth.antenna_names,
            frequency_hz=truth.frequency_hz,
            channel_width_hz=recording.channel_width_hz,
            flags=np.broadcast_to(truth.dead_polarizations[:, None, :], values.shape),
        )
        write_table(path, solutions, like_ms)


def write_sky(
    root: Path,
    observation: naming.Observation,
    recording: Recording,
    sources: list[sky.SourceUp],
    apparent_jy: np.ndarray,
) -> None:
    """Write the sources of an integration: flux density at the middle channel, place in the sky, and l, m.

    `flux_jy` is what a source emits; `apparent_jy` what an image in Stokes I shows, which the dipoles have weakened.

    Parameters
    ----------
    apparent_jy : (n_sources, n_channels, 2) float
        What X and Y see of each source.
    """
    middle = len(recording.frequency_hz) // 2
    frequency = recording.frequency_hz[middle]
    entries = []
    for source, seen in zip(sources, apparent_jy, strict=True):
        l, m, n = telescope.lmn(source.ra_rad, source.dec_rad, *recording.phase_centre_rad)
        entries.append(
            {
                "name": source.name,
                "ra_rad": source.ra_rad,
                "dec_rad": source.dec_rad,
                "apparent_jy": float(seen[middle].mean()),
                "flux_jy": float(source.flux_jy(np.array([frequency]), sky.epoch_year(recording.centroid_s))[0]),
                "azimuth_deg": source.azimuth_deg,
                "elevation_deg": source.elevation_deg,
                "l": float(l),
                "m": float(m),
                "n": float(n),
            }
        )
    text = {
        "subband": observation.subband,
        "start": observation.start.isoformat(),
        "centroid_s": recording.centroid_s,
        "phase_centre_rad": list(recording.phase_centre_rad),
        "frequency_hz": float(frequency),
        "sources": entries,
    }
    path = sky_path(root, observation)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(text, indent=1) + "\n")
