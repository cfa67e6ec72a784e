"""Which spectra are made of a Measurement Set. Imports nothing heavy, as flows and the command line need it."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from orca.angles import angle_deg
from orca.antennas import antenna, antenna_key

MEAN = "cross"
"""Name of the mean over all baselines."""
BASELINES = ("LWA128&LWA160", "LWA048&LWA051", "LWA018&LWA237", "LWA065&LWA094", "LWA286&LWA333")
"""Those that OVRO-LWA has always kept."""
CORRELATIONS = ("XX", "XY", "YX", "YY")
STOKES = ("I", "V")
_AUTO, _STOKES = "auto-", "stokes-"


class SpectrumOptions(BaseModel):
    """Which spectra are made, and of which samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibrate: Literal["none", "find", "require"] = Field(
        default="none", description="Apply no calibration, the best that there is, or fail without one"
    )
    baselines: tuple[str, ...] = Field(
        default=BASELINES,
        description="Baselines of which spectra are kept, two antennas in either order: LWA128:LWA160; or none",
        json_schema_extra={"cli": "--baseline"},
    )
    autos: tuple[str, ...] = Field(
        default=(),
        description="Antennas of whose autocorrelations spectra are kept: LWA128,LWA160",
        json_schema_extra={"cli": "--auto"},
    )
    towards: str | None = Field(
        default=None,
        description="Stokes I and V towards a source, or towards a place (J2000): 'Cyg A', or 19:59:28,+40:44:02, or "
        "in degrees 299.868,40.734",
    )
    batch: int = Field(default=90, ge=1, le=1000, description="Measurement Sets of one task")
    flag_antennas: tuple[str, ...] = Field(
        default=(),
        description="Antennas to leave out besides the known bad ones, by name or number: 12,LWA-266",
        json_schema_extra={"cli": "--flag-antenna"},
    )

    @field_validator("baselines", "autos", "flag_antennas", mode="before")
    @classmethod
    def _split_at_commas(cls, items: Any) -> Any:
        given = items if isinstance(items, list | tuple) else (items,)
        return tuple(part.strip() for item in given for part in str(item).split(",") if part.strip())

    @field_validator("baselines")
    @classmethod
    def _are_baselines(cls, items: tuple[str, ...]) -> tuple[str, ...]:
        """Each as LWA128&LWA160, none twice in either order."""
        found: dict[frozenset[str], str] = {}
        for item in items if items != ("none",) else ():
            names = [_name(part, item) for part in re.split("[&:]", item)]
            if len(names) != 2 or names[0] == names[1]:
                raise ValueError(f"{item!r} is no baseline: give two antennas, such as LWA128:LWA160")
            found.setdefault(frozenset(names), "&".join(names))
        return tuple(found.values())

    @field_validator("autos")
    @classmethod
    def _are_antennas(cls, items: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_name(item, item) for item in items))

    @field_validator("towards")
    @classmethod
    def _is_a_place(cls, text: str | None) -> str | None:
        if text is not None:
            _place_deg(text)
            if not re.fullmatch(r"\w[\w&+-]*", _place_name(text), re.ASCII):
                raise ValueError(f"{text!r} is neither a source nor a place such as 19:59:28,+40:44:02")
        return text

    @property
    def place_deg(self) -> tuple[float, float] | None:
        """Right ascension and declination of `towards`; None if that is the name of a source, or not given."""
        return None if self.towards is None else _place_deg(self.towards)

    @property
    def stokes_name(self) -> str | None:
        """Name of the spectrum of Stokes I and V, if there is one."""
        return None if self.towards is None else _STOKES + _place_name(self.towards)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all spectra."""
        stokes = () if self.stokes_name is None else (self.stokes_name,)
        return (MEAN, *self.baselines, *(_AUTO + name for name in self.autos), *stokes)


def polarizations(spectrum: str) -> tuple[str, ...]:
    """What the columns of a spectrum's values are, by its name."""
    return STOKES if spectrum.startswith(_STOKES) else CORRELATIONS


def antenna_pair(spectrum: str) -> tuple[str, str] | None:
    """Names of the two antennas of a spectrum, twice the same for an autocorrelation; None if it is of no baseline."""
    if spectrum.startswith(_AUTO):
        name = spectrum.removeprefix(_AUTO)
        return name, name
    first, and_, second = spectrum.partition("&")
    return (first, second) if and_ else None


def _name(text: str, whole: str) -> str:
    """An antenna's name without its dash."""
    try:
        name = antenna(text)
    except ValueError:
        name = 0
    if not isinstance(name, str):
        raise ValueError(f"{whole!r}: give antennas by name, such as LWA128")
    return antenna_key(name)


def _place_deg(text: str) -> tuple[float, float] | None:
    first, comma, second = text.partition(",")
    if not comma:
        return None
    ra_deg, dec_deg = angle_deg(first.strip(), hours=True), angle_deg(second.strip(), hours=False)
    if not (0 <= ra_deg < 360 and -90 <= dec_deg <= 90):
        raise ValueError(f"{text!r} is no place: right ascensions are 0 to 360 deg, declinations -90 to 90")
    return ra_deg, dec_deg


def _place_name(text: str) -> str:
    """CygA, or J195928+404402."""
    place = _place_deg(text)
    if place is None:
        return "".join(text.split())
    seconds, arcsec = round(place[0] * 240) % 86400, round(abs(place[1]) * 3600)
    sign = "-" if place[1] < 0 else "+"
    return f"J{_six_digits(seconds)}{sign}{_six_digits(arcsec)}"


def _six_digits(seconds: int) -> str:
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
