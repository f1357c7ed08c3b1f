"""The data on disk that the rows share; each is made when a row first asks for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.checkpoint import read_weights
from selfcfg.files import new_folder, read_json, write_json
from selfcfg.interop.nnunet_write import to_nnunet
from selfcfg.plan import Plan
from selfcfg.runs import RunFolder, RunRecord

from .measuring import HERE, Place, run
from .synthetic import SCANS, description, organs, painted, scan, write_dataset, write_pairs

NAME = "Dataset001_Ct"
REAL_NAME = "Dataset002_HeadNeck"
CONFIGURATION = "3d_fullres"
COARSE_SPACING = "3,3,3"
COARSE_MEMORY = "4"
TRAINING = {
    "epochs": 4,
    "iterations_per_epoch": 20,
    "validation_iterations": 1,
    "batch_size": 2,
    "patch_size": "32,64,64",
    "workers": 1,
}
"""A training long enough for logits that are no coin tosses: a minute or two on two cores."""


class Models(NamedTuple):
    """The same weights as a model of either side.

    Args:
        ours: experiment folder.
        theirs: model folder of nnU-Net.
        plan: both are of.
        images: folder with the one case to predict.
    """

    ours: Path
    theirs: Path
    plan: Plan
    images: Path


def raw(place: Place) -> Path:
    """Six CT-like scans with mixed spacings and five labels, in the standard folder format."""
    folder = place.work / "raw" / NAME
    if not folder.exists():
        quick = [((32, 64, 64), spacing) for _, spacing in SCANS]
        with new_folder(folder) as temporary:
            write_dataset(temporary, quick if place.quick else SCANS)
    return folder


def real_source() -> Path:
    """Where real head and neck CTs lie, if there are any: `SELFCFG_REAL_DATA`, else beside the project."""
    shared = os.environ.get("SELFCFG_REAL_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(shared) / "openkbp_headneck_ct"


def real(place: Place) -> Path:
    """The real head and neck CTs in the standard folder format."""
    folder, source = place.work / "raw" / REAL_NAME, real_source()
    if not folder.exists():
        cases = sorted((source / "images").iterdir())[: 2 if place.quick else None]
        with new_folder(folder) as temporary:
            for name in ("imagesTr", "labelsTr"):
                (temporary / name).mkdir()
            for file in cases:
                case = file.name.removesuffix(".nii.gz")
                shutil.copyfile(file, temporary / "imagesTr" / f"{case}_0000.nii.gz")
                shutil.copyfile(source / "labels" / file.name, temporary / "labelsTr" / file.name)
            write_json(temporary / "dataset.json", description(5, len(cases)))
    return folder


def array(place: Place, name: str, size: tuple[int, int, int], n_labels: int) -> tuple[Path, Path]:
    """A normalised image (1, Z, Y, X) float32 and its label map (1, Z, Y, X) int16 as .npy files."""
    folder = place.work / "arrays" / f"{name}_{'x'.join(map(str, size))}_{n_labels}"
    if not folder.exists():
        rng = np.random.default_rng(0)
        label = painted(organs(n_labels, rng), size)
        image = scan(label, rng)[None].astype(np.float32)
        image = (image - image.mean()) / image.std()
        with new_folder(folder) as temporary:
            np.save(temporary / "image.npy", image)
            np.save(temporary / "label.npy", label[None].astype(np.int16))
    return folder / "image.npy", folder / "label.npy"


def pairs(place: Place) -> Path:
    """References and predictions: 20 cases of 13 classes."""
    folder = place.work / "pairs"
    if not folder.exists():
        with new_folder(folder) as temporary:
            write_pairs(temporary, 2 if place.quick else 20, 13, (26, 64, 64) if place.quick else (130, 256, 256))
    return folder


def logits(place: Place, shape: tuple[int, int, int], n_classes: int) -> Path:
    """Logits (K, Z, Y, X) float16 of that many classes as .npy: each high within an ellipsoid of its own."""
    folder = place.work / "logits" / f"{'x'.join(map(str, shape))}_{n_classes}"
    if not folder.exists():
        with new_folder(folder) as temporary:
            stored = np.lib.format.open_memmap(
                temporary / "logits.npy", mode="w+", dtype=np.float16, shape=(n_classes, *shape)
            )
            stored[0] = 0
            grid = np.ogrid[tuple(slice(size) for size in shape)]
            for index, (centre, radii) in enumerate(organs(n_classes - 1, np.random.default_rng(2)), start=1):
                parts = zip(grid, shape, centre, radii, strict=True)
                far = sum((((g + 0.5) / n - c) / r).astype(np.float32) ** 2 for g, n, c, r in parts)
                stored[index] = np.clip(8 * (1 - np.sqrt(far)), -8, 8)
            stored.flush()
            del stored
    return folder / "logits.npy"


def preprocessed(place: Place, scans: Path) -> tuple[Path, Path]:
    """Our store and nnU-Net's of a raw dataset, made where the row that times this has not left them."""
    own, their = (folder / scans.name for folder in folders(place))
    if len(list(own.glob(f"{CONFIGURATION}-*/*/case.json"))) < len(list((scans / "labelsTr").iterdir())):
        run(own_preprocessing(place, scans), place.environment(1))
    if not (their / "gt_segmentations").is_dir():
        run(their_preprocessing(place, scans), place.environment(1))
    return next(own.glob(f"{CONFIGURATION}-*")), their / f"nnUNetPlans_{CONFIGURATION}"


def folders(place: Place) -> tuple[Path, Path]:
    """The parents of what either side preprocesses."""
    return place.work / "preprocessed", place.work / "peer" / "nnUNet_preprocessed"


def own_preprocessing(place: Place, scans: Path) -> list[list[str]]:
    """Our commands from raw images to preprocessed cases, the plan included."""
    shared = ["--jobs", place.cores, "--workspace", place.work]
    return [place.ours("plan", scans.name, *shared), place.ours("preprocess", scans.name, "-c", CONFIGURATION, *shared)]


def their_preprocessing(place: Place, scans: Path) -> list[list[str]]:
    """The command of nnU-Net for the same."""
    number, processes = int(scans.name[7:10]), place.cores
    options = ["-c", CONFIGURATION, "-npfp", processes, "-np", processes, "--clean"]
    return [place.theirs("nnUNetv2_plan_and_preprocess", "-d", number, *options)]


def preprocess_theirs_alike(place: Place, scans: Path) -> None:
    """Preprocesses again with nnU-Net and our statistics of the intensities in its plans, which it draws at random."""
    own, their = (folder / scans.name for folder in folders(place))
    file = their / "nnUNetPlans.json"
    content, statistics = read_json(file), Plan.read(own / "plans" / "standard.json").intensities
    measured = {str(channel): found.model_dump() for channel, found in enumerate(statistics)}
    write_json(file, {**content, "foreground_intensity_properties_per_channel": measured})
    options = ["-d", int(scans.name[7:10]), "-c", CONFIGURATION, "-np", place.cores]
    run([place.theirs("nnUNetv2_preprocess", *options)], place.environment(1))


def models(place: Place) -> Models:
    """A network for 3 mm, trained a little here, and the same weights as a model folder of nnU-Net."""
    workspace = place.work / "coarse"
    theirs = workspace / "nnunet"
    (workspace / "raw").mkdir(parents=True, exist_ok=True)
    if not (workspace / "raw" / NAME).exists():
        (workspace / "raw" / NAME).symlink_to(raw(place).resolve())
    plan_name = f"standard-{COARSE_MEMORY}GB"
    experiment = workspace / "results" / NAME / f"supervised__{plan_name}__{CONFIGURATION}__model"
    if not experiment.exists():
        _train(place, workspace, plan_name, experiment)
    plan = Plan.read(experiment / "fold_0" / "plan.json")
    if not theirs.exists():
        with new_folder(theirs) as temporary:
            _write_theirs(place, experiment, plan, temporary)
    images = workspace / "images"
    if not images.exists():
        with new_folder(images) as temporary:
            shutil.copyfile(raw(place) / "imagesTr" / "ct_0_0000.nii.gz", temporary / "ct_0_0000.nii.gz")
    return Models(experiment, theirs, plan, images)


def _train(place: Place, workspace: Path, plan_name: str, experiment: Path) -> None:
    """Trains on a small patch; the experiment that is kept predicts with the planned one."""
    shared = ["--workspace", workspace]
    used = ["-c", CONFIGURATION, "--planner", plan_name]
    settings = {**TRAINING, "iterations_per_epoch": 2, "patch_size": "16,16,16"} if place.quick else TRAINING
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    commands = [
        place.ours("plan", 1, "--spacing", COARSE_SPACING, "--memory", COARSE_MEMORY, *shared),
        place.ours("preprocess", 1, *used, *shared),
        place.ours("train", 1, *used, "--fold", 0, "--resume", *sets, *shared),
    ]
    run(commands, place.environment())
    trained = RunFolder(experiment.with_name(experiment.name.removesuffix("__model")) / "fold_0")
    with new_folder(experiment) as temporary:
        fold = RunFolder(temporary / "fold_0")
        fold.path.mkdir()
        shutil.copyfile(trained.final, fold.final)
        shutil.copyfile(trained.plan, fold.plan)
        record = RunRecord.read(trained.record)
        planned = {**record.settings, "patch_size": None, "batch_size": None}
        record.model_copy(update={"settings": planned}).write(fold.record)


def _write_theirs(place: Place, experiment: Path, plan: Plan, folder: Path) -> None:
    import torch

    about = raw(place) / "dataset.json"
    plans = to_nnunet(plan, DatasetDescription.read(about), "nnUNetPlans")
    write_json(folder / "plans.json", plans)
    shutil.copyfile(about, folder / "dataset.json")
    weights, _ = read_weights(experiment / "fold_0" / "final.safetensors")
    torch.save(weights, folder / "weights.pt")
    run([[str(place.peer), "-W", "ignore", str(HERE / "peer_model.py"), str(folder)]], place.environment())


def training_batch(place: Place, plan: Plan) -> Path:
    """One batch of the planned size: ``image`` (B, 1, Z, Y, X) and ``target`` as .npz."""
    configuration = plan.configurations[CONFIGURATION]
    z, y, x = configuration.patch_size
    file = place.work / "coarse" / f"batch_{z}x{y}x{x}.npz"
    if not file.exists():
        image, label = array(place, "batch", (z, y, x), 5)
        copies = (configuration.batch_size, 1, 1, 1, 1)
        temporary = file.with_name(f".{file.name}")
        np.savez(temporary, image=np.tile(np.load(image), copies), target=np.tile(np.load(label), copies))
        temporary.rename(file)
    return file


def peer_versions(place: Place) -> dict[str, str]:
    """The versions of the other side that can change its times."""
    script = (
        "import json, platform\nfrom importlib.metadata import version\n"
        "names = 'nnunetv2 torch numpy scipy scikit-image batchgenerators batchgeneratorsv2 blosc2'.split()\n"
        "print(json.dumps({'python': platform.python_version(), **{name: version(name) for name in names}}))"
    )
    done = subprocess.run([str(place.peer), "-c", script], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
