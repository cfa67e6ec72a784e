"""Messages that wait on this machine: their order, and what a crash, a full disk or a broken file does to them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orca import config
from orca.config import Config
from orca.errors import BrokerAwayError, ConfigError, InputError, MessageError, StorageError
from orca.events.message import Message, run_message
from orca.events.publisher import Publisher, Sent
from orca.events.spool import Spool

NOBODY = "pyamqp://orca:pass-of-tests@127.0.0.1:9//"
"""Where nothing listens."""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def message(name: str) -> Message:
    return run_message("imaging", id=name)


def ids(spool: Spool) -> list[str]:
    return [kept.read().id for kept in spool.waiting()]


def settings_of(folder: Path, uri: str | None = NOBODY) -> Config:
    file = folder / "orca-conf.yml"
    file.write_text(yaml.safe_dump({"queue": {"broker_uri": uri}, "paths": {"data": str(folder / "data")}}))
    file.chmod(0o600)
    return config.load(file)


def test_what_was_kept_first_comes_first(spool: Spool) -> None:
    for number in range(12):
        spool.keep("imaging", message(f"m{number}"))
    assert ids(spool) == [f"m{number}" for number in range(12)]
    assert {kept.queue for kept in spool.waiting()} == {"imaging"}


def test_a_clock_that_was_set_back_does_not_change_the_order(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.keep("default", message("first"))
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    spool.keep("default", message("second"))
    assert ids(spool) == ["first", "second"]


def test_a_queue_of_another_prefix_is_kept_with_the_message(spool: Spool) -> None:
    spool.keep("my.prefix-default", message("a"))
    assert [kept.queue for kept in spool.waiting()] == ["my.prefix-default"]


def test_there_is_nothing_before_something_is_kept(spool: Spool) -> None:
    assert spool.waiting() == []
    assert not spool.folder.exists()


def test_what_a_dead_writer_left_is_no_message_and_is_swept(spool: Spool) -> None:
    spool.keep("default", message("a"))
    part = spool.folder / ".orca-part-nohost-1-1-abc.text"
    part.write_text("{")
    assert ids(spool) == ["a"]


def _keep_some(folder: Path, name: str) -> None:
    spool = Spool(folder)
    for number in range(20):
        spool.keep("default", message(f"{name}{number:02d}"))


def test_several_processes_keep_each_message_once_and_in_their_order(spool: Spool) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_keep_some, args=(spool.folder, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    found = ids(spool)
    for name in "ab":
        assert [each for each in found if each.startswith(name)] == [f"{name}{number:02d}" for number in range(20)]


def test_a_file_that_holds_no_message_is_set_aside_with_a_word(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    spool.keep("default", message("a"))
    (kept,) = spool.waiting()
    kept.path.write_text("{")
    with pytest.raises(MessageError) as caught:
        kept.read()
    aside = spool.set_aside(kept, caught.value)
    assert spool.waiting() == []
    assert spool.broken() == [aside]
    assert aside.name.endswith(".json.broken")
    assert "set aside" in caplog.text


def test_a_full_disk_is_told_and_leaves_nothing_half_written(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("64k")
    spool = Spool(disk / "spool")
    large = run_message("imaging", {"x": "a" * 20_000})
    told = ""
    while not told:
        try:
            spool.keep("default", large)
        except StorageError as error:
            told = str(error)
    assert "no space left" in told
    assert {kept.read().id for kept in spool.waiting()} == {large.id}
    assert not [path for path in spool.folder.iterdir() if "part" in path.name]


def test_a_message_waits_here_while_the_broker_is_away(tmp_path: Path) -> None:
    with Publisher(settings_of(tmp_path)) as publisher:
        assert [publisher.publish(message(f"m{i}"), "imaging") for i in range(3)] == [Sent.SPOOLED] * 3
        assert "does not answer" in publisher.away
        assert "pass-of-tests" not in publisher.away
        assert publisher.spool.folder == tmp_path / "data" / "spool"
        assert ids(publisher.spool) == ["m0", "m1", "m2"]
        with pytest.raises(BrokerAwayError):
            publisher.flush()
    assert ids(Spool(tmp_path / "data" / "spool")) == ["m0", "m1", "m2"]


def test_without_any_broker_nothing_is_kept(tmp_path: Path) -> None:
    with Publisher(settings_of(tmp_path, None)) as publisher, pytest.raises(ConfigError, match=r"queue\.broker_uri"):
        publisher.publish(message("a"), "imaging")
    assert publisher.spool.waiting() == []


def test_an_unknown_pool_is_refused(tmp_path: Path) -> None:
    with Publisher(settings_of(tmp_path)) as publisher, pytest.raises(InputError, match="Use default, imaging"):
        publisher.publish(message("a"), "imagin")
