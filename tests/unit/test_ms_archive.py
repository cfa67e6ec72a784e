"""Tars of Measurement Sets."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orca.errors import (
    DataError,
    GrowingDataError,
    InputError,
    InvalidDataError,
    MissingDataError,
    OrcaError,
    StorageError,
    TruncatedDataError,
)
from orca.ms.archive import contents_size, unpack
from orca.ms.blocks import open_table
from orca.ms.inspect import inspect

MakeMs = Callable[..., Path]


def refused(path: Path, folder: Path, error: type[DataError], words: str, settle_s: float = 0) -> None:
    with pytest.raises(OrcaError) as caught:
        unpack(path, folder, settle_s=settle_s)
    assert type(caught.value) is error, caught.value
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or list(folder.iterdir()) == []


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def plain(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def test_the_measurement_set_comes_out_as_it_went_in(make_ms: MakeMs, tmp_path: Path) -> None:
    ms = unpack(make_ms(tar=True), tmp_path / "out")
    assert ms == tmp_path / "out" / "20260110_180000_73MHz.ms"
    assert [p.name for p in (tmp_path / "out").iterdir()] == [ms.name]
    assert inspect(ms).n_rows == 300
    with open_table(ms) as ours, open_table(make_ms()) as other:
        assert np.array_equal(ours.getcol("DATA"), other.getcol("DATA"))


def test_times_of_the_files_are_kept(make_ms: MakeMs, tmp_path: Path) -> None:
    path = make_ms(tar=True)
    with tarfile.open(path) as archive:
        recorded = archive.getmember("20260110_180000_73MHz.ms/table.dat").mtime
    assert (unpack(path, tmp_path) / "table.dat").stat().st_mtime == pytest.approx(recorded, abs=1e-3)


def test_the_size_of_the_contents_is_that_of_the_files(make_ms: MakeMs, tmp_path: Path) -> None:
    ms = unpack(make_ms(tar=True), tmp_path)
    assert contents_size(make_ms(tar=True)) == sum(f.stat().st_size for f in ms.rglob("*") if f.is_file())


@pytest.mark.parametrize("options", [(), ("--format=pax",), ("--format=gnu",), ("--format=ustar",)])
def test_tars_of_the_tar_program_are_taken(make_ms: MakeMs, tmp_path: Path, options: tuple[str, ...]) -> None:
    ms = make_ms()
    subprocess.run(["tar", *options, "-C", str(ms.parent), "-cf", str(tmp_path / "a.tar"), f"./{ms.name}"], check=True)
    assert inspect(unpack(tmp_path / "a.tar", tmp_path / "out")).n_rows == 300


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.98])
def test_a_truncated_tar(copy_ms: MakeMs, tmp_path: Path, keep: float) -> None:
    path = copy_ms(tar=True)
    os.truncate(path, int(path.stat().st_size * keep))
    refused(path, tmp_path / "out", TruncatedDataError, "")
    with pytest.raises(TruncatedDataError):
        contents_size(path)


def test_a_tar_without_its_end_mark(make_ms: MakeMs, tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", plain("a.ms/table.dat", b"x" * 2048))
    os.truncate(path, 512 + 2048)
    refused(path, tmp_path / "out", TruncatedDataError, "ends too early")


def test_garbage_in_the_middle(copy_ms: MakeMs, tmp_path: Path) -> None:
    path = copy_ms(tar=True)
    with tarfile.open(path) as archive:
        header = archive.getmembers()[5].offset
    with path.open("r+b") as file:
        file.seek(header)
        file.write(b"garbage" * 100)
    refused(path, tmp_path / "out", InvalidDataError, "is broken after")


def test_what_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(os.urandom(4096))
    refused(tmp_path / "a.tar", tmp_path / "out", InvalidDataError, "is not an uncompressed tar")
    (tmp_path / "folder.tar").mkdir()
    refused(tmp_path / "folder.tar", tmp_path / "out", InvalidDataError, "is not a tar")
    refused(tmp_path / "none.tar", tmp_path / "out", MissingDataError, "no such file")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        member, content = tarfile.TarInfo("a.ms/table.dat"), os.urandom(4096)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    refused(tmp_path / "a.tar.gz", tmp_path / "out", InvalidDataError, "uncompressed")


@pytest.mark.parametrize(
    "member",
    [
        plain("/etc/evil"),
        plain("../evil"),
        plain("a.ms/../../evil"),
        special("a.ms/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("a.ms/link", tarfile.SYMTYPE, "table.dat"),
        special("a.ms/link", tarfile.LNKTYPE, "a.ms/table.dat"),
        special("a.ms/pipe", tarfile.FIFOTYPE),
        special("a.ms/device", tarfile.CHRTYPE),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].type.decode()}-{member[0].linkname}",
)
def test_an_unsafe_tar_is_refused_as_a_whole(tmp_path: Path, member: tuple[tarfile.TarInfo, bytes]) -> None:
    path = make_tar(tmp_path / "a.tar", plain("a.ms/table.dat"), member)
    refused(path, tmp_path / "x" / "out", InvalidDataError, member[0].name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"]


@pytest.mark.parametrize(
    "names",
    [("a.ms/table.dat", "b.ms/table.dat"), ("a.ms/notes",), ("table.dat",), ("x/a.ms/table.dat",), ()],
    ids=lambda names: "+".join(names) or "nothing",
)
def test_exactly_one_measurement_set_is_wanted(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = make_tar(tmp_path / "a.tar", *(plain(name) for name in names))
    refused(path, tmp_path / "out", InvalidDataError, "must hold one Measurement Set")


def test_a_name_twice(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", plain("a.ms/table.dat"), plain("a.ms/table.dat", b"other"))
    refused(path, tmp_path / "out", InvalidDataError, "twice")


def test_modes_in_the_tar_are_ignored(tmp_path: Path) -> None:
    member, content = plain("a.ms/table.dat")
    member.mode = 0o4777
    ms = unpack(make_tar(tmp_path / "a.tar", (member, content)), tmp_path / "out", settle_s=0)
    assert (ms / "table.dat").stat().st_mode & 0o7111 == 0


def test_nothing_is_overwritten(make_ms: MakeMs, tmp_path: Path) -> None:
    ms = unpack(make_ms(tar=True), tmp_path)
    with pytest.raises(InputError, match="exists already"):
        unpack(make_ms(tar=True), tmp_path)
    assert inspect(ms).n_rows == 300


def test_a_growing_tar(copy_ms: MakeMs, tmp_path: Path) -> None:
    path = copy_ms(tar=True)
    os.truncate(path, 20_000)
    stop = threading.Event()

    def write() -> None:
        with path.open("ab") as file:
            while not stop.wait(0.02):
                file.write(bytes(100))
                file.flush()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        time.sleep(0.05)
        refused(path, tmp_path / "out", GrowingDataError, "is still being written", settle_s=5)
    finally:
        stop.set()
        thread.join()


def test_a_full_disk_is_told_and_cleared(make_ms: MakeMs, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("200k")
    with pytest.raises(StorageError, match="no space left"):
        unpack(make_ms(tar=True), disk)
    assert list(disk.iterdir()) == []


def test_a_folder_that_cannot_be_made(make_ms: MakeMs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        unpack(make_ms(tar=True), tmp_path / "file" / "out")
