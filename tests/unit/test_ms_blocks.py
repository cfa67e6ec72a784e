"""Reading columns in blocks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orca.errors import MissingDataError, TruncatedDataError
from orca.ms.blocks import blocks, cache_small_columns, open_table, read_column


def cut(path: Path, keep: float) -> None:
    os.truncate(path, int(path.stat().st_size * keep))


@pytest.mark.parametrize("rows", [1, 7, 100, 300, 1024])
def test_blocks_hold_every_row_once_in_order(make_ms: Callable[..., Path], rows: int) -> None:
    with open_table(make_ms()) as table:
        parts = [
            (s, n, d.copy(), f.copy(), a.copy()) for s, n, d, f, a in blocks(table, ("DATA", "FLAG", "ANTENNA2"), rows)
        ]
        assert [s for s, *_ in parts] == list(range(0, 300, rows))
        assert all(len(d) == len(f) == len(a) == n for _, n, d, f, a in parts)
        for k, name in enumerate(("DATA", "FLAG", "ANTENNA2"), 2):
            whole = table.getcol(name)
            joined = np.concatenate([part[k] for part in parts])
            assert joined.dtype == whole.dtype
            assert np.array_equal(joined, whole)


def test_buffers_are_used_again(make_ms: Callable[..., Path]) -> None:
    with open_table(make_ms()) as table:
        addresses = {data.ctypes.data for _, _, data in blocks(table, ("DATA",), 64)}
    assert len(addresses) == 1


@pytest.mark.parametrize("share", [0.6, 0.001])
def test_a_truncated_column_is_told_with_the_files_name(copy_ms: Callable[..., Path], share: float) -> None:
    ms = copy_ms()
    cut(ms / "table.f0i", share)
    with open_table(ms) as table:
        with pytest.raises(TruncatedDataError) as error:
            list(blocks(table, ("DATA",), 32))
        with pytest.raises(TruncatedDataError):
            read_column(table, "DATA")
    assert str(error.value).startswith(f"{ms}: cannot be read to its end (its file table.f0i ends too early)")
    assert len(str(error.value).splitlines()) == 1


def test_a_table_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such table"):
        open_table(tmp_path / "none.ms")


def test_the_cache_changes_no_value(make_ms: Callable[..., Path]) -> None:
    with open_table(make_ms()) as plain, open_table(make_ms()) as cached:
        cache_small_columns(cached)
        for name in ("UVW", "TIME", "ANTENNA1", "WEIGHT"):
            assert np.array_equal(plain.getcol(name), cached.getcol(name))
