"""orca-conf.yml: what loads, what does not and what is said about it, and what is never said."""

from __future__ import annotations

import logging
import os
import pickle
import re
import shlex
import subprocess
import sys
import traceback
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from orca.alarms.email import Email
from orca.antennas import BadAntennaSource
from orca.config import Config, SecretUri, default_path, find, load, mask
from orca.config.model import known_keys
from orca.errors import ConfigError

PASSWORD = "sek-ret4711"
MANUAL = """\
queue:
  prefix: default
  broker_uri: pyamqp://<username>:<password>@rabbitmq.calim.mcs.pvt:5672/<vhost>
  result_backend_uri: redis://10.41.0.85:6379/0
telescope:
  n_ant: 352
  n_subband: 16
  n_chan: 192
  outriggers: [...]      # correlator numbers
execs:
  wsclean: /opt/bin/wsclean
  aoflagger: /opt/bin/aoflagger
cluster: calim
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests off the configuration of whoever runs them."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.delenv("ORCA_CONF", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "conf.yml"


def loaded(file: Path, text: str | bytes, mode: int = 0o600) -> Config:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)
    return load(file)


def problems(file: Path, text: str | bytes) -> list[str]:
    """Return the lines of the error, with the file's name taken off."""
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)
    assert caught.value.exit_code == 2
    return [line.removeprefix(f"{file}:") for line in str(caught.value).splitlines()]


# ---- what loads ----


def test_the_file_of_the_manual_loads_as_it_stands(file: Path) -> None:
    config = loaded(file, MANUAL, mode=0o644)
    assert (config.queue.prefix, config.cluster) == ("default", "calim")
    assert (config.telescope.n_ant, config.telescope.n_subband, config.telescope.n_chan) == (352, 16, 192)
    assert config.telescope.outriggers is None
    assert config.execs.wsclean == "/opt/bin/wsclean"
    assert config.queue.broker_uri is not None
    assert config.queue.broker_uri.placeholders == ("<username>", "<password>", "<vhost>")
    assert str(config.queue.result_backend_uri) == "redis://10.41.0.85:6379/0"
    assert config.warnings == ()  # a placeholder is no password


def test_without_a_file_the_packaged_defaults_run_on_one_machine(home: Path) -> None:
    config = load()
    assert config.file is None
    assert (config.dask.address, config.prefect.api_url, config.queue.broker_uri) == (None, None, None)
    assert config.execs.wsclean == "wsclean"
    assert config.paths.scratch == home / "orca/scratch"
    assert config.prefect.home == home / "orca/prefect"
    assert config.cache.uri == home / "orca/cache"
    assert config.cache.expire_hours == 10


def test_the_packaged_file_gives_and_explains_every_key() -> None:
    lines = default_path().read_text(encoding="utf-8").splitlines()
    values = yaml.safe_load("\n".join(lines))
    for name, section in known_keys().items():
        assert name in values
        if section is not None:
            assert list(values[name]) == list(known_keys(section))
    undocumented = [line for above, line in pairwise(lines) if re.match(r"^\w+:", line) and not above.startswith("# ")]
    assert undocumented == []


@pytest.mark.parametrize("text", ["", "# nothing\n", "execs:\n  # wsclean: x\nqueue:\n", "---\n"])
def test_a_file_that_gives_nothing_changes_nothing(file: Path, text: str) -> None:
    assert loaded(file, text).model_dump() == load().model_dump()


def test_what_a_file_leaves_out_keeps_its_default(file: Path) -> None:
    config = loaded(file, "limits:\n  wsclean_s: 60\n")
    assert (config.limits.wsclean_s, config.limits.aoflagger_s) == (60, load().limits.aoflagger_s)
    assert (config.line_of("limits.wsclean_s"), config.line_of("limits.aoflagger_s")) == (2, None)


def test_files_are_looked_for_in_the_environment_then_here_then_at_home(
    file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find() is None
    (home / "orca-conf.yml").write_text("cluster: home")
    assert load().cluster == "home"
    Path("orca-conf.yml").write_text("cluster: here")
    assert load().cluster == "here"
    assert load().file == Path.cwd() / "orca-conf.yml"
    file.write_text("cluster: environment")
    monkeypatch.setenv("ORCA_CONF", str(file))
    assert load().cluster == "environment"
    other = file.with_name("other.yml")
    other.write_text("cluster: argument")
    assert load(other).cluster == "argument"


def test_a_file_that_is_named_and_missing_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCA_CONF", str(file))
    with pytest.raises(ConfigError, match=r"conf\.yml: \$ORCA_CONF names a file that does not exist"):
        load()
    with pytest.raises(ConfigError, match="no such file"):
        load(file)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load(tmp_path)


def test_nothing_is_read_at_import(file: Path) -> None:
    environment = {**os.environ, "ORCA_CONF": str(file)}  # does not exist
    code = "import orca.config; print('imported', flush=True); orca.config.load()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("imported\n", 1)
    assert "ConfigError" in done.stderr
    assert str(file) in done.stderr


def test_the_configuration_is_imported_without_anything_slow() -> None:
    code = "import sys, orca.config; print(sorted({'numpy', 'numba', 'astropy', 'casacore'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_paths_are_absolute(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAST", "/fast")
    text = "paths: {data: data, raw: ~/raw, scratch: $FAST/x/../y, trash: null}\nexecs: {wsclean: bin/wsclean}\n"
    config = loaded(file, text)
    assert config.paths.data == file.parent / "data"
    assert config.paths.images == file.parent / "data/images"
    assert config.paths.trash == file.parent / "data/trash"
    assert config.paths.raw == home / "raw"
    assert config.paths.scratch == Path("/fast/y")
    assert config.execs.wsclean == str(file.parent / "bin/wsclean")
    assert (config.cache.uri, config.prefect.home) == (file.parent / "data/cache", file.parent / "data/prefect")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("null", None), ("[...]", None), ("[]", ()), ("[0, 4, 2]", (0, 4, 2))],
)
def test_outriggers_are_a_list_or_to_be_found(file: Path, text: str, expected: object) -> None:
    assert loaded(file, f"telescope: {{n_ant: 5, outriggers: {text}}}").telescope.outriggers == expected


def test_bad_antennas_come_from_a_list_a_file_or_a_command(file: Path, home: Path) -> None:
    def source(text: str) -> BadAntennaSource:
        return loaded(file, f"calibration:\n  bad_antennas: {text}\n").calibration.bad_antennas

    assert source("null") == source("{}") == load().calibration.bad_antennas == BadAntennaSource()
    assert source("{fallback: [3, LWA-114, '12']}").fallback == (3, "LWA-114", 12)
    told = source("{file: lists/bad.yml, fallback: [1], deadline_s: 2}")
    assert told == BadAntennaSource(file=file.parent / "lists/bad.yml", fallback=(1,), deadline_s=2)
    assert source("{file: ~/bad.yml, fallback: [1]}").file == home / "bad.yml"
    asked = source("{command: 'bin/bad \"a b\" {date}', fallback: [1], file: null}").command
    assert shlex.split(asked or "") == [str(file.parent / "bin/bad"), "a b", "{date}"]
    on_path = source("\n    command: bad --day {date}\n    fallback: [1]")
    assert shlex.split(on_path.command or "") == ["bad", "--day", "{date}"]


def test_whoever_is_told_of_alarms_is_a_program_or_gets_mail(file: Path) -> None:
    text = (
        "  command: ./tell --state {state}\n  email: {to: [a@b, c@d], from: orca@b, host: mail}\n  raw_left_h: null\n"
    )
    alarms = loaded(file, f"alarms:\n{text}").alarms
    assert alarms.command == f"{file.parent}/tell --state '{{state}}'"
    assert alarms.email == Email(to=("a@b", "c@d"), sender="orca@b", host="mail", port=25)
    assert alarms.raw_left_h is None
    assert (load().alarms.command, load().alarms.email) == (None, None)


def test_bad_antennas_stand_in_lines_of_their_own(file: Path) -> None:
    text = "calibration:\n  bad_antennas:\n    file: bad.yml\n    fallback:\n    - 12\n    - LWA-114\n  alarm_ns: 50\n"
    calibration = loaded(file, text).calibration
    assert calibration.bad_antennas == BadAntennaSource(file=file.parent / "bad.yml", fallback=(12, "LWA-114"))
    assert (calibration.alarm_ns, calibration.max_age_days) == (50, 7)
    assert (calibration.reference_antenna, calibration.integrations, calibration.min_integrations) == (
        "LWA-114",
        24,
        12,
    )


@pytest.mark.parametrize(("text", "expected"), [("283", 283), ("'283'", 283), ("LWA-253", "LWA-253")])
def test_the_reference_antenna_is_a_number_or_a_name(file: Path, text: str, expected: object) -> None:
    assert loaded(file, f"calibration: {{reference_antenna: {text}}}").calibration.reference_antenna == expected


def test_the_cache_is_a_folder_or_redis(file: Path) -> None:
    assert loaded(file, "cache: {uri: spectra}").cache.uri == file.parent / "spectra"
    assert loaded(file, "cache: {uri: 'redis://h:6379/1'}").cache.uri == SecretUri("redis://h:6379/1")


def test_a_whole_number_will_do_where_a_number_is_wanted(file: Path) -> None:
    assert loaded(file, "limits: {settle_s: 0, max_zero_share: 1}\ndask: {memory_gb: 4}").dask.memory_gb == 4


def test_the_configuration_is_frozen_and_pickles(file: Path) -> None:
    config = loaded(file, MANUAL)
    with pytest.raises(ValidationError):
        config.cluster = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.queue.prefix = "x"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert (copy.file, copy.line_of("cluster")) == (file, 13)


# ---- what does not ----


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("queue:\n  borker_uri: x", "2: queue.borker_uri: unknown key; did you mean queue.broker_uri?"),
        ("que:\n  prefix: x", "1: que: unknown key; did you mean queue?"),
        ("wsclean: /x", "1: wsclean: unknown key; did you mean execs.wsclean?"),
        ("dask:\n  expire_hour: 3", "2: dask.expire_hour: unknown key; did you mean cache.expire_hours?"),
        ("execs: {zzz: 1}", "1: execs.zzz: unknown key; known here: wsclean, aoflagger"),
        ("cluster: a\ncluster: b", "2: cluster: given twice, first in line 1"),
        ("queue: {prefix: a}\nqueue: {prefix: b}", "2: queue: given twice, first in line 1"),
        (
            "queue: x",
            "1: queue: expected a section with keys below it (prefix, broker_uri, management_uri, result_backend_uri)",
        ),
        ("- a", "1: expected sections such as `queue:` with keys below them"),
        ("telescope:\n\n  n_ant: many", "3: telescope.n_ant: expected a whole number, found text"),
        ("telescope: {n_ant: 1}", "1: telescope.n_ant: expected a number of at least 2, found 1"),
        ("telescope: {n_ant: 352.5}", "1: telescope.n_ant: expected a whole number, found 352.5"),
        ("telescope: {n_ant: yes}", "1: telescope.n_ant: expected a whole number, found true or false"),
        ("telescope: {n_ant: }", "1: telescope.n_ant: expected a whole number, found nothing"),
        (
            "telescope: {n_ant: 5, outriggers: [1, 5]}",
            "1: telescope.outriggers: expected a list of correlator numbers from 0 to 4, none twice, or null",
        ),
        (
            "telescope: {outriggers: [1, 1]}",
            "1: telescope.outriggers: expected a list of correlator numbers from 0 to 351, none twice, or null",
        ),
        ("queue: {prefix: 5}", "1: queue.prefix: expected text, found a number"),
        ("queue: {prefix: a b}", "1: queue.prefix: expected a name of letters, digits, dots, dashes and underscores"),
        ("cluster: 2026-02-31", "1: cluster: expected a plain value; put text in quotes"),
        ("cluster: !!python/object/apply:os.getcwd []", "1: cluster: expected a plain value; put text in quotes"),
        ("limits: {wsclean_s: .nan}", "1: limits.wsclean_s: expected a finite number, found nan"),
        ("limits: {wsclean_s: 0}", "1: limits.wsclean_s: expected a number above 0, found 0"),
        ("limits: {min_fill_level: 2}", "1: limits.min_fill_level: expected a number of at most 1, found 2"),
        ("limits: {settle_s: [1]}", "1: limits.settle_s: expected a number, found a list"),
        ("dask: {address: localhost}", "1: dask.address: expected an address like tcp://host:8786"),
        ("retention: {prefect_days: 0.5}", "1: retention.prefect_days: expected a number of at least 1, found 0.5"),
        ("retention: {trash_days: 0}", "1: retention.trash_days: expected a number above 0, found 0"),
        ("alarms: {disk_share: 1.1}", "1: alarms.disk_share: expected a number of at most 1, found 1.1"),
        ("alarms: {dead_letters: 0.5}", "1: alarms.dead_letters: expected a whole number, found 0.5"),
        (
            "alarms: {disk_share: 0.8}",
            "1: alarms.disk_clear_share: expected at most alarms.disk_share, which is 0.8, found 0.87",
        ),
        ("alarms: {command: ' '}", "1: alarms.command: expected a command line: a program and its arguments"),
        (
            'alarms: {command: "tell \'x"}',
            "1: alarms.command: expected a command line; a quotation mark in it is not closed",
        ),
        ("alarms: {email: [a]}", "1: alarms.email: expected keys below it (to, from, host, port), or null"),
        ("alarms: {email: {too: a}}", "1: alarms.email: too: unknown key; known here: to, from, host, port"),
        ("alarms: {email: {to: [a@b]}}", "1: alarms.email: from: expected an address such as orca@example.org"),
        (
            "alarms: {email: {to: [a b], from: a@b}}",
            "1: alarms.email: to: expected a list of addresses such as observer@example.org",
        ),
        (
            "alarms: {email: {to: [a@b], from: a@b, port: 0}}",
            "1: alarms.email: port: expected a port from 1 to 65535",
        ),
        (
            "calibration:\n  bad_antennas: {file: bad.yml}",
            "2: calibration.bad_antennas: expected a fallback beside the file: the antennas to leave out when it "
            "does not answer",
        ),
        (
            "calibration:\n  bad_antennas:\n    command: bad\n    fallback: []",
            "2: calibration.bad_antennas: expected a fallback beside the command: the antennas to leave out when it "
            "does not answer",
        ),
        (
            "calibration: {bad_antennas: {file: a, command: b, fallback: [1]}}",
            "1: calibration.bad_antennas: expected a file or a command, not both",
        ),
        (
            "calibration: {bad_antennas: {fiel: a}}",
            "1: calibration.bad_antennas: fiel: unknown key; known here: file, command, fallback, deadline_s",
        ),
        (
            "calibration: {bad_antennas: [1, 2]}",
            "1: calibration.bad_antennas: expected keys below it (file, command, fallback, deadline_s), or null",
        ),
        (
            "calibration: {bad_antennas: {fallback: 3}}",
            "1: calibration.bad_antennas: fallback: expected a list of antennas: correlator numbers, or names such as "
            "LWA-114",
        ),
        (
            "calibration: {bad_antennas: {fallback: [-1]}}",
            "1: calibration.bad_antennas: fallback: expected an antenna: its correlator number, or its name such as "
            "LWA-114",
        ),
        (
            "calibration: {bad_antennas: {fallback: [1], command: 'bad \"x'}}",
            "1: calibration.bad_antennas: command: expected a command line; a quotation mark in it is not closed",
        ),
        (
            "calibration: {bad_antennas: {fallback: [1], command: ' '}}",
            "1: calibration.bad_antennas: command: expected a command line: a program and its arguments",
        ),
        (
            "calibration: {bad_antennas: {fallback: [1], file: 3}}",
            "1: calibration.bad_antennas: file: expected a path",
        ),
        (
            "calibration: {bad_antennas: {fallback: [1], deadline_s: 0}}",
            "1: calibration.bad_antennas: deadline_s: expected a number of seconds above 0",
        ),
        (
            "calibration: {reference_antenna: yes}",
            "1: calibration.reference_antenna: expected an antenna: its correlator number, or its name such as LWA-114",
        ),
        ("calibration: {max_age_days: 0}", "1: calibration.max_age_days: expected a number above 0, found 0"),
        (
            "calibration:\n  integrations: 6\n  min_integrations: 7",
            "3: calibration.min_integrations: expected at most calibration.integrations, which is 6, found 7",
        ),
        (
            "calibration:\n  integrations: 6",
            "1: calibration.min_integrations: expected at most calibration.integrations, which is 6, found 12",
        ),
        ("prefect: {api_url: 'ftp://h'}", "1: prefect.api_url: expected an address like http://host:4200/api"),
        ("cache: {uri: 5}", "1: cache.uri: expected a folder, or an address like redis://host:6379/1"),
        ("paths: {data: 3}", "1: paths.data: expected a path, found 3"),
        ("paths: {data: $NOWHERE_TO_GO/x}", "1: paths.data: expected a path; the variable $NOWHERE_TO_GO is not set"),
        ("paths: {raw: ''}", "1: paths.raw: expected a path"),
        ("paths: {raw: ~nobody-of-that-name/x}", "1: paths.raw: expected a path; there is no such user as after its ~"),
        ("execs: {wsclean: ''}", "1: execs.wsclean: expected the name or the path of a program"),
        ("a: b: c", "1: is no YAML: mapping values are not allowed here. Put text with special characters in quotes"),
        ("a:\n\tb: 1", "2: is no YAML: found character '\\t' that cannot start any token. Use spaces, not tabs"),
    ],
)
def test_a_mistake_is_told_with_line_key_and_what_was_expected(file: Path, text: str, problem: str) -> None:
    assert problems(file, text) == [problem]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(file: Path) -> None:
    text = "cluster: 5\nnothing: 1\ntelescope:\n  n_ant: x\n  n_chan: 0\nexecs: 3\nlimits:\n  settle_s: -1\n"
    found = problems(file, text)
    assert [line.split(": ")[:2] for line in found] == [
        ["1", "cluster"],
        ["2", "nothing"],
        ["4", "telescope.n_ant"],
        ["5", "telescope.n_chan"],
        ["6", "execs"],
        ["8", "limits.settle_s"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\xff",
        b"a: \x00",
        b"[" * 5000,
        b"cluster: " + b"1" * 5000,
        b"a: 1\n---\nb: 2",
        b"x: [1, 2",
        b"{*a : 1}",
    ],
)
def test_a_broken_file_is_an_error_of_ours(file: Path, text: bytes) -> None:
    assert len(problems(file, text)) == 1


# ---- what is never said ----


def secret_file(file: Path, mode: int = 0o600) -> Config:
    text = (
        f"queue:\n  broker_uri: pyamqp://user:{PASSWORD}@host:5672/vhost\n"
        f"  result_backend_uri: redis://:{PASSWORD}@host:6379/0\n"
        f"cache: {{uri: 'redis://host/1?password={PASSWORD}'}}\nprefect: {{api_url: 'https://u:{PASSWORD}@host/api'}}\n"
    )
    return loaded(file, text, mode)


def test_a_password_is_masked_however_the_configuration_is_printed(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = secret_file(file)
    logging.getLogger("orca").error("%s %r %s", config, config.queue, config.items())
    shown = [
        str(config),
        repr(config),
        f"{config.queue}",
        config.model_dump_json(),
        str(config.model_dump(mode="json")),
    ]
    shown += [str(config.model_dump()), str(config.items()), f"{config.queue.broker_uri:}", "%s" % config.cache.uri]  # noqa: UP031
    shown += [caplog.text]
    assert not any(PASSWORD in text for text in shown)
    assert all("***" in text for text in shown)


def test_a_secret_is_shown_with_everything_but_the_password(file: Path) -> None:
    config = secret_file(file)
    assert str(config.queue.broker_uri) == "pyamqp://user:***@host:5672/vhost"
    assert str(config.queue.result_backend_uri) == "redis://:***@host:6379/0"
    assert str(config.cache.uri) == "redis://host/1?password=***"
    assert config.model_dump(mode="json")["prefect"]["api_url"] == "https://u:***@host/api"


def test_a_secret_can_be_revealed_on_purpose_and_survives_a_pickle(file: Path) -> None:
    copy = pickle.loads(pickle.dumps(secret_file(file)))
    assert copy.queue.broker_uri.reveal() == f"pyamqp://user:{PASSWORD}@host:5672/vhost"


@pytest.mark.parametrize(
    "text",
    [
        f"queue: {{broker_uri: 'http://user:{PASSWORD}@host/'}}",
        f"queue: {{broker_uri: 'amqp://user:{PASSWORD}/x@host/'}}",
        f"queue: {{broker_uri: 'amqp://user:12/{PASSWORD}@host/'}}",
        f"queue: {{broker_uri: 'amqp://user/x:{PASSWORD}@host/'}}",
        f"queue: {{broker_uri: 'amqp://user:{PASSWORD} x@host/'}}",
        f"queue: {{broker_uri: 'amqp://user:{PASSWORD}@host:port/'}}",
        f"queue: {{broker_uri: 'amqp://user:{PASSWORD}@[host/'}}",
        f"queue: {{broker_uri: ['amqp://user:{PASSWORD}@host/']}}",
        f"queue: {{prefix: 'amqp://user:{PASSWORD}@host/'}}",
        f"dask: {{address: 'tcp://user:{PASSWORD}@host:1'}}",
        f"cache: {{uri: 'http://user:{PASSWORD}@host/'}}",
        f"paths: {{raw: [{PASSWORD}]}}",
        f"telescope: {{n_ant: {PASSWORD}, outriggers: [{PASSWORD}]}}",
        f"calibration: {{bad_antennas: {{command: 'bad --password {PASSWORD}'}}}}",
        f"calibration: {{bad_antennas: {{fallback: ['{PASSWORD} x']}}}}",
        f"calibration: {{bad_antennas: {{deadline_s: {PASSWORD}}}}}",
        f"calibration: {{bad_antennas: {{'amqp://u:{PASSWORD}@h': 1}}}}",
        f"calibration: {{reference_antenna: '{PASSWORD} x'}}",
        f"queue: {PASSWORD}",
        f"amqp://user:{PASSWORD}@host/: 1",
        f"queue:\n  broker_uri:amqp://user:{PASSWORD}@host/\n  prefix: x",
        f"queue:\n  broker_uri: amqp://user:{PASSWORD}@host/: x",
        f"queue:\n  broker_uri: 'amqp://user:{PASSWORD}@host/",
        f"queue:\n  broker_uri: *{PASSWORD}",
        f"queue:\n  broker_uri: !{PASSWORD} x",
        f"queue:\n  broker_uri: &{PASSWORD} !!int x",
        f'queue:\n  broker_uri: "\\x{PASSWORD}"',
        f"{PASSWORD}",
    ],
)
def test_no_error_quotes_a_password(file: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("cannot reach amqp://u:p@h:5672/v, giving up", "cannot reach amqp://u:***@h:5672/v, giving up"),
        ("redis://:p@h and http://h:80/x", "redis://:***@h and http://h:80/x"),
        ("amqp://u:p@ss:w/o#r?d@h/v", "amqp://u:***@h/v"),
        ("redis://h/0?db=1&password=p&x=2", "redis://h/0?db=1&password=***&x=2"),
        ("http://host:4200/api, write to me@host", "http://host:4200/api, write to me@host"),
        ("amqp://<user>:<password>@h/v", "amqp://<user>:<password>@h/v"),
        ("amqp://u:<p>x@h/v", "amqp://u:***@h/v"),
        ("amqp://u:<p>@x@h/v", "amqp://u:***@h/v"),
    ],
)
def test_text_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o644, True)]
)
def test_a_password_that_others_can_read_gives_a_warning(file: Path, mode: int, warned: bool) -> None:
    warnings = secret_file(file, mode).warnings
    assert bool(warnings) is warned
    if warned:
        assert warnings == (f"{file}: holds a password, and others can read it. Run: chmod 600 {file}",)


@pytest.mark.parametrize("uri", ["redis://host:6379/0", "redis://user@host/0", "redis://host/0?password=<password>"])
def test_a_file_without_a_password_may_be_read_by_all(file: Path, uri: str) -> None:
    assert loaded(file, f"queue: {{result_backend_uri: '{uri}'}}", mode=0o644).warnings == ()
