"""Finding RFI: AOFlagger on the image of each baseline, time x frequency, of all integrations of a block together.

AOFlagger holds the interpreter's lock: one process for each core, not threads.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import aoflagger
import numba
import numpy as np

from orca.errors import InputError, InvalidDataError, MissingDataError


def default_strategy() -> Path:
    """ORCA's own strategy, a Lua script, written for this telescope."""
    return Path(str(resources.files("orca").joinpath("data", "lwa-rfi.lua")))


def check_strategy(path: Path | None) -> Path:
    """The strategy to use, after a look whether AOFlagger takes it.

    Raises
    ------
    MissingDataError, InvalidDataError
        There is no such file, or it fails on an image of noise.
    """
    strategy = path or default_strategy()
    if not strategy.is_file():
        raise MissingDataError("there is no such strategy", strategy, "Give a Lua script of AOFlagger")
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(8, 1, 16, 4, 2)).astype(np.float32).view(np.complex64)[..., 0]
    Flagger(strategy, 8, 16, 4).flag(noise, np.zeros(noise.shape, bool), [0])
    return strategy


class Flagger:
    """AOFlagger with one strategy, for blocks of one shape.

    Parameters
    ----------
    strategy : Path
    n_times, n_channels, n_correlations : int
        1, 2 or 4 correlations: of four, XX, XY, YX and YY in this order.

    Raises
    ------
    InvalidDataError
        AOFlagger cannot load the strategy.
    InputError
        It cannot look at so many correlations.
    """

    def __init__(self, strategy: Path, n_times: int, n_channels: int, n_correlations: int) -> None:
        if n_correlations not in (1, 2, 4):
            raise InputError(f"AOFlagger takes 1, 2 or 4 correlations, not {n_correlations}")
        self._path = strategy
        self._images = _new_images(n_times, n_channels, 2 * n_correlations)
        self._parts = np.empty((2 * n_correlations, n_channels, n_times))
        self._known = np.empty((n_channels, n_times), bool)
        self._program = aoflagger.AOFlagger()
        try:
            self._strategy = self._program.load_strategy_file(str(strategy))
        except (RuntimeError, ValueError) as error:
            raise InvalidDataError(_reason(error), strategy, "Give a Lua script of AOFlagger") from error

    def flag(self, data: np.ndarray, flag: np.ndarray, rows: list[int]) -> int:
        """Flag what a strategy finds in some rows, in all correlations.

        Parameters
        ----------
        data : (n_times, n_rows, n_channels, n_correlations) complex64
        flag : like data, bool
            What is flagged already is told to the strategy, and stays flagged. Changed in place.
        rows : list of int
            Rows (baselines) to look at.

        Returns
        -------
        int
            Samples that were not flagged before.

        Raises
        ------
        InvalidDataError
            The strategy fails.
        """
        parts = data.view(np.float32).reshape(*data.shape, 2)
        found = 0
        for row in rows:
            known = _draw(parts, flag, row, self._parts, self._known)
            for number, part in enumerate(self._parts):
                self._images.set_image_buffer(number, part)
            mask = self._run(known)
            found += _mark(mask, flag, row)
        return found

    def _run(self, known: bool) -> np.ndarray:
        """Run the strategy; (n_channels, n_times) bool."""
        try:
            if not known:
                return np.asarray(self._strategy.run(self._images).get_buffer())
            mask = self._program.make_flag_mask(self._images.width(), self._images.height())
            mask.set_buffer(self._known)
            return np.asarray(self._strategy.run(self._images, mask).get_buffer())
        except RuntimeError as error:
            raise InvalidDataError(_reason(error), self._path, "Mend the strategy, or use another one") from error


def _new_images(n_times: int, n_channels: int, count: int) -> aoflagger.ImageSet:
    return aoflagger.AOFlagger().make_image_set(n_times, n_channels, count)


def _reason(error: Exception) -> str:
    """What AOFlagger or Lua says, in one line."""
    return f"AOFlagger cannot use it: {' '.join(str(error).split()).rstrip('.')}"[:300]


@numba.njit(
    "b1(Array(f4, 5, 'C', aligned=True), Array(b1, 4, 'C', aligned=True), i8, f8[:, :, ::1], b1[:, ::1])",
    cache=True,
    nogil=True,
)
def _draw(parts: np.ndarray, flag: np.ndarray, row: int, images: np.ndarray, known: np.ndarray) -> bool:
    """Images (2 n_correlations, n_channels, n_times) of a row, and what is flagged in it; True if anything is.

    Flagged samples take the value of their channel's last one that is not, else that of the last such channel: a
    strategy that does not look at flags finds nothing in them then.
    """
    n_times, _, n_channels, n_correlations, _ = parts.shape
    some = False
    last = np.full(n_channels, -1)
    good = (0, 0)
    for t in range(n_times):
        for c in range(n_channels):
            is_known = False
            for k in range(n_correlations):
                is_known |= flag[t, row, c, k]
            known[c, t] = is_known
            some |= is_known
            if not is_known:
                last[c] = t
            if last[c] >= 0:
                good = (last[c], c)
            for k in range(n_correlations):
                images[2 * k, c, t] = parts[good[0], row, good[1], k, 0]
                images[2 * k + 1, c, t] = parts[good[0], row, good[1], k, 1]
    return some


@numba.njit("i8(b1[:, :], Array(b1, 4, 'C', aligned=True), i8)", cache=True, nogil=True)
def _mark(mask: np.ndarray, flag: np.ndarray, row: int) -> int:
    """Flag what a mask (n_channels, n_times) says in all correlations of a row; how many samples are new."""
    new = 0
    for t in range(flag.shape[0]):
        for c in range(flag.shape[2]):
            if mask[c, t]:
                for k in range(flag.shape[3]):
                    new += not flag[t, row, c, k]
                    flag[t, row, c, k] = True
    return new
