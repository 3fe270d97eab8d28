from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from contracts.disk import files_no_larger_than
from lmanet.atomic import (
    Part,
    check_folder,
    discard_parts,
    output_errors,
    part_path,
    remove_parts,
    unwritable,
    whole_folder,
    write_whole,
)
from lmanet.errors import DataError, LmanetError, OutputError, VideoError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_written_and_replaced(tmp_path, durable):
    path = tmp_path / "a" / "b" / "x.bin"
    for data in (b"one", memoryview(b"two and more"), b""):
        write_whole(path, data, durable=durable)
        assert path.read_bytes() == bytes(data)
        assert names(path.parent) == ["x.bin"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.bin"
    write_whole(path, b"before")
    message = rf"{re.escape(str(path))}: cannot be written \(File too large\): free some space"
    with pytest.raises(OutputError, match=message), files_no_larger_than(1000):
        write_whole(path, bytes(2000))
    assert names(tmp_path) == ["x.bin"]
    assert path.read_bytes() == b"before"


def test_a_name_that_is_taken_by_a_folder(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken: cannot be written"):
        write_whole(tmp_path / "taken", b"data")
    assert names(tmp_path) == ["taken"]


@pytest.mark.parametrize("make", [lambda path: write_whole(path / "x", b""), check_folder])
def test_a_folder_that_cannot_be_made(tmp_path, make):
    (tmp_path / "file").touch()
    with pytest.raises(
        OutputError, match=r"file.*cannot be written.*check that the folder exists, is a folder"
    ):
        make(tmp_path / "file" / "sub")
    assert names(tmp_path) == ["file"]


def test_a_folder_that_takes_no_files():
    # Nobody can make files there, the superuser neither.
    with pytest.raises(OutputError, match=r"/proc: cannot be written \(.+\): "):
        check_folder(Path("/proc"))


def test_checking_a_folder_makes_it_and_leaves_nothing_in_it(tmp_path):
    for _ in range(2):
        check_folder(tmp_path / "a" / "b")
        assert names(tmp_path / "a" / "b") == []


def test_a_folder_appears_whole(tmp_path):
    for content in ("first", "second"):
        with whole_folder(tmp_path / "out") as part:
            assert names(part) == []
            (part / content).touch()
            assert not (tmp_path / "out" / content).exists()
        assert names(tmp_path / "out") == [content]
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out") as part:
        (part / "third").touch()
        raise ZeroDivisionError
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["second"]


def test_what_a_killed_process_of_the_same_id_left_is_not_taken_over(tmp_path):
    left = part_path(tmp_path / "out")
    left.mkdir()
    (left / "half").touch()
    with whole_folder(tmp_path / "out") as part:
        assert names(part) == []


def test_what_killed_processes_left_of_a_file_is_removed(tmp_path):
    for name in ("a[1].pt", ".a[1].part-7.pt", ".a[1].part-19.pt", ".a1.part-7.pt", ".a[1].part-7.csv"):
        (tmp_path / name).touch()
    remove_parts(tmp_path / "a[1].pt")
    assert names(tmp_path) == [".a1.part-7.pt", ".a[1].part-7.csv", "a[1].pt"]


def test_a_folder_where_a_file_stands_in_the_way(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out: cannot be written"), whole_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


def test_errors_that_say_more_pass(tmp_path):
    for error in (DataError("labels"), VideoError("a source that cannot be read")):
        with pytest.raises(LmanetError) as caught, output_errors(tmp_path):
            raise error
        assert caught.value is error
    with pytest.raises(OutputError, match="disk"), output_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space or choose another disk"),
        (errno.EDQUOT, "free some space or choose another disk"),
        (errno.EROFS, "choose a folder that you may write to"),
        (errno.EACCES, "choose a folder that you may write to"),
        (errno.ENOTDIR, "check that the folder exists"),
    ],
)
def test_the_error_says_what_why_and_what_to_do(number, advice):
    message = str(unwritable(Path("out/x.png"), OSError(number, os.strerror(number))))
    assert message.startswith(f"out/x.png: cannot be written ({os.strerror(number)}): {advice}")


def test_a_part_that_another_writes_is_neither_removed_nor_taken_over(tmp_path):
    first = Part(tmp_path / "a.mp4")  # stands for a process of the same id in another container
    remove_parts(tmp_path / "a.mp4")
    second = Part(tmp_path / "a.mp4")
    assert first.path != second.path and second.path.suffix == ".mp4"
    assert names(tmp_path) == sorted([first.path.name, second.path.name])
    second.path.write_bytes(b"second")
    second.finish()
    for part in (second, first):
        part.discard()
    assert names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"second"


def test_a_process_that_ends_at_once_takes_its_parts_with_it(tmp_path):
    parts = [Part(tmp_path / "a.mp4"), Part(tmp_path / "folder", folder=True)]
    (parts[1].path / "half").touch()
    discard_parts()
    assert names(tmp_path) == []
    for part in parts:
        part.discard()
