"""The command line: its frame, how it ends, and `orca config`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orca.cli.config import template
from orca.config import default_path, load

PASSWORD = "sek-ret4711"
PLAIN = "from orca.cli import main; main()"
BROKEN = """
import sys, types, typer, orca.cli
from orca.errors import InfrastructureError, InputError
module = types.ModuleType("broken")
module.app = typer.Typer()
@module.app.command()
def broken(how: str) -> None:
    '''Break.'''
    if how == "input":
        raise InputError("is [bold]odd[/bold]\\x1b[31m", "/data/x.ms", "Look at [it]")
    if how == "work":
        raise InfrastructureError("lost amqp://u:sek-ret4711@h/v")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "bug":
        raise ZeroDivisionError("at amqp://u:sek-ret4711@h/v\\nsecond line")
    if how == "exit":
        raise typer.Exit(3)
sys.modules["broken"] = module
orca.cli._Orca.nouns = {**orca.cli._Orca.nouns, "broken": ("broken", "Break.")}
orca.cli.main()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("home", "here", "tmp"):
        (tmp_path / folder).mkdir()
    for variable in ("ORCA_CONF", "ORCA_TRACEBACK", "_ORCA_COMPLETE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def orca(*arguments: str, program: str = PLAIN, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60)


def broken(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return orca(*arguments, program=BROKEN, **environment)


def fake_program(path: Path, says: str, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return path


# ---- the frame ----


def test_completion_lists_the_nouns_and_what_is_below_them() -> None:
    nouns = orca(_ORCA_COMPLETE="complete_bash", COMP_WORDS="orca ", COMP_CWORD="1")
    assert {"run", "simulate", "config", "status", "down"} <= set(nouns.stdout.split())
    verbs = orca(_ORCA_COMPLETE="complete_bash", COMP_WORDS="orca config ", COMP_CWORD="2")
    assert verbs.stdout.split() == ["init", "show", "reference", "options", "check"]


def test_a_wrong_noun_is_a_usage_error_that_names_the_nearest() -> None:
    done = orca("confg")
    assert done.returncode == 2
    assert "Did you mean 'config'" in done.stderr


def test_an_error_of_ours_is_one_line_as_it_is_and_its_exit_status() -> None:
    done = broken("broken", "input")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "orca: error: /data/x.ms: is [bold]odd[/bold]?[31m. Look at [it]\n"
    done = broken("broken", "work")
    assert (done.returncode, done.stderr) == (1, "orca: error: lost amqp://u:***@h/v\n")


def test_an_interrupt_exits_with_130_and_says_no_more() -> None:
    done = broken("broken", "interrupt")
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


def test_an_exit_status_of_a_command_is_that_of_the_program() -> None:
    assert broken("broken", "exit").returncode == 3


def test_an_unexpected_error_is_one_line_that_says_where_the_rest_is() -> None:
    done = broken("broken", "bug")
    assert done.returncode == 1
    found = re.fullmatch(
        r"orca: error: unexpected ZeroDivisionError: at amqp://u:\*\*\*@h/v "
        r"\(traceback in (\S+), or with --traceback\)\n",
        done.stderr,
    )
    assert found is not None
    kept = Path(found[1])
    assert kept.stat().st_mode & 0o077 == 0
    assert "Traceback (most recent call last)" in kept.read_text()
    assert PASSWORD not in kept.read_text()


@pytest.mark.parametrize("asked", [{"arguments": ["--traceback"]}, {"ORCA_TRACEBACK": "1"}])
def test_the_traceback_is_shown_when_asked_for(asked: dict, tmp_path: Path) -> None:
    done = broken(*asked.pop("arguments", []), "broken", "bug", **asked)
    assert "Traceback (most recent call last)" in done.stderr
    assert "(traceback shown above)" in done.stderr
    assert PASSWORD not in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_file_given_on_the_command_line_comes_first(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("cluster: named")
    Path("orca-conf.yml").write_text("cluster: here")
    done = orca("--config", "../a.yml", "config", "show", ORCA_CONF="/nowhere")
    assert "cluster: named" in done.stdout


# ---- orca config ----


def test_init_writes_a_private_file_that_changes_no_default(home: Path) -> None:
    done = orca("config", "init")
    file = home / "orca-conf.yml"
    assert (done.returncode, done.stdout) == (0, f"{file} written. Edit it, then run: orca config check\n")
    assert file.stat().st_mode & 0o777 == 0o600
    before = default_path()
    assert load(file).model_dump() == load(before).model_dump()
    assert not any(load(file).line_of(key) for key in load(file).items() if "." in key)


def test_a_key_of_the_template_counts_once_its_hash_is_removed(tmp_path: Path) -> None:
    packaged = default_path().read_text(encoding="utf-8")
    restored = re.sub(r"^( *)#(\w)", r"\1\2", template(packaged), flags=re.MULTILINE)
    assert yaml.safe_load(restored) == yaml.safe_load(packaged)


def test_init_replaces_a_file_only_when_forced(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    file.write_text("cluster: mine")
    file.chmod(0o644)
    done = orca("config", "init", "--path", str(file))
    assert (done.returncode, file.read_text()) == (2, "cluster: mine")
    assert "--force" in done.stderr
    assert orca("config", "init", "--path", str(file), "--force").returncode == 0
    assert "#cluster: local" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_init_says_when_it_cannot_write(tmp_path: Path) -> None:
    done = orca("config", "init", "--path", str(tmp_path / "none" / "x.yml"))
    assert (done.returncode, done.stderr) == (
        1,
        f"orca: error: {tmp_path}/none/x.yml: cannot be written: no such file or directory\n",
    )


def secret_file(mode: int) -> Path:
    file = Path("orca-conf.yml").absolute()
    file.write_text(
        f"queue:\n  broker_uri: pyamqp://user:{PASSWORD}@host:5672/vhost\ntelescope: {{outriggers: [3, 4]}}\n"
    )
    file.chmod(mode)
    return file


def test_show_prints_yaml_with_origins_and_no_password() -> None:
    file = secret_file(0o600)
    done = orca("config", "show")
    assert (done.returncode, done.stderr) == (0, "")
    assert PASSWORD not in done.stdout
    shown = yaml.safe_load(done.stdout)
    assert shown == load(file).model_dump(mode="json")
    lines = {line.split(":")[0].strip(): line.rpartition("# ")[2] for line in done.stdout.splitlines()}
    assert (lines["broker_uri"], lines["outriggers"], lines["prefix"]) == ("line 2", "line 3", "default")
    assert "pyamqp://user:***@host:5672/vhost" in done.stdout


def test_show_as_json_tells_value_and_origin_of_each_key() -> None:
    file = secret_file(0o600)
    done = orca("config", "show", "--json")
    shown = json.loads(done.stdout)
    assert shown["file"] == str(file)
    assert shown["values"]["queue.broker_uri"] == {
        "value": "pyamqp://user:***@host:5672/vhost",
        "from": "file",
        "line": 2,
    }
    assert shown["values"]["cluster"] == {"value": "local", "from": "default", "line": None}
    assert set(shown["values"]) == set(load(file).items())


def test_show_prints_the_source_of_bad_antennas_so_that_it_can_be_read_again(tmp_path: Path) -> None:
    file = Path("orca-conf.yml").absolute()
    file.write_text("calibration:\n  bad_antennas:\n    file: bad.yml\n    fallback: [12, LWA-114]\n")
    done = orca("config", "show")
    line = next(line for line in done.stdout.splitlines() if "bad_antennas" in line)
    assert line.endswith("# line 2")
    again = tmp_path / "again.yml"
    again.write_text(f"calibration:\n{line}\n")
    assert load(again).calibration.bad_antennas == load(file).calibration.bad_antennas
    shown = json.loads(orca("config", "show", "--json").stdout)["values"]["calibration.bad_antennas"]
    assert (shown["line"], shown["value"]["fallback"]) == (2, [12, "LWA-114"])


def test_a_source_of_bad_antennas_without_a_fallback_is_refused() -> None:
    Path("orca-conf.yml").write_text("calibration:\n  bad_antennas:\n    command: bad-antennas {date}\n")
    done = orca("config", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "orca-conf.yml:2: calibration.bad_antennas: expected a fallback beside the command" in done.stderr


def test_a_password_that_others_can_read_is_warned_of_on_standard_error() -> None:
    file = secret_file(0o644)
    done = orca("config", "show", "--json")
    assert json.loads(done.stdout)
    assert done.stderr == f"orca: warning: {file}: holds a password, and others can read it. Run: chmod 600 {file}\n"


def test_a_wrong_file_exits_with_2_and_one_line_for_each_mistake() -> None:
    Path("orca-conf.yml").write_text("clster: x\ntelescope:\n  n_ant: x\n")
    here = Path.cwd()
    for command in ("show", "check"):
        done = orca("config", command)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"orca: error: {here}/orca-conf.yml:1: clster: unknown key; did you mean cluster?\n"
            f"{here}/orca-conf.yml:3: telescope.n_ant: expected a whole number, found text\n"
        )


def checked(text: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return exit status and, by subject, the worst finding of `orca config check`."""
    Path("orca-conf.yml").write_text(text)
    Path("orca-conf.yml").chmod(0o644)
    done = orca("config", "check", "--json")
    order = ["ok", "warning", "failed"]
    findings: dict[str, tuple[str, str]] = {}
    for row in sorted(json.loads(done.stdout), key=lambda row: order.index(row["status"])):
        findings[row["subject"]] = (row["status"], row["detail"])
    return done.returncode, findings


@pytest.fixture
def programs(tmp_path: Path) -> str:
    wsclean = fake_program(tmp_path / "bin/wsclean", "WSClean version 3.9.1 (2031-01-01)")
    aoflagger = fake_program(tmp_path / "bin/aoflagger", "AOFlagger 4.2 (2031-01-01)")
    return f"execs: {{wsclean: {wsclean}, aoflagger: {aoflagger}}}\n"


def test_check_of_a_good_configuration_tells_versions_and_room(programs: str, tmp_path: Path) -> None:
    status, findings = checked(programs + "limits: {scratch_reserve_gb: 0}\n")
    assert {key: state for key, (state, _) in findings.items() if state != "ok"} == {}
    assert status == 0
    assert findings["execs.wsclean"] == ("ok", f"{tmp_path}/bin/wsclean, version 3.9.1")
    assert findings["execs.aoflagger"] == ("ok", f"{tmp_path}/bin/aoflagger, version 4.2")
    assert re.fullmatch(r".*/orca/scratch can be made, [\d.]+ GB free", findings["paths.scratch"][1])
    assert not (tmp_path / "home/orca").exists()  # checking makes nothing


def test_check_knows_the_version_of_the_real_programs() -> None:
    _, findings = checked("")
    assert re.search(r"/wsclean, version \d+\.\d", findings["execs.wsclean"][1])
    assert re.search(r"/aoflagger, version \d+\.\d", findings["execs.aoflagger"][1])


def test_check_points_at_what_fails(programs: str, tmp_path: Path) -> None:
    failing = fake_program(tmp_path / "bin/failing", "no", status=3)
    (tmp_path / "plain").write_text("")
    status, findings = checked(
        "queue: {broker_uri: 'pyamqp://<username>:<password>@host/<vhost>'}\n"
        f"execs: {{wsclean: wsclean-of-nowhere, aoflagger: {failing}}}\n"
        f"paths: {{scratch: {tmp_path}/plain/x, images: /proc/orca}}\n"
    )
    assert status == 1
    assert findings["queue.broker_uri"] == (
        "failed",
        f"<username> <password> <vhost> still to be filled in, {Path.cwd()}/orca-conf.yml:1",
    )
    assert findings["execs.wsclean"][0] == "failed"
    assert "execs.wsclean" in findings["execs.wsclean"][1]
    assert findings["execs.aoflagger"][0] == "failed"
    assert findings["paths.scratch"] == ("failed", f"{tmp_path}/plain/x: {tmp_path}/plain is not a folder")
    assert findings["paths.images"][0] == "failed"
    assert findings["paths.averaged"][0] == "ok"


def test_check_refuses_a_scratch_disk_without_its_reserve(programs: str) -> None:
    status, findings = checked(programs + "limits: {scratch_reserve_gb: 1000000000}\n")
    assert (status, findings["paths.scratch"][0]) == (1, "failed")


def test_check_warns_of_a_readable_password_and_a_trash_elsewhere(programs: str) -> None:
    status, findings = checked(
        programs + f"queue: {{broker_uri: 'amqp://u:{PASSWORD}@h/v'}}\npaths: {{trash: /dev/shm/t}}\n"
    )
    assert status == 0
    assert findings["configuration"][0] == "warning"
    assert findings["paths.trash"][0] == "warning"


def test_check_prints_a_table_that_takes_no_path_for_markup(programs: str) -> None:
    Path("orca-conf.yml").write_text(programs + "paths: {images: '[red]pictures'}\n")
    done = orca("config", "check")
    assert done.returncode == 0
    assert "[red]pictures" in done.stdout
    assert re.search(r"execs\.wsclean\W+ok\W", done.stdout)
