"""The experiments of a dataset that can be chosen from, and why others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.engine.footprint import n_passes
from selfcfg.engine.scoring.validation import refuse_strangers
from selfcfg.errors import DataError, SelfcfgError, UsageError, listed
from selfcfg.files import hash_file
from selfcfg.labels import LabelSchema
from selfcfg.plan import Configuration, Plan
from selfcfg.project import Project
from selfcfg.runs import RunFolder, RunRecord, experiment_folders, fold_folders


@dataclass(frozen=True)
class Entrant:
    """An experiment whose finished folds have validated the cases that are compared.

    Args:
        name: its folder within the results of the dataset.
        folder: the parent of its folds.
        runs: its finished folds.
        records: what made each.
        plan: of its training.
        cost: multiplications that predicting a case of median size takes.
    """

    name: str
    folder: Path
    runs: tuple[RunFolder, ...]
    records: tuple[RunRecord, ...]
    plan: Plan
    cost: float

    @property
    def fold_of(self) -> dict[str, int]:
        """Of each validated case the index of its fold among `runs`."""
        return {case: index for index, record in enumerate(self.records) for case in record.validation}

    @property
    def run_of(self) -> dict[str, RunFolder]:
        """Of each validated case the fold that did not train on it."""
        return {case: self.runs[index] for case, index in self.fold_of.items()}

    @property
    def configuration(self) -> Configuration:
        """With the patch size of the training."""
        record = self.records[0]
        patch = record.settings.get("patch_size")
        return self.plan.configuration(record.configuration).resized(batch_size=None, patch_size=patch)


def find_entrants(project: Project) -> tuple[list[Entrant], dict[str, str]]:
    """The experiments that have validated the same cases, the cheapest first; and why each other one is left out.

    Which cases these are is said by the experiment that has validated most.

    Raises:
        UsageError: nothing was trained yet.
        DataError: there is no experiment to choose.
    """
    found: list[Entrant] = []
    left_out: dict[str, str] = {}
    folders = [one for folder in sorted(project.results.glob("*")) for one in experiment_folders(folder)]
    for folder in folders:
        if not any(folder.glob("fold_*/run.json")):
            continue
        name = folder.relative_to(project.results).as_posix()
        try:
            found.append(entrant_of(name, folder))
        except SelfcfgError as error:
            left_out[name] = error.found
    if not found and not left_out:
        nothing = f"nothing was trained in {project.results}"
        raise UsageError(f"select for {project.name}", nothing, f"run: selfcfg run {project.name}")
    with_labels = {case.id for case in project.dataset.cases if case.label is not None}
    most = max(found, key=lambda one: (len(with_labels & set(one.fold_of)), -one.cost), default=None)
    if most is None or not with_labels & set(most.fold_of):
        every = "".join(f"\n  {name}: {why}" for name, why in left_out.items()) + "\n"
        raise DataError(f"select for {project.name}", f"no experiment can be chosen{every}", "train one to its end")
    entrants = []
    for one in sorted(found, key=lambda one: (one.cost, one.name)):
        if why := _unlike(one, most, with_labels):
            left_out[one.name] = why
        else:
            entrants.append(one)
    return entrants, left_out


def compared_cases(entrants: Sequence[Entrant], project: Project) -> list[str]:
    """The cases that all have validated and that have a label, in order."""
    with_labels = {case.id for case in project.dataset.cases if case.label is not None}
    return sorted(with_labels & set(entrants[0].fold_of))


def weights_of_folds(entrant: Entrant) -> dict[str, str]:
    """The hash of the final weights of each fold, by the name of its folder."""
    return {run.path.name: hash_file(run.final) for run in entrant.runs}


def entrant_of(name: str, folder: Path, doing: str = "select") -> Entrant:
    """An experiment with the folds that are finished; `doing` is for messages.

    Raises:
        DataError: it only pretrains, no fold is finished, or the folds do not belong together.
    """
    runs = [run for run in fold_folders(folder) if run.path.name.removeprefix("fold_").isdigit()]
    records = {run.path.name: RunRecord.read(run.record) for run in runs}
    asked = f"{doing} {name}"
    if records and not any(record.segments for record in records.values()):
        raise DataError(asked, "it only pretrains")
    finished = [run for run in runs if records[run.path.name].status == "finished" and run.final.is_file()]
    if not finished:
        raise DataError(asked, "no fold with validation cases is finished")
    kept = tuple(records[run.path.name] for run in finished)
    if any(record.origin is not None for record in kept) or not any(record.validation for record in kept):
        raise DataError(asked, "it was not trained here, so that it is not known which cases it did not train on")
    refuse_strangers(folder, kept)
    plan = Plan.read(finished[0].plan)
    return Entrant(name, folder, tuple(finished), kept, plan, _cost(folder, plan, kept))


def _cost(folder: Path, plan: Plan, records: Sequence[RunRecord]) -> float:
    """Multiplications for a case of median size by all folds; in a cascade also of the stage before."""
    record = records[0]
    configuration = plan.configuration(record.configuration)
    patch = record.settings.get("patch_size")
    configuration = configuration.resized(batch_size=None, patch_size=patch)
    lengths = [max(1, round(length)) for length in configuration.median_shape]
    z, y, x = lengths if len(lengths) == 3 else [max(1, round(plan.median_shape[0])), *lengths]
    passes = n_passes((z, y, x), plan, configuration)
    once = configuration.topology.multiplications(configuration.patch_size, plan.input_channels(configuration))
    cost = float(passes * once * len(records))
    if record.previous is not None:
        first = entrant_of(record.previous, folder.parent / record.previous)
        cost += first.cost / len(first.records) * len(records)
    return cost


def _unlike(one: Entrant, most: Entrant, with_labels: set[str]) -> str:
    """Why an experiment cannot be compared with another one; empty where it can."""
    mine, theirs = (with_labels & set(entrant.fold_of) for entrant in (one, most))
    if missing := sorted(theirs - mine):
        return f"its finished folds have not validated {listed(missing)}, which {most.name} has"
    if _parts(one, with_labels) != _parts(most, with_labels):
        return f"its folds are of other splits than those of {most.name}"
    if _meaning(one.plan.labels) != _meaning(most.plan.labels):
        return f"its labels are not those of {most.name}"
    if len(one.plan.channels) != len(most.plan.channels):
        return f"its images have other channels than those of {most.name}"
    return ""


def _parts(entrant: Entrant, with_labels: set[str]) -> set[frozenset[str]]:
    """The cases that were validated together."""
    return {frozenset(with_labels & set(record.validation)) for record in entrant.records} - {frozenset()}


def _meaning(labels: LabelSchema) -> Mapping[str, object]:
    return {"labels": list(labels.labels.items()), "order": labels.regions_class_order}
