"""Options made from a model: their names, types, defaults and help, and how a wrong value is told."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typer.testing import CliRunner

from orca.cli.options import from_model
from orca.wsclean import ImagingOptions


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(64, ge=16, le=128, description="Size in pixels")
    scale_deg: float = Field(0.5, gt=0, description="Size of a pixel", json_schema_extra={"cli": "--scale"})
    together: bool = Field(False, description="All at once")
    clean: bool = Field(True, description="Clean it")
    keep: Literal["dirty", "all"] = Field("all", description="What to keep")
    extra: tuple[str, ...] = Field((), description="More arguments")
    antennas: list[int | str] = Field(default_factory=lambda: [3], description="To flag")
    limit: float | None = Field(None, description="No limit without")
    table: Path = Field(Path("t.bcal"), description="A file")

    @field_validator("extra")
    @classmethod
    def _no_name(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "-name" in value:
            raise ValueError("-name is not for you")
        return value

    @model_validator(mode="after")
    def _sensible(self) -> Options:
        if self.together and not self.clean:
            raise ValueError("together needs clean")
        return self


class Needed(BaseModel):
    name: str = Field(description="Must be given")


def command(received: list[Any], **settings: Any) -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @from_model(options=Options, **settings)
    def work(files: list[Path], options: Options, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        """Do the work."""
        received.append((files, options, loud))

    return app


@pytest.fixture
def call() -> Callable[..., Any]:
    """Call the command: what it received, or its exit code and what it said."""

    def run(*arguments: str, **settings: Any) -> Any:
        received: list[Any] = []
        result = CliRunner().invoke(command(received, **settings), arguments, env={"COLUMNS": "200", "TERM": "dumb"})
        return received[0] if received else (result.exit_code, result.output)

    return run


def test_without_options_the_model_has_its_defaults(call: Callable[..., Any]) -> None:
    assert call("a", "b") == ([Path("a"), Path("b")], Options(), False)


def test_each_kind_of_field_reaches_the_model(call: Callable[..., Any]) -> None:
    given = "--size 32 --scale-deg 0.25 --together --keep dirty --limit 2.5 --table x.bcal --loud"
    many = ["--extra", "-mgain 0.8", "--extra", "-multiscale", "--antennas", "12", "--antennas", "LWA-266"]
    files, options, loud = call("a", *given.split(), *many)
    assert (files, loud) == ([Path("a")], True)
    assert options == Options(
        size=32, scale_deg=0.25, together=True, keep="dirty", extra=("-mgain 0.8", "-multiscale"),
        antennas=["12", "LWA-266"], limit=2.5, table=Path("x.bcal"),
    )  # fmt: skip


def test_a_truth_value_can_be_turned_off(call: Callable[..., Any]) -> None:
    assert call("a", "--no-clean")[1].clean is False


def test_a_field_has_its_short_name_and_its_own(call: Callable[..., Any]) -> None:
    assert call("a", "--scale", "0.1")[1].scale_deg == 0.1
    assert call("a", "--scale-deg", "0.1")[1].scale_deg == 0.1


@pytest.mark.parametrize(
    ("arguments", "option", "message"),
    [
        ("--size 8", "--size", "16"),
        ("--size many", "--size", "integer"),
        ("--scale 0", "--scale", "greater than 0"),
        ("--keep some", "--keep", "'dirty', 'all'"),
        ("--extra -name", "--extra", "-name is not for you"),
    ],
)
def test_a_wrong_value_is_wrong_usage_and_names_the_option(
    call: Callable[..., Any], arguments: str, option: str, message: str
) -> None:
    code, said = call("a", *arguments.split())
    assert code == 2
    assert f"Invalid value for '{option}'" in said
    assert message in said
    assert "Traceback" not in said


def test_options_that_do_not_go_together_are_wrong_usage(call: Callable[..., Any]) -> None:
    code, said = call("a", "--together", "--no-clean")
    assert code == 2
    assert "together needs clean" in said


def test_two_faults_are_told_at_once_each_with_its_option(call: Callable[..., Any]) -> None:
    code, said = call("a", "--scale", "0", "--extra", "-name")
    assert code == 2
    assert "'--scale': Input should be greater than 0; --extra: -name is not for you" in said


def test_the_help_has_description_default_bounds_and_choices(call: Callable[..., Any]) -> None:
    code, said = call("--help")
    assert code == 0
    said = re.sub(r"\s+", " ", said)
    for text in ("Size in pixels [default: 64; 16<=x<=128]", "--scale, --scale-deg", "Size of a pixel [default: 0.5"):
        assert text in said
    for text in (
        "--together / --no-together",
        "[default: no-together]",
        "[default: clean]",
        "dirty|all",
        "Do the work.",
    ):
        assert text in said
    assert "To flag [default: 3]" in said
    assert "options" not in said.lower().replace("[options]", "").replace("options:", "")


def test_excluded_fields_have_no_option_and_keep_their_default(call: Callable[..., Any]) -> None:
    assert call("a", "--size", "32", exclude={"keep"})[1] == Options(size=32)
    code, said = call("a", "--keep", "dirty", exclude={"keep"})
    assert code == 2
    assert "No such option" in said


def test_a_field_without_default_is_required() -> None:
    app = typer.Typer(rich_markup_mode=None)
    received = []

    @app.command()
    @from_model(options=Needed)
    def work(options: Needed) -> None:
        received.append(options.name)

    missing = CliRunner().invoke(app, [])
    assert missing.exit_code == 2
    assert "--name" in missing.output
    assert CliRunner().invoke(app, ["--name", "x"]).exit_code == 0
    assert received == ["x"]


def test_a_default_is_not_shared_between_calls() -> None:
    received: list[Any] = []
    app = command(received)
    for _ in range(2):
        assert CliRunner().invoke(app, ["a"]).exit_code == 0
        received[-1][1].antennas.append("changed")
    assert received[1][1].antennas == [3, "changed"]


def test_every_imaging_option_can_be_given() -> None:
    app = typer.Typer(rich_markup_mode=None)
    received: list[ImagingOptions] = []

    @app.command()
    @from_model(options=ImagingOptions)
    def imaging(options: ImagingOptions) -> None:
        received.append(options)

    arguments = (
        "--pol IV --size 1024 --scale 0.1 --niter 100 --weight natural --horizon-mask 5 --inner-taper 0"
        " --extra -multiscale --threads 2 --memory 8 --together --keep all"
        " --flag-antennas 12,LWA-266 --flag-antennas 7 --deadline 60"
    )
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 0, result.output
    assert received == [
        ImagingOptions(
            pol="IV", size=1024, scale_deg=0.1, niter=100, weight="natural", horizon_mask_deg=5, inner_taper_lambda=0,
            extra=("-multiscale",), threads=2, memory_gb=8, together=True, flag_antennas=(12, "LWA-266", 7),
            deadline_s=60,
        )
    ]  # fmt: skip
    assert {f"--{word.lstrip('-')}" for word in arguments.split() if word.startswith("--")} == {
        "--" + (field.json_schema_extra or {}).get("cli", name.replace("_", "-")).lstrip("-")
        for name, field in ImagingOptions.model_fields.items()
    }


def test_options_of_a_command_bring_nothing_heavy() -> None:
    code = (
        "import sys; import orca.cli.options, orca.wsclean; "
        "print([m for m in ('numpy', 'astropy', 'matplotlib', 'numba', 'prefect', 'casacore') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
