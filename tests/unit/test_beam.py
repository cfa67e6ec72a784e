"""Patterns of the dipoles: the analytic one, and files whose pattern is known."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from orca.beam import ANALYTIC, read_pattern
from orca.errors import InputError, InvalidDataError, MissingDataError
from orca.telescope import SUBBANDS

FREQ_HZ = np.arange(10e6, 101e6, 10e6)
THETA = np.radians(np.arange(0, 91, 2.0))
PHI = np.radians(np.arange(0, 361, 5.0))
Grids = tuple[np.ndarray, np.ndarray, np.ndarray]


def dipole(freq: np.ndarray, theta: np.ndarray, phi: np.ndarray, along: float) -> Grids:
    """Field of a short dipole over no ground, along an azimuth: |E|^2 = 1 - (sin theta cos(phi - along))^2."""
    shape = np.broadcast_shapes(freq.shape, theta.shape, phi.shape)
    return (
        np.broadcast_to(np.cos(theta) * np.cos(phi - along) * (1 + 0j), shape),
        np.broadcast_to(-np.sin(phi - along) * (1 + 0j), shape),
        np.zeros(shape),
    )


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write a file: X a dipole along north-south, Y along east-west, times 1 + `lobe` (of azimuth and zenith angle)."""

    def write(
        name: str = "beam.h5",
        freq: np.ndarray = FREQ_HZ,
        theta: np.ndarray = THETA,
        phi: np.ndarray = PHI,
        unit: float = 1.0,
        lobe: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        level: Callable[[np.ndarray], np.ndarray] = np.ones_like,
        without: str = "",
        compound: bool = False,
    ) -> Path:
        grid = freq[:, None, None], theta[None, :, None], phi[None, None, :]
        voltage = np.sqrt(level(grid[0])) * (1 if lobe is None else np.sqrt(1 + lobe(grid[2], grid[1])))
        with h5py.File(tmp_path / name, "w") as file:
            for key, axis in (("freq_Hz", freq), ("theta_pts", theta * unit), ("phi_pts", phi * unit)):
                if key != without:
                    file[key] = axis
            for key, along in (("X_pol_Efields", 0.0), ("Y_pol_Efields", np.pi / 2)):
                fields = dict(zip(("etheta", "ephi"), dipole(*grid, along)[:2], strict=True))
                fields = {f: v * voltage for f, v in fields.items() if f"{key}/{f}" != without}
                if key == without:
                    continue
                if compound:
                    table = np.zeros(next(iter(fields.values())).shape, [(f, complex) for f in fields])
                    for field, values in fields.items():
                        table[field] = values
                    file[key] = table
                else:
                    for field, values in fields.items():
                        file[f"{key}/{field}"] = values
        return tmp_path / name

    return write


def test_the_analytic_pattern_is_that_of_ttcal() -> None:
    """The square of TTCal's Jones matrix, sin(el) ** (1.6 / 2)."""
    elevation = np.radians([90, 60, 30, 10])
    power = ANALYTIC.power(np.zeros(4), elevation, [30e6, 80e6, 50e6])
    assert power.shape == (4, 3, 2)
    assert power[:, 1, 1] == pytest.approx([1, 0.7944, 0.3299, 0.0607], abs=1e-4)
    assert np.ptp(power, axis=(1, 2)).max() == 0


@pytest.mark.parametrize("from_file", [False, True])
def test_power_is_one_at_the_zenith_and_nothing_below_the_horizon(make: Callable[..., Path], from_file: bool) -> None:
    pattern = read_pattern(make(theta=np.radians(np.arange(0, 181, 2.0))) if from_file else None)
    azimuth = np.radians(np.arange(0, 360, 7))
    np.testing.assert_allclose(pattern.power(azimuth, np.pi / 2, [55e6]), 1, rtol=1e-6)
    assert not pattern.power(azimuth, -0.01, [55e6]).any()


def test_azimuth_runs_from_north_through_east(make: Callable[..., Path]) -> None:
    """A lobe at phi = 70 degrees is met by a source in the east-north-east, and by none of its mirror images."""
    lobe = np.radians(70)
    path = make(lobe=lambda phi, theta: 9 * np.exp(4 * (np.cos(phi - lobe) - 1)) * np.sin(theta))
    plain = read_pattern(make("plain.h5"))
    elevation = np.radians(40)

    def excess(azimuth_deg: float) -> np.ndarray:
        direction = np.radians(azimuth_deg), elevation, [55e6]
        return read_pattern(path).power(*direction)[0, 0] / plain.power(*direction)[0, 0] - 1

    assert excess(70) == pytest.approx([9 * np.sin(np.radians(50))] * 2, rel=0.01)
    for mirrored in (-70, 90 - 70, 180 - 70, 180 + 70, 90 + 70):  # other directions of turn, and other zeros
        assert (excess(mirrored) < 0.85 * excess(70)).all()
    azimuths = np.arange(0, 360, 5)
    assert azimuths[np.argmax([excess(azimuth)[0] for azimuth in azimuths])] == 70


def test_x_is_blind_to_north_and_y_to_east(make: Callable[..., Path]) -> None:
    """As the dipoles of this file are laid: x and y are not exchanged."""
    power = read_pattern(make()).power(np.radians([0, 90, 180, 270]), np.radians(2), [50e6])[:, 0]
    assert power == pytest.approx(np.array([[0.0012, 1], [1, 0.0012]] * 2), abs=1e-4)


def test_between_the_points_it_is_close_to_the_formula(make: Callable[..., Path]) -> None:
    rng = np.random.default_rng(1)
    azimuth, elevation = rng.uniform(-np.pi, 3 * np.pi, 300), rng.uniform(0, np.pi / 2, 300)
    power = read_pattern(make()).power(azimuth, elevation, SUBBANDS[9].frequencies_hz(4))
    along = np.cos(elevation)[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    np.testing.assert_allclose(power, np.repeat((1 - along**2)[:, None], 4, axis=1), atol=3e-3)


def test_it_is_linear_in_frequency_after_the_normalization(make: Callable[..., Path]) -> None:
    level = make("level.h5", level=lambda freq: (freq / 1e6) ** 3)  # the same at the zenith, so no difference
    assert read_pattern(level).power(1, 0.7, 42e6) == pytest.approx(read_pattern(make()).power(1, 0.7, 42e6), rel=1e-5)
    path = make("broad.h5")
    with h5py.File(path, "a") as file:  # twice the power away from the zenith, at the highest frequency
        for key in ("X_pol_Efields/etheta", "X_pol_Efields/ephi"):
            values = file[key][:]
            values[-1, 1:] *= np.sqrt(2)
            file[key][:] = values
    power = read_pattern(path).power(1, 0.7, [90e6, 92.5e6, 95e6, 100e6])[0, :, 0]
    assert power / power[0] == pytest.approx([1, 1.25, 1.5, 2], rel=1e-5)


def test_it_goes_around_the_circle_without_a_step(make: Callable[..., Path]) -> None:
    open_circle = make(phi=np.radians(np.arange(0, 360, 5.0)), lobe=lambda phi, _: 0.5 * np.sin(phi))
    pattern = read_pattern(open_circle)
    azimuth = np.radians([357.5, -2.5, 717.5, 2.5])
    power = pattern.power(azimuth, 0.5, [50e6])[:, 0]
    np.testing.assert_allclose(power[1:3], power[[0, 0]], rtol=1e-9)
    middle = pattern.power(np.radians([355, 0]), 0.5, [50e6])[:, 0].mean(axis=0)
    assert power[0] == pytest.approx(middle)
    turned = read_pattern(
        make("turned.h5", phi=np.radians(np.arange(-180, 181, 5.0)), lobe=lambda p, _: 0.5 * np.sin(p))
    )
    np.testing.assert_allclose(turned.power(azimuth, 0.5, [50e6])[:, 0], power, rtol=1e-6)


@pytest.mark.parametrize(
    "variant", [{"unit": 180 / np.pi}, {"compound": True}, {"phi": PHI[:-1]}, {"freq": FREQ_HZ[::-1]}]
)
def test_other_ways_of_writing_the_same_pattern_are_read(make: Callable[..., Path], variant: dict) -> None:
    direction = np.radians([10, 200, 359]), np.radians([20, 45, 80]), [33e6, 77e6]
    expected = read_pattern(make()).power(*direction)
    np.testing.assert_allclose(read_pattern(make("b.h5", **variant)).power(*direction), expected, rtol=1e-5)


@pytest.mark.parametrize("freq_hz", [9e6, 101e6, [50e6, 150e6], np.nan])
def test_a_frequency_that_the_file_has_not_is_refused(make: Callable[..., Path], freq_hz: object) -> None:
    with pytest.raises(InputError, match=r"beam\.h5: has no pattern.*10 to 100 MHz"):
        read_pattern(make()).power(0, 1, freq_hz)


@pytest.mark.parametrize("key", ["freq_Hz", "theta_pts", "phi_pts", "X_pol_Efields", "Y_pol_Efields/ephi"])
def test_what_is_missing_is_named(make: Callable[..., Path], key: str) -> None:
    with pytest.raises(InvalidDataError, match=rf"beam\.h5: has no {key}.*It needs the datasets"):
        read_pattern(make(without=key))


def test_what_is_there_instead_is_told(make: Callable[..., Path]) -> None:
    path = make()
    with h5py.File(path, "a") as file:
        file.move("X_pol_Efields", "X-pol_Efields")
    with pytest.raises(InvalidDataError, match="has no X_pol_Efields; there is X-pol_Efields, Y_pol_Efields, freq_Hz"):
        read_pattern(path)


def test_files_that_are_no_patterns_are_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.h5"):
        read_pattern(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InvalidDataError, match=r"text\.h5: is no HDF5 file"):
        read_pattern(tmp_path / "text.h5")
    with pytest.raises(InvalidDataError, match="is no HDF5 file"):
        read_pattern(tmp_path)
    cut = make("cut.h5")
    os.truncate(cut, cut.stat().st_size // 2)
    with pytest.raises(InvalidDataError, match=r"cut\.h5"):
        read_pattern(cut)
    with pytest.raises(InvalidDataError, match="theta_pts from 10 to 90"):
        read_pattern(make("ring.h5", theta=np.radians(np.arange(10, 91, 2.0))))
    with pytest.raises(InvalidDataError, match="leave a gap"):
        read_pattern(make("quadrant.h5", phi=np.radians(np.arange(0, 91, 5.0))))
    with pytest.raises(InvalidDataError, match="nothing from the zenith"):
        read_pattern(make("dark.h5", level=lambda freq: 0 * freq))
    with pytest.raises(InvalidDataError, match="not finite"):
        read_pattern(make("nan.h5", level=lambda freq: np.where(freq > 50e6, np.nan, 1.0)))
    with pytest.raises(InvalidDataError, match="twice"):
        read_pattern(make("twice.h5", freq=np.array([10e6, 10e6, 90e6])))
    swapped = make("swapped.h5")
    with h5py.File(swapped, "a") as file:
        values = file["Y_pol_Efields/ephi"][:]
        del file["Y_pol_Efields/ephi"]
        file["Y_pol_Efields/ephi"] = values.transpose(2, 1, 0)
    with pytest.raises(InvalidDataError, match=r"Y_pol_Efields/ephi of shape \(73, 46, 10\), not \(10, 46, 73\)"):
        read_pattern(swapped)


def test_a_file_is_read_once_until_it_changes(make: Callable[..., Path]) -> None:
    first = read_pattern(make())
    assert read_pattern(first.path) is first  # type: ignore[attr-defined]
    path = make(lobe=lambda phi, theta: np.sin(theta) + 0 * phi)
    os.utime(path, ns=(1, 1))
    second = read_pattern(path)
    assert second is not first
    assert (second.power(0.3, 0.5, 50e6) > 1.2 * first.power(0.3, 0.5, 50e6)).all()
