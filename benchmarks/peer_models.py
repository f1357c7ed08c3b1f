"""nnU-Net's training and prediction as a process: a job a line comes in, its result or error goes out, a line each.

Runs in an environment that holds nnunetv2 and needs nothing of selfcfg; `model_exchange.py` starts it in a folder with
``raw``, and everything else is made beside it. The first line that goes out holds the versions. Jobs hold ``do``:

- ``prepare``: dataset, configurations; fingerprint and preprocessed cases by ``plans.json`` in the preprocessed folder.
- ``train``: dataset, configuration, fold, trainer, iterations, validate; a model by nnU-Net's own trainer.
- ``predict``: model, folds, images, out, previous, exact; with ``exact`` logits are added up in float32, not in half.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from line_protocol import serve

EPOCHS = 4
ENVIRONMENT = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """What came of a job, or what went wrong, and its seconds."""
    began = time.perf_counter()
    try:
        found = {"prepare": prepare, "train": train, "predict": predict}[job.pop("do")](**job)
    except Exception as error:  # noqa: BLE001 - whatever nnU-Net raises is the result
        found = {"error": f"{type(error).__name__}: {error}"[:500]}
    return {**found, "seconds": time.perf_counter() - began}


def prepare(dataset: str, configurations: list[str]) -> dict[str, Any]:
    """Fingerprint and preprocessed cases."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, preprocess

    number = int(dataset[7:10])
    extract_fingerprints([number], num_processes=1, clean=False)
    preprocess([number], "plans", configurations, num_processes=[1] * len(configurations))
    return {}


def train(
    *, dataset: str, configuration: str, fold: int | str, trainer: str, iterations: int, validate: bool
) -> dict[str, Any]:
    """The folder of a model that nnU-Net's trainer wrote."""
    import torch
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    folder = Path(os.environ["nnUNet_preprocessed"], dataset)  # noqa: SIM112 - its name
    plans, description = (json.loads((folder / name).read_text()) for name in ("plans.json", "dataset.json"))
    kind = recursive_find_trainer_class_by_name(trainer)
    made = kind({**plans, "continue_training": False}, configuration, fold, description, device=torch.device("cpu"))
    made.num_epochs, made.num_iterations_per_epoch, made.num_val_iterations_per_epoch = EPOCHS, iterations // EPOCHS, 1
    torch.manual_seed(0)
    made.run_training()
    if validate:
        made.perform_actual_validation(False)
    return {"model": made.output_folder_base}


def predict(
    *, model: str, folds: list[int | str], images: str, out: str, previous: str | None, exact: bool
) -> dict[str, Any]:
    """The label maps of a folder of images."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(model, tuple(folds))
    with _adding_in_float32() if exact else contextlib.nullcontext():
        predictor.predict_from_files(images, out, False, True, 1, 1, previous)
    return {}


@contextlib.contextmanager
def _adding_in_float32() -> Any:
    import torch
    from nnunetv2.inference import predict_from_raw_data as module

    half, weights = torch.half, module.compute_gaussian
    exact = functools.partial(weights, dtype=torch.float32)
    exact.cache_clear = weights.cache_clear  # type: ignore[attr-defined]
    torch.half, module.compute_gaussian = torch.float32, exact
    try:
        yield
    finally:
        torch.half, module.compute_gaussian = half, weights


if __name__ == "__main__":
    place = Path(sys.argv[1])
    places = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "peer/preprocessed", "nnUNet_results": "peer/results"}
    os.environ.update(ENVIRONMENT | {name: str(place / folder) for name, folder in places.items()})
    serve(answer)
