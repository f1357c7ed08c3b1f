"""The command line answers at once: help and mistakes need no array library."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "scipy", "SimpleITK", "nibabel", "matplotlib", "jinja2", "skimage", "lightning_fabric")

LOOK = """
import sys
try:
    {action}
except SystemExit:
    pass
sys.stderr.write("loaded:" + ",".join(name for name in {heavy!r} if name in sys.modules))
"""


@pytest.mark.parametrize(
    "action",
    [
        "import selfcfg, selfcfg.cli, selfcfg.io, selfcfg.kernels, selfcfg.nets, selfcfg.engine, selfcfg.report.page",
        "from selfcfg.cli import main; sys.argv = ['selfcfg', '--help']; main()",
        "from selfcfg.cli import main; sys.argv = ['selfcfg', 'train', '--help']; main()",
        "from selfcfg.cli import main; sys.argv = ['selfcfg', 'no-such-command']; main()",
    ],
)
def test_nothing_heavy_is_loaded(action: str) -> None:
    script = LOOK.format(action=action, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.rpartition("loaded:")[2] == ""


def test_planning_from_a_fingerprint_loads_numpy_and_nothing_heavier(tmp_path: Path) -> None:
    statistics = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    fingerprint = {
        "spacings": [[1.0, 0.8, 0.8]],
        "shapes_after_crop": [[400, 512, 512]],
        "foreground_intensity_properties_per_channel": {"0": statistics},
        "median_relative_size_after_cropping": 1.0,
    }
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "numTraining": 1}
    (tmp_path / "fingerprint.json").write_text(json.dumps(fingerprint))
    (tmp_path / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".nii.gz"}))
    arguments = ["plan", "--fingerprint", "fingerprint.json", "--dataset-json", "dataset.json", "--out", "plan.json"]
    script = LOOK.format(action=f"from selfcfg.cli import main; main({arguments})", heavy=HEAVY)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.rpartition("loaded:")[2] == "numpy"
    assert "3d_cascade_fullres" in (tmp_path / "plan.json").read_text()


def test_what_comes_before_training_loads_no_torch() -> None:
    script = LOOK.format(action="import selfcfg.engine.pipeline", heavy=("numpy", "torch", "lightning_fabric"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.rpartition("loaded:")[2] == "numpy"


@pytest.mark.skipif(sys.platform == "win32", reason="no processor times of child processes")
def test_help_takes_less_than_half_a_second() -> None:
    command = [sys.executable, "-c", "from selfcfg.cli import main; main()", "--help"]

    def processor_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True, env={**os.environ, "COLUMNS": "80"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(processor_seconds() for _ in range(4)) < 0.5
