"""What a calibration was asked for: completed with the configuration's defaults, and checked before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from orca.antennas import BadAntennas, antenna_key
from orca.calibration.options import BlockOptions, SolveOptions
from orca.errors import DataError, InputError, InvalidDataError
from orca.sky import known_sources, read_pattern
from orca.skyoptions import SkyOptions

_SHOWN = 3
"""Unknown antennas that are named in one warning."""


def complete_block(block: BlockOptions, integrations: int, min_integrations: int) -> BlockOptions:
    """With the configuration's numbers where none were asked for.

    Raises
    ------
    InputError
        More integrations are needed than a block has.
    """
    wanted = block.integrations or integrations
    minimum = block.min_integrations or min(min_integrations, wanted)
    if minimum > wanted:
        problem = f"a block of {wanted} integrations cannot have at least {minimum}"
        raise InputError(problem, remedy="Lower --min-integrations")
    return BlockOptions(integrations=wanted, min_integrations=minimum)


def checked_sky(sky: SkyOptions) -> SkyOptions:
    """With absolute paths, which workers understand, whose current folder is another one.

    Raises
    ------
    InputError
        A source does not exist, or a file of sources or of the dipoles' pattern is missing or broken.
    """
    files = {"sky_file": sky.sky_file, "beam_file": sky.beam_file}
    sky = sky.model_copy(update={name: file.absolute() for name, file in files.items() if file is not None})
    try:
        known_sources(sky)
        read_pattern(sky.beam_file)
    except DataError as error:
        raise InputError(error.problem, error.path, error.remedy) from error
    return sky


def check_antennas(solve: SolveOptions, bad: BadAntennas, sources: Iterable[Path]) -> BadAntennas:
    """Look whether the array has the antennas, and the subbands the channels, that were named.

    Parameters
    ----------
    solve : SolveOptions
        As the user gave them: the configuration's reference antenna may be missing.
    bad : BadAntennas
    sources : paths
        Measurement Sets or tars; the first whose antennas can be read tells them. If there is none, nothing is checked.

    Returns
    -------
    BadAntennas
        With a warning that names those that the array does not have.

    Raises
    ------
    InputError
        For one that it has not, and the user named.
    """
    asked = {
        "--refant": [solve.reference_antenna] if solve.reference_antenna else [],
        "--flag-antenna": solve.flag_antennas,
    }
    if not (any(asked.values()) or bad.antennas or solve.flag_channels):
        return bad
    first = _first(sources)
    if first is None:
        return bad
    names, n_channels = first
    if beyond := solve.beyond(n_channels):
        raise InputError(f"--flag-channel: there is no channel {beyond[0]}", remedy=f"They are 0 to {n_channels - 1}")
    for option, antennas in asked.items():
        if unknown := unknown_antennas(antennas, names):
            remedy = f"Give numbers from 0 to {len(names) - 1}, or names such as {names[0]}"
            raise InputError(f"{option}: the array has no antenna {unknown[0]}", remedy=remedy)
    unknown = unknown_antennas(bad.antennas, names)
    if not unknown:
        return bad
    told = [f"{bad.place(each)}: the array has no antenna {each}" for each in unknown[:_SHOWN]]
    more = [f"and {len(unknown) - _SHOWN} more"] if len(unknown) > _SHOWN else []
    before = [bad.warning] if bad.warning else []
    return replace(bad, warning="; ".join([*before, f"bad antennas: {'; '.join([*told, *more])}"]))


def unknown_antennas(wanted: Sequence[str | int], names: Sequence[str]) -> list[str | int]:
    """Those of some antennas, by number or by name, that an array does not have."""
    known = {antenna_key(name) for name in names} | {str(number) for number in range(len(names))}

    def is_known(each: str) -> bool:
        return (str(int(each)) if each.isdecimal() else antenna_key(each)) in known

    return [each for each in wanted if not is_known(str(each).strip())]


def _first(sources: Iterable[Path]) -> tuple[tuple[str, ...], int] | None:
    """Antennas and number of channels of the first source that can be read."""
    from orca.ms.array import antenna_names, channel_count

    for source in sources:
        try:
            return antenna_names(source), channel_count(source)
        except InvalidDataError:  # the task that calibrates it says what is wrong
            continue
    return None
