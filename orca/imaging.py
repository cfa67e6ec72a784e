"""Images of the sky by WSClean: run it, check what it wrote, and measure it.

Its options and command line are in `orca.wsclean`, the reading of pictures in `orca.measuring`; the names that are
needed with an image are repeated here, so that one import serves.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orca.errors import DeadDataError, InvalidDataError, ProgramError
from orca.measuring import Examination, Extent, Measurement, Picture, examine, extent, measure_sources, open_picture
from orca.process import ProgramRecord, run
from orca.sky import BRIGHT_SOURCES, Source
from orca.wsclean import (
    ImagingOptions,
    advice,
    expected_files,
    file_of,
    fit_to_machine,
    kinds,
    products,
    wsclean_argv,
)

__all__ = [
    "ImageResult",
    "ImagingOptions",
    "Measurement",
    "advice",
    "expected_files",
    "fit_to_machine",
    "image",
    "measure_sources",
    "products",
    "wsclean_argv",
]

DIVERGED_IMAGE, DIVERGED_RESIDUAL = 10, 2
"""Peak of the cleaned image, and of what was left over, relative to the dirty image's."""


@dataclass(frozen=True)
class ImageResult:
    """What WSClean made of one or more integrations."""

    files: tuple[Path, ...]
    """All that is kept."""
    pictures: dict[str, Path]
    """Of each polarization the file to look at: the cleaned image, else the dirty one."""
    quality: dict[str, Examination]
    """Of `pictures`."""
    record: ProgramRecord
    version: str
    """Of WSClean."""
    notes: tuple[str, ...] = ()

    def numbers(self) -> dict[str, float | int | str | None]:
        """Quality as flat names and numbers, for a manifest: `I rms_jy`, `I Cyg A offset_px`."""
        flat: dict[str, float | int | str | None] = {}
        for pol, quality in self.quality.items():
            for key in ("rms_jy", "peak_jy", "dynamic_range"):
                flat[f"{pol} {key}"] = getattr(quality, key)
            for source in quality.sources:
                for key in ("peak_jy", "flux_jy", "expected_jy", "offset_deg", "offset_px", "elevation_deg"):
                    flat[f"{pol} {source.name} {key}"] = getattr(source, key)
        return flat


def image(
    ms: Path | Sequence[Path],
    options: ImagingOptions,
    program: Path | str,
    folder: Path,
    name: str,
    *,
    stop: Callable[[], str | None] | None = None,
    owner: str | None = None,
    deadline_s: float = 7200.0,
    sources: Iterable[Source] = BRIGHT_SOURCES,
) -> ImageResult:
    """Run WSClean, check what it wrote, and measure it.

    Parameters
    ----------
    ms : path or paths
        Calibrated Measurement Sets of one phase centre.
    options : ImagingOptions
        Fitted to the machine (`fit_to_machine`).
    program : path or str
        WSClean.
    folder : Path
        An existing folder for its files: `name`-dirty.fits and so on, and `name`.log.
    name : str
    stop, owner : optional
        See `orca.process.run`.
    deadline_s : float
        Used unless the options have a sooner one.
    sources : sources
        To be measured.

    Raises
    ------
    ProgramError
        WSClean failed, wrote less than it should, or its cleaning diverged.
    DeadDataError, InvalidDataError
        There is nothing in the data to image, or what is not a number.
    OrcaError
        Others of `orca.process.run`.
    """
    inputs = [Path(path).absolute() for path in ([ms] if isinstance(ms, Path) else ms)]
    folder = folder.absolute()  # since it becomes WSClean's working folder
    prefix, log, temp_dir = folder / name, folder / f"{name}.log", folder / f"{name}.wsclean"
    temp_dir.mkdir(exist_ok=True)
    try:
        record = run(
            wsclean_argv(program, options, inputs, prefix, temp_dir),
            log=log,
            deadline_s=min(options.deadline_s or deadline_s, deadline_s),
            threads=options.threads,
            memory_gb=1.25 * options.memory_gb + 1,  # -abs-mem is what WSClean aims at, without its images
            cwd=folder,
            stop=stop,
            owner=owner,
        )
    except ProgramError as error:
        explained = _explained(error, inputs[0], log)
        if explained is None:
            raise
        raise explained from error
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)
    opened = _opened(options, prefix, log)
    quality = _judge(options, prefix, inputs[0], opened, tuple(sources))
    pictures = {pol: file_of(options, prefix, pol, _shown(options)) for pol in options.polarizations}
    return ImageResult(
        files=tuple(_tidy(options, prefix)),
        pictures=pictures,
        quality=quality,
        record=record,
        version=opened[next(iter(pictures.values()))].version,
        notes=tuple(advice(options)),
    )


def _shown(options: ImagingOptions) -> str:
    return "image" if options.niter > 0 else "dirty"


def _explained(error: ProgramError, subject: Path, log: Path) -> ProgramError | None:
    """Return WSClean's own words in place of the last line of its log, if it left any."""
    reasons = re.findall(r"^\+ >>> (.*\S)", error.tail, re.MULTILINE)
    if type(error) is not ProgramError or not reasons:
        return None
    explained = ProgramError(f"WSClean failed: {reasons[-1].rstrip('.')}", subject, f"See its log {log}")
    explained.tail = error.tail
    return explained


def _opened(options: ImagingOptions, prefix: Path, log: Path) -> dict[Path, Picture]:
    """All pictures that WSClean should have written, of the size that they should have."""
    opened = {}
    for path in expected_files(options, prefix):
        if not path.exists():
            raise ProgramError("WSClean ended well, but did not write this file", path, f"See its log {log}")
        if path.name.endswith("-horizon-mask.fits"):  # without coordinates
            continue
        opened[path] = open_picture(path)
        shape = opened[path].data.shape
        if shape != (options.size, options.size):
            raise ProgramError(f"has {shape[1]} x {shape[0]} pixels, not {options.size} x {options.size}", path)
    return opened


def _judge(
    options: ImagingOptions, prefix: Path, subject: Path, opened: dict[Path, Picture], sources: tuple[Source, ...]
) -> dict[str, Examination]:
    """Look whether there is a sky in each polarization, then measure the picture to look at."""
    quality = {}
    for pol in options.polarizations:
        extents = {kind: extent(opened[file_of(options, prefix, pol, kind)]) for kind in kinds(options)}
        _check_signal(extents["dirty"], subject, pol)
        if options.niter > 0:
            _check_converged(extents, subject, pol)
        shown = _shown(options)
        quality[pol] = examine(opened[file_of(options, prefix, pol, shown)], sources, extents[shown])
    return quality


def _check_signal(dirty: Extent, subject: Path, pol: str) -> None:
    if not math.isfinite(dirty.peak):
        raise InvalidDataError(f"the image of {pol} is not a number", subject, "See whether DATA or UVW are finite")
    if dirty.peak == 0:
        problem = f"the image of {pol} is zero everywhere: all data are flagged, zero, or left out by the options"
        raise DeadDataError(problem, subject, "Leave it out, or see which antennas and baselines are used")


def _check_converged(extents: dict[str, Extent], subject: Path, pol: str) -> None:
    """A clean that diverges ends with exit code 0 and a sky of 1e15 Jy, or none."""
    peak = {kind: found.peak for kind, found in extents.items()}
    limits = {"image": DIVERGED_IMAGE, "residual": DIVERGED_RESIDUAL, "model": math.inf}
    for kind, limit in limits.items():
        if not peak[kind] <= limit * peak["dirty"]:
            seen = f"{peak[kind]:.3g} Jy/beam in the {kind}, {peak['dirty']:.3g} in the dirty image"
            remedy = "Clean with fewer iterations (niter), or in smaller steps: extra -mgain 0.8, or a lower -gain"
            raise ProgramError(f"cleaning {pol} diverged: the peak is {seen}", subject, remedy)


def _tidy(options: ImagingOptions, prefix: Path) -> list[Path]:
    """Remove what is not kept; returns the rest, what extra arguments brought included."""
    written = sorted(prefix.parent.glob(f"{prefix.name}-*.fits"))
    kept = products(prefix, options)
    if options.keep == "all":
        copies = set(expected_files(options, prefix)) - set(kept)
        kept += [path for path in written if path not in copies and path not in kept]
    for path in set(written) - set(kept):
        path.unlink()
    return kept
