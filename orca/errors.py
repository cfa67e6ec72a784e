"""The errors of ORCA: what is wrong, with which file, and what to do about it.

Every error that a user may meet derives from `OrcaError`. The class says whose trouble it is:
the data's or the program's (trying again changes nothing), or the infrastructure's (trying again may help).
"""

from __future__ import annotations

from os import PathLike


class OrcaError(Exception):
    """Something that ORCA can explain to its user in one line.

    Parameters
    ----------
    problem : str
        What is wrong, without the file's name and without a full stop.
    path : path, optional
        The file, folder or program that it is about.
    remedy : str, optional
        What the user can do.
    """

    exit_code = 1
    """Exit status of the command line: 1 for work that failed, 2 for wrong input."""
    retryable = False
    """True where the machines, not the data, are to blame: the same work may succeed elsewhere or later."""
    tail: str = ""
    """The last lines of the log of the program that failed; the message has them after its first line."""

    def __init__(self, problem: str, path: str | PathLike[str] | None = None, remedy: str | None = None) -> None:
        super().__init__(problem, None if path is None else str(path), remedy)  # args: so that it pickles
        self.problem = problem
        self.path = None if path is None else str(path)
        self.remedy = remedy

    def __str__(self) -> str:
        text = self.problem if self.path is None else f"{self.path}: {self.problem}"
        text = text if self.remedy is None else f"{text}{'' if text.endswith('?') else '.'} {self.remedy}"
        return f"{text}\n{self.tail}" if self.tail else text


class ConfigError(OrcaError):
    """The configuration does not make sense."""

    exit_code = 2


class InputError(OrcaError):
    """The command or the flow was asked for something that cannot be: a wrong option, an unknown name."""

    exit_code = 2


class DataError(OrcaError):
    """A file is not what it should be."""


class MissingDataError(DataError):
    """There is no such file."""


class InvalidDataError(DataError):
    """The file is something else than expected, or a part of it is missing."""


class TruncatedDataError(DataError):
    """The file ends too early, or cannot be read to its end."""


class GrowingDataError(DataError):
    """The file is still being written."""


class DeadDataError(DataError):
    """The file is whole, and there is no signal in it."""


class MismatchError(DataError):
    """Two files do not belong together, such as a table of another subband."""


class FailedCalibrationError(DataError):
    """A calibration was made and is not good enough to be used."""


class MessageError(DataError):
    """A message of the event queue is not what it should be."""


class ProgramError(OrcaError):
    """A program of somebody else's failed."""


class ProgramMissingError(ProgramError):
    """The program is not installed where the configuration says."""

    exit_code = 2


class DeadlineError(ProgramError):
    """A program took longer than it was allowed to."""


class StoppedError(OrcaError):
    """The work was cancelled, or nobody waits for it any more."""


class StorageError(OrcaError):
    """A disk is full, or a folder cannot be written."""


class InfrastructureError(OrcaError):
    """A process, a machine or a service went away under the work."""

    retryable = True


class BrokerAwayError(InfrastructureError):
    """RabbitMQ does not answer, or the connection to it is lost."""


class CacheAwayError(InfrastructureError):
    """The spectrum cache does not answer, is full, or refuses: what was to be kept has to be kept elsewhere."""

    may_pass = False
    """True where waiting for a few seconds may help."""


class RightsError(OrcaError):
    """The user of a service may not do what is asked for."""
