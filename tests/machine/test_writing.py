"""Files are written whole or not at all, by one writer or several, who may die, be interrupted, or find no room."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors

from glai_native.machine import writing
from glai_native.machine.files import TensorFile, tensors_to_bytes
from glai_native.machine.interrupts import uninterrupted
from glai_native.machine.writing import find_file, read_whole, remove_leftovers, write_files

A, B, C = b"a" * 100, b"b" * 100, b"c" * 100


def content(folder):
    """What a reader finds under the names that the tests write."""
    found = {}
    for name in ("x.safetensors", "y.safetensors", "z.safetensors"):
        path = find_file(folder / name)
        found[name[0]] = None if path is None else path.read_bytes()[:1].decode()
    return found


def replace_all(folder):
    x, y, z = (folder / f"{name}.safetensors" for name in "xyz")
    write_files({x: B, y: C}, remove=[z])


OLD, NEW = {"x": "a", "y": "a", "z": "a"}, {"x": "b", "y": "c", "z": None}


@pytest.fixture
def folder(tmp_path):
    write_files({tmp_path / f"{name}.safetensors": A for name in "xyz"})
    assert content(tmp_path) == OLD
    return tmp_path


@pytest.mark.parametrize("call", ["replace", "fsync", "unlink"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_files_or_the_new(folder, monkeypatch, call, number, error):
    calls, do = [0], getattr(os, call)

    def fail(*arguments, **named):
        calls[0] += 1
        if calls[0] == number:
            raise error
        return do(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with contextlib.suppress(OSError, KeyboardInterrupt):
            replace_all(folder)
    assert content(folder) in (OLD, NEW)
    replace_all(folder)
    assert content(folder) == NEW
    assert not list(folder.glob(".*"))


def half_renamed(folder, monkeypatch):
    """Leaves the folder as a writer does that is killed once its record has a name."""
    do = os.replace

    def kill(source, target):
        do(source, target)
        if Path(target).name == writing.RECORD:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            replace_all(folder)
    assert (folder / "x.safetensors").read_bytes() == A


def test_a_folder_that_cannot_be_written_to_is_read_all_the_same(folder, monkeypatch):
    half_renamed(folder, monkeypatch)

    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        assert content(folder) == NEW
        remove_leftovers(folder)
        assert content(folder) == NEW
    assert content(folder) == NEW
    assert (folder / "x.safetensors").read_bytes() == B
    assert not list(folder.glob(".*"))


def test_a_damaged_record_is_refused(folder, monkeypatch):
    half_renamed(folder, monkeypatch)
    record = folder / writing.RECORD
    good = record.read_bytes()
    for bad in (b"", good[:-1], good.replace(b"x.safetensors", b"w.safetensors", 1), b"[" * 100_000, b"null"):
        record.write_bytes(bad)
        with pytest.raises(ValueError, match=r"\.replacing\.json: is damaged"):
            content(folder)
    record.write_bytes(good)
    assert content(folder) == NEW


STAGE = """
import sys, time
from pathlib import Path
from glai_native.machine.writing import _Staged
staged = _Staged()
staged.write(Path(sys.argv[1]) / "x.safetensors", b"staged")
print("staged", flush=True)
time.sleep(60)
"""


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(folder):
    with subprocess.Popen([sys.executable, "-c", STAGE, folder], stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout.readline() == "staged\n"
        (left,) = folder.glob(".x.*")
        dead = folder / f".x.safetensors.{'0' * 32}.tmp"
        other = folder / f".theirs.{'0' * 32}.tmp"
        for path in (dead, other):
            path.touch()
        remove_leftovers(folder)
        assert (dead.exists(), left.exists(), other.exists()) == (False, True, True)
        write_files({folder / "x.safetensors": B})
        assert left.exists()
        living.kill()
    write_files({folder / "y.safetensors": B})
    assert left.exists()  # another file's
    write_files({folder / "x.safetensors": B})
    assert not left.exists()


def test_who_reads_several_files_gets_those_of_one_moment(folder):
    """A writer between two reads makes both be read anew."""
    writes = [lambda: replace_all(folder), lambda: None]

    def read():
        x = find_file(folder / "x.safetensors").read_bytes()[:1]
        if writes:
            writes.pop(0)()
        return x + find_file(folder / "y.safetensors").read_bytes()[:1]

    assert read_whole(folder, read) == b"bc"


def test_a_full_disk_names_the_file(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}/x'$"):
            write_files({tmp_path / "x": A})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match=r"nowhere/x'$"):
        write_files({tmp_path / "nowhere" / "x": A})


def test_a_folder_that_cannot_be_synced_is_named(folder, monkeypatch):
    def fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error") as caught:
            replace_all(folder)
    assert caught.value.filename == str(folder)
    assert content(folder) == OLD


def test_a_file_that_may_not_be_read_is_there(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(tensors_to_bytes({}, {"format": "f", "version": "1"}))
    assert TensorFile(path, "f", newest=1).metadata["version"] == "1"

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:  # root may read all
        patch.setattr(os, "open", refused)
        with pytest.raises(PermissionError, match=rf"Permission denied: '{path}'"):
            TensorFile(path, "f", newest=1)
    with pytest.raises(FileNotFoundError, match="there is no such file, a f file was expected"):
        TensorFile(tmp_path / "y", "f", newest=1)
    with pytest.raises(OSError, match=str(tmp_path)):
        TensorFile(tmp_path, "f", newest=1)
    shutil.rmtree(tmp_path)


def test_an_interrupt_waits_for_the_end():
    done = []

    def interrupted():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("all")
        done.append("more")

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert done == ["all"]


def test_a_file_replaced_while_it_is_opened_is_opened_anew(tmp_path, monkeypatch):
    path, names = tmp_path / "x", ["old", "new"]
    contents = [tensors_to_bytes({}, {"format": "f", "version": "1", "name": name}) for name in names]
    path.write_bytes(contents[0])
    opened, do = [], safetensors.safe_open

    def replaced_after(*arguments, **named):
        found = do(*arguments, **named)
        if not opened:
            write_files({path: contents[1]})
        opened.append(found)
        return found

    monkeypatch.setattr(safetensors, "safe_open", replaced_after)
    assert TensorFile(path, "f", newest=1).metadata["name"] == "new"
    assert len(opened) == 2
