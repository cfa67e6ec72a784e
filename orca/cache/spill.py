"""Spectra that the cache did not take, in files beside the products, until they are reduced.

A file holds the spectra of one kind that were put together, as the cache would hold them, each behind its length; it
is whole or not there. Its name begins with the first and the last time in it.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from orca.cache.entry import Entry, Label, decode, encode, key_of, keys_begin, label_of
from orca.disk import make_folder, storage_errors, sync
from orca.errors import InputError, InvalidDataError
from orca.scratch import owner_token, part_path, sweep

_log = logging.getLogger(__name__)
_LENGTH = struct.Struct("<I")
_NAME = re.compile(r"(\d{10}\.\d{3})-(\d{10}\.\d{3})-[\w.-]+\.spectra", re.ASCII)
_LARGEST = 1 << 24


class Spill:
    """A folder of spectra of one user, with the same keys as in the cache. They do not expire.

    Parameters
    ----------
    folder : Path
        See `orca.naming.spill_folder`; made when something has to be kept.
    prefix : str
        Of the user.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        keys_begin(prefix)
        self.folder, self.prefix = folder, prefix
        self._places: dict[str, tuple[Path, int, int]] = {}
        self.broken: set[Path] = set()
        """Files that end too early, or hold something else, as far as was seen."""

    def put_many(self, entries: Sequence[Entry]) -> None:
        """Keep spectra; they are on the disk then.

        Raises
        ------
        StorageError
            The disk is full, or the folder cannot be written.
        """
        groups: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            key_of(self.prefix, entry)
            groups[entry.kind].append(entry)
        for kind, group in groups.items():
            self._write(self.folder / kind, group)

    def keys(self, kind: str | None = None, first_s: float | None = None, last_s: float | None = None) -> list[str]:
        """As `SpectrumCache.keys`."""
        low = float("-inf") if first_s is None else first_s - 5e-4
        high = float("inf") if last_s is None else last_s + 5e-4
        self._places = {}
        for path in self._files(kind, low, high):
            for key, offset, length in self._records(path):
                label = label_of(self.prefix, key)
                if label is not None and low <= label.time_s <= high and kind in (None, label.kind):
                    self._places[key] = path, offset, length
        return sorted(self._places)

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry | None]:
        """The entries with keys that `keys` has told, None for what is broken or gone."""
        found: dict[str, Entry | None] = dict.fromkeys(keys)
        wanted: dict[Path, list[str]] = defaultdict(list)
        for key in keys:
            if key in self._places:
                wanted[self._places[key][0]].append(key)
        for path, some in wanted.items():
            try:
                with path.open("rb") as file:
                    for key in some:
                        _, offset, length = self._places[key]
                        file.seek(offset)
                        found[key] = _decoded(file.read(length))
            except OSError:  # another reducer has done with it
                continue
        return found

    def label(self, key: str) -> Label:
        """What a key says. Raises InputError for one that is not this user's."""
        label = label_of(self.prefix, key)
        if label is None:
            raise InputError(f"{key!r} is no key of a spectrum of {self.prefix}")
        return label

    def delete(self, keys: Sequence[str]) -> int:
        """Forget entries; a file goes when all that it holds is forgotten in one call. Says how many went."""
        gone, count = set(keys), 0
        for path in {place[0] for key, place in self._places.items() if key in gone}:
            held = {key for key, _, _ in self._records(path)}
            if held <= gone:
                with storage_errors(path):
                    path.unlink(missing_ok=True)
                count += len(held)
        return count

    def clear(self, kind: str | None = None) -> int:
        """Remove all files, or those of one kind; says how many there were."""
        paths = list(self._files(kind, float("-inf"), float("inf")))
        for path in paths:
            with storage_errors(path):
                path.unlink(missing_ok=True)
        return len(paths)

    def _write(self, folder: Path, group: Sequence[Entry]) -> None:
        make_folder(folder)
        sweep(folder)
        owner = owner_token()
        times = sorted(entry.time_s for entry in group)
        final = folder / f"{times[0]:014.3f}-{times[-1]:014.3f}-{owner}.spectra"
        part = part_path(final, owner, "spill")
        content = b"".join(_LENGTH.pack(len(value)) + value for value in map(encode, group))
        try:
            with storage_errors(final, len(content)):
                with part.open("wb") as sink:
                    sink.write(content)
                    sink.flush()
                    os.fsync(sink.fileno())
                part.replace(final)
                sync(folder)
        finally:
            part.unlink(missing_ok=True)

    def _files(self, kind: str | None, low: float, high: float) -> Iterator[Path]:
        folders = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        for folder in folders:
            if kind in (None, folder.name) and folder.is_dir():
                for path in sorted(folder.iterdir()):
                    found = _NAME.fullmatch(path.name)
                    if found and float(found[2]) >= low - 1e-3 and float(found[1]) <= high + 1e-3:
                        yield path

    def _records(self, path: Path) -> Iterator[tuple[str, int, int]]:
        """Key, offset and length of each spectrum of a file."""
        try:
            content = path.read_bytes()
        except OSError:
            return
        offset = 0
        while offset < len(content):
            length = _LENGTH.unpack_from(content, offset)[0] if offset + _LENGTH.size <= len(content) else _LARGEST
            offset += _LENGTH.size
            entry = _decoded(content[offset : offset + length]) if length < _LARGEST else None
            if entry is None:
                if path not in self.broken:
                    _log.warning("%s: holds something else than spectra, or is cut off", path)
                self.broken.add(path)
                return
            yield key_of(self.prefix, entry), offset, length
            offset += length


def _decoded(value: bytes) -> Entry | None:
    try:
        return decode(value)
    except (InvalidDataError, UnicodeDecodeError):
        return None
