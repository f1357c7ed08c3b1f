from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.calibration.quality import fit_quality
from selfcfg.engine.calibration.temperature import Temperature
from selfcfg.engine.prediction.quality import CALIBRATION, QUALITY
from selfcfg.engine.scoring.calibration import Reliability
from selfcfg.errors import DataError
from selfcfg.kernels.calibration import top_label
from selfcfg.report.calibration import calibration_section
from selfcfg.report.names import PLAIN
from tests.engine.test_calibrate import simulated


def made(folder: Path) -> None:
    sure = np.random.default_rng(0).random((1, 200))
    tally = Reliability.of(top_label(np.concatenate([1 - sure, sure]), np.ones(200, int)))
    Temperature(
        temperature=1.5,
        fitted=1.5,
        by_group={"fold_0": 1.4, "fold_1": 1.6},
        before=tally,
        after=tally,
        n_cases=8,
        n_voxels=200,
        n_drawn=200,
        margin=5,
        seed=0,
        reason="probabilities are less sure",
    ).write(folder / CALIBRATION)
    fit_quality(simulated(40, 0, strength=0.1), {}).write(folder / QUALITY)


def test_what_was_calibrated_is_told_with_a_picture(tmp_path: Path) -> None:
    assert calibration_section(tmp_path, tmp_path / "pictures", PLAIN) == ""
    made(tmp_path)
    text = calibration_section(tmp_path, tmp_path / "pictures", PLAIN)
    assert "## Calibration" in text
    assert "probabilities are less sure" in text
    assert "Predicted Dice of new cases: on folds left out it errs by" in text
    assert (tmp_path / "pictures" / "reliability.png").stat().st_size > 5000


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION).write_text("{")
    with pytest.raises(DataError, match=r"calibration\.json"):
        calibration_section(tmp_path, tmp_path / "pictures", PLAIN)
