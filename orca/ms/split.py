"""A Measurement Set of XX and YY alone, with fewer channels if so wished, and whether it is what its original was.

One pass in blocks of 512 rows, so memory does not grow with the data. A full disk makes casacore abort the process:
call `split` in a child (`orca.isolation`).
"""

from __future__ import annotations

import filecmp
import resource
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from casacore import tables as ct

from orca.averaging import average_block
from orca.errors import InputError, InvalidDataError, MismatchError
from orca.ms.acceptance import Acceptance
from orca.ms.archive import unpack
from orca.ms.blocks import blocks, cache_small_columns, open_table, read_cell, read_column
from orca.ms.create import BULKY_COLUMNS, PER_CORRELATION, create_like
from orca.ms.growth import settled
from orca.ms.info import MsInfo
from orca.ms.inspect import inspect

DATA_COLUMNS = ("DATA", "MODEL_DATA", "CORRECTED_DATA", "FLAG", "WEIGHT_SPECTRUM", "SIGMA_SPECTRUM")
"""Columns of channels and correlations."""
VISIBILITIES = ("DATA", "MODEL_DATA", "CORRECTED_DATA")
KEPT = ((0, 0), (1, 1))
"""Receptors of XX and of YY."""
CHANGED_SUBTABLES = ("POLARIZATION", "SPECTRAL_WINDOW")
_CHECKSUM = "crc32 "


@dataclass(frozen=True)
class Split:
    """What `split` wrote.

    Attributes
    ----------
    path : Path
    n_rows, n_channels : int
    columns : tuple of str
        The data columns.
    flagged_share : float
        Of all samples written.
    checksums : mapping
        CRC-32 of all values of each data column, and of WEIGHT and SIGMA, in the order of rows.
    seconds, cpu_seconds : float
    peak_memory_bytes : int
        Of the process.
    """

    path: Path
    n_rows: int
    n_channels: int
    columns: tuple[str, ...]
    flagged_share: float
    checksums: Mapping[str, int]
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def numbers(self) -> dict[str, float | int | str | None]:
        """What a manifest keeps of it."""
        checksums = {f"{_CHECKSUM}{name}": value for name, value in self.checksums.items()}
        counts: dict[str, float | int | str | None] = {
            "n_rows": self.n_rows,
            "n_channels": self.n_channels,
            "columns": " ".join(self.columns),
        }
        return {**counts, "flagged_share": self.flagged_share, "split_seconds": self.seconds, **checksums}

    @classmethod
    def from_numbers(cls, path: Path, numbers: Mapping[str, Any]) -> Split:
        """Inverse of `numbers`; what was used is not known any more.

        Raises
        ------
        InvalidDataError
            They are not all there.
        """
        try:
            return cls(
                path=path,
                n_rows=int(numbers["n_rows"]),
                n_channels=int(numbers["n_channels"]),
                columns=tuple(str(numbers["columns"]).split()),
                flagged_share=float(numbers["flagged_share"]),
                checksums={k.removeprefix(_CHECKSUM): int(v) for k, v in numbers.items() if k.startswith(_CHECKSUM)},
            )
        except (KeyError, TypeError, ValueError) as error:
            problem = "its manifest does not tell the checksums of a split"
            raise InvalidDataError(problem, path, "Remove it and run again") from error


def split(source: Path, destination: Path, *, average: int = 1, acceptance: Acceptance | None = None) -> Split:
    """Write XX and YY of a Measurement Set, in this order; everything else of it is kept.

    Parameters
    ----------
    source : Path
        A Measurement Set, or a tar of one; it is only read.
    destination : Path
        Must not exist; its folder takes what has to be unpacked.
    average : int
        How many channels become one: the mean of those that are not flagged. A divisor of their number.
    acceptance : Acceptance, optional

    Raises
    ------
    DataError
        One of its kinds: `source` is not what it should be.
    InputError
        It holds XX and YY only already, or `average` does not divide its channels.
    """
    begin, begin_cpu = time.perf_counter(), time.process_time()
    accept = acceptance or Acceptance()
    with settled(source, accept.settle_s):  # until all work is done: one that changes meanwhile is refused
        info = inspect(
            _unpacked(source, destination.parent),
            settle_s=0,
            min_fill_level=accept.min_fill_level,
            max_zero_share=accept.max_zero_share,
        )
        keep = _kept_correlations(info, source)
        if average < 1 or info.n_channels % average:
            problem = f"has {info.n_channels} channels, of which each {average} cannot become one"
            raise InputError(problem, source, "Give a divisor of their number")
        columns, flagged_share, checksums = _write(info, source, destination, keep, average)
    return Split(
        path=destination,
        n_rows=info.n_rows,
        n_channels=info.n_channels // average,
        columns=columns,
        flagged_share=flagged_share,
        checksums=checksums,
        seconds=time.perf_counter() - begin,
        cpu_seconds=time.process_time() - begin_cpu,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def check_split(split_ms: Path, original: Path, made: Split, *, scratch: Path | None = None) -> None:
    """Read a split back, and compare it with what was written and with its original.

    What was written is known by checksums. Without averaging, all columns are compared with the original's bit by bit;
    with it, those that have no channels and no weights. Subtables are compared byte by byte but for those that the
    split changes.

    Parameters
    ----------
    split_ms, original : Path
        The original may be a tar.
    made : Split
        What `split` said.
    scratch : Path, optional
        An existing folder to unpack a tar into; needed for one.

    Raises
    ------
    DataError
        They differ (InvalidDataError: the split is not what was written; MismatchError: the original is not what was
        split), or one cannot be read.
    """
    if scratch is None and original.name.endswith(".tar"):
        raise InputError("is a tar, and no folder is given to unpack it into", original)
    source = _unpacked(original, scratch or original.parent)
    before, after = inspect(source, settle_s=0), inspect(split_ms, settle_s=0)
    keep = _kept_correlations(before, original)
    _check_shape(after, made)
    same_channels = before.n_channels == made.n_channels
    different: set[str] = set()
    with open_table(source) as old, open_table(split_ms) as new:
        cache_small_columns(old)
        cache_small_columns(new)
        if set(made.columns) != set(_data_columns(old, before, original)) or before.n_rows != made.n_rows:
            raise _other_original(original, "columns or rows")
        _check_written(new, made, split_ms)
        if same_channels:
            different |= {name for name in made.columns if not _same_data(old, new, name, keep)}
        alike = set(old.colnames()) - BULKY_COLUMNS - (set() if same_channels else set(PER_CORRELATION))
        different |= {name for name in alike if not _same_small(old, new, name, keep)}
    different |= {name for name in _subtables(source) if not _same_files(source / name, split_ms / name)}
    if different:
        raise _other_original(original, ", ".join(sorted(different)))


def _unpacked(source: Path, folder: Path) -> Path:
    """The Measurement Set itself; the caller watches the source."""
    if not source.name.endswith(".tar"):
        return source
    return unpack(source, folder / f"{source.name}.unpacked", settle_s=0)


def _kept_correlations(info: MsInfo, source: Path) -> tuple[int, int]:
    """Which correlations are XX and YY."""
    receptors = [(int(first), int(second)) for first, second in info.receptors]
    if sorted(receptors) == sorted(KEPT):
        raise InputError("holds XX and YY only: it is split already", source, "Give its original, or leave it out")
    missing = [name for name, pair in zip(("XX", "YY"), KEPT, strict=True) if pair not in receptors]
    if missing:
        raise InvalidDataError(f"has no correlation {' and no '.join(missing)}", source, "Leave it out.")
    return receptors.index(KEPT[0]), receptors.index(KEPT[1])


def _data_columns(table: ct.table, info: MsInfo, source: Path) -> tuple[str, ...]:
    """The data columns that have values. Columns that would have to be split, and are not known, are refused."""
    shape = (info.n_channels, info.n_correlations)
    found = []
    for name in table.colnames():
        if name == "FLAG_CATEGORY" or table.isscalarcol(name) or not _has_values(table, name, source):
            continue
        cell = np.shape(read_cell(table, name, 0))
        if name in DATA_COLUMNS and cell == shape:
            found.append(name)
        elif name in DATA_COLUMNS or cell[:2] == shape:
            raise InvalidDataError(
                f"has the column {name} of cells {cell}, which cannot be split", source, "Remove it."
            )
    return tuple(name for name in DATA_COLUMNS if name in found)


def _has_values(table: ct.table, name: str, source: Path) -> bool:
    """Whether a column has any; one that has them in some rows only is refused."""
    if table.iscelldefined(name, 0):
        return bool(np.size(read_cell(table, name, 0)))
    if name in DATA_COLUMNS and any(table.iscelldefined(name, row) for row in range(table.nrows())):
        raise InvalidDataError(f"has {name} in some rows only", source, "Fill or remove that column.")
    return False


def _write(
    info: MsInfo, source: Path, destination: Path, keep: tuple[int, int], average: int
) -> tuple[tuple[str, ...], float, dict[str, int]]:
    """Write the new Measurement Set; returns its data columns, the share of flags, and checksums."""
    flagged = samples = 0
    factors: list[np.ndarray] = []
    with open_table(info.path) as table:
        cache_small_columns(table)
        columns = _data_columns(table, info, source)
        checksums = dict.fromkeys(columns, 0)
        with create_like(
            info.path, destination, n_channels=info.n_channels // average, correlations=keep, columns=columns
        ) as output:
            for start, n, *parts in blocks(table, columns):
                block = {name: _of(part, keep) for name, part in zip(columns, parts, strict=True)}
                if average > 1:
                    block, factor = _averaged(block, average)
                    factors.append(factor)
                for name, values in block.items():
                    output.putcol(name, values, start, n)
                    checksums[name] = zlib.crc32(values.data, checksums[name])
                flagged += int(np.count_nonzero(block["FLAG"]))
                samples += block["FLAG"].size
            if factors:
                _weigh(output, np.concatenate(factors))
            for name in PER_CORRELATION:
                checksums[name] = zlib.crc32(np.ascontiguousarray(read_column(output, name)).data)
    return columns, flagged / samples, checksums


def _of(values: np.ndarray, keep: tuple[int, int]) -> np.ndarray:
    """Two correlations, the last axis, of an array: (..., 2), contiguous."""
    kept = np.empty((*values.shape[:-1], 2), values.dtype)
    for new, old in enumerate(keep):  # several times faster than indexing with both
        kept[..., new] = values[..., old]
    return kept


def _averaged(block: Mapping[str, np.ndarray], factor: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A block with fewer channels, and what WEIGHT is to be multiplied with, (n_rows, 2)."""
    flag = block["FLAG"]
    made = {}
    for name, values in block.items():
        if name in VISIBILITIES:
            made[name], made["FLAG"], weight = average_block(values, flag, factor)
        elif name == "WEIGHT_SPECTRUM":
            made[name] = _grouped(np.where(flag, np.float32(0), values), factor).sum(2)
        elif name == "SIGMA_SPECTRUM":
            made[name] = _averaged_sigma(values, flag, factor)
    return made, weight


def _grouped(values: np.ndarray, factor: int) -> np.ndarray:
    """(n_rows, n_channels / factor, factor, n_correlations)"""
    return values.reshape(len(values), -1, factor, values.shape[2])


def _averaged_sigma(sigma: np.ndarray, flag: np.ndarray, factor: int) -> np.ndarray:
    """Noise of the mean of the samples that are not flagged; of all of them where all are."""
    used = ~_grouped(flag, factor)
    used |= ~used.any(2, keepdims=True)
    return np.sqrt((_grouped(sigma, factor) ** 2 * used).sum(2)) / used.sum(2, dtype=np.float32)


def _weigh(output: ct.table, factor: np.ndarray) -> None:
    """WEIGHT and SIGMA of samples of which each is the mean of so many, (n_rows, 2); where of none, SIGMA stays."""
    output.putcol("WEIGHT", read_column(output, "WEIGHT") * factor)
    output.putcol("SIGMA", read_column(output, "SIGMA") / np.sqrt(np.where(factor > 0, factor, np.float32(1))))


def _check_shape(info: MsInfo, made: Split) -> None:
    found = (info.n_rows, info.n_channels, tuple(map(tuple, info.receptors.tolist())))
    if found != (made.n_rows, made.n_channels, KEPT):
        raise InvalidDataError("was read back with other rows, channels or correlations", info.path, _AGAIN)


def _check_written(table: ct.table, made: Split, path: Path) -> None:
    """Compare the checksums of what is read with those of what was written."""
    for name, expected in made.checksums.items():
        found = 0
        for _, _, values in blocks(table, (name,)):
            found = zlib.crc32(values.data, found)
        if found != expected:
            raise InvalidDataError(f"{name} is read back otherwise than it was written", path, _AGAIN)


_AGAIN = "Remove it with its manifest, see that its disk is well, and run again; the original is where it was."


def _same_data(old: ct.table, new: ct.table, name: str, keep: tuple[int, int]) -> bool:
    """Whether a data column has the bits of the original's, NaN and all."""
    return all(_same_bits(_of(a, keep), b) for a, b in _in_step(old, new, name))


def _in_step(old: ct.table, new: ct.table, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for (*_, before), (*_, after) in zip(blocks(old, (name,)), blocks(new, (name,)), strict=True):
        yield before, after


def _same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    same_kind = (first.dtype, first.shape) == (second.dtype, second.shape)
    return same_kind and bool((first.view(np.uint8) == second.view(np.uint8)).all())


def _same_small(old: ct.table, new: ct.table, name: str, keep: Sequence[int]) -> bool:
    """Whether a column without channels has the same values; one without values may be missing."""
    if not (old.isscalarcol(name) or old.iscelldefined(name, 0)):
        return True
    if name not in new.colnames():
        return False
    before, after = np.asarray(read_column(old, name)), np.asarray(read_column(new, name))
    return np.array_equal(before[:, keep] if name in PER_CORRELATION else before, after)


def _subtables(source: Path) -> list[str]:
    """Those that the split copies."""
    with open_table(source) as table:
        words = {k: v for k, v in table.getkeywords().items() if isinstance(v, str)}
    return [k for k, v in words.items() if v.startswith("Table: ") and k not in CHANGED_SUBTABLES]


def _same_files(first: Path, second: Path) -> bool:
    """Whether two tables have the same bytes in all files but casacore's locks."""
    names = [sorted(p.name for p in folder.iterdir() if p.name != "table.lock") for folder in (first, second)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(first, second, names[0], shallow=False)[1:])


def _other_original(original: Path, what: str) -> MismatchError:
    return MismatchError(f"is not what was split: {what} differ", original, "Both stay; split it again.")
