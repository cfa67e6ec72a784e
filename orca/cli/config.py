"""`orca config`: make, show and check the configuration."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca.cli import complain, configuration
from orca.disk import nearest_folder, not_writable
from orca.errors import InputError, OrcaError, StorageError

if TYPE_CHECKING:
    from orca.config import Config

app = typer.Typer(no_args_is_help=True, help="Make, show and check the configuration.")

Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]

OK, WARNING, FAILED = "ok", "warning", "failed"


@app.command()
def init(
    path: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write. Default: $ORCA_CONF, else ~/orca-conf.yml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration to start from: every key with its default, as a comment."""
    from orca.config import FILE_NAME, default_path

    file = (path or Path(os.environ.get("ORCA_CONF") or f"~/{FILE_NAME}")).expanduser()
    if file.is_dir():
        raise InputError("is a folder", file, "Name the file in it")
    if file.exists() and not force:
        raise InputError("there is such a file already", file, "Replace it with --force, or choose another --path")
    try:
        _write_private(file, template(default_path().read_text(encoding="utf-8")))
    except OSError as error:
        raise StorageError(f"cannot be written: {(error.strerror or 'error').lower()}", file) from error
    typer.echo(f"{file} written. Edit it, then run: orca config check")


def template(packaged: str) -> str:
    """Return the packaged configuration with every key commented out, so that it changes no default."""
    advice = "# Every key stands here with its default: remove the # in front of it to change it."
    lines = [advice if line.startswith("# `orca config init`") else line for line in packaged.splitlines()]
    return "\n".join(re.sub(r"^( *)(\w+: \S)", r"\1#\2", line) for line in lines) + "\n"


def _write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read; a file that is there is replaced whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # has mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


@app.command()
def show(as_json: Json = False) -> None:
    """Print every value in force and where it comes from, without passwords."""
    config = configuration()
    values = config.model_dump(mode="json")
    if as_json:
        typer.echo(
            json.dumps({"file": config.file and str(config.file), "values": _with_origin(config, values)}, indent=2)
        )
        return
    typer.echo(f"# {config.file or 'packaged defaults'}")
    for name, value in values.items():
        if not isinstance(value, dict):
            typer.echo(_yaml_line(name, value, config.line_of(name)))
            continue
        typer.echo(f"{name}:")
        for key, inner in value.items():
            typer.echo("  " + _yaml_line(key, inner, config.line_of(f"{name}.{key}")))


def _with_origin(config: Config, values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key in config.items():
        section, _, leaf = key.rpartition(".")
        line = config.line_of(key)
        value = values[section][leaf] if section else values[leaf]
        flat[key] = {"value": value, "from": "default" if line is None else "file", "line": line}
    return flat


def _yaml_line(key: str, value: Any, line: int | None) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize, allow_unicode=True)
    scalar = text.removesuffix("...\n").rstrip("\n")
    return f"{f'{key}: {scalar}':<60}  # {'default' if line is None else f'line {line}'}"


@dataclass(frozen=True)
class Finding:
    """One row of `orca config check`."""

    subject: str
    """What was checked: a file, or a dotted key."""
    status: str
    """ok, warning or failed."""
    detail: str
    """What was found, and what to do."""


@app.command()
def reference() -> None:
    """Print every key there is, with its default, as Markdown."""
    from orca.config.reference import reference as text

    typer.echo(text(), nl=False)


@app.command()
def options() -> None:
    """Print every parameter and option of the stages, with its default, as Markdown."""
    from flows.stage_reference import stage_reference

    typer.echo(stage_reference(), nl=False)


@app.command()
def check(as_json: Json = False) -> None:
    """Try the configuration: programs, folders, what is left to fill in. Exit status 1 when something fails."""
    from orca.config import load

    config = load()
    findings = [*_file(config), *_placeholders(config), *_programs(config), *_folders(config)]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print_table(findings)
    failed = sum(finding.status == FAILED for finding in findings)
    if failed:
        complain("error", f"{failed} of {len(findings)} checks failed")
        raise typer.Exit(1)


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {OK: "green", WARNING: "yellow", FAILED: "bold red"}
    table = Table("checked", "status", "found")
    for finding in findings:  # Text, not str: a path may look like markup
        status = Text(finding.status, style=colours[finding.status])
        table.add_row(Text(finding.subject), status, Text(finding.detail, overflow="fold"))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _file(config: Config) -> Iterator[Finding]:
    yield Finding("configuration", OK, str(config.file or "packaged defaults"))
    for warning in config.warnings:
        yield Finding("configuration", WARNING, warning)


def _placeholders(config: Config) -> Iterator[Finding]:
    from orca.config import SecretUri

    for key, value in config.items().items():
        if isinstance(value, SecretUri) and value.placeholders:
            names = " ".join(dict.fromkeys(value.placeholders))
            yield Finding(key, FAILED, f"{names} still to be filled in, {config.file}:{config.line_of(key)}")


def _programs(config: Config) -> Iterator[Finding]:
    from orca.process import find_program
    from orca.program_version import version_of

    for name, program in (("wsclean", config.execs.wsclean), ("aoflagger", config.execs.aoflagger)):
        key = f"execs.{name}"
        try:
            path = find_program(program, key)
            yield Finding(key, OK, f"{path}, version {version_of(path)}")
        except OrcaError as error:
            yield Finding(key, FAILED, str(error))
    if config.alarms.command is not None:
        key, program = "alarms.command", shlex.split(config.alarms.command)[0]
        try:
            yield Finding(key, OK, str(find_program(program, key)))
        except OrcaError as error:
            yield Finding(key, FAILED, str(error))


def _folders(config: Config) -> Iterator[Finding]:
    for key, folder in config.items().items():
        if not isinstance(folder, Path):
            continue
        nearest = nearest_folder(folder)
        if key == "paths.raw" and folder.is_dir():
            readable = os.access(folder, os.R_OK | os.X_OK)
            yield Finding(key, OK if readable else FAILED, f"{folder} can{'' if readable else 'not'} be read")
        elif not nearest.is_dir():
            yield Finding(key, FAILED, f"{folder}: {nearest} is not a folder")
        elif reason := not_writable(nearest):
            yield Finding(key, FAILED, f"{folder}: {nearest} cannot be written: {reason}")
        else:
            yield _room(config, key, folder, nearest)
    yield from _trash(config)


def _room(config: Config, key: str, folder: Path, nearest: Path) -> Finding:
    free_gb = shutil.disk_usage(nearest).free / 1e9
    text = f"{folder}{'' if folder == nearest else ' can be made'}, {free_gb:.1f} GB free"
    if key == "paths.scratch" and free_gb < config.limits.scratch_reserve_gb:
        text += f"; limits.scratch_reserve_gb is {config.limits.scratch_reserve_gb:g}"
        return Finding(key, FAILED, text)
    return Finding(key, OK, text)


def _trash(config: Config) -> Iterator[Finding]:
    """Removing is a rename into the trash, which only works on one file system."""
    for key, folder in (("paths.raw", config.paths.raw), ("paths.cosmology", config.paths.cosmology)):
        if nearest_folder(folder).stat().st_dev != nearest_folder(config.paths.trash).stat().st_dev:
            text = f"{config.paths.trash} is on another file system than {key}: nothing can be moved there from it"
            yield Finding("paths.trash", WARNING, text)
