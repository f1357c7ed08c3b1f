"""Any trained model from its folder: of runs, or a selected one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfcfg.engine.prediction.ensemble import Ensemble
from selfcfg.engine.prediction.loading import Weights
from selfcfg.engine.prediction.loading import load_model as load_runs
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.packaged import model_folder
from selfcfg.engine.prediction.selected import MODEL, load_selected, refuse_choices


def load_model(
    path: Path | str,
    *,
    folds: Sequence[int | str] | None = None,
    device: str | None = None,
    precision: str = "auto",
    weights: Weights = "final",
) -> Model | Ensemble:
    """The model of an experiment folder (all its folds, averaged), of one fold folder, or that `select` has chosen.

    Args:
        path: the parent of ``fold_*`` folders, one of them, a folder with model.json, or an imported package.
        folds: use only these, by number, or "all" for the fold that was trained on every case.
        device: such as "cpu" or "cuda:0"; default: the best there is.
        precision: "auto" (bfloat16 where the device computes in it), "float32" or "bfloat16".
        weights: of the last or of the best epoch.

    Raises:
        UsageError: there is no such folder or fold, or folds of a selected model are named.
        DataError: a run only pretrains or is not finished, the folds were trained by different plans, weights do not
            fit the plan, or what a selected model is made of is gone or has changed.
    """
    folder = model_folder(Path(path))
    if not (folder / MODEL).is_file():
        return load_runs(folder, folds=folds, device=device, precision=precision, weights=weights)
    refuse_choices(folder, folds, weights)
    return load_selected(folder, device=device, precision=precision)
