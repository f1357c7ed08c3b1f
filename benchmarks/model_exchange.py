"""Trained models between nnU-Net and selfcfg, both ways: each tool's predictions of the same weights are compared.

    python benchmarks/model_exchange.py --peer PYTHON --work DIR [--only plain-3d,regions] [--iterations 60]
    python benchmarks/model_exchange.py --peer PYTHON --work DIR --model MODEL_DIR --images IMAGES
    python benchmarks/model_exchange.py --table

PYTHON is the interpreter of an environment that holds nnunetv2 2.8.1; DIR is an empty folder for data and models. Of
each kind of model, nnU-Net's own trainer and ours train one for a few iterations on synthetic images. What one trained
the other takes over, and both predict the same images in float32 with the same mirroring. nnU-Net adds logits up in
half precision, which alone flips labels where two classes are nearly equal; so it predicts twice, once as it is and
once adding up in float32. A row a kind and direction is appended to ``benchmarks/results/model_exchange.jsonl``
and not made again. With ``--model`` one that nnU-Net trained is imported and predicts given images, here also with
``--precision auto``. ``--table`` writes the table of ``docs/how-to/nnunet-models.md``, as does the end of each run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from line_protocol import Peer
from recording import append, read

from selfcfg.cli import main as selfcfg
from selfcfg.convert.synthetic import make_synthetic
from selfcfg.dataset import DatasetDescription
from selfcfg.files import write_json, write_text
from selfcfg.image_files import image_files
from selfcfg.interop.nnunet_write import to_nnunet
from selfcfg.io import read_label
from selfcfg.plan import Plan

RESULTS = "model_exchange.jsonl"
HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "how-to" / "nnunet-models.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
CASES, SHAPE, MEMORY = 6, (16, 48, 44), "0.05"
SETS = ("epochs=4", "validation_iterations=0", "workers=0", "precision=float32")
CASCADE, FIRST = "3d_cascade_fullres", "3d_lowres"


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Args:
        number: id of its dataset.
        configuration: that is trained.
        planner: ours.
        folds: that nnU-Net trains.
        dimensions: of the images.
        regions: whether the classes overlap.
        trainer: nnU-Net's.
        old_plans: whether nnU-Net's model has plans as before version 2.4.
    """

    number: int
    configuration: str = "3d_fullres"
    planner: str = "standard"
    folds: tuple[int | str, ...] = (0,)
    dimensions: int = 3
    regions: bool = False
    trainer: str = "nnUNetTrainer"
    old_plans: bool = False


KINDS = {
    "plain-3d": Kind(801),
    "two-folds": Kind(802, folds=(0, 1)),
    "plain-2d": Kind(803, "2d", dimensions=2),
    "slices-2d": Kind(804, "2d"),
    "residual-3d": Kind(805, planner="residual-m"),
    "regions": Kind(806, regions=True),
    "no-mirroring": Kind(807, trainer="nnUNetTrainerNoMirroring"),
    "old-plans": Kind(808, old_plans=True),
    "cascade": Kind(809, CASCADE, folds=("all",)),
}


def asked(peer: Peer, what: str, **job: Any) -> dict[str, Any]:
    """What nnU-Net's process answers to one job.

    Raises:
        RuntimeError: nnU-Net did.
    """
    answer = peer.ask(do=what, **job)
    if "error" in answer:
        raise RuntimeError(f"nnU-Net, {what}: {answer['error']}")
    return answer


class Work:
    """One kind of model in the working folder."""

    def __init__(self, name: str, work: Path, peer: Peer, iterations: int) -> None:
        self.kind, self.root, self.peer, self.iterations = KINDS[name], work, peer, iterations
        self.dataset = f"Dataset{self.kind.number}_{name}"
        self.raw = work / "raw" / self.dataset
        self.images, self.folder = self.raw / "imagesTr", work / name
        self.plan = self._plan()

    def ours(self, *command: Any) -> None:
        """Runs one command of selfcfg."""
        if code := selfcfg([str(part) for part in command]):
            raise RuntimeError(f"selfcfg {command}: exit code {code}")

    def trained_by_peer(self) -> Path:
        """A model folder of nnU-Net."""
        kind, folder = self.kind, self.root / "peer" / "preprocessed" / self.dataset
        description = DatasetDescription.read(self.raw / "dataset.json")
        write_json(folder / "plans.json", to_nnunet(self.plan, description, "plans"))
        shutil.copy(self.raw / "dataset.json", folder)
        stages = [FIRST, CASCADE] if kind.configuration == CASCADE else [kind.configuration]
        needed = [*dict.fromkeys("3d_fullres" if stage == CASCADE else stage for stage in stages)]
        asked(self.peer, "prepare", dataset=self.dataset, configurations=needed)
        for stage in stages:
            job = {"dataset": self.dataset, "configuration": stage, "trainer": kind.trainer}
            for fold in kind.folds:
                done = asked(self.peer, "train", **job, fold=fold, iterations=self.iterations, validate=stage == FIRST)
        if kind.old_plans:
            write_as_before_2_4(Path(done["model"]) / "plans.json")
        return Path(done["model"])

    def trained_by_us(self) -> Path:
        """An experiment folder of ours."""
        sets = [
            part for setting in (*SETS, f"iterations_per_epoch={self.iterations // 4}") for part in ("--set", setting)
        ]
        place = ["--workspace", self.root, "--jobs", 1]
        command = ["plan-and-train", self.kind.number, "--planner", self.kind.planner, "--memory", MEMORY]
        folds = ",".join("0" if fold == "all" else str(fold) for fold in self.kind.folds)
        self.ours(*command, "-c", self.kind.configuration, "--fold", folds, *sets, *place)
        (run,) = (self.root / "results" / self.dataset).glob(f"*__{self.kind.configuration}")
        return run

    def predicted_by_us(self, model: Path, out: Path) -> Path:
        """Our label maps."""
        self.ours("predict", model, "-i", self.images, "-o", out, "--precision", "float32")
        return out

    def predicted_by_peer(self, model: Path, out: Path, *, exact: bool) -> Path:
        """nnU-Net's label maps; in a cascade, on those of its own first model."""
        previous = None
        if model.name.endswith(CASCADE):
            first = model.with_name(model.name.removesuffix(CASCADE) + FIRST)
            previous = self.predicted_by_peer(first, out.with_name(f"{out.name}-first"), exact=exact)
        folds = [fold.name.removeprefix("fold_") for fold in sorted(model.glob("fold_*"))]
        asked(
            self.peer, "predict", model=model, folds=folds, images=self.images, out=out, previous=previous, exact=exact
        )
        return out

    def _plan(self) -> Plan:
        """Our plan, with a cascade where one is wanted, batches of two and thin networks."""
        if not self.raw.is_dir():
            kind = self.kind
            make_synthetic(self.raw, n_cases=CASES, seed=kind.number, mean_shape=SHAPE, dimensions=kind.dimensions)
            if kind.regions:
                content = json.loads((self.raw / "dataset.json").read_text())
                labels = {"background": 0, "whole": [1, 2], "lesion": [2]}
                write_json(self.raw / "dataset.json", {**content, "labels": labels, "regions_class_order": [1, 2]})
        self.ours("plan", self.raw, "--planner", self.kind.planner, "--memory", MEMORY, "--workspace", self.root)
        (file,) = (self.root / "preprocessed" / self.dataset / "plans").glob("*.json")
        content = json.loads(file.read_text())
        configurations = content["configurations"]
        for configuration in configurations.values():
            configuration["batch_size"] = 2
            network = configuration["topology"]
            network["features"] = [count // 4 for count in network["features"]]
        if self.kind.configuration == CASCADE:
            full = configurations["3d_fullres"]
            coarse = {name: [edge * factor for edge in full[name]] for name, factor in COARSER.items()}
            configurations |= {FIRST: {**full, **coarse}, CASCADE: {**full, "after": FIRST}}
        write_json(file, content)
        return Plan.read(file)


COARSER = {"spacing": 1.5, "median_shape": 1 / 1.5}


def write_as_before_2_4(file: Path) -> None:
    """Turns nnU-Net's plans into what its older versions wrote."""
    content = json.loads(file.read_text())
    for configuration in content["configurations"].values():
        network = configuration.pop("architecture")
        given = network["arch_kwargs"]
        configuration |= {
            "UNet_class_name": network["network_class_name"].rpartition(".")[2],
            "UNet_base_num_features": given["features_per_stage"][0],
            "unet_max_num_features": max(given["features_per_stage"]),
            "n_conv_per_stage_encoder": given["n_conv_per_stage"],
            "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
            "num_pool_per_axis": [
                sum(stride[axis] > 1 for stride in given["strides"]) for axis in range(len(given["strides"][0]))
            ],
            "pool_op_kernel_sizes": given["strides"],
            "conv_kernel_sizes": given["kernel_sizes"],
        }
    del content["selfcfg"]
    write_json(file, content)


def compared(ours: Path, theirs: Path) -> dict[str, Any]:
    """How many labels are equal, and how many of ours are foreground."""
    equal = voxels = foreground = 0
    for file in image_files(ours).values():
        here, there = read_label(file)[0], read_label(theirs / file.name)[0]
        equal += int(np.count_nonzero(here == there))
        foreground += int(np.count_nonzero(here))
        voxels += here.size
    found = {"voxels": voxels, "foreground": round(foreground / voxels, 4), "different": voxels - equal}
    return {**found, "equal": round(equal / voxels, 7)}


def exchange(work: Work, direction: str) -> dict[str, Any]:
    """One row: the same weights predicted by both tools."""
    folder = work.folder / direction
    shutil.rmtree(folder, ignore_errors=True)
    name = f"nnUNetTrainer__plans__{work.kind.configuration}"
    began = time.perf_counter()
    if direction == "import":
        theirs = work.trained_by_peer()
        trained = time.perf_counter()
        ours = folder / name
        work.ours("import", "nnunet", theirs, "--out", ours)
    else:
        ours = work.trained_by_us()
        trained = time.perf_counter()
        theirs = folder / name
        work.ours("export", ours, "--to", "nnunet", "--out", theirs, "--workspace", work.root)
    done = time.perf_counter()
    here = work.predicted_by_us(ours, folder / "ours")
    found: dict[str, Any] = {}
    for label, exact in (("as it is", False), ("in float32", True)):
        found[label] = compared(here, work.predicted_by_peer(theirs, folder / f"theirs-{label}", exact=exact))
    times = {"train_seconds": round(trained - began, 1), "exchange_seconds": round(done - trained, 2)}
    return {"direction": direction, "iterations": work.iterations, **found, **times}


def given(model: Path, images: Path, work: Path, peer: Peer) -> dict[str, Any]:
    """One row: a model that nnU-Net has trained, on images of its kind."""
    folder = work / "given"
    shutil.rmtree(folder, ignore_errors=True)
    imported = folder / "imported"
    commands = [["import", "nnunet", model, "--out", imported]]
    for precision in ("float32", "auto"):
        commands.append(["predict", imported, "-i", images, "-o", folder / precision, "--precision", precision])
    for command in commands:
        if selfcfg([str(part) for part in command]):
            raise RuntimeError(f"selfcfg {command} failed")
    folds = [fold.name.removeprefix("fold_") for fold in sorted(imported.glob("fold_*"))]
    job = {"model": model, "folds": folds, "images": images, "previous": None}
    for exact in (False, True):
        asked(peer, "predict", **job, out=folder / f"theirs-{exact}", exact=exact)
    return {
        "direction": "import",
        "images": len(image_files(folder / "auto")),
        "as it is": compared(folder / "float32", folder / "theirs-False"),
        "in float32": compared(folder / "float32", folder / "theirs-True"),
        "auto": compared(folder / "auto", folder / "theirs-False"),
    }


def write_table(rows: list[dict[str, Any]]) -> None:
    """Puts the results between the marks of the page."""
    heads = ("model", "direction", "labels", "equal", "both in float32", "ours in bfloat16")
    lines = [f"| {' | '.join(heads)} |", "| :-- | :-- |" + " --: |" * 4]
    for row in sorted(rows, key=lambda row: (row["kind"], row["direction"])):
        shares = [
            f"{100 * row[how]['equal']:.4f} %" if how in row else "-" for how in ("as it is", "in float32", "auto")
        ]
        lines.append("| " + " | ".join([row["kind"], row["direction"], str(row["as it is"]["voxels"]), *shares]) + " |")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    write_text(PAGE, f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}")


def main() -> None:
    """Does every kind in both directions, or the one model that is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--model", type=Path, help="model folder of nnU-Net to take in place of those trained here")
    parser.add_argument("--images", type=Path, help="what it is to predict")
    parser.add_argument("--name", default="given", help="of that model in the results")
    parser.add_argument("--table", action="store_true", help="only write the table from the results")
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--iterations", type=int, default=60)
    options = parser.parse_args()
    if options.table:
        write_table(read(RESULTS))
        return
    if not (options.peer and options.work):
        parser.error("--peer and --work are needed")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work_folder = options.work.absolute()
    (work_folder / "peer" / "results").mkdir(parents=True, exist_ok=True)
    done = read(RESULTS)
    with Peer(options.peer, "peer_models.py", work_folder) as peer:
        if options.model:
            row = given(options.model.absolute(), options.images.absolute(), work_folder, peer)
            append(RESULTS, {"kind": options.name, **row, "peer": peer.versions})
        for name in [] if options.model else options.only.split(","):
            work = Work(name, work_folder, peer, options.iterations)
            for direction in sorted({"import", "export"} - {row["direction"] for row in done if row["kind"] == name}):
                append(RESULTS, {"kind": name, **exchange(work, direction), "peer": peer.versions})
    write_table(read(RESULTS))


if __name__ == "__main__":
    main()
