"""The only place that makes or parses the path of a recording or a product.

::

    <raw root>/<SB>/<YYYY-MM-DD>/<HH>/<YYYYMMDD_HHMMSS>_<SB>.ms[.tar]
    <averaged root>/<SB>/<date>/<HH>/<stamp>_<SB>_averaged.ms[.tar]      <stamp>_<SB>_flagmeta.bin
    <averaged root>/<SB>/<date>/<HH>/<YYYYMMDD>_<HH>_<SB>_block<NN>      manifest of what was reduced together
    <cosmology root>/<SB>/<date>/<HH>/<stamp>_<SB>.ms                    ... _2pol.ms once split
    <images root>/<SB>/<date>/<HH>/<stamp>_<SB>{-dirty.fits, .png, .log}
    <calibration root>/delay/<date>/<YYYYMMDD>_delay.delay               ..._delay_QA.{pdf,png,json}
    <calibration root>/bandpass/<SB>/<date>/<HH>/bandpass_concat.<SB>_<HH>.bandpass
    <calibration root>/bandpass/<SB>/<date>/<HH>/bandpass_concat.<SB>_<HH>_bandpass_QA.{pdf,png,json}
    <dynspec root>/<spectrum>/<date>-<XX|XY|YX|YY|I|V>.fits              ... .png
    <dynspec root>/.spill/<prefix>/<spectrum>/                           what the spectrum cache did not take

SB is like 73MHz. Stamp, date and hour are those of the start, in UTC. A calibration that did not pass has ``.failed``
after the names of its table and QA files, so that nothing takes it for a good one. A manifest has the product's name
and ``.manifest.json``. Roots are configuration; nothing here looks at a disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from os import PathLike
from pathlib import Path

from orca.errors import InputError
from orca.telescope import INTEGRATION_S, subband, utc_of

POLARIZATIONS = ("XX", "XY", "YX", "YY", "I", "V")
"""Correlations, and the Stokes parameters of a direction."""
MANIFEST_SUFFIX = ".manifest.json"
FAILED_SUFFIX = ".failed"
QA_ENDINGS = ("pdf", "png", "json")
"""Of the files that judge a calibration: every antenna, an overview, the numbers."""
AnyPath = str | PathLike[str]


class Kind(StrEnum):
    """What a file is, by its name."""

    RAW = "raw"
    """As recorded. One that was copied to the cosmology folder has the same name."""
    AVERAGED = "averaged"
    COSMOLOGY = "cosmology"
    """XX and YY alone."""
    FLAGMETA = "flagmeta"
    BLOCK = "block"
    """What the manifest of a block of averaged files is called after; there is no file of that name."""
    IMAGE = "image"
    """An image, its picture or its log."""
    DELAY = "delay"
    DELAY_QA = "delay_qa"
    """Plots or numbers of a delay table."""
    BANDPASS = "bandpass"
    BANDPASS_QA = "bandpass_qa"
    DYNSPEC = "dynspec"


@dataclass(frozen=True, order=True)
class Observation:
    """One integration of one subband, as its file name says it.

    The subband may be given as in `orca.telescope.subband`; the start becomes UTC and loses its fraction of a
    second, as in the name. Raises InputError for an unknown subband or a start without time zone.
    """

    subband: str
    start: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "subband", subband(self.subband).name)
        object.__setattr__(self, "start", utc_of(self.start).replace(microsecond=0))


@dataclass(frozen=True)
class ParsedName:
    """What a name says; None where it is silent."""

    kind: Kind
    subband: str | None = None
    start: datetime | None = None
    """Start of the integration."""
    tar: bool = False
    """The Measurement Set is packed."""
    suffix: str = ""
    """Of an image: what follows the subband, such as "-dirty.fits". Of QA files and spectra: ".pdf" and so on."""
    day: date | None = None
    """UTC; of a bandpass by its folder, if that is there."""
    hour: int | None = None
    """UTC."""
    block: int | None = None
    """Number of a block in its hour."""
    spectrum: str | None = None
    """Of a dynamic spectrum, by its folder."""
    polarization: str | None = None
    failed: bool = False
    """The calibration did not pass."""
    manifest: bool = False
    """It is the product's manifest, not the product."""

    @property
    def observation(self) -> Observation:
        """The integration. Raises InputError for what is not made of one integration."""
        if self.subband is None or self.start is None:
            raise InputError(f"the name of a {self.kind} does not tell an integration")
        return Observation(self.subband, self.start)


_INTEGRATION = r"(?P<stamp>\d{8}_\d{6})_(?P<subband>[^_.-]+)"
_BANDPASS = r"bandpass_concat\.(?P<subband>[^_.-]+)_(?P<hour>\d\d)"
_QA = rf"_QA(?P<suffix>\.(?:{'|'.join(QA_ENDINGS)}))"
_FAILED = r"(?P<failed>\.failed)?"
_PATTERNS = tuple(
    (kind, re.compile(pattern, re.ASCII))
    for kind, pattern in (
        (Kind.RAW, _INTEGRATION + r"\.ms(?P<tar>\.tar)?"),
        (Kind.AVERAGED, _INTEGRATION + r"_averaged\.ms(?P<tar>\.tar)?"),
        (Kind.COSMOLOGY, _INTEGRATION + r"_2pol\.ms(?P<tar>\.tar)?"),
        (Kind.FLAGMETA, _INTEGRATION + r"_flagmeta\.bin"),
        (Kind.BLOCK, r"(?P<day>\d{8})_(?P<hour>\d\d)_(?P<subband>[^_.-]+)_block(?P<block>\d\d\d?)"),
        (Kind.IMAGE, _INTEGRATION + r"(?P<suffix>(?:(?:-\w+)*\.(?:fits|png|log))?)"),
        (Kind.DELAY, r"(?P<day>\d{8})_delay\.delay" + _FAILED),
        (Kind.DELAY_QA, r"(?P<day>\d{8})_delay" + _QA + _FAILED),
        (Kind.BANDPASS, _BANDPASS + r"\.bandpass" + _FAILED),
        (Kind.BANDPASS_QA, _BANDPASS + r"_bandpass" + _QA + _FAILED),
        (
            Kind.DYNSPEC,
            rf"(?P<date>\d{{4}}-\d\d-\d\d)-(?P<polarization>{'|'.join(POLARIZATIONS)})(?P<suffix>\.(?:fits|png))",
        ),
    )
)
_RIGHT = "A right name is like 20260110_180000_73MHz.ms"


def parse(path: AnyPath) -> ParsedName:
    """What a name says.

    Parameters
    ----------
    path : path
        A bare name, or any path; a slash at the end does no harm. The folders count only where the name leaves
        something out (the date of a bandpass, the spectrum of a dynamic spectrum).

    Raises
    ------
    InputError
        If it is no name of ours, names a subband or a time that does not exist, or goes through "..".
    """
    where = _checked(path)
    name = where.name
    if name.endswith(MANIFEST_SUFFIX):
        return replace(parse(where.with_name(name.removesuffix(MANIFEST_SUFFIX))), manifest=True)
    for kind, pattern in _PATTERNS:
        match = pattern.fullmatch(name)
        if match:
            return _parsed(kind, match.groupdict(), where)
    raise InputError("is no name of a recording or a product", path, _RIGHT)


def stamp(time: datetime) -> str:
    """YYYYMMDD_HHMMSS in UTC; fractions of a second are cut off. Raises InputError without a time zone."""
    return utc_of(time).strftime("%Y%m%d_%H%M%S")


def parse_stamp(text: str) -> datetime:
    """Inverse of `stamp`. Raises InputError for what is not a time."""
    return _time(text, "%Y%m%d_%H%M%S", text)


def strip_suffix(path: AnyPath) -> str:
    """Name of a Measurement Set without its folder and without .ms, .ms.tar or .tar; other names as they are."""
    return Path(path).name.removesuffix(".tar").removesuffix(".ms")


def observation_folder(root: AnyPath, observation: Observation) -> Path:
    """<root>/<SB>/<date>/<HH> of the start."""
    return _hour_folder(root, observation.subband, observation.start.date(), observation.start.hour)


def raw_path(root: AnyPath, observation: Observation, tar: bool = False) -> Path:
    """Measurement Set as the recorder writes it."""
    return _beside(root, observation, ".ms.tar" if tar else ".ms")


def averaged_path(root: AnyPath, observation: Observation, tar: bool = False) -> Path:
    """Flagged and averaged Measurement Set."""
    return _beside(root, observation, "_averaged.ms.tar" if tar else "_averaged.ms")


def block_prefix(root: AnyPath, band: str, day: date, hour: int, number: int) -> Path:
    """What the manifest of a block is called after; blocks of an hour (UTC) are numbered from 0."""
    name = subband(band).name
    return _hour_folder(root, name, day, hour) / f"{_utc_date(day):%Y%m%d}_{hour:02d}_{name}_block{number:02d}"


def flagmeta_path(root: AnyPath, observation: Observation) -> Path:
    """FLAG column of the averaged Measurement Set's input, packed to bits."""
    return _beside(root, observation, "_flagmeta.bin")


def cosmology_path(root: AnyPath, observation: Observation, split: bool = False) -> Path:
    """Measurement Set for cosmology, before or after (`split`) XY and YX are removed."""
    return _beside(root, observation, "_2pol.ms" if split else ".ms")


def image_prefix(root: AnyPath, observation: Observation) -> Path:
    """What the names of all files of an image begin with; "-dirty.fits", ".png" and so on follow."""
    return _beside(root, observation, "")


def delay_path(root: AnyPath, day: date, *, failed: bool = False) -> Path:
    """Delay table of a day (a date, or an aware datetime); `failed`: one that did not pass."""
    return _of_delay(root, day, ".delay", failed)


def delay_qa_path(root: AnyPath, day: date, ending: str = "pdf", *, failed: bool = False) -> Path:
    """Plots ("pdf"), overview ("png") or numbers ("json") of a delay table."""
    return _of_delay(root, day, _qa(ending), failed)


def bandpass_path(root: AnyPath, band: str, day: date, hour: int, *, failed: bool = False) -> Path:
    """Bandpass table of a subband and hour (UTC); `failed`: one that did not pass."""
    return _of_bandpass(root, band, day, hour, ".bandpass", failed)


def bandpass_qa_path(
    root: AnyPath, band: str, day: date, hour: int, ending: str = "pdf", *, failed: bool = False
) -> Path:
    """Plots ("pdf"), overview ("png") or numbers ("json") of a bandpass table."""
    return _of_bandpass(root, band, day, hour, "_bandpass" + _qa(ending), failed)


def dynspec_path(root: AnyPath, spectrum: str, day: date, polarization: str, ending: str = "fits") -> Path:
    """Dynamic spectrum of a day, such as that of "LWA128&LWA160", or its picture ("png").

    Raises
    ------
    InputError
        If the spectrum cannot be the name of a folder, or the polarization is none of `POLARIZATIONS`.
    """
    if not re.fullmatch(r"\w[\w&+-]*", spectrum, re.ASCII):
        raise InputError(f"{spectrum!r} is no name of a spectrum", remedy="Use letters, digits, &, +, - and _")
    if polarization not in POLARIZATIONS:
        raise InputError(f"there is no polarization {polarization!r}", remedy=f"Use {', '.join(POLARIZATIONS)}")
    return _checked(root) / spectrum / f"{_utc_date(day).isoformat()}-{polarization}.{ending}"


def spill_folder(root: AnyPath, prefix: str) -> Path:
    """Where spectra of a user wait that the cache did not take; `root` is that of the dynamic spectra."""
    return _checked(root) / ".spill" / prefix


def manifest_path(product: AnyPath) -> Path:
    """Manifest of a product; of one that has several files, give their prefix."""
    where = Path(product)
    return where.with_name(where.name + MANIFEST_SUFFIX)


def same_integration(first: datetime, second: datetime) -> bool:
    """Whether two starts are of one integration: subbands stamp it up to a second or two apart."""
    return abs((utc_of(first) - utc_of(second)).total_seconds()) < INTEGRATION_S / 2


def nearest_integration(starts: Iterable[datetime], time: datetime) -> datetime | None:
    """That one of the starts which is of the same integration as `time`, the nearest if several are; or None."""
    near = [start for start in starts if same_integration(start, time)]
    return min(near, key=lambda start: abs(utc_of(start) - utc_of(time)), default=None)


def group_integrations(starts: Sequence[datetime]) -> list[list[int]]:
    """Indices of the starts, one list for each integration, in the order of time."""
    groups: list[list[int]] = []
    for index in sorted(range(len(starts)), key=lambda k: utc_of(starts[k])):
        if groups and same_integration(starts[groups[-1][0]], starts[index]):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _parsed(kind: Kind, found: dict[str, str | None], where: Path) -> ParsedName:
    """The groups of a pattern, checked, with what the folders add."""
    result = ParsedName(
        kind,
        tar=bool(found.get("tar")),
        suffix=found.get("suffix") or "",
        polarization=found.get("polarization"),
        failed=bool(found.get("failed")),
    )
    if name := found.get("subband"):
        if name != _known_subband(name, where):
            raise InputError(f"the subband {name!r} is not written as 73MHz is", where, _RIGHT)
        result = replace(result, subband=name)
    if text := found.get("stamp"):
        start = _time(text, "%Y%m%d_%H%M%S", where)
        result = replace(result, start=start, day=start.date(), hour=start.hour)
    if text := found.get("day"):
        result = replace(result, day=_time(text, "%Y%m%d", where).date())
    if text := found.get("date"):
        result = replace(result, day=_time(text, "%Y-%m-%d", where).date(), spectrum=where.parent.name or None)
    if text := found.get("hour"):
        if int(text) > 23:
            raise InputError(f"there is no hour {text}", where, "Hours are 00 to 23")
        folder = where.parent.parent.name
        day = _time(folder, "%Y-%m-%d", where).date() if re.fullmatch(r"\d{4}-\d\d-\d\d", folder) else None
        result = replace(result, hour=int(text), day=day or result.day)
    if text := found.get("block"):
        result = replace(result, block=int(text))
    return result


def _known_subband(name: str, where: AnyPath) -> str:
    try:
        return subband(name).name
    except InputError as error:
        raise InputError(error.problem, where, f"{error.remedy}. {_RIGHT}") from None


def _time(text: str, pattern: str, where: AnyPath) -> datetime:
    try:
        return datetime.strptime(text, pattern).replace(tzinfo=UTC)
    except ValueError:
        raise InputError(f"{text!r} is not a time", where, _RIGHT) from None


def _utc_date(day: date) -> date:
    return utc_of(day).date() if isinstance(day, datetime) else day


def _checked(path: AnyPath) -> Path:
    """The path, if it goes straight down."""
    where = Path(path)
    if ".." in where.parts:
        raise InputError("goes through '..'", path, "Give the path without detours")
    return where


def _hour_folder(root: AnyPath, band: str, day: date, hour: int) -> Path:
    if not 0 <= hour <= 23:
        raise InputError(f"there is no hour {hour}", remedy="Hours are 0 to 23, in UTC")
    return _checked(root) / band / _utc_date(day).isoformat() / f"{hour:02d}"


def _beside(root: AnyPath, observation: Observation, ending: str) -> Path:
    return observation_folder(root, observation) / f"{stamp(observation.start)}_{observation.subband}{ending}"


def _of_delay(root: AnyPath, day: date, ending: str, failed: bool) -> Path:
    utc = _utc_date(day)
    return _checked(root) / "delay" / utc.isoformat() / f"{utc:%Y%m%d}_delay{ending}{FAILED_SUFFIX * failed}"


def _of_bandpass(root: AnyPath, band: str, day: date, hour: int, ending: str, failed: bool) -> Path:
    name = subband(band).name
    folder = _hour_folder(_checked(root) / "bandpass", name, day, hour)
    return folder / f"bandpass_concat.{name}_{hour:02d}{ending}{FAILED_SUFFIX * failed}"


def _qa(ending: str) -> str:
    if ending not in QA_ENDINGS:
        raise InputError(f"there are no QA files that end in {ending!r}", remedy=f"Use {', '.join(QA_ENDINGS)}")
    return f"_QA.{ending}"
