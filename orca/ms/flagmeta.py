"""Flags at full resolution, packed to bits: what an averaged Measurement Set no longer tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orca.errors import MissingDataError, TruncatedDataError


def flagmeta_bytes(n_rows: int, n_channels: int, n_correlations: int) -> int:
    """Size of such a file."""
    return -(-n_rows * n_channels * n_correlations // 8)


def read_flagmeta(path: Path, n_rows: int, n_channels: int, n_correlations: int) -> np.ndarray:
    """Read the flags of one integration.

    Parameters
    ----------
    path : Path
        ``<stamp>_<SB>_flagmeta.bin``: the FLAG column in the order of its memory, as `numpy.packbits` packs it.
    n_rows, n_channels, n_correlations : int
        Of the raw Measurement Set; the file does not tell.

    Returns
    -------
    (n_rows, n_channels, n_correlations) bool

    Raises
    ------
    MissingDataError
        There is no such file.
    TruncatedDataError
        It has another size.
    """
    shape = (n_rows, n_channels, n_correlations)
    try:
        packed = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise MissingDataError("there is no such file", path, "Check the name.") from error
    if len(packed) != flagmeta_bytes(*shape):
        raise TruncatedDataError(
            f"has {len(packed)} bytes, flags of {n_rows} rows x {n_channels} channels x {n_correlations} correlations "
            f"have {flagmeta_bytes(*shape)}",
            path,
            "Give the shape of the raw Measurement Set.",
        )
    return np.unpackbits(packed, count=n_rows * n_channels * n_correlations).reshape(shape).astype(bool)
