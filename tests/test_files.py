"""Files are whole or not there, and what a killed process left of one goes when it is written again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfcfg.files import new_folder, replacing, write_text

KILLED = """
import os, pathlib
from selfcfg.files import replacing
with replacing(pathlib.Path("a.txt")) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(ZeroDivisionError), replacing(file) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    assert [path.name.endswith("-a.txt") for path in tmp_path.iterdir()] == [True]
    write_text(tmp_path / "b.txt", "another file")
    assert len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "a.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_large_folder_is_cleared_too_but_not_listed_at_every_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        (tmp_path / f"{number}.txt").touch()
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    listings, scandir = [], os.scandir
    monkeypatch.setattr("selfcfg.files.os.scandir", lambda folder: listings.append(folder) or scandir(folder))
    for number in range(20):
        write_text(tmp_path / f"{number}.txt", "another file")
    write_text(tmp_path / "a.txt", "whole")
    assert len(listings) < 10
    assert len(list(tmp_path.iterdir())) == 601


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("first")
        write_text(tmp_path / "a.txt", "second")
        assert temporary.exists()
    assert (tmp_path / "a.txt").read_text() == "first"


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("half")
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
    killed = KILLED.replace("replacing", "new_folder").replace("temporary.write", "(temporary / 'file').write")
    subprocess.run([sys.executable, "-c", killed], cwd=tmp_path, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with new_folder(tmp_path / "a.txt") as folder:
        (folder / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
