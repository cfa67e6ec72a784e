"""Power patterns of the dipoles: how much of a source's flux density X and Y receive, by direction and frequency.

A pattern is 1 at the zenith and 0 below the horizon. The signal of an unpolarized source in XX is its flux density
times the power of X, in YY times that of Y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orca.errors import InputError, InvalidDataError, MissingDataError

Floats = NDArray[np.float64]

KEYS = ("freq_Hz", "theta_pts", "phi_pts", "X_pol_Efields", "Y_pol_Efields")
LONGEST_STEP_RAD = np.radians(15.0)
"""A coarser grid in azimuth is no pattern: a dipole's has two maxima and two minima around the horizon."""
_SAME_ANGLE_RAD = 1e-5
"""Angles nearer than this are the same: 0 and 360 degrees in single precision."""
_REMEDY = "It needs the datasets freq_Hz, theta_pts, phi_pts and X_pol_Efields and Y_pol_Efields with etheta and ephi"


class Pattern(Protocol):
    """How the dipoles receive."""

    def power(self, azimuth_rad: ArrayLike, elevation_rad: ArrayLike, freq_hz: ArrayLike) -> Floats:
        """Power relative to the zenith's.

        Parameters
        ----------
        azimuth_rad, elevation_rad : float or array, (n_directions,)
            Azimuth from north through east.
        freq_hz : float or array, (n_freq,)

        Returns
        -------
        (n_directions, n_freq, 2) array
            For X and Y; 1 at the zenith, 0 below the horizon.
        """
        ...


@dataclass(frozen=True)
class SinePattern:
    """sin(elevation) ** exponent in both polarizations, at all frequencies."""

    exponent: float

    def power(self, azimuth_rad: ArrayLike, elevation_rad: ArrayLike, freq_hz: ArrayLike) -> Floats:
        """See `Pattern.power`."""
        _, elevation, freq = _directions(azimuth_rad, elevation_rad, freq_hz)
        power = np.clip(np.sin(elevation), 0, 1) ** self.exponent
        return np.tile(power[:, None, None], (1, freq.size, 2))


ANALYTIC: Pattern = SinePattern(1.6)
"""The "sine beam" of M. Eastwood's TTCal (github.com/mweastwood/TTCal.jl, docs/src/beammodel.md), whose Jones matrices
are sin(elevation) ** 0.8, "a surprisingly good first-order approximation to the LWA beam"; the same as in
github.com/ovro-eovsa/ovro-lwa-solar, analytic_beam."""


@dataclass(frozen=True, eq=False)
class GridPattern:
    """A pattern on a grid: linear in frequency and in both angles, on the power.

    Attributes
    ----------
    path : Path
        The file that it was read from.
    freq_hz : (n_freq,) float
        Increasing.
    theta_rad : (n_theta,) float
        Angle from the zenith, increasing from 0 to the horizon or below.
    phi_rad : (n_phi,) float
        Azimuth, from north through east; increasing, at least 0 and less than 2 pi, all around.
    grid : (n_freq, n_theta, n_phi, 2) float32
        Power in X and Y, relative to the zenith's at the same frequency.
    """

    path: Path
    freq_hz: Floats
    theta_rad: Floats
    phi_rad: Floats
    grid: NDArray[np.float32]

    def power(self, azimuth_rad: ArrayLike, elevation_rad: ArrayLike, freq_hz: ArrayLike) -> Floats:
        """See `Pattern.power`. Raises InputError where the file has no such frequency."""
        azimuth, elevation, freq = _directions(azimuth_rad, elevation_rad, freq_hz)
        if not np.all((freq >= self.freq_hz[0]) & (freq <= self.freq_hz[-1])):
            low, high = self.freq_hz[[0, -1]] / 1e6
            raise InputError(
                f"has no pattern from {freq.min() / 1e6:.6g} to {freq.max() / 1e6:.6g} MHz",
                self.path,
                f"It holds from {low:.6g} to {high:.6g} MHz; take another file, or none for the analytic pattern",
            )
        above, up = _between(self.theta_rad, np.pi / 2 - elevation)
        # around the circle: a last azimuth, one turn after the first
        around = np.append(self.phi_rad, self.phi_rad[0] + 2 * np.pi)
        west, east = _between(around, self.phi_rad[0] + (azimuth - self.phi_rad[0]) % (2 * np.pi))
        following = (west + 1) % self.phi_rad.size
        up, east = up[:, None, None], east[:, None, None]
        at_freq = sum(
            share * np.moveaxis(self.grid[:, theta, phi], 0, 1)
            for share, theta, phi in (
                ((1 - up) * (1 - east), above, west),
                ((1 - up) * east, above, following),
                (up * (1 - east), above + 1, west),
                (up * east, above + 1, following),
            )
        )  # (n_directions, n_freq of the file, 2)
        power = np.asarray(at_freq, float)
        if self.freq_hz.size > 1:
            below, share = _between(self.freq_hz, freq)
            power = (1 - share)[:, None] * power[:, below] + share[:, None] * power[:, below + 1]
        return np.where(elevation[:, None, None] < 0, 0.0, power)


def read_pattern(path: Path | None) -> Pattern:
    """The pattern in a file, or the analytic one if there is no file.

    Such files hold simulated far fields. ``freq_Hz``, ``theta_pts`` and ``phi_pts`` are the axes; the groups (or
    datasets of a compound type) ``X_pol_Efields`` and ``Y_pol_Efields`` hold ``etheta`` and ``ephi``, complex, of shape
    (frequencies, thetas, phis). Power is abs(etheta) ** 2 + abs(ephi) ** 2 of one polarization.

    Theta is the angle from the zenith. **Phi is the azimuth: 0 is north, and it grows through east.** No such file says
    so itself; it is how everybody reads those of OVRO-LWA (OVRO-LWA_soil_pt.h5, OVRO-LWA_MROsoil_updatedheight.h5):
    the observatory's calibration pipelines and github.com/ovro-eovsa/ovro-lwa-solar (primary_beam.py) interpolate in
    (frequency, zenith angle, astropy's azimuth), and the DSA-2000 simulator, which uses the same file, draws phi with
    zero at the top and clockwise. An antenna simulator's own phi, from x = east towards y = north, would be
    90 degrees - azimuth: then X and Y change places. The angles are in radians in those files; angles beyond one turn
    are taken for degrees.

    Parameters
    ----------
    path : Path or None
        An HDF5 file. It is read once, until it changes.

    Returns
    -------
    Pattern

    Raises
    ------
    MissingDataError
        If there is no such file.
    InvalidDataError
        If it is no HDF5 file, lacks a dataset, or holds what cannot be a pattern.
    """
    if path is None:
        return ANALYTIC
    path = Path(path)
    try:
        state = path.stat()
    except OSError as error:
        raise MissingDataError(
            f"cannot be read: {(error.strerror or 'error').lower()}", path, "Name the HDF5 file of the dipoles' pattern"
        ) from error
    return _read(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _read(path: Path, _changed_ns: int, _size: int) -> GridPattern:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            _require(KEYS, list(file), "", path)
            freq, theta, phi = (_axis(file[key], key, path) for key in KEYS[:3])
            shape = (freq.size, theta.size, phi.size)
            power = np.stack([_power(file[key], key, shape, path) for key in KEYS[3:]], axis=-1)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:  # whatever HDF5 makes of broken files
        raise InvalidDataError(f"is no HDF5 file that can be read ({_first_line(error)})", path, _REMEDY) from error
    return _pattern(path, freq, theta, phi, power)


def _require(keys: Sequence[str], there: Sequence[str], inside: str, path: Path) -> None:
    for key in keys:
        if key not in there:
            what = ", ".join(there[:12]) or "nothing"
            raise InvalidDataError(f"has no {inside}{key}; there is {what}", path, _REMEDY)


def _axis(node: Any, key: str, path: Path) -> Floats:
    values = np.asarray(node[()], float).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise InvalidDataError(f"has no numbers in {key}", path, _REMEDY)
    return values


def _power(node: Any, key: str, shape: tuple[int, ...], path: Path) -> Floats:
    """The power of one polarization, of the given shape."""
    fields = list(node) if hasattr(node, "keys") else list(node.dtype.names or ())
    _require(("etheta", "ephi"), fields, f"{key}/", path)
    power = np.zeros(shape)
    for name in ("etheta", "ephi"):
        field = np.asarray(node[name])
        if field.dtype.names and len(field.dtype.names) == 2:  # real and imaginary part, not under h5py's own names
            real, imaginary = (field[part] for part in field.dtype.names)
            field = real + 1j * imaginary
        if field.shape != shape:
            raise InvalidDataError(
                f"has {key}/{name} of shape {field.shape}, not {shape}",
                path,
                "Its axes need to be frequency (freq_Hz), theta (theta_pts) and phi (phi_pts)",
            )
        power += np.abs(field) ** 2
    if not np.isfinite(power).all():
        raise InvalidDataError(f"has values in {key} that are not finite", path, "Mend the file, or make it anew")
    return power


def _pattern(path: Path, freq: Floats, theta: Floats, phi: Floats, power: Floats) -> GridPattern:
    """Bring the axes into order, and normalize."""
    if max(np.ptp(phi), np.abs(theta).max()) > 2 * np.pi + _SAME_ANGLE_RAD:
        theta, phi = np.radians(theta), np.radians(phi)
    phi = phi % (2 * np.pi)
    phi[phi > 2 * np.pi - _SAME_ANGLE_RAD] = 0.0
    axes = []
    for axis, values in enumerate((freq, theta, phi)):
        order = np.argsort(values, kind="stable")
        if axis == 2:  # the same azimuth twice, as 0 and 360 degrees, counts once
            order = order[np.diff(values[order], prepend=-1.0) > _SAME_ANGLE_RAD]
        axes.append(values[order])
        power = np.take(power, order, axis)
    freq, theta, phi = axes
    if abs(theta[0]) > _SAME_ANGLE_RAD or theta[-1] < np.pi / 2 - 1e-3:
        low, high = np.degrees(theta[[0, -1]])
        raise InvalidDataError(
            f"has theta_pts from {low:.4g} to {high:.4g} degrees",
            path,
            "They need to go from the zenith (0) to 90 or more",
        )
    if np.diff(np.append(phi, phi[0] + 2 * np.pi)).max() > LONGEST_STEP_RAD + _SAME_ANGLE_RAD:
        raise InvalidDataError(
            "has phi_pts that leave a gap of more than 15 degrees", path, "They need to go all around the horizon"
        )
    if min(np.diff(freq).min(initial=np.inf), np.diff(theta).min(initial=np.inf)) <= 0 or freq[0] <= 0:
        raise InvalidDataError("has a frequency or a theta twice, or a frequency of zero", path, _REMEDY)
    zenith = power[:, 0].mean(axis=1)  # (n_freq, 2); the direction is the same at all azimuths
    if not zenith.min() > 0:
        raise InvalidDataError("receives nothing from the zenith", path, "Mend the file, or make it anew")
    power /= zenith[:, None, None]
    power[:, 0] = 1.0
    return GridPattern(path, freq, theta, phi, power.astype(np.float32))


def _directions(azimuth_rad: ArrayLike, elevation_rad: ArrayLike, freq_hz: ArrayLike) -> tuple[Floats, Floats, Floats]:
    azimuth, elevation = np.broadcast_arrays(
        np.atleast_1d(np.asarray(azimuth_rad, float)), np.atleast_1d(np.asarray(elevation_rad, float))
    )
    return azimuth, elevation, np.atleast_1d(np.asarray(freq_hz, float))


def _between(points: Floats, values: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Between which points values lie: number of the lower one, and share (0 to 1) of the upper one."""
    lower = np.clip(np.searchsorted(points, values, side="right") - 1, 0, points.size - 2)
    share = (values - points[lower]) / (points[lower + 1] - points[lower])
    return lower, np.clip(share, 0, 1)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
