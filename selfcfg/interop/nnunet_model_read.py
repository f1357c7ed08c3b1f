"""Models that nnU-Net trained, as models of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from selfcfg.dataset import DatasetDescription
from selfcfg.engine.checkpoint import save_weights
from selfcfg.engine.device import package_versions
from selfcfg.engine.prediction.packaged import CROSS_VALIDATION, DATASET
from selfcfg.errors import DataError, UsageError, listed, nearest
from selfcfg.files import hash_file, new_folder, write_json
from selfcfg.fingerprint import Fingerprint
from selfcfg.interop.cross_validation import cross_validation_of_nnunet
from selfcfg.interop.exchanged import Exchanged, beside, refuse_existing, shareable
from selfcfg.interop.mistaken import names_in
from selfcfg.interop.nnunet_archive import FOLD, find_models, no_model, unpacked
from selfcfg.interop.nnunet_checkpoint import Checkpoint, read_checkpoint
from selfcfg.interop.nnunet_read import from_nnunet, read_foreign_json, safe_name
from selfcfg.interop.nnunet_weights import our_network
from selfcfg.plan import Plan, Reason
from selfcfg.runs import Origin, RunFolder, RunRecord

Kind = Literal["final", "best", "latest"]

LEFT_BEHIND = (
    "nnU-Net's optimiser state, training curves, scores of single cases and postprocessing; other configurations of "
    "its plans"
)
"""What a model folder may hold and ours has no place for."""

_PLAIN = re.compile(
    r"nnUNetTrainer(_?(\d+(epochs?|ep)|NoMirroring|onlyMirror01|NoDA|DA5|ord0|Segord0|DASegOrd0|noDummy2DDA|CELoss|"
    r"DiceLoss|DiceCELoss|noSmooth|(Dice)?Top[kK]10Loss|LS01|(Vanilla)?Adam|Adan|\den\d|CosAnneal|warmup|"
    r"NoDeepSupervision|probabilisticOversampling|0\d\d|Benchmark|noDataLoading))*"
)
"""Trainers of nnU-Net v2.8.1 that build the network of the plans."""


def import_model(
    source: Path,
    out: Path,
    *,
    configuration: str | None = None,
    folds: Sequence[int | str] | None = None,
    weights: Kind = "final",
) -> Exchanged:
    """Writes a model that nnU-Net v2 trained as an experiment folder, and a cascade's first model beside it.

    Args:
        source: nnU-Net's model folder, a folder of several, or a zip archive of them.
        out: the folder to make.
        configuration: which to take where there are several.
        folds: those to take, by number or "all"; None: every numbered one, else "all".
        weights: which checkpoint becomes the final weights.

    Raises:
        UsageError: there is no such model or fold, several models without a choice, or `out` is there already.
        DataError: something in the model is missing, damaged, unsafe, or of another kind than can be honoured.
    """
    refuse_existing(out)
    with unpacked(source) as folder, ExitStack() as finishing:
        theirs = _chosen_model(folder, source, configuration)
        target = finishing.enter_context(new_folder(out))
        taken = _Stage(theirs, target, source.name, weights)
        taken.take(taken.chosen_folds(folds))
        first, previous = None, taken.plan.configuration(taken.configuration).after
        if previous is not None:
            first = beside(out, taken.configuration, previous)
            refuse_existing(first)
            theirs = _first_model(theirs, taken.configuration, previous)
            before = _Stage(theirs, finishing.enter_context(new_folder(first)), source.name, weights)
            before.take(before.chosen_folds([fold.removeprefix("fold_") for fold in taken.records]))
            before.finish()
            taken.link(before, first.name)
        taken.finish()
    return Exchanged(out, first, tuple(taken.records), tuple(dict.fromkeys(taken.notes)))


@dataclass
class _Stage:
    """One model folder of nnU-Net on its way into a folder of ours."""

    theirs: Path
    folder: Path
    source: str
    weights: Kind
    records: dict[str, RunRecord] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plan: Plan = field(init=False)
    configuration: str = field(init=False)

    def chosen_folds(self, asked: Sequence[int | str] | None) -> list[str]:
        """Names of the folds to take.

        Raises:
            UsageError: one of those asked for is not there.
            DataError: no fold has the checkpoint.
        """
        there = sorted((fold.name for fold in self.theirs.iterdir() if FOLD.fullmatch(fold.name)), key=_in_order)
        ready = [fold for fold in there if self._file(fold, self.weights).is_file()]
        if asked is None:
            chosen = [fold for fold in ready if fold != "fold_all"] or ready
            if left := [fold for fold in there if fold not in chosen]:
                self.notes.append(f"left out: {listed(left)} (a fold without checkpoint_{self.weights}.pth, or 'all')")
        else:
            chosen = list(dict.fromkeys(f"fold_{fold}" for fold in asked))
        if missing := [fold for fold in chosen if fold not in ready]:
            found = f"no checkpoint_{self.weights}.pth of {listed(missing)} (there are {listed(ready) or 'none'})"
            raise UsageError(f"import {self.theirs}", found, "choose other folds, or other --weights")
        if not chosen:
            kinds = sorted({file.name for fold in there for file in (self.theirs / fold).glob("checkpoint_*.pth")})
            found = f"no checkpoint_{self.weights}.pth in {listed(there)}, but {listed(kinds) or 'no checkpoint'}"
            raise DataError(f"import {self.theirs}", found, "choose one with --weights final, best or latest")
        return chosen

    def take(self, folds: Sequence[str]) -> None:
        """Writes the plan and the weights of each fold; what made them is kept for `finish`."""
        description = DatasetDescription.parse(
            read_foreign_json(self.theirs / "dataset.json"), str(self.theirs / "dataset.json")
        )
        content = read_foreign_json(self.theirs / "plans.json")
        for fold in folds:
            checkpoint = read_checkpoint(self._file(fold, self.weights))
            plan = _plan(content, description, checkpoint, f"{self.theirs.name}/plans.json")
            if not self.records:
                self.plan, self.configuration = plan, checkpoint.configuration
                self._look_at(checkpoint)
            elif (plan, checkpoint.configuration) != (self.plan, self.configuration):
                found = f"{folds[0]} and {fold} are of different configurations or mirror axes"
                raise DataError(f"import {self.theirs}", found, "give folds of one training")
            self.records[fold] = _record(plan, checkpoint, fold, description.file_ending, self.source)
            run = RunFolder(self.folder / fold)
            self._write(checkpoint, run.final, self.records[fold])
            best = self._file(fold, "best")
            if self.weights == "final" and best.is_file():
                self._write(read_checkpoint(best), run.best, self.records[fold])
            plan.write_whole(run.plan)
        write_json(self.folder / DATASET, shareable(self.plan, description, self.plan.dataset))
        self._take_scores(folds)
        facts = self.theirs / "dataset_fingerprint.json"
        if facts.is_file():
            fingerprint, problems = Fingerprint.attempt(read_foreign_json(facts))
            if fingerprint is None:
                self.notes.append(f"left out: {facts.name}, {listed(problems, 1)}")
            else:
                fingerprint.write(self.folder / "fingerprint.json")

    def _take_scores(self, folds: Sequence[str]) -> None:
        """Keeps what the cross-validation said of the final weights."""
        if self.weights != "final":
            return
        try:
            scores = cross_validation_of_nnunet([self.theirs / fold for fold in folds], self.plan.labels)
        except DataError as error:
            self.notes.append(f"left out: scores of the cross-validation, {error.found}")
            return
        if scores is not None:
            scores.write(self.folder / CROSS_VALIDATION)

    def link(self, before: _Stage, name: str) -> None:
        """Notes the cascade's first model, as load_model looks for it.

        Raises:
            DataError: it is another model than the one whose result this one takes in.
        """
        own, after = self.plan.configuration(self.configuration), before.plan.configuration(before.configuration).after
        is_same = (before.plan.labels, before.plan.channels) == (self.plan.labels, self.plan.channels)
        if before.configuration != own.after or after is not None or not is_same:
            found = f"{before.theirs.name} is of {before.configuration}, or has other channels or labels"
            raise DataError(f"import {self.theirs.name} after {own.after}", found, "give both models of one training")
        hashes = {fold: hash_file(RunFolder(before.folder / fold).final) for fold in before.records}
        update = {"previous": name, "previous_weights": hashes}
        self.records = {fold: record.model_copy(update=update) for fold, record in self.records.items()}
        self.notes += [f"{name}: {note}" for note in before.notes]

    def finish(self) -> None:
        """Writes what made each fold; from then on it is a model."""
        for fold, record in self.records.items():
            record.write(RunFolder(self.folder / fold).record)

    def _look_at(self, checkpoint: Checkpoint) -> None:
        if not _PLAIN.fullmatch(checkpoint.trainer):
            self.notes.append(
                f"{checkpoint.trainer} is no trainer of nnU-Net's own: its weights fit the network of the plans, but "
                "whether it changed what weights do not show, such as activations, cannot be told"
            )
        if not checkpoint.mirror_axes:
            self.notes.append("its checkpoints allow no mirroring: one pass is predicted instead of several")

    def _write(self, checkpoint: Checkpoint, target: Path, record: RunRecord) -> None:
        parts = our_network(checkpoint.weights, self.plan, self.configuration, str(checkpoint.file))
        notes = {name: str(getattr(record, name)) for name in ("dataset", "trainer", "configuration", "plan_hash")}
        save_weights(target, parts, notes)

    def _file(self, fold: str, kind: Kind) -> Path:
        return self.theirs / fold / f"checkpoint_{kind}.pth"


def _chosen_model(folder: Path, source: Path, configuration: str | None) -> Path:
    """The one that is meant of those in a folder; of a cascade, the second."""
    asked, models = f"import {source}", find_models(folder)
    if not models:
        raise DataError(asked, *no_model(names_in(folder), source.is_dir()))
    if configuration is None:
        firsts = {first for model in models for first in _named_first(model)}
        chosen = [model for model in models if model not in firsts]
    else:
        chosen = [model for model in models if configuration in (model.name, model.name.rpartition("__")[2])]
    if not chosen:
        names = (model.name.rpartition("__")[2] for model in models)
        raise UsageError(asked, f"no configuration '{configuration}' in it", nearest(str(configuration), names))
    if len(chosen) > 1:
        found = f"it holds {listed(model.name for model in chosen)}"
        raise UsageError(asked, found, "choose one with --configuration, by its configuration or its whole name")
    return chosen[0]


def _named_first(model: Path) -> Iterator[Path]:
    """The first model of a cascade by what its plans say of the configuration that the folder is named after."""
    content = read_foreign_json(model / "plans.json")
    name = model.name.rpartition("__")[2]
    said = content.get("configurations") if isinstance(content, Mapping) else None
    own = said.get(name) if isinstance(said, Mapping) else None
    if isinstance(own, Mapping) and isinstance(own.get("previous_stage"), str):
        yield beside(model, name, own["previous_stage"])


def _first_model(second: Path, configuration: str, previous: str) -> Path:
    folder = beside(second, configuration, previous)
    if not (folder / "plans.json").is_file():
        found = f"the model of {previous}, whose result it takes in, is not there: {folder.name}"
        raise DataError(f"import {second.name}", found, "put nnU-Net's folder of that model beside it")
    return folder


def _plan(content: Any, description: DatasetDescription, checkpoint: Checkpoint, source: str) -> Plan:
    """The plan with the configurations that the checkpoint's needs, mirroring as the checkpoint says."""
    said = content.get("configurations") if isinstance(content, Mapping) else None
    if not isinstance(said, Mapping) or checkpoint.configuration not in said:
        found = f"no configuration '{checkpoint.configuration}', of which {checkpoint.file.name} is"
        raise DataError(source, found, nearest(checkpoint.configuration, said if isinstance(said, Mapping) else ()))
    needed = _needed(said, checkpoint.configuration)
    dataset = safe_name(str(content.get("dataset_name", "")), "dataset_name", source)
    plan = from_nnunet({**content, "configurations": needed}, description, dataset, source)
    skipped = 3 - plan.configuration(checkpoint.configuration).dimensions
    if any(axis >= 3 - skipped for axis in checkpoint.mirror_axes):
        found = f"inference_allowed_mirroring_axes {checkpoint.mirror_axes} of a {3 - skipped}D network"
        raise DataError(str(checkpoint.file), found, "take another copy of the model")
    axes = tuple(axis + skipped for axis in checkpoint.mirror_axes)
    why = Reason(what="mirroring", value=str(axes), why="As the checkpoint says.", change="training it otherwise.")
    reasons = tuple(why if reason.what == "mirroring" else reason for reason in plan.reasons)
    return plan.model_copy(update={"mirror_axes": axes, "reasons": reasons})


def _needed(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with all that it inherits from or works after."""
    found: dict[str, Any] = {}
    waiting: list[Any] = [name]
    while waiting:
        name = waiting.pop()
        if isinstance(name, str) and name in said and name not in found:
            found[name] = said[name]
            if isinstance(said[name], Mapping):
                waiting += [said[name].get("inherits_from"), said[name].get("previous_stage")]
    return found


def _record(plan: Plan, checkpoint: Checkpoint, fold: str, file_ending: str, source: str) -> RunRecord:
    origin = Origin(
        tool="nnunetv2",
        source=source,
        trainer=checkpoint.trainer,
        checkpoint=f"{fold}/{checkpoint.file.name}",
        checkpoint_hash=hash_file(checkpoint.file),
        epoch=checkpoint.epoch,
        file_ending=file_ending,
    )
    number = fold.removeprefix("fold_")
    return RunRecord(
        dataset=plan.dataset,
        trainer=checkpoint.trainer,
        planner=plan.planner,
        configuration=checkpoint.configuration,
        fold=int(number) if number.isdigit() else number,
        settings={},
        label_fraction=1.0,
        seed=0,
        init=None,
        plan_hash=plan.content_hash(),
        data_hash="",
        train=(),
        validation=(),
        versions=package_versions(),
        machine={},
        status="finished",
        origin=origin,
    )


def _in_order(fold: str) -> tuple[int, str]:
    return len(fold), fold
