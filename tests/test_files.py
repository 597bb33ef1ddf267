"""Files that are written completely or not at all, and paths that a user gives."""

from __future__ import annotations

import os
import stat
import subprocess
import threading

import numpy as np
import pytest
from full_disk import files_of_at_most, small_disk
from hypothesis import given
from hypothesis import strategies as st
from processes import without_torch

from ccfast import _files
from ccfast._errors import InputError
from ccfast._files import (
    array_content,
    as_unicode,
    given_output,
    given_path,
    printable,
    remove_unfinished,
    write_all_whole,
    write_whole,
)

LARGE = b"new" * 100_000


@pytest.mark.parametrize("content", ["täxt\n", b"bytes\0", lambda file: file.write(b"written")])
def test_what_is_written_takes_the_place_of_what_was_there(tmp_path, content):
    path = tmp_path / "file"
    for _ in range(2):
        write_whole(path, content)
        assert path.read_bytes() in ("täxt\n".encode(), b"bytes\0", b"written")
        assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("before", [None, b"older"])
def test_a_full_disk_leaves_the_old_file_and_no_other(before):
    with small_disk(64 << 10) as folder:
        if before is not None:
            (folder / "file").write_bytes(before)
        with pytest.raises(OSError, match=r"file: cannot be written \(is the disk full\?\): No space left"):
            write_whole(folder / "file", LARGE)
        assert {item.name: item.read_bytes() for item in folder.iterdir()} == ({"file": before} if before else {})


def test_a_limit_of_file_sizes_is_met_like_a_full_disk(tmp_path):
    (tmp_path / "file").write_bytes(b"older")
    with files_of_at_most(1000), pytest.raises(OSError, match=r"cannot be written \(is the disk full\?\)"):
        write_whole(tmp_path / "file", array_content(np.zeros(1000)))
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"older"]


@pytest.mark.parametrize("error", [OSError("torn"), RuntimeError("torn"), KeyboardInterrupt()])
def test_any_error_while_writing_leaves_no_partial_file(tmp_path, error):
    def fail(file):
        file.write(b"half")
        raise error

    (tmp_path / "file").write_bytes(b"older")
    with pytest.raises(type(error)):
        write_whole(tmp_path / "file", fail)
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"older"]


def test_of_two_files_that_belong_together_both_are_written_or_neither(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_all_whole({first: "1", second: "2"})
    with files_of_at_most(1000), pytest.raises(OSError, match="second: cannot be written"):
        write_all_whole({first: "3", second: LARGE})
    assert (first.read_text(), second.read_text()) == ("1", "2")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_file_that_was_there_can_be_kept_under_another_name(tmp_path):
    path, previous = tmp_path / "file", tmp_path / "previous"
    write_whole(path, "1", previous)
    assert not previous.exists()
    write_whole(path, "2", previous)
    with files_of_at_most(10), pytest.raises(OSError):
        write_whole(path, LARGE, previous)
    assert (path.read_text(), previous.read_text()) == ("2", "1")


def test_new_files_get_the_mode_of_new_files_and_old_ones_keep_theirs(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "new", "")
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o604)
        write_whole(tmp_path / "old", "")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "old")] == [0o640, 0o604]


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    link.symlink_to(target)
    for text in ("1", "2"):  # first to a missing file, then to a file
        write_whole(given_output("--output", link), text)
        assert link.is_symlink() and target.read_text() == text
    assert len(list(target.parent.iterdir())) == 1


def test_file_and_folder_are_flushed_before_and_after_the_rename(tmp_path, monkeypatch):
    steps = []
    replace, sync = os.replace, os.fsync
    monkeypatch.setattr(_files.os, "replace", lambda *paths: (steps.append("rename"), replace(*paths)))

    def fsync(descriptor):
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    monkeypatch.setattr(_files.os, "fsync", fsync)
    write_whole(tmp_path / "file", "text")
    assert steps == ["file", "rename", "folder"]


def test_pipes_and_devices_are_written_to_as_they_are(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_whole(given_output("--output", tmp_path / "pipe"), array_content(np.arange(3)))
    reader.join()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert read[0].startswith(b"\x93NUMPY") and read[0].endswith(np.arange(3).tobytes())
    write_whole(given_output("--output", "/dev/null"), "text")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("piped", [True, False])
def test_stdout_can_be_an_output(tmp_path, name, piped):
    script = (
        "from ccfast._files import *\n"
        f"write_whole(given_output('--output', {name!r}), array_content(__import__('numpy').arange(5)))"
    )
    with open(tmp_path / "file", "wb") as file:
        done = subprocess.run(without_torch(script), stdout=subprocess.PIPE if piped else file, check=True)
    (tmp_path / "file").write_bytes(done.stdout or (tmp_path / "file").read_bytes())
    assert np.load(tmp_path / "file").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3).T, np.zeros((0, 4)), np.ones(3, bool)])
def test_arrays_are_written_as_numpy_writes_them(tmp_path, array):
    write_whole(tmp_path / "array.npy", array_content(array))
    read = np.load(tmp_path / "array.npy")
    assert np.array_equal(read, array) and read.dtype == array.dtype


@pytest.mark.parametrize("path", ["", " ", "\t", "a\0b"])
def test_a_path_that_is_empty_or_none_is_refused_by_its_option(path):
    with pytest.raises(InputError, match=r"^--init: expected a path, got"):
        given_path("--init", path)


def test_a_path_that_is_too_long_is_refused():
    with pytest.raises(InputError, match=r"^--init: .*File name too long"):
        given_path("--init", "a" * 5000)


def test_the_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given_path("--run", "~/run") == tmp_path / "run"
    assert str(given_path("--run", "a~/b")) == "a~/b"


def test_an_output_that_cannot_be_written_is_noticed_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path, "expected a file, got the folder"),
        (tmp_path / "no" / "file.npy", "no such folder: .*no; .* cannot be written"),
        (tmp_path / "file" / "file.npy", "no such folder"),
        (tmp_path / "page.html", r"expected a file that ends in .npy or .csv"),
    ):
        with pytest.raises(InputError, match=f"^--output: {message}"):
            given_output("--output", path, (".npy", ".csv") if "page" in str(path) else ())
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_read_only_is_noticed_before_the_work():
    with small_disk(64 << 10, read_only=True) as folder, pytest.raises(InputError, match="Read-only file system"):
        given_output("--output", folder / "file.npy")


def test_what_a_killed_process_left_is_removed(tmp_path):
    script = (
        "import os, pathlib, ccfast._files as f\n"
        f"f.write_whole(pathlib.Path({str(tmp_path / 'file')!r}), lambda file: os.kill(os.getpid(), 9))"
    )
    subprocess.run(without_torch(script), check=False)
    assert len(list(tmp_path.iterdir())) == 1
    remove_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_any_text_can_be_encoded_and_text_that_can_stays(text):
    as_unicode(text).encode()
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert as_unicode(text) == text


def test_bytes_of_file_names_and_control_characters_are_escaped():
    assert as_unicode(os.fsdecode(b"a\xffb\x1b")) == "a\\xffb\x1b"
    assert as_unicode("\ud800") == "\\ud800"
    assert printable("a\x1b[2J\tb\nc\x7fd\r") == "a\\x1b[2J\tb\nc\\x7fd\\x0d"
