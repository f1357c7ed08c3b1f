"""A full disk, and folders that may not be written or read: a clear error, nothing half-written, and on it goes."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
from functools import partial

import pytest

from tests.faults.road import NAME, Ended, Road

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NOBODY = 65534
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
"""Of root: to write, and to read, whatever permissions say; capabilities(7)."""


def limited(size: int) -> None:
    """No file of this process may grow beyond a size; the system then refuses the write as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class _Header(ctypes.Structure):
    """What capset(2) is told of whose capabilities these are: this process's, in the third layout."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def somebody() -> None:
    """Permissions hold for this process, as for anybody but root: it may no longer override them."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(ctypes.byref(header), sets) == 0
    for number in (0, 1):  # effective and permitted, of the first 32
        sets[number] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    assert libc.capset(ctypes.byref(header), sets) == 0


def refused(ended: Ended, *words: str) -> None:
    """Asserts that a step ended with an error for people."""
    assert ended.code not in (0, -signal.SIGKILL), ended.said
    assert "Traceback" not in ended.said, ended.said
    assert any(word in ended.said for word in words), ended.said


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convert", 700),
        ("plan", 1_000),
        ("preprocess", 500),
        ("train", 1_000),
        ("train", 60_000),
        ("predict", 100),
        ("select", 500),
    ],
)
def test_a_write_that_is_refused_loses_nothing(road: Road, name: str, size: int) -> None:
    road.start(name)
    refused(road.run(name, partial(limited, size)).ended(), "File too large", "the disk took only a part")
    assert not [path for path in road.place.rglob("*") if path.name.startswith(".tmp-")]
    assert road.finished(name) == []


@pytest.mark.parametrize("room", [30_000, 300_000])
def test_a_disk_that_fills_while_it_trains(road: Road, room: int) -> None:
    road.start("train")
    results = road.place / "w" / "results"
    results.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", results]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.decode().strip()}")
    try:
        refused(road.run("train").ended(), "No space left", "is free")
        subprocess.run(["mount", "-o", "remount,size=200m", results], check=True)
        assert road.finished("train") == []
    finally:
        subprocess.run(["umount", results], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("convert", "w"),
        ("convert", "in/imagesTr"),
        ("plan", f"w/preprocessed/{NAME}"),
        ("preprocess", f"w/raw/{NAME}/imagesTr"),
        ("train", "w/results"),
        ("predict", "in/imagesTs"),
        ("predict", f"w/results/{NAME}/supervised__standard__2d/fold_0"),
    ],
)
def test_folders_without_permission(road: Road, name: str, folder: str) -> None:
    road.start(name)
    place = road.place / folder
    place.mkdir(parents=True, exist_ok=True)
    shutil.chown(place, NOBODY, NOBODY)
    place.chmod(0o700)
    refused(road.run(name, somebody).ended(), "ermission denied", "is not readable")
    place.chmod(0o755)
    assert road.finished(name) == []
