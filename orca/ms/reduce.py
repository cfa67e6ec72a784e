"""A block of raw integrations into averaged, flagged ones, in one pass over their rows.

The same rows of all integrations are read together, so that RFI is looked for in images of time x frequency; memory
does not grow with the number of rows. A full disk makes casacore abort the process: call these functions in a child
(`orca.isolation`).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from casacore import tables as ct

from orca.calibration.apply import Corrections, correct_block, jones
from orca.errors import DataError, DeadDataError, InputError
from orca.flagging import Flagger, default_strategy
from orca.ms.acceptance import Acceptance
from orca.ms.averaged import Averaged, Reduced, discard, finish
from orca.ms.blocks import open_table, read_column, unreadable
from orca.ms.growth import settled
from orca.ms.members import Member, Rejected, accepted
from orca.ms.stage import screen_block
from orca.reduction_options import ReductionOptions, check_options

ROWS = 512
"""Rows of a block of rows: 24 integrations of 192 channels are 75 MB."""


@dataclass(frozen=True)
class ReducedBlock:
    """What `reduce_block` wrote, with its cost.

    Attributes
    ----------
    members : tuple of Reduced
    rejected : tuple of Rejected
    rfi_share : float
        Samples that AOFlagger flagged and nobody before it.
    n_rows, n_channels : int
        Of each averaged Measurement Set.
    seconds, cpu_seconds, flagging_cpu_seconds : float
    peak_memory_bytes : int
    """

    members: tuple[Reduced, ...]
    rejected: tuple[Rejected, ...]
    rfi_share: float
    n_rows: int
    n_channels: int
    seconds: float
    cpu_seconds: float
    flagging_cpu_seconds: float
    peak_memory_bytes: int


class _BrokenError(Exception):
    """A member that turned out to be unusable while it was read."""

    def __init__(self, member: Member, reason: str) -> None:
        super().__init__(member, reason)
        self.member, self.reason = member, reason


def reduce_block(
    sources: Sequence[Path],
    folder: Path,
    options: ReductionOptions | None = None,
    *,
    tables: Sequence[Path] = (),
    bad_antennas: Sequence[int | str] = (),
    acceptance: Acceptance | None = None,
    progress: Callable[[str], None] | None = None,
) -> ReducedBlock:
    """Flag the integrations of a block together, and write each averaged, with its flags at full resolution.

    An integration that cannot be used, or does not fit to the others, is left out and named; the others go on.

    Parameters
    ----------
    sources : paths
        Raw Measurement Sets of one subband or tars of them, one integration each.
    folder : Path
        Where to write; also takes what has to be unpacked.
    options : ReductionOptions
    tables : paths
        CASA calibration tables to apply before anything is flagged.
    bad_antennas : numbers or names
        Antennas of which everything is flagged; those that the array does not have are ignored.
    acceptance : Acceptance, optional
        What an integration must have.
    progress : callable, optional
        Called with how far it is, in words.

    Raises
    ------
    DeadDataError
        None of the integrations can be used.
    DataError
        The strategy or a table cannot be used.
    InputError
        An antenna or a channel of the options that is not there, or channels that cannot be averaged so.
    """
    options, accept = options or ReductionOptions(), acceptance or Acceptance()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    if progress:
        progress(f"looking at {len(sources)} integrations")
    members, rejected = accepted(sources, folder, accept, options.max_level)
    written: _Written | None = None
    while members and written is None:
        try:
            written = _Pass(members, options, tables, bad_antennas).run(accept.settle_s, progress)
        except _BrokenError as broken:
            members = [member for member in members if member is not broken.member]
            rejected.append(Rejected(broken.member.source, broken.reason))
            members = [Member(m.source, m.info, m.level, m.folder) for m in members]
    if written is None:
        first = rejected[0] if rejected else None
        why = f": {first.source.name} {first.reason}" if first else ""
        where = first.source.parent if first else folder
        raise DeadDataError(f"none of {len(sources)} integrations can be used{why}", where, "See the raw data.")
    return ReducedBlock(
        members=tuple(finish(member, options.tar, written.samples) for member in members),
        rejected=tuple(sorted(rejected, key=lambda each: each.source.name)),
        rfi_share=written.found / (written.samples * len(members)),
        n_rows=members[0].info.n_rows,
        n_channels=members[0].info.n_channels // options.average,
        seconds=time.perf_counter() - begin,
        cpu_seconds=time.process_time() - begin_cpu,
        flagging_cpu_seconds=written.flagging_cpu_s,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


# ---- The pass ----


@dataclass(frozen=True)
class _Written:
    samples: int
    """Of each integration."""
    found: int
    flagging_cpu_s: float


class _Pass:
    """One pass over the rows of all members."""

    def __init__(
        self,
        members: Sequence[Member],
        options: ReductionOptions,
        tables: Sequence[Path],
        bad_antennas: Sequence[int | str],
    ) -> None:
        self.members, self.options = members, options
        info = self.info = members[len(members) // 2].info
        check_options(info, options)
        self.channels = options.channels()
        dead = {*info.antenna_numbers(options.flag_antennas), *info.known_numbers(bad_antennas)}
        self.is_dead = np.isin(np.arange(info.n_antennas), list(dead))
        self.corrections: Corrections | None = None
        if tables:
            solved = jones(tables, info.antenna_names, info.freq_hz, info.channel_width_hz, float(info.time_s[0]))
            self.corrections = solved.corrections(info.receptors)
        strategy = options.strategy or default_strategy()
        self.flagger = Flagger(strategy, len(members), info.n_channels, info.n_correlations)
        self.found, self.flagging_cpu_s = 0, 0.0

    def run(self, settle_s: float, progress: Callable[[str], None] | None) -> _Written:
        """Read, flag, average, write.

        Raises
        ------
        _BrokenError
            A member cannot be read to its end, has other baselines, or grows. What was written is removed.
        """
        samples = self.info.n_rows * self.info.n_channels * self.info.n_correlations
        try:
            with ExitStack() as stack:
                watches = [stack.enter_context(_Watch(member, settle_s)) for member in self.members]
                inputs = [stack.enter_context(open_table(member.info.path)) for member in self.members]
                antennas = self._baselines(inputs)
                sinks = [stack.enter_context(Averaged(member, self.options.average)) for member in self.members]
                tenth = 0
                for rows, data, flag in self._read(inputs):
                    if progress and 10 * rows.stop // self.info.n_rows > tenth:
                        tenth = 10 * rows.stop // self.info.n_rows
                        progress(f"flagging and averaging {len(sinks)}: {tenth}0 %")
                    self._treat(data, flag, antennas[0][rows], antennas[1][rows])
                    for t, sink in enumerate(sinks):
                        sink.write(rows.start, data[t], flag[t])
                for watch in watches:
                    watch.check()
        except BaseException:
            for member in self.members:
                discard(member)
            raise
        return _Written(samples, self.found, self.flagging_cpu_s)

    def _baselines(self, inputs: Sequence[ct.table]) -> tuple[np.ndarray, np.ndarray]:
        """ANTENNA1 and ANTENNA2, which must be the same in all members."""
        first: tuple[np.ndarray, np.ndarray] | None = None
        for member, table in zip(self.members, inputs, strict=True):
            pair = (read_column(table, "ANTENNA1"), read_column(table, "ANTENNA2"))
            first = first or pair
            if not all(np.array_equal(mine, theirs) for mine, theirs in zip(first, pair, strict=True)):
                raise _BrokenError(member, f"has its baselines in another order than {self.members[0].source.name}")
        if first is None:
            raise InputError("no integration to reduce")
        return first

    def _read(self, inputs: Sequence[ct.table]) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """The same rows of all members: DATA and FLAG, (n_members, n_rows, n_channels, n_correlations)."""
        info = self.info
        shape = (len(inputs), min(ROWS, info.n_rows), info.n_channels, info.n_correlations)
        data, flag = np.empty(shape, np.complex64), np.empty(shape, bool)
        for start in range(0, info.n_rows, ROWS):
            n = min(ROWS, info.n_rows - start)
            if n < data.shape[1]:
                data, flag = (
                    np.empty((shape[0], n, *shape[2:]), np.complex64),
                    np.empty((shape[0], n, *shape[2:]), bool),
                )
            for t, (member, table) in enumerate(zip(self.members, inputs, strict=True)):
                try:
                    table.getcolnp("DATA", data[t], start, n)
                    table.getcolnp("FLAG", flag[t], start, n)
                except RuntimeError as error:
                    raise _BrokenError(member, unreadable(member.info.path, error).problem) from error
            yield slice(start, start + n), data, flag

    def _treat(self, data: np.ndarray, flag: np.ndarray, antenna1: np.ndarray, antenna2: np.ndarray) -> None:
        """Screen, calibrate and flag the same rows of all members, in place."""
        n = data.shape[1]
        for t, member in enumerate(self.members):
            samples = (data[t].reshape(n, -1), flag[t].reshape(n, -1))
            member.zeros += int(screen_block(*samples)[1])
            if self.corrections is not None:
                correct_block(*samples, antenna1, antenna2, *self.corrections)
        flag[:, self.is_dead[antenna1] | self.is_dead[antenna2]] = True
        flag[:, :, self.channels] = True
        looked_at = ~flag.reshape(len(flag), n, -1).all(axis=(0, 2))
        if not self.options.flag_autocorrelations:
            looked_at &= antenna1 != antenna2
        begin = time.process_time()
        self.found += self.flagger.flag(data, flag, [int(row) for row in np.flatnonzero(looked_at)])
        self.flagging_cpu_s += time.process_time() - begin


class _Watch:
    """Tells whether a member changes while it is read."""

    def __init__(self, member: Member, settle_s: float) -> None:
        self._member, self._settled = member, settled(member.source, settle_s)

    def __enter__(self) -> _Watch:
        self._settled.__enter__()
        return self

    def check(self) -> None:
        """To be called when all was read. Raises _BrokenError if it changed."""
        try:
            self._settled.__exit__(None, None, None)
        except DataError as error:
            raise _BrokenError(self._member, error.problem) from error

    def __exit__(self, *_: object) -> None:
        self._settled = settled(self._member.source, 0)  # the old one ends unfinished, if it was not checked


__all__ = ["Reduced", "ReducedBlock", "Rejected", "reduce_block"]
