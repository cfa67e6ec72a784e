"""WSClean's options, its command line, and the files that it writes. Nothing heavy is imported here."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

POLARIZATIONS = ("I", "Q", "U", "V", "XX", "YY")
_SKY_DIAMETER_DEG = math.degrees(2)
"""Of the hemisphere in SIN projection: pixels farther out are not on the sky."""

# Given twice, WSClean takes the last; so these are refused among the extra arguments. Compared without dashes, as
# WSClean knows some of them by an older name without.
_OURS = {
    "name": None, "temp-dir": None, "data-column": None, "no-update-model-required": None,
    "size": "size", "scale": "scale_deg", "pol": "pol", "niter": "niter", "weight": "weight", "j": "threads",
    "abs-mem": "memory_gb", "mem": "memory_gb", "horizon-mask": "horizon_mask_deg",
    "taper-inner-tukey": "inner_taper_lambda",
}  # fmt: skip
_NOT_AN_IMAGE = (
    "version", "dry-run", "predict", "restore", "restore-list", "make-psf-only", "no-dirty", "channels-out",
    "intervals-out", "update-model-required", "store-imaging-weights", "continue", "subtract-model",
)  # fmt: skip
_OTHER_PROGRAMS = ("python-deconvolution", "moresane-ext")


class ImagingOptions(BaseModel):
    """How WSClean makes an image."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pol: str = Field(
        default="I",
        description="Polarizations, one image each: I, Q, U, V, XX, YY, together as in IV or XX,YY",
        examples=["IV"],
    )
    size: int = Field(default=4096, ge=16, le=32768, description="Width and height of the image in pixels; made even")
    scale_deg: float = Field(
        default=0.03125,
        gt=0,
        le=5,
        description="Size of a pixel in degrees; the sky is 114.6 degrees wide",
        json_schema_extra={"cli": "--scale"},
    )
    niter: int = Field(default=0, ge=0, description="Most iterations of cleaning; 0 makes the dirty image only")
    weight: str = Field(
        default="briggs 0", description="Weighting: natural, uniform, or briggs with its robustness, -2 to 2"
    )
    horizon_mask_deg: float = Field(
        default=10.0,
        ge=0,
        lt=90,
        description="Clean only what is higher than this above the horizon",
        json_schema_extra={"cli": "--horizon-mask"},
    )
    inner_taper_lambda: float = Field(
        default=30.0,
        ge=0,
        description="Fade out baselines shorter than this, in wavelengths (Tukey taper); 0 for none",
        json_schema_extra={"cli": "--inner-taper"},
    )
    extra: tuple[str, ...] = Field(
        default=(), description='More arguments for WSClean, such as "-mgain 0.8"', examples=[["-mgain 0.8"]]
    )
    threads: int = Field(default=4, ge=1, le=1024, description="Threads of WSClean, at most what the machine has")
    memory_gb: float = Field(
        default=50.0,
        ge=0.1,
        description="Memory for WSClean in GB, at most what the machine has",
        json_schema_extra={"cli": "--memory"},
    )
    together: bool = Field(
        default=False, description="Make one image of all integrations given, instead of one of each"
    )
    keep: Literal["dirty", "all"] = Field(
        default="all", description="Keep only the dirty image, or all that WSClean makes"
    )
    flag_antennas: tuple[int | str, ...] = Field(
        default=(),
        description="Antennas to leave out, by correlator number or name: 12, LWA-266",
        examples=[[12, "LWA-266"]],
    )
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which WSClean is ended; the configuration's limit if not given",
        json_schema_extra={"cli": "--deadline"},
    )

    @property
    def polarizations(self) -> tuple[str, ...]:
        """Of each image, in WSClean's names."""
        return tuple(re.findall("|".join(sorted(POLARIZATIONS, key=len, reverse=True)), self.pol))

    @field_validator("pol")
    @classmethod
    def _known_polarizations(cls, value: str) -> str:
        names = re.findall(r"XX|YY|XY|YX|RR|LL|RL|LR|[IQUV]|[^\s,]", value.upper())
        if not names or (unknown := [name for name in names if name not in POLARIZATIONS]):
            named = f"{unknown[0]} is not one of" if names else "expected one or more of"
            raise ValueError(f"{named} {', '.join(POLARIZATIONS)}")
        unique = [name for name in POLARIZATIONS if name in names]
        return "".join(unique) if all(len(name) == 1 for name in unique) else ",".join(unique)

    @field_validator("size")
    @classmethod
    def _even(cls, value: int) -> int:
        return value + value % 2  # as WSClean does

    @field_validator("weight")
    @classmethod
    def _known_weight(cls, value: str) -> str:
        words = value.lower().split()
        if words in (["natural"], ["uniform"]):
            return words[0]
        if len(words) == 2 and words[0] == "briggs":
            try:
                robustness = float(words[1])
            except ValueError:
                robustness = math.nan
            if -2 <= robustness <= 2:
                return f"briggs {robustness:g}"
        raise ValueError("expected natural, uniform, or briggs with a number from -2 to 2, such as briggs 0")

    @field_validator("extra")
    @classmethod
    def _allowed_arguments(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        words = _words(value)
        if words and not words[0].startswith("-"):
            raise ValueError(f"{words[0]!r} is not an argument of WSClean; they begin with a dash")
        for word in words:
            _check_argument(word)
        return value

    @field_validator("flag_antennas", mode="before")
    @classmethod
    def _antennas(cls, value: Any) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        single = [part for item in items for part in (item.split(",") if isinstance(item, str) else [item])]
        antennas = [int(item) if isinstance(item, str) and item.strip().isdecimal() else item for item in single]
        for antenna in antennas:
            if isinstance(antenna, bool) or (isinstance(antenna, int) and antenna < 0):
                raise ValueError(f"{antenna!r} is neither the number nor the name of an antenna")
            if isinstance(antenna, str) and not re.fullmatch(r"[A-Za-z]+-?\d+", antenna.strip()):
                raise ValueError(f"{antenna!r} is neither the number nor the name of an antenna, as 12 or LWA-266")
        return tuple(antenna.strip() if isinstance(antenna, str) else antenna for antenna in antennas)

    @model_validator(mode="after")
    def _sensible(self) -> ImagingOptions:
        if self.keep == "dirty" and self.niter > 0:
            raise ValueError("keep=dirty would clean and throw the result away: give niter=0 or keep=all")
        if self.size * self.scale_deg > 4 * _SKY_DIAMETER_DEG:
            raise ValueError(
                f"size {self.size} times scale {self.scale_deg:g} deg is {self.size * self.scale_deg:g} deg; "
                f"the sky is {_SKY_DIAMETER_DEG:.1f} deg wide"
            )
        return self


def _words(extra: Iterable[str]) -> list[str]:
    try:
        return [word for item in extra for word in shlex.split(item)]
    except ValueError as error:
        raise ValueError(f"cannot be split into arguments: {error}") from error


def _check_argument(word: str) -> None:
    if not re.match(r"--?[A-Za-z]", word):  # a value, such as -0.5
        return

    def plain(name: str) -> str:
        return name.replace("-", "").lower()

    name = plain(word)
    for ours, field in _OURS.items():
        if name == plain(ours):
            raise ValueError(f"-{ours} is set by ORCA" + (f": use the option {field}" if field else ""))
    if name in map(plain, _NOT_AN_IMAGE):
        raise ValueError(f"{word} does not go with making one image of data that are only read")
    if name in map(plain, _OTHER_PROGRAMS):
        raise ValueError(f"{word} runs another program")


def fit_to_machine(options: ImagingOptions, cpus: int, memory_gb: float) -> ImagingOptions:
    """Options with no more threads and memory than there are.

    A manifest should hold the options as they were asked for: these two do not change the image.
    """
    threads, memory = min(options.threads, max(1, cpus)), min(options.memory_gb, max(0.1, memory_gb))
    return options.model_copy(update={"threads": threads, "memory_gb": memory})


def advice(options: ImagingOptions) -> list[str]:
    """What is allowed but rarely meant, in words for the user."""
    field_deg = options.size * options.scale_deg
    notes = []
    if field_deg > 1.4 * _SKY_DIAMETER_DEG:
        share = math.pi / 4 * (_SKY_DIAMETER_DEG / field_deg) ** 2
        notes.append(f"only {share:.0%} of the pixels are on the sky: {field_deg:.0f} of {_SKY_DIAMETER_DEG:.1f} deg")
    if field_deg < 0.97 * _SKY_DIAMETER_DEG:
        covered = f"the image covers {field_deg:.0f} of {_SKY_DIAMETER_DEG:.1f} deg"
        notes.append(f"{covered}: bright sources outside leave ghosts in it")
    if options.niter > 0 and not any(word.lstrip("-") == "mgain" for word in _words(options.extra)):
        notes.append("without -mgain the sidelobes of a source are cleaned only out to half the width of the image")
    if options.niter > 0 and {"Q", "U", "V"} & set(options.polarizations) and "I" not in options.polarizations:
        notes.append("cleaning Q, U or V without I cleans little but noise")
    return notes


def wsclean_argv(
    program: Path | str, options: ImagingOptions, ms: Path | Sequence[Path], prefix: Path, temp_dir: Path
) -> list[str]:
    """Command line of WSClean (3.1).

    Without `-reorder`: with one or two polarizations and no channel images it makes nothing faster (18.6 s against
    17.6 s for I and V of a full-size MS). Without `-use-wgridder`: cleaning with it diverged. `-horizon-mask` only with
    cleaning: it does nothing else, but would leave a mask as large as the image.

    Parameters
    ----------
    program : path or str
    options : ImagingOptions
    ms : path or paths
        Measurement Sets of one phase centre; DATA is imaged, and nothing is written to them.
    prefix : Path
        Of the files to write.
    temp_dir : Path
        An existing folder for what WSClean writes meanwhile.
    """
    argv = [str(program), "-name", str(prefix), "-temp-dir", str(temp_dir)]
    argv += ["-no-update-model-required", "-data-column", "DATA"]
    argv += ["-j", str(options.threads), "-abs-mem", f"{options.memory_gb:g}"]
    argv += ["-pol", options.pol, "-size", str(options.size), str(options.size), "-scale", f"{options.scale_deg:.12g}"]
    argv += ["-weight", *options.weight.split(), "-niter", str(options.niter)]
    if options.niter > 0:
        argv += ["-horizon-mask", f"{options.horizon_mask_deg:g}deg"]
    if options.inner_taper_lambda > 0:
        argv += ["-taper-inner-tukey", f"{options.inner_taper_lambda:g}"]
    argv += _words(options.extra)
    return argv + [str(path) for path in ([ms] if isinstance(ms, Path) else ms)]


def file_of(options: ImagingOptions, prefix: Path, pol: str, kind: str) -> Path:
    """Image of one polarization and kind (dirty, image, model, residual)."""
    # With one polarization its name is not in the file's.
    named = f"-{pol}" if len(options.polarizations) > 1 else ""
    return prefix.with_name(f"{prefix.name}{named}-{kind}.fits")


def kinds(options: ImagingOptions) -> tuple[str, ...]:
    """What WSClean writes of each polarization."""
    return ("dirty", "image", "model", "residual") if options.niter > 0 else ("dirty", "image")


def expected_files(options: ImagingOptions, prefix: Path) -> list[Path]:
    """What WSClean 3.1 writes; arguments among `extra` may add to it.

    With niter 0, "image" is a copy of "dirty".
    """
    files = [file_of(options, prefix, pol, kind) for pol in options.polarizations for kind in kinds(options)]
    if options.niter > 0:
        files += [prefix.with_name(f"{prefix.name}-{kind}.fits") for kind in ("psf", "horizon-mask")]
    return files


def products(prefix: Path, options: ImagingOptions) -> list[Path]:
    """Which of `expected_files` are kept: never the copy."""
    if options.niter > 0:
        return expected_files(options, prefix)
    return [file_of(options, prefix, pol, "dirty") for pol in options.polarizations]


def what_matters(options: ImagingOptions) -> dict[str, Any]:
    """The options that the image depends on: a product made with others of the rest is as good."""
    return options.model_dump(mode="json", exclude={"threads", "memory_gb", "deadline_s"})


def scratch_bytes(options: ImagingOptions, input_bytes: int, tar: bool) -> int:
    """Room that making an image takes: the calibrated Measurement Set, what a tar holds, and the images.

    Parameters
    ----------
    input_bytes : int
        Size of the Measurement Sets or tars.
    tar : bool
        Whether they have to be unpacked first.
    """
    images = len(expected_files(options, Path("x"))) * 4 * options.size**2
    return int(1.3 * input_bytes) + (input_bytes if tar else 0) + images
