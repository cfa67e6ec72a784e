"""Alarms: when each comes up and ends, and that each is told once, whatever is started again in between."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from orca import config, naming
from orca.alarms import memory
from orca.alarms.alarm import Alarm, Findings
from orca.alarms.calibrations import Run, calibrations, failed_runs, failed_tables
from orca.alarms.conditions import FORGOTTEN_S, Disk, Sighting, dead_letters, disks, gone, raw_dying, recording
from orca.alarms.memory import Memory
from orca.catch_up import Missing, find_missing
from orca.cluster.alarms import asked
from orca.cluster.alarms import look as looking
from orca.cluster.machine.questions import Answer
from orca.cluster.pools import load_pools
from orca.errors import InfrastructureError, OrcaError
from orca.telescope import INTEGRATION_S

DUE = datetime(2026, 1, 10, 20, 41, 58, tzinfo=UTC)
POOLS = Path(__file__).parents[2] / "work_pools.yaml"


def record(root: Path, start: datetime, count: int = 1, band: str = "73MHz") -> list[Path]:
    made = []
    for number in range(count):
        seen = naming.Observation(band, start + timedelta(seconds=number * INTEGRATION_S))
        made.append(naming.raw_path(root, seen))
        made[-1].mkdir(parents=True)
        os.utime(made[-1], (start.timestamp(), start.timestamp()))
    return made


def names(findings: Findings) -> list[str]:
    return [alarm.name for alarm in findings.alarms]


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def test_nothing_recorded_before_a_calibration_is_an_alarm_until_data_come(tmp_path: Path) -> None:
    record(tmp_path, DUE - minutes(31))
    found = recording(tmp_path, DUE, 30, DUE + minutes(2))
    assert names(found) == ["recording"]
    assert "30 minutes before the calibration of 2026-01-10 20:41 UTC" in found.alarms[0].text
    assert names(recording(tmp_path, DUE, 32, DUE + minutes(2))) == []
    record(tmp_path, DUE + minutes(60))
    assert names(recording(tmp_path, DUE, 30, DUE + minutes(62))) == []


def test_data_that_were_deleted_since_are_not_missed(tmp_path: Path) -> None:
    later = recording(tmp_path, DUE, 30, DUE + timedelta(hours=23))
    assert (later.alarms, later.decided) == ((), False)
    assert names(recording(tmp_path / "away", DUE, 30, DUE)) == ["recording"]


def test_the_calibration_that_was_due_last_is_that_of_the_schedule() -> None:
    found = asked.due(DUE + timedelta(hours=1))
    assert found is not None
    assert abs(found - DUE) < timedelta(minutes=1)
    assert asked.due(DUE - timedelta(hours=1)) == found - timedelta(seconds=86164.0905)


def test_raw_data_that_are_about_to_be_deleted_are_named(tmp_path: Path) -> None:
    raw, averaged = tmp_path / "raw", tmp_path / "averaged"
    record(raw, DUE, 3)
    record(raw, DUE + timedelta(hours=3))

    def look(hours_later: float) -> Findings:
        now = DUE + timedelta(hours=hours_later)
        found: Sequence[Missing] = find_missing(raw, averaged, 24, timedelta(hours=24), minutes(10), now)
        return raw_dying(found, 24, 4, now)

    assert names(look(19.9)) == []
    [alarm] = look(21).alarms
    assert alarm.text.startswith(
        "3 integrations in 1 blocks are not reduced, and the recorder deletes the first in 3.0"
    )
    assert look(23.5).alarms[0].text.startswith("4 integrations in 2 blocks")


def test_a_disk_alarm_ends_well_below_its_mark() -> None:
    def look(share: float, up: Sequence[str] = ()) -> list[str]:
        return names(disks([Disk("/fast", "a", ("/fast/pipeline",), share, 10**9)], "a", 0.9, 0.87, up))

    assert (look(0.9), look(0.901)) == ([], ["disk:a:/fast"])
    assert look(0.88, ["disk:a:/fast"]) == ["disk:a:/fast"]
    assert look(0.88) == look(0.869, ["disk:a:/fast"]) == []


def test_each_host_looks_at_its_own_disks_and_at_those_that_all_share() -> None:
    def look(host: str, local: float, shared: float) -> None:
        there = [Disk("/fast", host, ("/fast",), local, 0), Disk("/lustre", "", ("/lustre",), shared, 0)]
        known.take(disks(there, host, 0.9, 0.87, known.up), 0)

    known = Memory()
    look("a", 0.95, 0.95)
    look("b", 0.5, 0.95)
    assert set(known.up) == {"disk:a:/fast", "disk:/lustre"}
    look("b", 0.5, 0.5)
    assert set(known.up) == {"disk:a:/fast"}


def test_the_disks_of_all_folders_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = write_configuration(tmp_path, monkeypatch, disk_share=0.0001, disk_clear_share=0.0001)
    found = asked.disks(settings, ())
    assert any(str(settings.paths.data) in alarm.paths for alarm in found.alarms)
    assert all(alarm.name.startswith(found.about) for alarm in found.alarms)
    assert len(names(found)) == len(set(names(found)))


def test_dead_letters_are_counted_for_each_pool() -> None:
    found = dead_letters({"default": 0, "imaging": 3}, 1)
    assert names(found) == ["dead-letters:imaging"]
    assert names(dead_letters({"imaging": 3}, 4)) == []


def test_what_was_there_and_is_not_is_gone_after_a_while() -> None:
    first = Sighting(frozenset({"node a", "node b", "worker b-0"}))
    _, seen = gone({}, first, 600, [], now=0)
    left = Sighting(frozenset({"node a"}), wanted=frozenset({"node a", "node b"}), listed=frozenset({"worker"}))
    assert names(gone(seen, left, 600, [], now=600)[0]) == []
    found, seen = gone(seen, left, 600, [], now=660)
    assert names(found) == ["gone:node b"]  # and not its worker
    assert "11 min ago" in found.alarms[0].text
    assert names(gone(seen, left, 600, ["gone:node b"], now=10**9)[0]) == ["gone:node b"]
    back, seen = gone(seen, first, 600, ["gone:node b"], now=720)
    assert names(back) == []
    assert seen["node b"] == 720


def test_time_in_which_nobody_could_be_asked_does_not_count() -> None:
    _, seen = gone({}, Sighting(frozenset({"node a"})), 600, [], now=0)
    silent = Sighting(frozenset(), silent=frozenset({"node"}))
    found, seen = gone(seen, silent, 600, [], now=3600)
    assert names(found) == []
    assert names(gone(seen, Sighting(frozenset()), 600, [], now=3700)[0]) == []
    assert names(gone(seen, silent, 600, ["gone:node a"], now=3700)[0]) == ["gone:node a"]


def test_time_in_which_nobody_looked_does_not_count() -> None:
    empty = Sighting(frozenset())
    _, seen = gone({"node a": 0.0}, empty, 600, [], now=3600, looked=0)
    assert seen == {"node a": 3600}
    assert names(gone(seen, empty, 600, [], now=3900, looked=3600)[0]) == []
    assert names(gone(seen, empty, 600, [], now=4300, looked=3900)[0]) == ["gone:node a"]


def test_a_flow_worker_that_never_comes_back_is_forgotten() -> None:
    found, seen = gone({"flow-worker x": 0.0}, Sighting(frozenset()), 600, [], now=FORGOTTEN_S + 1)
    assert (names(found), seen) == ([], {})


def test_what_the_services_tell_is_what_is_there() -> None:
    pools = load_pools(POOLS)
    workers = [{"name": f"{host}-{number}"} for host in pools.hosts[1:] for number in range(len(pools.processes(host)))]
    online = {"default": [{"name": "a", "status": "ONLINE"}, {"name": "b", "status": "OFFLINE"}]}
    answers = {
        "scheduler": Answer(True, facts={"workers": workers[1:]}),
        "server": Answer(True, facts={"workers": online}),
        "redis": Answer(False),
    }
    found = asked.seen(config.load(), pools, answers)
    missed = found.wanted - found.there
    assert missed == {"service redis", f"node {pools.hosts[0]}", f"worker {workers[0]['name']}"}
    assert {"flow-worker a", "service server"} <= found.there
    assert "flow-worker b" not in found.there
    silent = asked.seen(config.load(), pools, {"scheduler": Answer(False)})
    assert (silent.silent, silent.there) == ({"node", "worker"}, frozenset())


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., Path]:
    def make(failed: bool, hours_ago: float, hour: int = 20) -> Path:
        path = naming.bandpass_path(tmp_path, "73MHz", date(2026, 1, 10), hour, failed=failed)
        path.mkdir(parents=True, exist_ok=True)
        at = DUE.timestamp() - 3600 * hours_ago
        os.utime(path, (at, at))
        return path

    return make


def test_a_table_that_failed_is_an_alarm_until_there_is_a_later_good_one(
    tmp_path: Path, tables: Callable[..., Path]
) -> None:
    def look() -> Findings:
        return calibrations(failed_tables(tmp_path, DUE - timedelta(days=1)), ())

    tables(failed=False, hours_ago=3)
    path = tables(failed=True, hours_ago=2)
    tables(failed=True, hours_ago=25, hour=19)
    path.with_name(f"{path.name}.manifest.json").write_text("{}")
    [alarm] = look().alarms
    assert (alarm.name, alarm.paths) == ("calibration:2026-01-10", (str(path),))
    assert "1 did not pass (73MHz 20h)" in alarm.text
    tables(failed=False, hours_ago=1)
    assert look().alarms == ()


def test_a_flow_run_that_failed_is_an_alarm_until_a_later_one_is_good() -> None:
    def run(flow: str, good: bool, hours: float) -> Run:
        return Run(flow, f"{flow} 1", good, DUE + timedelta(hours=hours), DUE.date(), "no data\nat all")

    failed, again = run("nightly-calibration", False, 0), run("nightly-calibration", False, 1)
    assert failed_runs([again, failed, run("bandpass", True, 2)]) == [again]
    assert failed_runs([failed, again, run("nightly-calibration", True, 2)]) == []
    assert failed_runs([run("delay", False, 0), run("nightly-calibration", True, 1)]) == []
    [alarm] = calibrations((), [failed]).alarms
    assert alarm.text == "the calibration of 2026-01-10 failed: flow run nightly-calibration 1 failed: no data"


def take(known: Memory, *up: str, now: float = 0) -> list[tuple[str, str]]:
    """What has to be told after a look at the disks."""
    known.take(Findings("disk", tuple(Alarm(f"disk:{name}", f"{name} is full") for name in up)), now)
    return [(each.name, each.state) for each in known.untold]


def tell_all(known: Memory) -> None:
    for each in known.untold:
        known.told(each, "broker")


def test_an_alarm_is_told_once_when_it_comes_up_and_once_when_it_ends(tmp_path: Path) -> None:
    path, known = tmp_path / "alarms.json", Memory()
    assert take(known, "/fast") == [("disk:/fast", "raised")]
    tell_all(known)
    memory.write(path, known)
    known = memory.read(path)  # as after a restart
    assert take(known, "/fast") == []
    known.take(Findings("raw"), 1)
    known.take(Findings("disk", decided=False), 1)
    assert list(known.up) == ["disk:/fast"]
    assert take(known, now=5) == [("disk:/fast", "cleared")]
    memory.write(path, known)
    known = memory.read(path)
    assert [(each.since, each.until) for each in known.untold] == [(0, 5)]
    tell_all(known)
    assert known.alarms == {}


def test_an_alarm_that_comes_back_before_its_end_was_told_is_not_told_anew() -> None:
    known = Memory()
    take(known, "/fast")
    tell_all(known)
    take(known)
    assert take(known, "/fast") == []


def test_one_that_nobody_could_be_told_of_lets_the_others_go_first() -> None:
    known = Memory()
    take(known, "/a", "/b")
    known.missed(known.untold[0])
    assert [each.name for each in known.untold] == ["disk:/b", "disk:/a"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"alarms": {"a": {}}}', '{"seen": {"x": "never"}}', "\xff"])
def test_a_broken_memory_is_put_aside(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "alarms.json"
    path.write_bytes(text.encode("latin-1"))
    assert memory.read(path) == Memory()
    assert (tmp_path / "alarms.json.broken").exists()
    assert "told once more" in caplog.text
    assert memory.read(path) == Memory()


def test_one_look_waits_for_another_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "alarms.json"
    with (
        memory.alone(path),
        pytest.raises(InfrastructureError, match=r"takes longer than 0\.1 s"),
        memory.alone(path, 0.1),
    ):
        pass
    with memory.alone(path, 0.1):
        pass


def write_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch, **alarms: object) -> config.Config:
    file = folder / "orca-conf.yml"
    file.write_text(json.dumps({"paths": {"data": str(folder / "data")}, "alarms": {"disk_share": None, **alarms}}))
    monkeypatch.setenv("ORCA_CONF", str(file))
    (folder / "data" / "raw").mkdir(parents=True)
    return config.load()


def test_two_looks_at_once_tell_an_alarm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = tmp_path / "heard"
    settings = write_configuration(tmp_path, monkeypatch, command=f"sh -c 'cat >> {heard}; sleep 0.2'")
    monkeypatch.setattr(asked, "due", lambda now: now)
    both = [threading.Thread(target=looking.look, args=(settings,)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert [json.loads(line)["alarm"] for line in heard.read_text().splitlines()] == ["recording"]


def test_a_condition_that_cannot_be_looked_at_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = write_configuration(tmp_path, monkeypatch)
    monkeypatch.setattr(asked, "due", lambda now: now)

    def fail(*_: object) -> Findings:
        raise OrcaError("the disk is away")

    monkeypatch.setattr(asked, "raw", fail)
    found = looking.look(settings)
    assert [known.name for known in found.up] == ["recording"]
    assert found.problems == ("raw: the disk is away",)
    assert looking.remembered(settings)[0] == found.up
