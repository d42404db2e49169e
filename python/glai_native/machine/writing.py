"""Files are written whole or not at all: aside, synced, and named in one step, however many they are.

One file takes its name by a rename. Several are named by a *record*: a small file that says which file written aside
takes which name, and which names go. Until the record has its own name, the folder holds what it held; from then on it
holds the new files, and whoever finds a record that a killed writer left does the renames that are missing.

A writer holds a lock on what it writes aside for as long as it lives, so that leftovers of dead ones can be told apart,
and removed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import threading
import uuid
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from glai_native.machine.interrupts import uninterrupted

Whole = TypeVar("Whole")
Content = bytes | Sequence[bytes | memoryview]  # of a file, whole or in pieces

RECORD = ".replacing.json"
_mine = threading.local()  # folders that this thread has locked
_STAGED = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")
# Of a file system that has no such call, or not for folders; nothing is wrong with what was written.
_NOT_OFFERED = {
    errno.EACCES,
    errno.EBADF,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOLCK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
}


def make_folder(owner: str, folder: str | os.PathLike[str]) -> Path:
    """Return the folder, made with those above it where it is not there.

    Raises:
        OSError: of the system's kind, with one sentence that names the folder: it is a file, or cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found = "a file is there" if folder.is_file() else error.strerror
        raise type(error)(
            f"{owner}: {folder} must be a folder, or a place where one can be made, got: {found}"
        ) from None
    return folder


def write_files(
    contents: Mapping[Path, Content], *, exclusive: bool = False, remove: Collection[Path] = ()
) -> None:
    """Write files of one folder in one step: it holds all that it held before, or all of the new.

    All are written aside and synced first: a full disk changes nothing, nor does a kill.

    Args:
        contents: by their final names; the folder must exist.
        exclusive: one file, which is refused where one of its name is there, instead of replacing it.
        remove: names of the folder that go in the same step, where they are there.

    Raises:
        OSError: what the system says, with the name of the file that it says it of.
        ValueError: ``exclusive``, and another writer was first.
    """
    folder = next(iter(contents)).parent
    settle(folder)
    remove_leftovers(folder, [path.name for path in contents])
    staged = _Staged()
    try:
        for path, content in contents.items():
            staged.write(path, content)
        with locked(folder), uninterrupted():
            if exclusive:
                ((path, temporary),) = staged.names.items()
                _take_name(temporary, path)
            elif len(contents) == 1 and not any(os.path.lexists(path) for path in remove):
                ((path, temporary),) = staged.names.items()
                os.replace(temporary, path)
            else:
                _replace_all(folder, staged, remove)
    finally:
        staged.close()
    _sync_folder(folder)


def find_file(path: Path) -> Path | None:
    """Return where a file's content lies, or None where it is not there.

    That is under its name, but in a folder that a killed writer left half renamed, and that cannot be written to.
    """
    folder = path.parent
    try:
        settle(folder)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        record = _read_record(folder)
        if record is not None:
            if path.name in record["remove"]:
                return None
            aside = folder / record["replace"].get(path.name, path.name)
            path = aside if aside.exists() else path
    return path if os.path.lexists(path) else None


def read_whole(folder: Path, read: Callable[[], Whole], of: str | None = None) -> Whole:
    """Return what ``read`` makes of several files of a folder, or of one named, all of one moment.

    Where a writer has come in between, all are read anew.
    """
    for last in (False,) * 20 + (True,):
        before = _moment(folder, of)
        try:
            found = read()
        except (OSError, ValueError):
            if last or _moment(folder, of) == before:
                raise
        else:
            if last or _moment(folder, of) == before:
                return found
    raise AssertionError("unreachable")


def _moment(folder: Path, of: str | None) -> set[tuple[str, int, int, int]]:
    """Return what changes whenever a file of the folder is replaced."""
    if of is not None:
        with suppress(OSError):
            status = os.stat(folder / of)
            return {(of, status.st_ino, status.st_mtime_ns, status.st_size)}
        return set()
    found = set()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _STAGED.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    found.add((entry.name, status.st_ino, status.st_mtime_ns, status.st_size))
    return found


def settle(folder: Path) -> None:
    """Do the renames that a killed writer left undone."""
    if not os.path.lexists(folder / RECORD):
        return
    with locked(folder), uninterrupted():
        record = _read_record(folder)
        if record is not None:
            _finish(folder, record)


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what writers that have died left beside files of these names; None: beside any safetensors file.

    What cannot be removed, or may belong to a writer that lives, stays.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _STAGED.fullmatch(entry.name)
            if match is None or not (
                match[1] == RECORD
                or (match[1].endswith(".safetensors") if names is None else match[1] in names)
            ):
                continue
            with suppress(OSError):  # another's, or gone meanwhile
                _remove_if_dead(Path(entry.path))


def _remove_if_dead(temporary: Path) -> None:
    handle = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where its writer lives
        # A dead writer's record was there before it died: what it names has yet to be renamed.
        if not os.path.lexists(temporary.parent / RECORD):
            temporary.unlink()
    finally:
        os.close(handle)


class _Staged:
    """Files written aside, locked while their writer lives.

    Attributes:
        names: final name to the one aside.
        kept: they have been given over to a record, and must not be removed.
    """

    def __init__(self) -> None:
        self.names: dict[Path, Path] = {}
        self.kept = False
        self._files: list[IO[bytes]] = []

    def write(self, path: Path, content: Content) -> None:
        """Write one file aside, and sync it; errors name the file that it is to become."""
        try:
            file = self._open(path)
            for piece in (content,) if isinstance(content, bytes) else content:
                file.write(piece)
            file.flush()
            _sync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None

    def _open(self, path: Path) -> IO[bytes]:
        while True:
            # A name of its own: writers of the same file, threads included, must not share what they stage.
            temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
            file = open(temporary, "xb")  # noqa: SIM115 (close() does)
            self.names[path] = temporary
            self._files.append(file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(temporary), os.fstat(file.fileno())):
                    return file
            except BlockingIOError:
                continue  # somebody looks whether we live, and removes it
            except FileNotFoundError:
                continue  # it was removed between the two calls
            except OSError as error:
                if error.errno not in _NOT_OFFERED:
                    raise
                return file

    def close(self) -> None:
        """Remove what has not got a name, and let go of the locks."""
        for temporary in () if self.kept else self.names.values():
            temporary.unlink(missing_ok=True)
        for file in self._files:
            with suppress(OSError):  # a full disk, of what was not written
                file.close()


def _replace_all(folder: Path, staged: _Staged, remove: Collection[Path]) -> None:
    """Give all their names; the one step is the record's own rename."""
    record: dict[str, Any] = {
        "replace": {path.name: temporary.name for path, temporary in staged.names.items()},
        "remove": [path.name for path in remove],
    }
    note = _Staged()
    try:
        note.write(folder / RECORD, json.dumps(record | {"crc32": _crc32(record)}).encode())
        _sync_folder(folder)  # what it names must not be lost by a power cut that keeps the record
        staged.kept = True
        try:
            os.replace(note.names[folder / RECORD], folder / RECORD)
        except BaseException:  # a rename may be done and reported as failed, over a network say
            staged.kept = os.path.lexists(folder / RECORD)
            raise
    finally:
        note.close()
    _sync_folder(folder)
    _finish(folder, record)


def _finish(folder: Path, record: Mapping[str, Any]) -> None:
    for name, temporary in record["replace"].items():
        with suppress(FileNotFoundError):  # renamed already
            os.replace(folder / temporary, folder / name)
    for name in record["remove"]:
        (folder / name).unlink(missing_ok=True)
    _sync_folder(folder)
    (folder / RECORD).unlink(missing_ok=True)


def _read_record(folder: Path) -> dict[str, Any] | None:
    """Return what the folder's record says; None where there is none."""
    path = folder / RECORD
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        record = json.loads(content)
        stated = record.pop("crc32")
        names = [*record["replace"], *record["replace"].values(), *record["remove"]]
        sound = stated == _crc32(record) and all(Path(name).name == name for name in names)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise ValueError(
            f"{path}: is damaged, so that nobody knows which files a killed save left without their names; "
            "remove it, and look whether the files beside it belong together"
        )
    return dict(record)


def _crc32(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _take_name(temporary: Path, path: Path) -> None:
    """Give a name that no file has; the folder's lock is held."""
    taken = ValueError(f"{path}: another writer has just made this file, open the folder again")
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise taken from None
    except OSError:  # a file system without hard links, which says so in many ways
        if os.path.lexists(path):
            raise taken from None
        os.rename(temporary, path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers of the folder out, other threads included, where the file system has locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to and not be listed
        yield
        return
    try:
        status = os.fstat(handle)
        mine, key = _mine.__dict__.setdefault("folders", set()), (status.st_dev, status.st_ino)
        if key in mine:
            yield
            return
        _call_if_offered(fcntl.flock, handle, fcntl.LOCK_EX)
        mine.add(key)
        try:
            yield
        finally:
            mine.discard(key)
            _call_if_offered(fcntl.flock, handle, fcntl.LOCK_UN)  # a forked child may have it open too
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make names outlive a power cut, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        _sync(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from None
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    _call_if_offered(os.fsync, handle)


def _call_if_offered(call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
