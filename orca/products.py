"""Publication: finished files get their final names whole, and a manifest beside them.

Correctness hangs on nothing but this: any task may run twice, at the same time, and be killed anywhere.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from orca.disk import make_folder, remove, storage_errors, sync
from orca.errors import InputError, InvalidDataError, MissingDataError, StorageError
from orca.manifest import Fingerprint, Manifest, fingerprint, read_manifest
from orca.scratch import owner_token, part_path, require_space, sweep


def publish(files: Mapping[Path, Path], manifest: Manifest, manifest_path: Path) -> Manifest:
    """Bring finished files from scratch to their final names, all of them whole, and then the manifest.

    Everything is first brought into the folder that it goes to under a hidden name (moved on the same file system,
    else copied with its times) and synced. Only then is the old manifest removed, each file renamed into place, what
    the old product had and the new one has not removed, and the new manifest written. So a crash leaves the old
    product whole, or files without a manifest that matches them; never a half-written file under a final name. No
    locks: see `orca.manifest.fresh`. What dead publishers left in the folders is swept.

    Parameters
    ----------
    files : mapping of path to path
        Final path by scratch path; files, or folders such as a Measurement Set. They are taken: gone from scratch
        afterwards, also when publishing failed.
    manifest : Manifest
        Its outputs are filled in here.
    manifest_path : path

    Returns
    -------
    Manifest
        As written.

    Raises
    ------
    InputError
        Nothing to publish, or two files with one final name.
    MissingDataError
        A file is not in scratch.
    StorageError
        A folder cannot be made or written, or the space does not suffice.
    """
    finals = [*files.values(), manifest_path]
    if not files or len({final.absolute() for final in finals}) < len(finals):
        raise InputError("a product needs files, each with a final name of its own", manifest_path)
    folders = sorted({final.parent for final in finals})
    for source in files:
        fingerprint(source)
    for folder in folders:
        make_folder(folder)
        sweep(folder)
    owner = owner_token()
    staged = {final: part_path(final, owner, index) for index, final in enumerate(files.values())}
    try:
        for source, final in files.items():
            _bring(source, staged[final])
        outputs = tuple(_as_if_at(final, fingerprint(part)) for final, part in staged.items())
        superseded = _outputs_of(manifest_path)
        with storage_errors(manifest_path.parent):
            manifest_path.unlink(missing_ok=True)
            sync(manifest_path.parent)
        for final, part in staged.items():
            with storage_errors(final):
                _rename_into_place(part, final)
        kept = {output.path for output in outputs}
        for old in superseded:
            if old.path not in kept and _is_still(old):
                remove(Path(old.path))
        for folder in folders:
            with storage_errors(folder):
                sync(folder)
        published = manifest.model_copy(update={"outputs": outputs})
        write_text(manifest_path, published.text())
    finally:
        for part in staged.values():
            remove(part)
            remove(_aside(part))
    return published


def withdraw(manifest_path: Path) -> None:
    """Remove a product: its manifest first, then those of its files that are still what the manifest says.

    Nothing happens where there is none. Folders stay.

    Raises
    ------
    StorageError
        The manifest cannot be removed.
    """
    outputs = _outputs_of(manifest_path)
    with storage_errors(manifest_path.parent):
        manifest_path.unlink(missing_ok=True)
    for output in outputs:
        if _is_still(output):
            remove(Path(output.path))


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is either the old one or the new one, whole and on the disk.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    part = part_path(path, owner_token(), "text")
    content = text.encode()
    try:
        with storage_errors(path, len(content)):
            with part.open("wb") as sink:
                sink.write(content)
                sink.flush()
                os.fsync(sink.fileno())
            part.replace(path)
            sync(path.parent)
    finally:
        remove(part)


def _outputs_of(manifest_path: Path) -> tuple[Fingerprint, ...]:
    """What the product that is there now consists of; nothing if there is none."""
    try:
        return read_manifest(manifest_path).outputs
    except (MissingDataError, InvalidDataError):
        return ()


def _is_still(output: Fingerprint) -> bool:
    """Whether a file is the one that a manifest describes, and so ours to remove."""
    try:
        return fingerprint(Path(output.path)) == output
    except MissingDataError:
        return False


def _as_if_at(final: Path, part: Fingerprint) -> Fingerprint:
    return part.model_copy(update={"path": str(final.parent.resolve() / final.name)})


def _bring(source: Path, part: Path) -> None:
    """Move or copy to `part`, and sync all of it."""
    with storage_errors(part.parent):
        try:
            source.rename(part)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            need_bytes = fingerprint(source).size
            require_space(part.parent, need_bytes, source.name)
            with storage_errors(part.parent, need_bytes):
                if source.is_dir():
                    shutil.copytree(source, part, symlinks=True)
                else:
                    shutil.copy2(source, part)
            remove(source)
        for folder, _, names in os.walk(part):
            for name in names:
                if not Path(folder, name).is_symlink():
                    sync(Path(folder, name))
            sync(Path(folder))
        if not part.is_dir():
            sync(part)


def _rename_into_place(part: Path, final: Path) -> None:
    """Rename over what is there; a folder goes aside first, again when another publisher was quicker."""
    for _ in range(100):
        try:
            part.replace(final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
                raise
        remove(_aside(part))
        with suppress(FileNotFoundError):
            final.rename(_aside(part))
    raise StorageError("others keep putting a folder there", final, "Stop what else writes it")


def _aside(part: Path) -> Path:
    return part.with_name(f"{part.name}.aside")
