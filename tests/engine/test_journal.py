from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from selfcfg.engine.training.journal import Epoch, Journal, read_log, without_curves
from selfcfg.runs import RunFolder


def epoch(number: int, dice: float = 0.5) -> Epoch:
    return Epoch(
        epoch=number,
        learning_rate=0.01,
        loss=1.5,
        terms={"dice": 0.7, "cross_entropy": 0.8},
        gradient_norm=3.0,
        validation={"dice": dice, "dice liver": dice},
        average=dice,
        is_best=True,
        seconds=1.0,
        seconds_per_iteration=0.1,
        data_wait=0.01,
    )


def epochs(run: RunFolder) -> list[int]:
    return [json.loads(line)["epoch"] for line in run.log.read_text().splitlines()]


def test_one_line_an_epoch_and_a_picture(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    journal = Journal(run, 0)
    for number in range(3):
        journal.write(epoch(number))
    journal.close()
    assert epochs(run) == [0, 1, 2]
    assert read_log(run)[1]["terms"] == {"dice": 0.7, "cross_entropy": 0.8}
    with Image.open(run.curves) as picture:
        assert picture.size == (800, 900)
        assert len(picture.getcolors(maxcolors=10**6) or []) > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.jsonl"]


def test_nothing_to_score_is_null(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    journal = Journal(run, 0)
    journal.write(epoch(0, math.nan))
    journal.close()
    assert read_log(run)[0]["validation"]["dice"] is None
    assert "NaN" not in run.log.read_text()


@pytest.mark.parametrize("torn", ['{"epoch": 2, "lo', "\x00\x00\x00", '{"epoch": 1}', "[]"])
def test_lines_that_are_torn_or_later_than_the_checkpoint_are_dropped(tmp_path: Path, torn: str) -> None:
    run = RunFolder(tmp_path)
    journal = Journal(run, 0)
    for number in range(2):
        journal.write(epoch(number))
    run.log.write_text(run.log.read_text() + torn)
    assert [entry["epoch"] for entry in read_log(run)] == [0, 1]
    journal = Journal(run, 1)
    journal.write(epoch(1, 0.9))
    assert epochs(run) == [0, 1]
    assert read_log(run)[1]["average"] == 0.9


def test_drawing_is_rare_where_epochs_are_short(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    journal = Journal(run, 0)
    journal.write(epoch(0))
    assert not run.curves.exists(), "a second of training does not pay for a drawing"
    journal.write(replace(epoch(1), seconds=3600.0))
    made = run.curves.stat().st_mtime_ns
    journal.write(epoch(2))
    assert run.curves.stat().st_mtime_ns == made
    journal.close()
    assert run.curves.stat().st_mtime_ns > made


def test_curves_of_a_process_killed_while_drawing_them_are_drawn_by_the_next(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    Journal(run, 0).write(epoch(0))
    assert not run.curves.exists()
    Journal(run, 1).close()
    assert run.curves.is_file()


def test_nothing_is_drawn_within_a_block_that_asks_for_that(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with without_curves():
        journal = Journal(run, 0)
        journal.write(replace(epoch(0), seconds=3600.0))
        journal.close()
    assert epochs(run) == [0] and not run.curves.exists()
    Journal(run, 1).close()
    assert run.curves.is_file()


def test_tensorboard_where_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    journal = Journal(RunFolder(tmp_path), 0, tensorboard=True)
    journal.write(epoch(0))
    journal.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))
