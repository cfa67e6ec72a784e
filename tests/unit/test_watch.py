"""Which files are told of, when, and how often. The broker is away here: what is told waits in the spool."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_spool import settings_of
from waiting import wait_for

from orca.config import Config
from orca.errors import InputError, StorageError
from orca.events import watch as module
from orca.events.alarm import Alarm
from orca.events.publisher import Publisher
from orca.events.submit import Submitted
from orca.events.watch import Watch

LONG_AGO = 1e9


class Recorder:
    """Writes below a root as the recorder does, and looks what is told of."""

    def __init__(self, root: Path, settings: Config) -> None:
        self.root, self.settings = root, settings
        self.publisher = Publisher(settings)
        self.watch = Watch(root, settings, self.publisher)

    def write(self, time_of_day: str, band: str = "73MHz", *, tar: bool = False, growing: bool = False) -> Path:
        folder = self.root / band / "2026-01-10" / time_of_day[:2]
        path = folder / f"20260110_{time_of_day}_{band}.ms{'.tar' if tar else ''}"
        folder.mkdir(parents=True, exist_ok=True)
        table = path if tar else path / "table.dat"
        if not tar:
            path.mkdir()
        table.write_text("table")
        if not growing:
            os.utime(table, (LONG_AGO, LONG_AGO))
        return path

    def look(self) -> list[str]:
        """Times of day and subbands of what is told of at one look."""
        found: list[Submitted] = []
        count = self.watch.look(found.append)
        assert count == len(found)
        return [Path(each.subject).name[9:].partition(".")[0] for each in found]

    def again(self) -> None:
        """As a restart has it."""
        self.watch.close()
        self.watch = Watch(self.root, self.settings, self.publisher)

    def close(self) -> None:
        self.watch.close()


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    settings = settings_of(tmp_path)
    limits = settings.limits.model_copy(update={"settle_s": 0.4})
    made = Recorder(tmp_path / "raw", settings.model_copy(update={"limits": limits}))
    yield made
    made.close()


def test_each_finished_file_is_told_of_once_the_oldest_first(recorder: Recorder) -> None:
    for when, band in (("210000", "73MHz"), ("200010", "73MHz"), ("200000", "78MHz"), ("200000", "73MHz")):
        recorder.write(when, band)
    recorder.write("200005", tar=True)
    assert recorder.look() == ["200000_73MHz", "200000_78MHz", "200005_73MHz", "200010_73MHz", "210000_73MHz"]
    assert recorder.look() == []
    messages = [kept.read() for kept in recorder.publisher.spool.waiting()]
    first = messages[0].recorded
    assert first is not None
    assert first.path == str(recorder.root / "73MHz/2026-01-10/20/20260110_200000_73MHz.ms")
    assert (first.size, first.time.timestamp()) == (5, LONG_AGO)


def test_a_file_that_grows_waits_until_it_does_not(recorder: Recorder) -> None:
    path = recorder.write("200000", growing=True)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        with (path / "table.f0").open("a") as file:
            file.write("more")
        assert recorder.look() == []
        assert recorder.watch.growing == 1
        time.sleep(0.05)
    assert wait_for(recorder.look, "the end of its growing") == ["200000_73MHz"]


def test_a_folder_without_a_table_is_not_finished(recorder: Recorder) -> None:
    path = recorder.write("200000")
    (path / "table.dat").rename(path / "table.dat.tmp")
    empty = recorder.write("200010", tar=True)
    empty.write_text("")
    os.utime(empty, (LONG_AGO, LONG_AGO))
    assert recorder.look() == []
    (path / "table.dat.tmp").rename(path / "table.dat")
    assert wait_for(recorder.look, "its table") == ["200000_73MHz"]


def test_a_restart_neither_repeats_nor_misses(recorder: Recorder) -> None:
    recorder.write("200000")
    assert recorder.look() == ["200000_73MHz"]
    recorder.again()
    recorder.write("200010")
    assert recorder.look() == ["200010_73MHz"]
    recorder.again()
    assert recorder.look() == []


def test_what_was_killed_before_it_remembered_repeats_with_the_same_id(recorder: Recorder) -> None:
    recorder.write("200000")
    recorder.look()
    recorder.watch.close()
    recorder.watch.told.path.unlink()
    recorder.watch = Watch(recorder.root, recorder.settings, recorder.publisher)
    assert recorder.look() == ["200000_73MHz"]
    assert len({kept.read().id for kept in recorder.publisher.spool.waiting()}) == 1


def test_what_is_gone_is_forgotten_and_told_of_when_it_comes_again(recorder: Recorder) -> None:
    gone, _, _ = recorder.write("200000"), recorder.write("200010"), recorder.write("210000")
    recorder.look()
    shutil.rmtree(gone)
    shutil.rmtree(recorder.root / "73MHz/2026-01-10/21")
    assert recorder.look() == []
    assert recorder.watch.told.folders() == [str(gone.parent)]
    recorder.write("200000")
    recorder.write("210000")
    assert recorder.look() == ["200000_73MHz", "210000_73MHz"]


@pytest.mark.parametrize("lost", ["", "73MHz"], ids=["the root", "a subband"])
def test_a_disk_that_is_not_mounted_for_a_while_is_not_told_of_again(recorder: Recorder, lost: str) -> None:
    recorder.write("200000")
    recorder.write("200000", "78MHz")
    recorder.look()
    disk, elsewhere = recorder.root / lost, recorder.root.with_name("elsewhere")
    disk.rename(elsewhere)
    disk.mkdir()  # what is left of a mount point
    assert recorder.look() == []
    recorder.again()
    assert recorder.look() == []
    disk.rmdir()
    elsewhere.rename(disk)
    assert recorder.look() == []


def test_other_names_are_left_alone(recorder: Recorder) -> None:
    path = recorder.write("200000")
    for name in (".20260110_200010_73MHz.ms", "20260110_200010_73MHz.ms.tmp", "20260110_200010_73MHz_averaged.ms"):
        shutil.copytree(path, path.with_name(name))
    path.with_name("20260110_200010_73MHz.ms.manifest.json").write_text("{}")
    path.with_name("20269999_200010_73MHz.ms").mkdir()
    hidden = recorder.root / ".trash" / "20"
    shutil.copytree(path.parent, hidden)
    assert recorder.look() == ["200000_73MHz"]


def test_a_root_that_comes_later_is_found(recorder: Recorder) -> None:
    assert recorder.look() == []
    recorder.write("200000")
    assert recorder.look() == ["200000_73MHz"]


def test_a_file_that_vanishes_while_it_is_looked_at_is_no_trouble(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed, _ = recorder.write("200000"), recorder.write("200010")
    look_at = module.snapshot

    def vanishing(path: Path) -> object:
        if path == doomed:
            shutil.rmtree(doomed)
        return look_at(path)

    monkeypatch.setattr(module, "snapshot", vanishing)
    assert recorder.look() == ["200010_73MHz"]
    assert (recorder.watch.growing, recorder.watch.problems - {recorder.publisher.away}) == (0, set())


def test_folders_that_did_not_change_are_not_listed_again(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    for hour in range(4):
        folder = recorder.write(f"{hour:02d}0000").parent
        os.utime(folder, (LONG_AGO, LONG_AGO))
    for folder in (recorder.root / "73MHz/2026-01-10", recorder.root / "73MHz", recorder.root):
        os.utime(folder, (LONG_AGO, LONG_AGO))
    recorder.look()
    listed: list[str] = []
    scan = os.scandir

    def counted(path: str) -> object:
        listed.append(str(path))
        return scan(path)

    monkeypatch.setattr(module.os, "scandir", counted)
    assert recorder.look() == []
    assert listed == []
    new = recorder.write("030010")
    assert recorder.look() == ["030010_73MHz"]
    assert set(listed) - {str(new)} == {str(new.parent)}


def test_two_watchers_of_a_folder_are_refused(recorder: Recorder) -> None:
    with pytest.raises(InputError, match="another `orca watch`"):
        Watch(recorder.root, recorder.settings, recorder.publisher)


def test_a_file_is_no_root(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        Watch(tmp_path / "file", recorder.settings, recorder.publisher)


def test_a_broken_memory_is_told_with_its_remedy(recorder: Recorder) -> None:
    recorder.watch.close()
    recorder.watch.told.path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(StorageError, match="may be removed"):
        Watch(recorder.root, recorder.settings, recorder.publisher)
    recorder.watch.told.path.unlink()
    recorder.watch = Watch(recorder.root, recorder.settings, recorder.publisher)


def test_a_crash_in_a_batch_leaves_the_memory_whole(recorder: Recorder) -> None:
    recorder.write("200000")
    recorder.look()
    recorder.watch.told.add("/raw", "not committed")
    other = sqlite3.connect(recorder.watch.told.path)
    assert other.execute("SELECT count(*) FROM told").fetchone() == (1,)
    other.close()


def test_the_broker_being_away_is_logged_once(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    recorder.write("200000")
    for _ in range(3):
        recorder.look()
    assert caplog.text.count("does not answer") == 1


def test_a_full_spool_is_told_and_what_was_not_kept_is_tried_again(
    tmp_path: Path, small_disk: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk("16k")
    settings = settings_of(tmp_path)
    paths = settings.paths.model_copy(update={"spool": disk / "spool"})
    made = Recorder(tmp_path / "raw", settings.model_copy(update={"paths": paths}))
    for number in range(20):
        made.write(f"2000{number:02d}")
    first = made.look()
    assert 0 < len(first) < 20
    assert "no space left" in caplog.text
    for kept in made.publisher.spool.waiting():
        kept.path.unlink()
    for young in made.watch._young.values():
        young.seen = float("-inf")
    assert made.look()
    made.close()


def test_the_kernel_wakes_up_who_waits(tmp_path: Path) -> None:
    alarm, ended = Alarm(True), threading.Event()
    alarm.watch([str(tmp_path)])
    threading.Timer(0.2, (tmp_path / "new").mkdir).start()
    began = time.monotonic()
    alarm.wait(60, ended)
    assert time.monotonic() - began < 50
    alarm.watch([])
    alarm.close()


@pytest.mark.parametrize("kernel", [True, False])
def test_who_waits_can_be_ended(kernel: bool) -> None:
    alarm, ended = Alarm(kernel), threading.Event()
    threading.Timer(0.2, ended.set).start()
    began = time.monotonic()
    alarm.wait(60, ended)
    assert time.monotonic() - began < 50
    alarm.close()
