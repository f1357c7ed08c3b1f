"""The command that learns from cross-validation how far new predictions can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfcfg.cli.inference import is_run, only_experiment
from selfcfg.cli.options import (
    DebugOption,
    DeviceOption,
    JobsOption,
    JsonOption,
    SeedOption,
    Speaker,
    WorkspaceOption,
    typed,
)
from selfcfg.workspace import Workspace


def calibrate(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_DATASET", help="recipe or experiment folder, or dataset with one")
    ],
    seed: SeedOption = 0,
    device: DeviceOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Fits, on validation cases, a temperature of the probabilities and a score of how good predictions are."""
    from selfcfg.engine.calibration.calibrate import calibrate as fit  # noqa: PLC0415

    speaker, place = Speaker(as_json), Workspace.at(workspace)
    folder = Path(run) if is_run(run) else only_experiment(run, place, "calibrate")
    found = fit(folder, place, device=device, jobs=jobs, seed=seed)
    temperature, quality = found.temperature, found.quality
    speaker.say(temperature.reason)
    what = "predicted Dice" if quality.is_useful else "no predicted Dice"
    speaker.say(f"{what}: {quality.reason}")
    speaker.say(f"written: {found.calibration_file} and {found.quality_file.name}; predict uses both from now on")
    answer = {
        "calibration": str(found.calibration_file),
        "temperature": temperature.temperature,
        "ece_before": temperature.before.ece,
        "ece_after": temperature.after.ece,
        "quality": str(found.quality_file),
        "predicts_dice": quality.is_useful,
        "error": quality.error,
        "error_of_mean": quality.error_of_mean,
    }
    speaker.done(answer, f"selfcfg predict {typed(run)} -i IMAGES -o OUTPUT --uncertainty")
