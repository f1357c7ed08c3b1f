"""What the benchmark of the hot paths says about time, memory and equality can be relied on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hot_paths.contests import nearly_equal, same_labels
from benchmarks.hot_paths.measuring import Place, Worker, run, seconds_until
from benchmarks.hot_paths.plain_surfaces import one
from benchmarks.hot_paths.synthetic import moved, organs, painted

ALLOCATE = "import time; block = bytearray(b'x') * (200 << 20); time.sleep(1)"
CHILD = f'import subprocess, sys; subprocess.run([sys.executable, "-c", "{ALLOCATE}"], check=True)'
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")


@LINUX
def test_memory_of_a_child_counts() -> None:
    usage = run([[sys.executable, "-c", CHILD]], os.environ)
    assert 200 < usage.megabytes < 300
    assert usage.seconds > 1


@LINUX
def test_a_mapped_file_does_not_count(tmp_path: Path) -> None:
    np.save(tmp_path / "mapped.npy", np.ones(25 << 20))
    script = "import numpy as np, time; a = np.load('mapped.npy', mmap_mode='r'); a.sum(); time.sleep(1)"
    assert run([[sys.executable, "-c", script]], os.environ, tmp_path).megabytes < 150


def test_a_command_that_fails_says_what_it_wrote() -> None:
    with pytest.raises(RuntimeError, match="ended with 3:\nno data"):
        run([[sys.executable, "-c", "print('no data'); raise SystemExit(3)"]], os.environ)


def test_a_command_is_ended_at_its_sign() -> None:
    script = "import time; print('first tile', flush=True); time.sleep(60)"
    assert seconds_until([sys.executable, "-c", script], os.environ, "first tile").seconds < 30


def test_a_worker_repeats_a_call_and_keeps_its_result(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((1, 8, 9, 10), dtype=np.float32)
    np.save(tmp_path / "image.npy", image)
    arguments = {"image": str(tmp_path / "image.npy"), "shape": [8, 9, 10], "old": [1, 1, 1], "new": [1, 1, 1]}
    with Worker(Place(tmp_path, Path("unused"), 1, quick=True), "own_jobs") as worker:
        worker.prepare("resample_image", **arguments)
        assert worker.call().seconds > 0
        assert np.array_equal(np.load(worker.keep(tmp_path / "kept.npy")), image)


def test_another_image_or_label_does_not_pass() -> None:
    image = np.random.default_rng(0).random((1, 4, 4, 4))
    assert nearly_equal(image + 1e-5, image)[0].holds
    assert not nearly_equal(image + 1e-2, image)[0].holds
    assert not nearly_equal(image[:, 1:], image)[0].holds
    label = np.zeros((10, 10, 10), dtype=np.int16)
    other = label.copy()
    other[0, 0, :2] = 1
    assert same_labels(label, label)[0].holds
    assert not same_labels(other, label)[0].holds


def test_the_plain_surfaces_of_shifted_cubes() -> None:
    reference = np.zeros((12, 12, 12), dtype=bool)
    reference[2:8, 2:8, 2:8] = True
    dice, hd95, nsd = one([reference, np.roll(reference, 3, axis=0)], (1.5, 1.0, 1.0))
    assert dice == 0.5
    assert hd95 == 4.5
    assert 0 < nsd < 1


def test_predictions_are_nearly_right() -> None:
    those = organs(5, np.random.default_rng(0))
    size = (40, 64, 64)
    reference, prediction = painted(those, size), painted(moved(those, np.random.default_rng(1)), size)
    assert set(np.unique(reference)) == {0, 1, 2, 3, 4, 5}
    assert 0.9 < np.mean(reference == prediction) < 1
