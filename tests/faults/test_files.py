"""Files that vanish, are cut short, or are replaced while a step is at work; and a damaged checkpoint."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from selfcfg.engine.training import loop
from selfcfg.runs import RunFolder
from tests.faults.road import NAME, NUMBER, Road, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CASE = "case_002"


def vanish(file: Path) -> None:
    file.unlink()


def cut_short(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()  # another name of the same bytes stays as it is
    file.write_bytes(content[: len(content) // 2])


def become_another(file: Path) -> None:
    file.write_bytes(file.with_name(file.name.replace(CASE, "case_001")).read_bytes())


@pytest.mark.parametrize("change", [vanish, cut_short, become_another])
@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
def test_a_file_that_changed_since_it_was_measured(road: Road, folder: str, change: Callable[[Path], None]) -> None:
    road.start("preprocess")
    name = f"{CASE}_0000.nii.gz" if folder == "imagesTr" else f"{CASE}.nii.gz"
    file = road.place / "w" / "raw" / NAME / folder / name
    content, before = file.read_bytes(), file.stat()
    change(file)
    ended = road.run("preprocess").ended()
    assert "Traceback" not in ended.said
    if change is not become_another:
        assert ended.code == 1 and CASE in ended.said, ended.said
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert road.finished("preprocess") == []


@pytest.mark.parametrize("change", [vanish, cut_short])
def test_a_preprocessed_case_that_is_lost_while_it_trains(road: Road, change: Callable[[Path], None]) -> None:
    road.start("train")
    folder = next((road.place / "w" / "preprocessed" / NAME).rglob(CASE))
    running = road.run("train")
    wait_for(running, road.place / "w" / "results", "log.jsonl")
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        change(file)
    ended = running.ended()
    assert "Traceback" not in ended.said, ended.said
    assert road.finished("train") == []


def wait_for(running: Running, folder: Path, name: str) -> None:
    """Waits until a step has written a file of this name."""
    deadline = time.monotonic() + 100
    while not (folder.is_dir() and next(folder.rglob(name), None)):
        assert time.monotonic() < deadline and running.process.exitcode is None, running.ended().said
        time.sleep(0.005)


def killed_after_two_saves() -> None:
    """In the process that trains: nothing comes after its second checkpoint."""
    save, saved = loop.save_state, []

    def save_and_die(run: RunFolder, state: Mapping[str, Any]) -> None:
        save(run, state)
        saved.append(run)
        if len(saved) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    loop.save_state = save_and_die


@pytest.mark.parametrize("change", [vanish, cut_short])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(road: Road, change: Callable[[Path], None]) -> None:
    road.start("train")
    assert road.run("train", killed_after_two_saves).ended().code == -signal.SIGKILL
    (last,) = (road.place / "w" / "results").rglob("last.pt")
    change(last)
    ended = road.run("train").ended()
    assert ended.code == 0, ended.said
    if change is cut_short:
        assert "last.pt" in ended.said and "previous" in ended.said, ended.said
    assert road.differences("train") == []


def test_a_dataset_that_changed_after_training_is_told(road: Road) -> None:
    road.start("predict")
    (road.place / "w" / "raw" / NAME / "dataset.json").write_text("{}")
    ended = Running(["train", NUMBER, "--resume", "--workspace", str(road.place / "w")]).ended()
    assert ended.code in (1, 2) and "dataset.json" in ended.said and "Traceback" not in ended.said
