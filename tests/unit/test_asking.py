"""What the trigger asks Prefect for, while Prefect is away."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from orca import config
from orca.cluster.ports import free_port
from orca.events import asking
from orca.events.asking import Asking, SuspendedError
from orca.events.delivery import Delivery
from orca.events.journal import Journal, Request
from orca.events.runs import FlowRuns
from orca.events.state import TriggerState


@pytest.fixture
def nobody(tmp_path: Path) -> config.Config:
    """A configuration whose Prefect server is not there."""
    file = tmp_path / "orca-conf.yml"
    file.write_text(f"prefect: {{api_url: 'http://127.0.0.1:{free_port('127.0.0.1')}/api'}}\npaths: {{data: data}}\n")
    return config.load(file)


def test_while_prefect_is_away_it_asks_after_longer_and_longer_pauses_and_then_gives_the_messages_back(
    nobody: config.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        waiting = Asking(journal, FlowRuns(nobody), TriggerState(tmp_path / "state.json"))
        first, again = Delivery("default", None), Delivery("default", None)
        waiting.add(Request("key", "imaging/imaging", {}, ()), "rule", [first])
        assert waiting.join("key", again)
        assert not waiting.join("another", again)
        now = time.monotonic()
        assert list(waiting.answers(now)) == []
        assert waiting.away
        for pause_s in (1.0, 2.0, 4.0):
            assert list(waiting.answers(now + pause_s - 0.5)) == []
            now += pause_s
            assert list(waiting.answers(now)) == []
        assert len(waiting) == 1
        pauses = [record.getMessage().rpartition("trying again in ")[2] for record in caplog.records]
        assert pauses == ["1 s", "2 s", "4 s", "8 s"]
        monkeypatch.setattr(asking, "SUSPEND_S", 1.0)
        with pytest.raises(SuspendedError):
            list(waiting.answers(now + 8.0))
        waiting.forget()
        assert (len(waiting), waiting.away) == (0, False)
