"""Everything that reads files of others: for each parser valid files to begin with, and how it is called."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from selfcfg.geometry import FLAT_SPACING, Geometry

SMALL = Geometry(shape=(3, 6, 5), spacing=(2.0, 1.0, 1.0))
FLAT = Geometry(shape=(1, 6, 5), spacing=(FLAT_SPACING, 1.0, 1.0), dimensions=2)
VALUES = (np.arange(90) % 3).reshape(3, 6, 5).astype(np.uint8)

Seeds = Callable[[], list[bytes]]
Whole = Callable[[bytes], bytes]
"""Makes checksums of mutated bytes right again, so that what they protect is reached."""


@dataclass(frozen=True)
class Target:
    """A parser.

    Args:
        file: name of the file that it is given.
        call: reads that file.
        seeds: valid files.
        kind: "bytes", "text" or "json": how to change them so that something of them stays.
        whole: see `Whole`.
        takes: whether it takes the valid files; else something that they name is not there.
    """

    file: str
    call: Callable[[Path], Any]
    seeds: Seeds
    kind: str = "bytes"
    whole: Whole | None = None
    takes: bool = True

    def run(self, folder: Path, content: bytes) -> None:
        """Reads a file of this content."""
        path = folder / self.file
        path.write_bytes(content)
        self.call(path)


def scratch() -> Path:
    """A folder in memory where there is one: a fuzzer writes thousands of files."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="selfcfg-fuzz-", dir=place))


# images


def every_way(path: Path) -> None:
    """Header, image and label map of a file; the last may be refused for what the first two take."""
    from selfcfg.errors import SelfcfgError
    from selfcfg.io import read_header, read_image, read_label

    failed: SelfcfgError | None = None
    for read in (read_header, read_image, read_label):
        try:
            read(path)
        except SelfcfgError as error:
            failed = error
    if failed is not None:
        raise failed


def dicom(path: Path) -> None:
    from selfcfg.io.dicom import patient_of, read_picture

    patient_of(path)
    read_picture(path)


def written(ending: str, flat: bool = False) -> bytes:
    from selfcfg.io import write_image

    folder = scratch()
    path = folder / f"a{ending}"
    write_image(path, VALUES[np.newaxis, :1] if flat else VALUES[np.newaxis], FLAT if flat else SMALL)
    content = path.read_bytes()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return content


def by_itk(ending: str, compress: bool) -> bytes:
    import SimpleITK as sitk

    folder = scratch()
    path = folder / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(path), useCompression=compress)
    content = path.read_bytes()
    path.unlink()
    folder.rmdir()
    return content


def nrrd(encoding: str, data: bytes) -> bytes:
    head = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 6 3\nencoding: {encoding}\n"
    return (head + "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,2)\n\n").encode() + data


def by_pillow(kind: str, mode: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    picture = Image.fromarray(VALUES[0] * 50)
    if mode == "I;16":
        picture = Image.fromarray(VALUES[0].astype(np.uint16) * 900)
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(stream, kind)
    return stream.getvalue()


def by_tifffile(**options: Any) -> bytes:
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, VALUES, photometric="minisblack", **options)
    return stream.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_deep_gray_alpha() -> bytes:
    rows = b"".join(b"\0" + struct.pack(">10H", *[5, 65535] * 5) for _ in range(6))
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 6, 16, 4, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def png_whole(content: bytes) -> bytes:
    """The chunks of a PNG with right checksums."""
    made, at = content[:8], 8
    while at + 12 <= len(content):
        length = min(struct.unpack_from(">I", content, at)[0], len(content) - at - 12)
        made += chunk(content[at + 4 : at + 8], content[at + 8 : at + 8 + length])
        at += 12 + length
    return made


def radiograph() -> bytes:
    from tests.radiographs import write_dicom

    folder = scratch()
    write_dicom(folder / "a.dcm", VALUES[0])
    content = (folder / "a.dcm").read_bytes()
    (folder / "a.dcm").unlink()
    folder.rmdir()
    return content


IMAGES = {
    "nifti": Target("a.nii", every_way, lambda: [written(".nii"), written(".nii", flat=True)]),
    "nifti gz": Target("a.nii.gz", every_way, lambda: [written(".nii.gz")]),
    "nifti gz, whole": Target("a.nii.gz", every_way, lambda: [written(".nii")], whole=lambda c: gzip.compress(c, 1)),
    "metaimage": Target("a.mha", every_way, lambda: [by_itk(".mha", False), by_itk(".mha", True)]),
    "nrrd": Target(
        "a.nrrd",
        every_way,
        lambda: [
            by_itk(".nrrd", True),
            nrrd("raw", VALUES.tobytes()),
            nrrd("text", b" ".join(b"%d" % value for value in VALUES.ravel())),
        ],
    ),
    "tiff": Target(
        "a.tif",
        every_way,
        lambda: [
            by_tifffile(),
            by_tifffile(compression="zlib"),
            by_tifffile(imagej=True),
            by_pillow("TIFF", "P"),
        ],
    ),
    "png": Target(
        "a.png",
        every_way,
        lambda: [*(by_pillow("PNG", mode) for mode in ("L", "P", "RGB", "1", "I;16")), png_deep_gray_alpha()],
        whole=png_whole,
    ),
    "bmp": Target("a.bmp", every_way, lambda: [by_pillow("BMP", mode) for mode in ("L", "RGB", "1")]),
    "jpeg": Target("a.jpg", every_way, lambda: [by_pillow("JPEG", mode) for mode in ("L", "RGB")], takes=False),
    "dicom": Target("a.dcm", dicom, lambda: [radiograph()]),
}


# records


def record(place: str) -> Callable[[Path], Any]:
    """Reading of a record, given as module:class."""

    def read(path: Path) -> Any:
        from importlib import import_module

        module, name = place.split(":")
        return getattr(import_module(module), name).read(path)

    return read


def dumped(content: Any) -> bytes:
    return json.dumps(content).encode()


@cache
def plan() -> Any:
    from selfcfg.testing import small_plan

    return small_plan()


def plans() -> list[bytes]:
    content = plan().model_dump(mode="json")
    heir = {"inherits_from": "small", "after": "small"}
    return [dumped(content), dumped({**content, "configurations": {**content["configurations"], "second": heir}})]


def run_record() -> Any:
    from selfcfg.testing import small_record
    from selfcfg.trainers.supervised import Supervised

    return small_record("supervised", Supervised.settings_type(), plan())


DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
    "numTraining": 2,
    "file_ending": ".nii.gz",
    "dataset": {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}},
    "image_targets": {"age": {"unit": "years", "values": {"a": 3.5}}, "kind": {"classes": ["x", "y"], "values": {}}},
    "selfcfg": {"subjects": {"a": "s"}, "label_map": {"3": 1}},
}
FINGERPRINT = {
    "spacings": [[1, 1, 1]],
    "shapes_after_crop": [[4, 5, 6]],
    "foreground_intensity_properties_per_channel": {
        "0": {"max": 1, "mean": 0, "median": 0, "min": -1, "percentile_00_5": 0, "percentile_99_5": 1, "std": 1}
    },
    "median_relative_size_after_cropping": 1.0,
}
SELECTED = {
    "dataset": "D",
    "members": [{"experiment": "e", "configuration": "c", "folds": [0], "plan_hash": "", "weights": {}, "weight": 1.0}],
    "postprocessing": [{"kind": "keep_largest"}],
}
GEOMETRY = {"shape": [1, 2, 3], "spacing": [1, 1, 1]}
FIX = {"file": "a", "channel": None, "found": GEOMETRY, "used": GEOMETRY, "difference": ""}
SUMMARY = {
    "foreground_mean": {"dice": 0.5},
    "mean": {"a": {"dice": 0.5}},
    "n_excluded": {"a": 0},
    "n_one_empty": {"a": 0},
    "n_cases": 1,
    "nsd_tolerance": 2.0,
    "empty": "exclude",
    "volume_unit": "ml",
    "cases": [],
}
NNUNET_SUMMARY = {
    "metric_per_case": [
        {"metrics": {"1": {"Dice": 0.5, "IoU": 0.3, "n_ref": 4, "n_pred": 3}}, "reference_file": "/r/a.nii.gz"}
    ]
}
RESULT = {
    "arm": "scratch",
    "fraction": 0.5,
    "budget": "short",
    "seed": 0,
    "subjects": 2,
    "steps": 4,
    "rate": 0.1,
    "tried": [[0.1, 0.5]],
    "chosen_on": "none",
    "train": ["b"],
    "kept_out": [],
    "dice": 0.5,
    "cases": {"a": 0.5},
    "seconds": 1.5,
}


def opened(path: Path) -> None:
    from selfcfg.dataset import Dataset

    Dataset.open(path.parent)


def splits(path: Path) -> None:
    from selfcfg.splits import read_splits

    read_splits(path)
    read_splits(path, ["a", "b"])


def declared(path: Path) -> None:
    from selfcfg.convert.label_plan import plan_declared, read_declared

    plan_declared(read_declared(path))


def nnunet_summary(path: Path) -> None:
    from selfcfg.engine.comparison.nnunet import is_nnunet, read_nnunet
    from selfcfg.files import read_json

    if is_nnunet(content := read_json(path)):
        read_nnunet(path, content, None)


def nnunet_plans(path: Path) -> None:
    from selfcfg.interop.nnunet_read import read_plans
    from tests.interop.conftest import description_of

    read_plans(path, description_of(plan()), "Dataset999_Small")


def nnunet_plan_seeds() -> list[bytes]:
    from selfcfg.interop.nnunet_write import to_nnunet
    from tests.interop.conftest import description_of

    return [dumped(to_nnunet(plan(), description_of(plan()), "nnUNetPlans"))]


def msd(path: Path) -> None:
    from selfcfg.convert.msd import convert_msd

    convert_msd(path.parent, path.parent / "made")


def recipe_seeds() -> list[bytes]:
    from importlib.resources import files

    folder = files("selfcfg.trainers") / "recipes"
    return [(folder / name).read_bytes() for name in ("two_stage.toml", "masked.toml")]


def results(path: Path) -> None:
    from selfcfg.engine.label_efficiency.results import read_results

    read_results(path.parent)


def log(path: Path) -> None:
    from selfcfg.engine.training.journal import read_log
    from selfcfg.runs import RunFolder

    read_log(RunFolder(path.parent))


def settings(path: Path) -> None:
    """Settings as --set gives them, a line each."""
    from selfcfg.cli.options import settings_of
    from selfcfg.engine.choice import setting_values
    from selfcfg.trainers.supervised import Supervised

    kind = Supervised.settings_type
    given = settings_of(path.read_text(encoding="utf-8", errors="replace").splitlines())
    kind.parse(setting_values(kind, given), "--set")


def beside(name: str) -> list[bytes]:
    """What `selfcfg calibrate` leaves beside the folds."""
    from tests.interop.test_package import calibrated

    folder = scratch()
    calibrated(folder)
    content = (folder / name).read_bytes()
    shutil.rmtree(folder)
    return [content]


MANIFEST = {"selfcfg": "0.1.0", "model": "e", "files": {"e/fold_0/run.json": {"size": 2, "sha256": "0" * 64}}}
MODEL = "selfcfg.engine.prediction.selected:SelectedModel"
RECORDS = {
    "dataset.json": Target("dataset.json", opened, lambda: [dumped(DESCRIPTION)], "json"),
    "splits": Target("splits_final.json", splits, lambda: [dumped([{"train": ["a"], "val": ["b"]}])], "json"),
    "plan": Target("plan.json", record("selfcfg.plan:Plan"), plans, "json"),
    "fingerprint": Target("f.json", record("selfcfg.fingerprint:Fingerprint"), lambda: [dumped(FINGERPRINT)], "json"),
    "manifest.json": Target(
        "manifest.json", record("selfcfg.engine.prediction.packaged:Manifest"), lambda: [dumped(MANIFEST)], "json"
    ),
    "calibration.json": Target(
        "calibration.json",
        record("selfcfg.engine.calibration.temperature:Temperature"),
        lambda: beside("calibration.json"),
        "json",
    ),
    "quality.json": Target(
        "quality.json", record("selfcfg.engine.prediction.quality:Quality"), lambda: beside("quality.json"), "json"
    ),
    "cross_validation.json": Target(
        "cross_validation.json",
        record("selfcfg.interop.cross_validation:CrossValidation"),
        lambda: [dumped({"dice": 0.5, "n_cases": 2, "folds": ["fold_0"]})],
        "json",
    ),
    "run.json": Target(
        "run.json",
        record("selfcfg.runs:RunRecord"),
        lambda: [run_record().model_dump_json().encode()],
        "json",
    ),
    "model.json": Target("model.json", record(MODEL), lambda: [dumped(SELECTED)], "json"),
    "fixes.json": Target(
        "fixes.json", record("selfcfg.fixes:Fixes"), lambda: [dumped({"geometry": {"a": [FIX]}})], "json"
    ),
    "summary.json": Target(
        "summary.json", record("selfcfg.engine.scoring.evaluate:Evaluation"), lambda: [dumped(SUMMARY)], "json"
    ),
    "nnU-Net summary": Target("summary.json", nnunet_summary, lambda: [dumped(NNUNET_SUMMARY)], "json"),
    "nnU-Net plans": Target("plans.json", nnunet_plans, nnunet_plan_seeds, "json"),
    "labels": Target(
        "labels.json",
        declared,
        lambda: [
            dumped({"labels": {"background": 0, "a": [3, 5], "b": 5}, "regions_class_order": [3, 5]}),
            dumped({"a": 9}),
        ],
        "json",
    ),
    "Decathlon": Target(
        "dataset.json",
        msd,
        lambda: [dumped({"modality": {"0": "CT"}, "labels": {"0": "b", "1": "a"}, "training": [{}], "test": ["x"]})],
        "json",
        takes=False,
    ),
    "recipe": Target("r.toml", record("selfcfg.recipes.recipe:Recipe"), recipe_seeds, "text"),
    "results.jsonl": Target("results.jsonl", results, lambda: [dumped(RESULT) + b"\n"], "json"),
    "log.jsonl": Target("log.jsonl", log, lambda: [dumped({"epoch": 0, "loss": 1.5}) + b"\n"], "json"),
    "settings": Target(
        "settings", settings, lambda: [b"epochs=5\npatch_size=8,8,8\nclip_norm=none\nlearning_rate=1e-3"], "text"
    ),
}


# tables


def codes(path: Path) -> None:
    from selfcfg.convert.code_table import read_codes
    from selfcfg.kernels.run_lengths import CODINGS, misfit

    for image in read_codes(path).values():
        for code in image.codes.values():
            for coding in CODINGS:
                misfit(code, coding, (64, 48))


def image_targets(path: Path) -> None:
    from selfcfg.convert.target_table import read_targets

    read_targets(path, (), ["a", "b"])


def attributes(path: Path) -> None:
    from selfcfg.engine.scoring.attributes import groups_of, read_attributes

    for cells in read_attributes(path, ["a", "b"]).columns.values():
        groups_of(cells)


def subjects(path: Path) -> None:
    from selfcfg.engine.comparison.subjects import _table

    _table(path)


def image_table(path: Path) -> None:
    from selfcfg.engine.prediction.image_table import read_image_table
    from selfcfg.image_targets import ImageTarget

    read_image_table(path, {"age": ImageTarget(unit="years"), "kind": ImageTarget(classes=("x", "y"))})


TABLES = {
    "run lengths": Target(
        "t.csv", codes, lambda: [b"ImageId,EncodedPixels\na.png,1 3 10 5\nb.png,-1\n", b"id;rle\na;2 2\n"], "text"
    ),
    "image targets": Target("t.csv", image_targets, lambda: [b"case,age [years],kind\na,3.5,x\nb,7,y\n"], "text"),
    "attributes": Target("t.csv", attributes, lambda: [b"case\tsex\tage\na\tf\t31\nb\tm\t44\n"], "text"),
    "subjects": Target("t.csv", subjects, lambda: [b"case,subject\na,s\nb,s\n"], "text"),
    "image_targets.csv": Target("t.csv", image_table, lambda: [b"case,age,kind,kind=x,kind=y\na,3,x,.9,.1\n"], "text"),
}


# archives and weights


def package(path: Path) -> None:
    from selfcfg.interop.package_read import import_package

    made = path.parent / "made"
    try:
        import_package(path, made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@cache
def package_seed() -> bytes:
    from selfcfg.interop.package_write import write_package
    from tests.interop.test_nnunet_export import our_model

    folder = scratch()
    content = write_package(our_model(folder, plan()), folder / "m.zip").file.read_bytes()
    shutil.rmtree(folder)
    return content


def record_seed() -> bytes:
    with zipfile.ZipFile(io.BytesIO(package_seed())) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("run.json")))


def package_whole(content: bytes) -> bytes:
    """The package with another run.json, and a manifest that is true of it."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(package_seed())) as archive, zipfile.ZipFile(made, "w") as target:
        contents = {name: archive.read(name) for name in archive.namelist()}
        name = next(name for name in contents if name.endswith("run.json"))
        manifest = json.loads(contents["manifest.json"])
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for one, other in {**contents, name: content, "manifest.json": dumped(manifest)}.items():
            target.writestr(one, other)
    return made.getvalue()


def checkpoint(path: Path) -> None:
    from selfcfg.interop.nnunet_checkpoint import read_checkpoint

    read_checkpoint(path)


@cache
def checkpoint_seed() -> bytes:
    import torch

    stream = io.BytesIO()
    content = {
        "network_weights": {"encoder.weight": torch.ones(2, 2)},
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "small"},
        "logging": {"n": [np.float32(0.5), np.int64(3)]},
        "current_epoch": 3,
    }
    torch.save(content, stream)
    return stream.getvalue()


def pickle_whole(content: bytes) -> bytes:
    """A checkpoint whose pickle was changed, with a right checksum."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(checkpoint_seed())) as archive, zipfile.ZipFile(made, "w") as target:
        for name in archive.namelist():
            target.writestr(name, content if name.endswith("data.pkl") else archive.read(name))
    return made.getvalue()


def pickle_seed() -> bytes:
    with zipfile.ZipFile(io.BytesIO(checkpoint_seed())) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def weights(path: Path) -> None:
    from selfcfg.engine.checkpoint import read_weights

    read_weights(path)


def weights_seed() -> bytes:
    with zipfile.ZipFile(io.BytesIO(package_seed())) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".safetensors")))


def probabilities(path: Path) -> None:
    from selfcfg.engine.prediction.probabilities import read_probabilities
    from selfcfg.labels import LabelSchema

    read_probabilities(path, "read", LabelSchema(labels={"background": 0, "a": 1}), (3, 4, 5))


def probabilities_seed() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, probabilities=np.full((2, 3, 4, 5), 0.5, np.float16))
    return stream.getvalue()


def probabilities_whole(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("probabilities.npy", content)
    return made.getvalue()


def array_seed() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.full((2, 3, 4, 5), 0.5, np.float16))
    return stream.getvalue()


ARCHIVES = {
    "package": Target("m.zip", package, lambda: [package_seed()]),
    "package, whole": Target("m.zip", package, lambda: [record_seed()], "json", whole=package_whole),
    "checkpoint": Target("c.pth", checkpoint, lambda: [checkpoint_seed()]),
    "checkpoint, whole": Target("c.pth", checkpoint, lambda: [pickle_seed()], whole=pickle_whole),
    "weights": Target("w.safetensors", weights, lambda: [weights_seed()]),
    "probabilities": Target("p.npz", probabilities, lambda: [probabilities_seed()]),
    "probabilities, whole": Target("p.npz", probabilities, lambda: [array_seed()], whole=probabilities_whole),
}

TARGETS: dict[str, Target] = {**IMAGES, **RECORDS, **TABLES, **ARCHIVES}
