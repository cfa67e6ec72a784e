"""Sources from a YAML file: a list, strictly checked, with the line of every mistake.

.. code-block:: yaml

    - name: Her A
      ra: "16:51:08.1"          # hours, minutes and seconds; or degrees: 252.784
      dec: "+04:59:33"          # degrees, minutes and seconds; or degrees: 4.9925
      reference_mhz: 74
      flux_jy: 730              # at reference_mhz, with spectral_index: flux_jy * (freq / reference) ** spectral_index
      spectral_index: -0.8      # or log_flux: [c0, c1, ...] as in orca.sky.Source, in place of both
      epoch_year: 2000          # if it fades, with fading_per_year: the share that is lost each year
      fading_per_year: 0
      citation: where the numbers are from
"""

from __future__ import annotations

import difflib
import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orca.angles import angle_deg
from orca.errors import InputError, MissingDataError
from orca.sky import HIGHEST_HZ, LOWEST_HZ, Source, plain_name

BRIGHTEST_JY = 1e8
"""A spectrum that gets brighter than this between 12 and 100 MHz has its flux density in place of its logarithm."""


class _Entry(BaseModel):
    """One source of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, pattern=r"\S")
    ra: Annotated[float, BeforeValidator(lambda text: angle_deg(text, hours=True)), Field(ge=0, lt=360)]
    dec: Annotated[float, BeforeValidator(lambda text: angle_deg(text, hours=False)), Field(ge=-90, le=90)]
    reference_mhz: float = Field(gt=0)
    log_flux: tuple[float, ...] | None = Field(default=None, min_length=1)
    flux_jy: float | None = Field(default=None, gt=0)
    spectral_index: float | None = None
    epoch_year: float = Field(default=2000.0, ge=1900, le=2200)
    fading_per_year: float = Field(default=0.0, gt=-0.5, lt=0.5)
    citation: str = ""

    @model_validator(mode="after")
    def _one_spectrum(self) -> _Entry:
        power_law = self.flux_jy is not None and self.spectral_index is not None
        if (self.log_flux is None) == (not power_law) or (self.log_flux is not None and self.flux_jy is not None):
            raise ValueError("give either log_flux, or flux_jy and spectral_index")
        return self

    def source(self, path: Path) -> Source:
        """The source; ValueError where the spectrum cannot be."""
        log_flux = self.log_flux or (math.log10(self.flux_jy or math.nan), self.spectral_index or 0.0)
        source = Source(
            name=self.name.strip(),
            ra_rad=math.radians(self.ra),
            dec_rad=math.radians(self.dec),
            reference_hz=self.reference_mhz * 1e6,
            log_flux=log_flux,
            epoch_year=self.epoch_year,
            fading_per_year=self.fading_per_year,
            citation=self.citation or f"given in {path.name}",
        )
        for freq_hz in (LOWEST_HZ, HIGHEST_HZ):
            exponent = sum(c * math.log10(freq_hz / source.reference_hz) ** k for k, c in enumerate(log_flux))
            if not exponent < math.log10(BRIGHTEST_JY):
                raise ValueError(
                    f"the spectrum gives 10 ** {exponent:.4g} Jy at {freq_hz / 1e6:g} MHz: log_flux is the decimal "
                    "logarithm, and reference_mhz is in MHz"
                )
        return source


def read_sources(path: Path) -> tuple[Source, ...]:
    """The sources of a YAML file; see the top of this module for what it looks like.

    Parameters
    ----------
    path : Path
        It is read once, until it changes.

    Returns
    -------
    tuple of Source
        In the order of the file. Positions are ICRS (J2000).

    Raises
    ------
    MissingDataError
        If the file cannot be read.
    InputError
        If it is no such list; the message has the line, the source and the key.
    """
    path = Path(path)
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise MissingDataError(
            f"cannot be read: {(error.strerror or 'error').lower()}", path, "Name the YAML file with the sources"
        ) from error


@lru_cache(maxsize=8)
def _read(path: Path, _changed_ns: int, _size: int) -> tuple[Source, ...]:
    loader = None
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        root = loader.get_single_node()
        if not isinstance(root, yaml.SequenceNode):
            raise InputError("is no list of sources", path, "Begin each source with a dash: - name: Her A")
        found: dict[str, Source] = {}
        for number, node in enumerate(root.value, 1):
            source = _source(loader, node, number, path)
            if plain_name(source.name) in found:
                raise _mistake(path, node, f"{source.name} comes twice")
            found[plain_name(source.name)] = source
        return tuple(found.values())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = path if mark is None else f"{path}:{mark.line + 1}"
        raise InputError(f"is no YAML: {error.problem}", place, "Mind the indentation, and quote text") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("is no YAML", path, "It must be text, and not nested") from error
    finally:
        if loader is not None:
            loader.dispose()


def _source(loader: yaml.SafeLoader, node: yaml.Node, number: int, path: Path) -> Source:
    """One item of the list."""
    if not isinstance(node, yaml.MappingNode):
        raise _mistake(path, node, f"source {number} has no keys")
    values: dict[str, Any] = {}
    nodes: dict[str, yaml.Node] = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        if key not in _Entry.model_fields:
            near = difflib.get_close_matches(key, _Entry.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_Entry.model_fields)}"
            raise _mistake(path, key_node, f"source {number}: unknown key {key[:40]!r}; {hint}")
        if key in nodes:
            raise _mistake(path, key_node, f"source {number}: {key} is given twice")
        nodes[key] = key_node
        # As written: YAML itself makes 71968.4 of 19:59:28.4
        is_angle = key in ("ra", "dec") and isinstance(value_node, yaml.ScalarNode)
        try:
            values[key] = value_node.value if is_angle else loader.construct_object(value_node, deep=True)
        except (ValueError, TypeError, OverflowError) as error:  # such as the date 2026-02-31
            raise _mistake(
                path, key_node, f"source {number}: {key}: expected a plain value; put text in quotes"
            ) from error
    label = f"source {number} ({values['name']})" if isinstance(values.get("name"), str) else f"source {number}"
    try:
        return _Entry(**values).source(path)
    except ValidationError as error:
        fault = error.errors()[0]
        key = str(fault["loc"][0]) if fault["loc"] else ""
        text = fault["msg"].removeprefix("Value error, ")
        where = nodes.get(key, node)
        raise _mistake(path, where, f"{label}: {key}: {text}" if key else f"{label}: {text}") from error
    except ValueError as error:
        raise _mistake(path, nodes.get("log_flux", node), f"{label}: {error}") from error


def _mistake(path: Path, node: yaml.Node, problem: str) -> InputError:
    return InputError(problem, f"{path}:{node.start_mark.line + 1}", "Mend the file")
