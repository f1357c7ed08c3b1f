"""nnU-Net's planners as a process: a job a line comes in, its plans.json or its error goes out, a line each.

Runs in an environment that holds nnunetv2 and needs nothing of selfcfg; `planner_equality.py` and `plan_time.py` start
it. Networks are built on PyTorch's meta device, which gives the same counts several times faster, unless the job says
``"real": true``. The first line that goes out holds the versions.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from line_protocol import serve

NAME = "Dataset001_Random"


def main() -> None:
    """Answers jobs until there are no more."""
    with tempfile.TemporaryDirectory() as work:
        folders = {name: Path(work, name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        os.environ.update({name: str(folder) for name, folder in folders.items()})
        signal.signal(signal.SIGALRM, _too_late)
        serve(lambda job: _answer(job, folders))


def _answer(job: dict[str, Any], folders: dict[str, Path]) -> dict[str, Any]:
    """The plans, or what went wrong, and the seconds of nnU-Net's own call."""
    raw, preprocessed = folders["nnUNet_raw"] / NAME, folders["nnUNet_preprocessed"] / NAME
    for folder in (raw, preprocessed):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (raw / "dataset.json").write_text(json.dumps(job["dataset"]))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(job["fingerprint"]))
    planner = _planners()[job["planner"]]
    began = time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_REAL, job["limit"])
        with contextlib.nullcontext() if job["real"] else _networks_without_memory():
            found = {
                "plans": planner(NAME, job["memory_gb"], overwrite_target_spacing=job["spacing"]).plan_experiment()
            }
    except Exception as error:  # noqa: BLE001 - whatever nnU-Net raises is the result
        found = {"error": f"{type(error).__name__}: {error}"[:200]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {**found, "seconds": time.perf_counter() - began}


def _planners() -> dict[str, Any]:
    # nnU-Net reads its environment variables when it is imported
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as default
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as residual,
    )

    return {
        "standard": default.ExperimentPlanner,
        "residual-m": residual.nnUNetPlannerResEncM,
        "residual-l": residual.nnUNetPlannerResEncL,
        "residual-xl": residual.nnUNetPlannerResEncXL,
    }


def _networks_without_memory() -> Any:
    import torch

    return torch.device("meta")


def _too_late(*_: object) -> None:
    raise TimeoutError("did not end in time")


if __name__ == "__main__":
    main()
