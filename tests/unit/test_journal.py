"""The trigger's journal: what is left to ask for after it was killed, and what it does not ask for twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orca.errors import StorageError
from orca.events.journal import KEEP_DAYS, Journal, Request

REQUEST = Request("key", "reduction/reduction", {"measurement_sets": ["/raw/a.ms"]}, ("73MHz",))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "new" / "journal.sqlite")
    yield made
    made.close()


def test_what_was_begun_is_there_after_a_crash_until_it_is_done_or_refused(journal: Journal) -> None:
    journal.begin(REQUEST, "reduce", ["a|1", "b|2"])
    other = Request("other", "reduction/reduction", {}, ())
    journal.begin(other, "reduce", ["c|3"])
    again = Journal(journal.path)  # as one that starts after a kill -9 opens it
    assert again.unfinished() == [REQUEST, other]
    assert again.key_of("b|2", "reduce") == "key"
    assert again.key_of("b|2", "image") is None
    again.done("key", "run-1")
    again.refused("other", "no such parameter")
    again.close()
    assert journal.unfinished() == []
    assert journal.outcome("key") == ("run-1", None)
    assert journal.outcome("other") == (None, "no such parameter")


def test_what_is_old_is_forgotten_unless_it_was_never_asked_for(journal: Journal) -> None:
    journal.begin(REQUEST, "reduce", ["a|1"])
    journal.begin(Request("other", "x/y", {}, ()), "reduce", ["c|3"])
    journal.done("key", "run-1")
    journal.forget()
    assert len(journal.files()) == 2
    journal.forget(time.time() + (KEEP_DAYS + 1) * 86400)
    assert [identity for identity, *_ in journal.files()] == ["c|3"]
    assert journal.outcome("key") == (None, None)


def test_a_broken_file_is_told_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"nothing that SQLite knows" * 100)
    with pytest.raises(StorageError, match=r"journal\.sqlite: cannot be used"):
        Journal(path)
