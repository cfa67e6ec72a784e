"""The sections of the configuration: names, types and bounds. Their defaults stand in data/orca-conf.yml."""

from __future__ import annotations

import os
import re
import shlex
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orca.alarms.email import Email
from orca.antennas import AntennaId, BadAntennaSource
from orca.config.secret import SecretUri, mask, parse_uri


def _expand(text: str, folder: Path) -> Path:
    """Return a path of the file as an absolute one."""
    expanded = os.path.expandvars(text)
    if undefined := re.search(r"\$(\w+|\{\w+\})", expanded):
        raise ValueError(f"expected a path; the variable {undefined[0]} is not set")
    try:
        return Path(os.path.normpath(folder / Path(expanded).expanduser()))
    except RuntimeError as error:  # ~nobody
        raise ValueError("expected a path; there is no such user as after its ~") from error


def _folder_of(info: ValidationInfo) -> Path:
    return (info.context or {}).get("folder") or Path.cwd()


def _path(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("expected a path")
    return _expand(value, _folder_of(info))


def _program(value: Any, info: ValidationInfo) -> Any:
    """Leave a bare name for PATH; make a path absolute."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("expected the name or the path of a program")
    return str(_expand(value, _folder_of(info))) if re.search(r"[/~$]", value) else value


def _uri(schemes: tuple[str, ...], example: str) -> BeforeValidator:
    def validate(value: Any) -> Any:
        if value is None or isinstance(value, SecretUri):
            return value
        if not isinstance(value, str):
            raise ValueError(f"expected an address like {example}")
        return parse_uri(value, schemes, example)

    return BeforeValidator(validate)


_redis = _uri(("redis", "rediss"), "redis://host:6379/0")


def _cache_uri(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return parse_uri(value, ("redis", "rediss"), "redis://host:6379/1") if "://" in value else _path(value, info)
    if value is None or isinstance(value, SecretUri | Path):
        return value
    raise ValueError("expected a folder, or an address like redis://host:6379/1")


def _bad_antennas(value: Any, info: ValidationInfo) -> Any:
    """Make the source of bad antennas of the keys below it, and every mistake in them one line."""
    if value is None or isinstance(value, BadAntennaSource):
        return value or BadAntennaSource()
    known = ", ".join(BadAntennaSource.model_fields)
    if not isinstance(value, dict):
        raise ValueError(f"expected keys below it ({known}), or null")
    if unknown := [str(key) for key in value if key not in BadAntennaSource.model_fields]:
        raise ValueError(f"{mask(unknown[0])[:60]}: unknown key; known here: {known}")
    given = {key: item for key, item in value.items() if item is not None}
    try:
        if "file" in given:
            given["file"] = _path(given["file"], info)
        source = BadAntennaSource.model_validate(given, strict=True)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        problem = str(detail.get("ctx", {}).get("error") or f"expected {_WANTED[detail['loc'][0]]}")
        raise ValueError(": ".join([*map(str, detail["loc"][:1]), problem])) from None
    if source.command is None:
        return source
    program, *arguments = shlex.split(source.command)
    return source.model_copy(update={"command": shlex.join([_program(program, info), *arguments])})


def _command(value: Any, info: ValidationInfo) -> Any:
    """Make the program of a command line absolute, unless it is a bare name."""
    if not isinstance(value, str):
        return value
    try:
        words = shlex.split(value)
    except ValueError:
        raise ValueError("expected a command line; a quotation mark in it is not closed") from None
    if not words:
        raise ValueError("expected a command line: a program and its arguments")
    return shlex.join([_program(words[0], info), *words[1:]])


def _email(value: Any) -> Any:
    """Make an `Email` of the keys below it, and the first mistake in them one line."""
    if value is None or isinstance(value, Email):
        return value
    known = ", ".join(Email.WANTED)
    if not isinstance(value, dict):
        raise ValueError(f"expected keys below it ({known}), or null")
    if unknown := [str(key) for key in value if key not in Email.WANTED]:
        raise ValueError(f"{mask(unknown[0])[:60]}: unknown key; known here: {known}")
    try:
        return Email.model_validate({key: item for key, item in value.items() if item is not None})
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        key = str(detail["loc"][0])
        raise ValueError(f"{key}: expected {Email.WANTED[key]}") from None


_WANTED: dict[int | str, str] = {"file": "a path", "deadline_s": "a number of seconds above 0"}

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Folder = Annotated[Path, BeforeValidator(_path)]
Program = Annotated[str, BeforeValidator(_program)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: frozen, strict, and silent about what it was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class Queue(Section):
    """The message queue and the store of results."""

    prefix: Name
    """Separates the users of one cluster."""
    broker_uri: Annotated[SecretUri | None, _uri(("pyamqp", "amqp", "amqps"), "pyamqp://user:password@host:5672/vhost")]
    """RabbitMQ; None: none."""
    management_uri: Annotated[SecretUri | None, _uri(("http", "https"), "http://user:password@host:15672")]
    """RabbitMQ's management API; None: port 15672 of its host, where that answers."""
    result_backend_uri: Annotated[SecretUri | None, _redis]
    """Redis; None: a folder."""


class Telescope(Section):
    """The array."""

    n_ant: Annotated[int, Field(ge=2)]
    """Antennas."""
    n_subband: Annotated[int, Field(ge=1)]
    """Subbands."""
    n_chan: Annotated[int, Field(ge=1)]
    """Channels of a subband."""
    outriggers: tuple[int, ...] | None
    """Correlator numbers of the outriggers; None: to be found from the antenna positions."""

    @field_validator("outriggers", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or value == ["..."]:  # what YAML makes of the [...] of the manual
            return None
        n_ant = info.data.get("n_ant")
        valid = isinstance(value, list | tuple) and all(
            type(item) is int and item >= 0 and (n_ant is None or item < n_ant) for item in value
        )
        if not valid or len(set(value)) < len(value):
            last = "n_ant - 1" if n_ant is None else n_ant - 1
            raise ValueError(f"expected a list of correlator numbers from 0 to {last}, none twice, or null")
        return tuple(value)


class Execs(Section):
    """Programs: a name to be found on PATH, or an absolute path (see `orca.process.find_program`)."""

    wsclean: Program
    """The imager."""
    aoflagger: Program
    """AOFlagger's program, which `orca flagging` compares with."""


class Paths(Section):
    """Folders, all absolute. What is not given is below `data`."""

    data: Folder
    """What the others are below that are not given."""
    raw: Folder
    """What the recorders write."""
    averaged: Folder
    """Flagged and averaged data."""
    cosmology: Folder
    """What is split for cosmology, and the splits."""
    calibration: Folder
    """Calibration tables and their reports."""
    images: Folder
    """Images and their pictures."""
    dynspec: Folder
    """Dynamic spectra."""
    scratch: Folder
    """Work in progress: fast, local, with room for a few Measurement Sets."""
    spool: Folder
    """Messages that wait while the broker is away."""
    trash: Folder
    """What was removed; on the file system of raw and cosmology."""

    @model_validator(mode="before")
    @classmethod
    def _below_data(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, dict):
            return values
        try:
            data = _path(values["data"], info)
        except (KeyError, ValueError):  # the key itself says so
            data = None
        base = data if isinstance(data, Path) else Path("/")
        below = [name for name in cls.model_fields if name != "data" and values.get(name) is None]
        return {**values, **{name: base / name for name in below}}


class Dask(Section):
    """The Dask cluster."""

    address: Annotated[str | None, Field(pattern=r"^(tcp|tls)://[^\s:/@]+:\d{1,5}$")]
    """Scheduler of a running cluster; None: a cluster on this machine."""
    workers: Annotated[int, Field(ge=1)] | None
    """Worker processes on this machine; None: as many as the cores allow."""
    threads: Annotated[int, Field(ge=1)]
    """Tasks that one worker process runs at the same time."""
    memory_gb: Seconds | None
    """Memory of a worker process; None: an equal share."""


class Prefect(Section):
    """The Prefect server."""

    api_url: Annotated[SecretUri | None, _uri(("http", "https"), "http://host:4200/api")]
    """Address of the server; None: one of our own on this machine."""
    home: Folder
    """Folder of our own server's database and settings."""
    database: Annotated[SecretUri | None, _uri(("postgresql",), "postgresql://user:password@host:5432/orca")]
    """Database of our own server; None: SQLite."""


class Network(Section):
    """How the parts reach each other."""

    host: str
    """Address of this machine on which our own parts listen."""
    tls: Folder | None
    """Folder of the certificates with which all parts talk TLS; None: none do."""

    @field_validator("host")
    @classmethod
    def _one_address(cls, value: str) -> str:
        """Refuse an address that means all interfaces: an open Dask port runs anybody's code."""
        try:
            everywhere = ip_address(value.strip("[]")).is_unspecified
        except ValueError:  # a name
            everywhere = not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", value)
        if everywhere:
            raise ValueError(f"expected the address of one interface of this machine, found {value!r}")
        return value

    @model_validator(mode="after")
    def _private(self) -> Network:
        """Refuse a public address without TLS (a name is looked at when something listens there)."""
        try:
            address = ip_address(self.host.strip("[]"))
        except ValueError:
            return self
        if self.tls is None and not (address.is_private or address.is_loopback):
            raise ValueError(f"host {self.host} is a public address: set tls (orca cluster certs), or a private host")
        return self


class Cache(Section):
    """The spectrum cache."""

    uri: Annotated[SecretUri | Path, BeforeValidator(_cache_uri)]
    """Redis, or a folder."""
    expire_hours: Annotated[float, Field(gt=0)]


class Calibration(Section):
    """How calibrations are made, and which of them is taken."""

    bad_antennas: Annotated[BadAntennaSource, BeforeValidator(_bad_antennas)]
    """Antennas that are known to be bad."""
    reference_antenna: AntennaId
    """Its phases are zero; by correlator number or by name."""
    integrations: Annotated[int, Field(ge=1)]
    """Integrations of a bandpass."""
    min_integrations: Annotated[int, Field(ge=1)]
    """With fewer no bandpass is made."""
    max_age_days: Annotated[float, Field(gt=0)]
    """No calibration is taken that is farther from the observation, before or after."""
    alarm_ns: Annotated[float, Field(gt=0)]
    """A delay that differs more from the last good one raises an alarm."""

    @field_validator("min_integrations")
    @classmethod
    def _no_more_than_all(cls, value: int, info: ValidationInfo) -> int:
        wanted = info.data.get("integrations")
        if wanted is not None and value > wanted:
            raise ValueError(f"expected at most calibration.integrations, which is {wanted}, found {value}")
        return value


class Limits(Section):
    """When to give up, and what not to take on."""

    wsclean_s: Seconds
    """Deadline of one run of wsclean."""
    aoflagger_s: Seconds
    """Deadline of one run of AOFlagger."""
    stage_s: Seconds
    """Deadline of one block's reading, calibrating and writing."""
    scratch_reserve_gb: Annotated[float, Field(ge=0)]
    """Room that has to stay free on the scratch disk."""
    settle_s: Annotated[float, Field(ge=0)]
    """A file that changed within this time is still being written."""
    min_fill_level: Share
    """Lowest share of packets that arrived."""
    max_zero_share: Share
    """Highest share of zeros."""
    raw_lifetime_h: Annotated[float, Field(gt=0)]
    """Age at which the recorder deletes raw data, hours."""


Days = Annotated[float, Field(gt=0)] | None


class Retention(Section):
    """What is kept how long; None: for ever."""

    trash_days: Days
    """In the trash."""
    prefect_days: Annotated[float, Field(ge=1)] | None
    """What Prefect knows of flow runs that have ended."""
    scratch_hours: Days
    """Scratch of processes that died, since it was last touched."""
    logs_days: Days
    """Log files that nothing writes to any more."""
    failures_days: Days
    """Folders of what is kept of failures."""


class Alarms(Section):
    """When somebody is told of what goes wrong, and how. A threshold of None: not looked at."""

    recording_minutes: Annotated[float, Field(gt=0)] | None
    """Before a scheduled calibration, in which something has to be recorded."""
    raw_left_h: Annotated[float, Field(gt=0)] | None
    """Raw data that are not reduced so many hours before the recorder deletes them raise an alarm."""
    disk_share: Annotated[float, Field(gt=0, le=1)] | None
    """Share of a file system in use that raises an alarm."""
    disk_clear_share: Annotated[float, Field(gt=0, le=1)]
    """Below this share the alarm ends."""
    dead_letters: Annotated[int, Field(ge=1)] | None
    """So many messages in a queue of dead letters raise an alarm."""
    gone_minutes: Annotated[float, Field(gt=0)] | None
    """A part, a node or a worker that was there and has not been seen for so long raises an alarm."""
    calibration_hours: Annotated[float, Field(gt=0)] | None
    """A calibration that failed within this time, and none that is good since, raise an alarm."""
    command: Annotated[str | None, BeforeValidator(_command)]
    """Program that is told; None: none."""
    deadline_s: Seconds
    """For the command, and for the mail server."""
    email: Annotated[Email | None, BeforeValidator(_email)]
    """Who gets mail; None: nobody."""

    @field_validator("disk_clear_share")
    @classmethod
    def _below_the_mark(cls, value: float, info: ValidationInfo) -> float:
        mark = info.data.get("disk_share")
        if mark is not None and value > mark:
            raise ValueError(f"expected at most alarms.disk_share, which is {mark:g}, found {value:g}")
        return value


class Settings(Section):
    """All sections."""

    queue: Queue
    telescope: Telescope
    execs: Execs
    cluster: Name
    """Name of the cluster that this machine belongs to, for reports and manifests."""
    paths: Paths
    dask: Dask
    prefect: Prefect
    network: Network
    cache: Cache
    calibration: Calibration
    limits: Limits
    retention: Retention
    alarms: Alarms

    @model_validator(mode="before")
    @classmethod
    def _below_data(cls, values: Any) -> Any:
        """Give the cache and the Prefect server their folders below paths.data."""
        data = (values.get("paths") or {}).get("data") if isinstance(values, dict) else None
        if not isinstance(data, str):
            return values
        filled = dict(values)
        for section, key, name in (("prefect", "home", "prefect"), ("cache", "uri", "cache")):
            if isinstance(values.get(section), dict) and values[section].get(key) is None:
                filled[section] = {**values[section], key: str(Path(data) / name)}
        return filled


def known_keys(section: type[Section] = Settings) -> dict[str, type[Section] | None]:
    """Return the keys of a section in their order, each with the section that it is, or None."""
    kinds = {name: field.annotation for name, field in section.model_fields.items()}
    return {name: k if isinstance(k, type) and issubclass(k, Section) else None for name, k in kinds.items()}
