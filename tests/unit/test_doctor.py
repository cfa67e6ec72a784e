"""`orca doctor` without services: what each check finds, and that none can harm or hold up another."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from site_of_tests import ORCA, script

from orca.cluster.doctor import clock, cores, disks, environment, measures, rights, scheduler
from orca.cluster.doctor.finding import Check, Finding, examine
from orca.cluster.doctor.site import read
from orca.cluster.pools import load_pools
from orca.cluster.security import make_certificates
from orca.errors import InfrastructureError

Findings = list[Finding]
Doctor = Callable[..., tuple[int, Findings]]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Run `orca doctor --json` with a configuration, and return its exit status and findings."""

    def call(text: str | None, *sections: str, **variables: str) -> tuple[int, Findings]:
        environ = {**os.environ, **variables}
        if text is not None:
            file = tmp_path / "orca-conf.yml"
            file.write_text(text)
            file.chmod(0o600)
            environ["ORCA_CONF"] = str(file)
        words = [str(ORCA), "doctor", "--json", *(word for each in sections for word in ("--only", each))]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, [Finding(**each) for each in json.loads(done.stdout)["findings"]]

    return call


def of(findings: Findings, name: str) -> Finding:
    found = [finding for finding in findings if finding.name == name]
    assert len(found) == 1, (name, findings)
    return found[0]


# ---- the running of checks ----


def test_a_check_that_hangs_or_fails_takes_no_other_with_it() -> None:
    hang = threading.Event()

    def hangs() -> Iterator[Finding]:
        yield Finding("disks", "first", "ok", "seen before")
        hang.wait()

    def fails() -> Iterator[Finding]:
        raise ZeroDivisionError("at amqp://u:sekret@h/v\nsecond line")

    def explains() -> Iterator[Finding]:
        raise InfrastructureError("is away", "redis", "Start it")

    looks = {"hangs": hangs, "fails": fails, "explains": explains, "works": lambda: [Finding("x", "works", "ok", "")]}
    told: list[int] = []
    findings, ended = examine(
        [Check("disks", name, look) for name, look in looks.items()],
        lambda unfinished: told.append(len(unfinished)),
        deadline_s=0.5,
    )
    hang.set()
    assert not ended
    assert [finding.name for finding in findings] == ["first", "hangs", "fails", "explains", "works"]
    assert [finding.level for finding in findings] == ["ok", "error", "error", "error", "ok"]
    assert "no answer within" in of(findings, "hangs").seen
    assert of(findings, "fails").seen == "could not be examined: ZeroDivisionError: at amqp://u:***@h/v"
    assert (of(findings, "explains").seen, of(findings, "explains").remedy) == ("redis: is away", "Start it")
    assert told == [4, 3, 2, 1]


# ---- the command ----


def test_a_laptop_without_services_has_notes_and_no_errors(doctor: Doctor) -> None:
    _, findings = doctor(None)
    wrong = [each for each in findings if each.level == "error" and each.section != "measures"]  # these grow old
    assert wrong == []
    for section in ("broker", "prefect", "dask", "flow-workers"):
        assert {finding.level for finding in findings if finding.section == section} == {"note"}
    assert of(findings, "execs.wsclean").level == "ok"
    assert of(findings, "python packages").level == "ok"
    assert of(findings, "astropy: offline").level == "ok"
    assert not (Path.home() / "orca").exists(), "examining makes nothing"


def test_an_unknown_section_is_wrong_usage() -> None:
    done = subprocess.run([str(ORCA), "doctor", "--only", "disk"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "disks" in done.stderr


def test_of_a_broken_configuration_each_mistake_is_told_and_the_rest_is_examined(doctor: Doctor) -> None:
    status, findings = doctor("clster: x\ntelescope: {n_ant: sekret}\n")
    assert status == 1
    told = [each for each in findings if each.section == "configuration" and each.level == "error"]
    assert len(told) == 2
    assert "orca-conf.yml:1: clster: unknown key" in told[0].seen
    assert all("sekret" not in finding.seen for finding in findings)
    assert of(findings, "execs.wsclean").level == "ok"
    assert of(findings, "LD_LIBRARY_PATH").level == "ok"
    assert [f.seen for f in findings if f.section == "broker"] == ["not examined, as orca-conf.yml cannot be read"]
    assert of(findings, "work_pools.yaml").level == "ok"


def test_broken_pools_rules_and_placeholders_are_errors(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "work_pools.yaml").write_text("pools: 3\n")
    (tmp_path / "triggers.yaml").write_text("recorded: [{name: a, deployment: nothing/of-ours}]\n")
    status, findings = doctor("queue: {broker_uri: 'pyamqp://<username>:<password>@h/v'}\n", "configuration")
    assert status == 1
    assert of(findings, "work_pools.yaml").level == "error"
    assert "<username> <password>" in of(findings, "queue.broker_uri").seen
    [warned] = [each for each in findings if each.name == "triggers.yaml" and each.level == "warning"]
    assert "nothing/of-ours" in warned.seen
    (tmp_path / "triggers.yaml").write_text("recorded: [\n")
    assert of(doctor("{}", "configuration")[1], "triggers.yaml").level == "error"


def test_what_people_read_is_legible_without_colour_at_80_columns(tmp_path: Path) -> None:
    conf = tmp_path / "orca-conf.yml"
    conf.write_text("execs: {wsclean: wsclean-of-nowhere}\npaths: {data: '/dev/shm/[red]d'}\n")
    words = [str(ORCA), "--config", str(conf), "doctor", "--only", "programs", "--only", "disks"]
    done = subprocess.run(words, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert lines[0] == "programs"
    assert lines[1] == "  error   execs.wsclean: wsclean-of-nowhere: program not found"
    assert lines[2] == "          > Install it, or set execs.wsclean in the configuration"
    assert any("[red]d" in line for line in lines)
    assert lines[-1].startswith("something is broken: 1 error, ")


def test_a_disk_that_hangs_holds_up_what_is_on_it_and_no_longer_than_it_may(doctor: Doctor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "triggers.yaml")  # whoever opens it waits for ever
    status, findings = doctor("{}", "configuration", "environment")
    assert status == 1
    assert "no answer within" in of(findings, "triggers.yaml").seen
    assert of(findings, "deployments").level == "ok"
    (tmp_path / "triggers.yaml").unlink()
    os.mkfifo(tmp_path / "conf.yml")
    status, findings = doctor(None, "configuration", "environment", ORCA_CONF=str(tmp_path / "conf.yml"))
    assert status == 1
    assert any("cannot be read within" in each.seen for each in findings)
    assert of(findings, "PYTHONPATH").level == "ok"


# ---- programs ----


def test_programs_that_are_old_fail_or_say_nothing_are_errors(doctor: Doctor, tmp_path: Path) -> None:
    old, mute = script(tmp_path / "old", "echo WSClean version 2.9.0"), script(tmp_path / "mute", "exit 0")
    status, findings = doctor(f"execs: {{wsclean: {old}, aoflagger: {mute}}}", "programs")
    assert status == 1
    assert of(findings, "execs.wsclean").seen == f"{old} has version 2.9.0, and 3.0 is needed"
    assert "does not tell its version" in of(findings, "execs.aoflagger").seen


def test_a_program_that_hangs_is_ended(doctor: Doctor, tmp_path: Path) -> None:
    hang = script(tmp_path / "hang", "exec sleep 1000")
    status, findings = doctor(f"execs: {{wsclean: {hang}}}", "programs")
    assert (status, of(findings, "execs.wsclean").level) == (1, "error")
    assert of(findings, "execs.aoflagger").level == "ok"


# ---- measures ----


def table(made: str, last: str = "2017-01-01") -> dict[str, str]:
    return {"path": "/x/TAI_UTC", "last": last, "made": made}


def judged(**changed: Any) -> dict[str, str]:
    """Levels of a report that is good on the day but for what changed."""
    good = {
        "folders": {"package": "/p", "system": "/s"},
        "package": {"TAI_UTC": table("2026-05-01"), "IERSpredict": table("2026-05-01", "2026-12-01")},
        "system": {"TAI_UTC": table("2026-05-01")},
        "astropy": {"orientation": "2027-01-01", "leap_seconds": "2027-01-01", "auto_download": "True"},
        "offline": "",
    }
    return {each.name: each.level for each in measures.judged({**good, **changed}, date(2026, 6, 1))}


def test_tables_of_the_earth_are_judged_by_their_age() -> None:
    assert set(judged().values()) == {"ok"}
    package = {"TAI_UTC": table("2020-01-01"), "IERSpredict": table("2020-01-01", "2020-03-01")}
    found = judged(package=package, system={})
    assert found["casacore: leap seconds"] == "warning"
    assert found["casacore: orientation"] == "error"
    assert found["casacore of wsclean: leap seconds"] == "warning"
    assert judged(package={})["casacore: leap seconds"] == "error"
    assert judged(package={"problem": "broken"})["casacore"] == "error"
    assert judged(offline="OSError: a network was asked for")["astropy: offline"] == "error"


def test_casacore_is_looked_for_where_the_environment_says(doctor: Doctor, tmp_path: Path) -> None:
    nothing = {"CASACORE_DATADIR": str(tmp_path), "AIPSPATH": str(tmp_path)}
    status, findings = doctor("{}", "measures", **nothing)
    assert (status, of(findings, "casacore: leap seconds").level) == (1, "error")
    assert str(tmp_path) in of(findings, "casacore: leap seconds").seen


# ---- disks ----


def test_folders_that_cannot_be_are_errors(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    paths = {"data": str(tmp_path / "data"), "images": str(tmp_path / "plain/x"), "spool": "/proc/orca"}
    paths["trash"] = "/dev/shm/orca-trash"
    text = yaml.safe_dump({"paths": paths, "limits": {"scratch_reserve_gb": 1e9}})
    status, findings = doctor(text, "disks")
    assert status == 1
    assert of(findings, "paths.images").seen == f"{tmp_path}/plain/x: {tmp_path}/plain is not a folder"
    assert of(findings, "paths.spool").level == "error"
    assert "so no task starts" in of(findings, "paths.scratch").seen
    assert of(findings, "speed of scratch").level == "note"
    assert {f.level for f in findings if f.name == "trash"} == {"warning"}
    assert of(findings, "paths.averaged").level == "ok"


def test_a_small_disk_is_not_filled_and_one_that_turned_read_only_is_found(
    doctor: Doctor, small_disk: Callable[[str], Path]
) -> None:
    place = small_disk("30m")
    text = yaml.safe_dump({"paths": {"scratch": str(place)}, "limits": {"scratch_reserve_gb": 0}})
    _, findings = doctor(text, "disks")
    assert "tmpfs" in next(each for each in findings if each.name == "paths.scratch").seen
    assert of(findings, "speed of scratch").level == "note"
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    status, findings = doctor(text, "disks")
    assert (status, of(findings, "paths.scratch").level) == (1, "error")
    assert "read-only" in of(findings, "paths.scratch").seen


def test_the_measurement_of_speed_takes_a_tenth_of_what_is_spare_at_most(tmp_path: Path) -> None:
    assert disks.sample_bytes(10**12) == disks.SAMPLE_BYTES
    assert disks.sample_bytes(100_000_000) == 10_000_000
    assert disks.sample_bytes(-5) == 0
    written, seconds = disks.write(tmp_path, 5_000_000)
    assert written == 5_000_000
    assert seconds > 0
    assert list(tmp_path.iterdir()) == []


# ---- clock ----


def test_a_clock_far_from_ours_is_found_by_the_date_of_an_answer() -> None:
    class Wrong(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def date_time_string(self, timestamp: float | None = None) -> str:
            then = datetime.now(UTC) + timedelta(seconds=self.server.off_s)  # type: ignore[attr-defined]
            return f"{then:%a, %d %b %Y %H:%M:%S} GMT"

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Wrong) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        levels = {}
        for server.off_s in (0, 30, -4000):  # type: ignore[attr-defined]
            [found] = clock._http(f"http://127.0.0.1:{server.server_port}/", "prefect", None)
            levels[server.off_s] = found.level  # type: ignore[attr-defined]
        server.shutdown()
    assert levels == {0: "ok", 30: "warning", -4000: "error"}


def test_a_kernel_that_no_time_server_disciplines_is_warned_of() -> None:
    assert clock.kernel_finding(clock.UNSYNCHRONIZED | 1, 16_000_000).level == "warning"
    assert clock.kernel_finding(0x2001, 1200).seen == "synchronized, at most 1.2 ms off"
    [found] = clock._kernel()
    assert found.level in ("ok", "note", "warning")


# ---- environment ----


def test_libraries_and_modules_from_elsewhere_are_found(doctor: Doctor, tmp_path: Path) -> None:
    for name in ("lib/libcasa_tables.so.7", "lib/libcfitsio.so.10", "python/numpy/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    library = {each.name: each for each in environment.libraries({"LD_LIBRARY_PATH": f"/nowhere:{tmp_path}/lib"})}
    assert library["LD_LIBRARY_PATH"].level == "warning"
    assert "libcasa_tables, libcfitsio" in library["LD_LIBRARY_PATH"].seen
    module = {each.name: each for each in environment.modules({"PYTHONPATH": f"{tmp_path}/python"})}
    assert (module["PYTHONPATH"].level, module["PYTHONPATH"].remedy) == ("error", "unset PYTHONPATH")
    status, findings = doctor("{}", "environment", LD_LIBRARY_PATH=f"{tmp_path}/lib", LD_PRELOAD="")
    assert (status, of(findings, "LD_LIBRARY_PATH").level) == (0, "warning")


def test_few_open_files_are_warned_of(tmp_path: Path) -> None:
    limited = ["sh", "-c", f"ulimit -Sn 512; exec {ORCA} doctor --json --only environment"]
    done = subprocess.run(limited, capture_output=True, text=True)
    [found] = [each for each in json.loads(done.stdout)["findings"] if each["name"] == "open files"]
    assert found["level"] == "warning"
    assert found["remedy"].startswith("ulimit -n 4096")
    assert [each.level for each in environment.files(65536, 65536)] == ["ok"]


# ---- rights ----


def test_files_that_others_may_read_or_write_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, spool = tmp_path / "tls", tmp_path / "spool"
    make_certificates(tls, ["localhost"])
    spool.mkdir(mode=0o700)
    conf = tmp_path / "orca-conf.yml"
    conf.write_text(yaml.safe_dump({"network": {"tls": str(tls)}, "paths": {"spool": str(spool)}}))
    conf.chmod(0o600)
    monkeypatch.setenv("ORCA_CONF", str(conf))

    def levels() -> dict[str, str]:
        return {each.name: each.level for check in rights.checks(read()) for each in check.look()}

    assert set(levels().values()) == {"ok"}
    conf.write_text(f"{conf.read_text()}queue: {{broker_uri: 'amqp://u:sekret@h/v'}}\n")
    conf.chmod(0o644)
    assert levels()["orca-conf.yml"] == "warning"
    conf.chmod(0o666)
    (tls / "key.pem").chmod(0o644)
    spool.chmod(0o777)
    found = levels()
    assert (found["orca-conf.yml"], found["certificates"], found["spool"]) == ("error", "error", "warning")
    (tls / "cert.pem").unlink()
    assert levels()["certificates"] == "error"


def test_certificates_that_end_are_found_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orca.cluster import security

    for years, level in ((0.01, "warning"), (-0.01, "error")):
        monkeypatch.setattr(security, "_CLOCK", timedelta(days=30))
        monkeypatch.setattr(security, "YEARS", years)
        make_certificates(tmp_path, ["localhost"], force=True)
        assert rights._expiry(tmp_path / "cert.pem", "again").level == level


# ---- cores, slots, versions ----


POOLS = {
    "hosts": ["nodea", "nodeb"],
    "pools": {
        name: {"runs": 1, "slots": slots, "threads": 2, "memory_gb": 4, "scratch_gb": 1}
        for name, slots in (("default", 3), ("imaging", 1), ("bandpass", 1), ("cosmology", 1))
    },
    "limits": {"load": 1, "free_memory_gb": 1, "free_scratch_gb": 1},
    "recycle": {"tasks": 20, "memory_gb": 4},
}


def pools(tmp_path: Path, **changed: Any) -> Any:
    path = tmp_path / "pools.yaml"
    path.write_text(yaml.safe_dump({**POOLS, **changed}))
    return load_pools(path)


def test_a_node_whose_tasks_take_what_is_reserved_is_found(tmp_path: Path) -> None:
    made = pools(tmp_path, reserved_cores={"nodea": 4})
    assert [each.level for each in cores.here(made, "nodea", 20, 64 * 10**9)] == ["ok"]
    assert [each.level for each in cores.here(made, "nodea", 12, 64 * 10**9)] == ["warning"]
    assert [each.level for each in cores.here(made, "nodea", 4, 64 * 10**9)] == ["error"]
    assert [each.level for each in cores.here(made, "nodeb", 12, 20 * 10**9)] == ["warning"]
    assert [each.level for each in cores.here(made, "laptop", 4, 10**9)] == ["note"]
    assert [each.level for each in cores._reserved(pools(tmp_path))] == ["warning"]


def workers(*hosts: str, **slots: int) -> list[dict[str, Any]]:
    return [{"name": f"{host}-0", "status": "running", "node": {"host": host}, "slots": slots} for host in hosts]


def test_slots_that_nobody_offers_are_errors(tmp_path: Path) -> None:
    made = pools(tmp_path)
    full = {"default": 3, "imaging": 1, "bandpass": 1, "cosmology": 1}
    assert [each.level for each in scheduler.slots(made, workers("nodea", "nodeb", **full))] == ["ok"]
    lost = list(scheduler.slots(made, workers("nodea", **full)))
    assert [(each.name, each.level) for each in lost] == [("nodes", "error"), ("slots", "ok")]
    assert "nodeb" in lost[0].seen
    [few] = scheduler.slots(made, workers("nodea", "nodeb", **{**full, "default": 2}))
    assert (few.level, few.seen) == ("warning", "4 of 6 slots of default are offered; too few on nodea, nodeb")
    assert [each.level for each in scheduler.slots(made, [])] == ["error"] * 4


def test_versions_that_differ_are_told_with_who_has_them() -> None:
    same = {"python": "3.11.7", "distributed": "1", "numpy": "2"}
    assert [each.level for each in scheduler.compared(same, same, {"a-0": same})] == ["ok"]
    found = list(scheduler.compared(same, same, {"a-0": {**same, "numpy": "1"}, "b-0": {**same, "python": "3.12.0"}}))
    assert [each.level for each in found] == ["error", "warning"]
    assert "3.12.0: b-0" in found[0].seen
