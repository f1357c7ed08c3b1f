"""Further datasets, without labels or as a labelled reference, brought to the plan of the one that is trained for."""

from __future__ import annotations

import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from selfcfg.dataset import Case, Dataset
from selfcfg.engine.data.foreign import Foreign, adapted
from selfcfg.engine.data.inputs import find_inputs
from selfcfg.engine.data.preprocess import preprocess
from selfcfg.engine.data.source import Domain
from selfcfg.engine.randomness import generator
from selfcfg.errors import DataError, UsageError, counted, listed
from selfcfg.files import hash_json
from selfcfg.io import hash_images, read_header
from selfcfg.plan import Plan
from selfcfg.progress import say
from selfcfg.project import Project
from selfcfg.records import Record

HELD_OUT = 0.1
"""Share of a further dataset's subjects that are kept for validation: they tell whether a pretext task is learnt."""


class Unlabelled(Record):
    """A collection of images to pretrain on, besides the training images of the dataset itself.

    Args:
        images: folder of a raw dataset, of which the labels are not used, or of images named ``CASE_0000.ending`` or
            ``CASE.ending``, with the channels of the dataset itself.
        group: name of the group of related datasets it belongs to; None: one of its own.
    """

    images: Path
    group: str | None = None


@dataclass(frozen=True)
class Reference:
    """A labelled dataset that guides the pretraining for another one.

    Args:
        name: of the dataset.
        domain: its cases, preprocessed.
        plan: that of the dataset that is trained for, with the meaning of the reference's labels.
        pictures: the hash of the image files of every case.
        hash: of what its cases were made from, images and labels.
    """

    name: str
    domain: Domain
    plan: Plan
    pictures: Mapping[str, str]
    hash: str

    def without(self, pictures: Container[str]) -> Reference:
        """The reference without the cases whose image files have one of these hashes; says which these are."""
        return replace(self, domain=_without(self.domain, self.name, self.pictures, pictures))


@dataclass(frozen=True)
class Collection:
    """What a pretraining draws from besides the labelled cases.

    Args:
        own: store of the dataset's own cases, where they are normalised like the others; None: the usual store.
        further: other datasets, preprocessed.
        pictures: of each of these, the hash of the image files of every case.
        cases: of each of these, its cases.
        names: of the datasets by domain index, the own first.
        groups: their names by index.
        hashes: what the further datasets were, by name.
        reference: the labelled dataset that guides it, or None.
    """

    own: Path | None = None
    further: tuple[Domain, ...] = ()
    pictures: tuple[Mapping[str, str], ...] = ()
    cases: tuple[tuple[Case, ...], ...] = ()
    names: tuple[str, ...] = ("own",)
    groups: tuple[str, ...] = ("own",)
    hashes: dict[str, str] = field(default_factory=dict)
    reference: Reference | None = None

    @property
    def reference_hash(self) -> dict[str, str]:
        """The name of the reference with its hash; empty without one."""
        return {self.reference.name: self.reference.hash} if self.reference else {}

    def without(self, pictures: Container[str]) -> tuple[Domain, ...]:
        """The further datasets without the cases whose image files have one of these hashes; says which these are."""
        given = zip(self.further, self.names[1:], self.pictures, strict=True)
        return tuple(_without(domain, name, known, pictures) for domain, name, known in given)


def _without(domain: Domain, name: str, known: Mapping[str, str], pictures: Container[str]) -> Domain:
    same = {case for case, picture in known.items() if picture in pictures}
    if same:
        say(f"{name}: left out {listed(sorted(same))}, the same images as cases of the validation")
    training, validation = (
        tuple(case for case in cases if case not in same) for cases in (domain.training, domain.validation)
    )
    return replace(domain, training=training, validation=validation)


def gather(
    project: Project,
    plan: Plan,
    configuration: str,
    sets: Sequence[Unlabelled],
    *,
    alike: bool,
    jobs: int,
) -> Collection:
    """Preprocesses the images of each set for a configuration; what is there already is kept.

    Args:
        project: of the dataset that the network is meant for.
        plan: its plan.
        configuration: name within the plan.
        sets: the images besides its own.
        alike: normalise every channel of every dataset, its own too, to zero mean and unit variance in each image, so
            that a dataset is not told by its intensities; else all must have the channels of the plan and are
            normalised as it says.
        jobs: processes at most.

    Raises:
        UsageError: there is no such folder, or one is named twice.
        DataError: images cannot be read, or do not suit the network.
    """
    own = None
    if alike:
        own = _store(project, adapted(plan, configuration, plan.channels, None, alike=True), configuration, jobs)
    folders = {project.root.resolve()}
    names, groups, further, pictures, given = [project.name], ["own"], [], [], []
    for one in sets:
        if one.images.resolve() in folders:
            found = "it is named twice, or the dataset that is trained for"
            raise UsageError(f"pretrain on {one.images}", found, "name each set of images once, and not the dataset")
        folders.add(one.images.resolve())
        name = _free(one.images.name, names)
        group = one.group or name
        if group not in groups:
            groups.append(group)
        cases = _cases(one.images, plan)
        made = Foreign.of(name, one.images, cases, plan, configuration, alike=alike)
        store = made.preprocessed(project, configuration, jobs)
        # without a label, what a case was made from is its images
        pictures.append({case.id: store.open(case.id).info.source for case in cases})
        given.append(tuple(cases))
        training, held_out = _split(one.images.name, cases)
        further.append(Domain(store.folder, training, held_out, groups.index(group)))
        names.append(name)
    hashes = {
        name: hash_json([groups[domain.group], *known.values()])
        for name, domain, known in zip(names[1:], further, pictures, strict=True)
    }
    return Collection(own, tuple(further), tuple(pictures), tuple(given), tuple(names), tuple(groups), hashes)


def gather_reference(project: Project, plan: Plan, configuration: str, folder: Path, *, jobs: int) -> Reference:
    """Preprocesses a labelled dataset for a configuration of another one; what is there already is kept.

    Its images are normalised and resampled as the plan says, and where they are much larger or smaller, scaled to the
    same field of view. A tenth of its subjects is held out, of three or more at least one. Where its labels tell left
    from right, it is not mirrored along that axis.

    Args:
        project: of the dataset that the network is meant for.
        plan: its plan.
        configuration: name within the plan.
        folder: of the raw reference dataset.
        jobs: processes at most.

    Raises:
        UsageError: it is no raw dataset, or the one that is trained for.
        DataError: a case has no label, cannot be read, or does not suit the network.
    """
    asked = f"guide by {folder}"
    if folder.resolve() == project.root.resolve():
        raise UsageError(asked, "it is the dataset that is trained for", "name another dataset with --reference")
    if not (folder / "dataset.json").is_file():
        remedy = "make a dataset of its images and labels: selfcfg convert folder"
        raise UsageError(asked, "it has no dataset.json, which says what its labels mean", remedy)
    dataset = Dataset.open(folder)
    if bare := [case.id for case in dataset.cases if case.label is None or not case.label.is_file()]:
        found = f"no label of {counted(len(bare), 'case')}: {listed(bare)}"
        raise DataError(asked, found, "give these labels, take them out, or use the images with --unlabelled")
    wanted = plan.model_copy(update={"labels": dataset.labels})
    made = Foreign.of(dataset.name, folder, dataset.cases, wanted, configuration, alike=False)
    store = made.preprocessed(project, configuration, jobs, "reference")
    sources = [store.open(case.id).info.source for case in dataset.cases]
    training, held_out = _split(dataset.name, dataset.cases, least=1)
    return Reference(
        name=dataset.name,
        domain=Domain(store.folder, training, held_out),
        plan=wanted.model_copy(update={"mirror_axes": _mirrored(wanted, dataset.cases)}),
        pictures={case.id: hash_images(case) for case in dataset.cases},
        hash=hash_json([dataset.labels.model_dump(mode="json"), *sources]),
    )


def _mirrored(plan: Plan, cases: Sequence[Case]) -> tuple[int, ...]:
    """The axes along which images may be mirrored without making a left organ of a right one."""
    if not plan.labels.lateral_pairs:
        return plan.mirror_axes
    geometries = [read_header(case.images[0])[1] for case in cases]
    letters = {
        (axis, letter) for one in geometries if one.dimensions == 3 for axis, letter in enumerate(one.orientation)
    }
    lateral = {axis for axis, letter in letters if letter in "LR"} | {2 for one in geometries if one.dimensions == 2}
    return tuple(axis for axis in plan.mirror_axes if plan.axis_order[axis] not in lateral)


def _free(name: str, taken: Sequence[str]) -> str:
    """The name, or where it is taken, the name with a number."""
    candidates = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
    return next(candidate for candidate in candidates if candidate not in taken)


def _store(project: Project, plan: Plan, configuration: str, jobs: int) -> Path:
    """The dataset's own cases by an adapted plan."""
    folder = project.store_folder(plan, configuration)
    return preprocess(project.dataset, plan, configuration, folder, jobs=jobs).folder


def _cases(folder: Path, plan: Plan) -> list[Case]:
    """The cases of a set of images, without their labels."""
    if (folder / "dataset.json").is_file():
        return [case.model_copy(update={"label": None}) for case in Dataset.open(folder).cases]
    found = find_inputs(folder, plan)
    return [Case(id=name, images=files, label=None, subject=name) for name, files in sorted(found.items())]


def _split(name: str, cases: Sequence[Case], *, least: int = 0) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Training and validation cases of a further dataset, no subject in both.

    Of few subjects all are trained on, but for `least` of three or more.
    """
    subjects = sorted({case.subject for case in cases})
    count = max(int(len(subjects) * HELD_OUT), least if len(subjects) > 2 else 0)
    order = generator(0, f"held out of {name}").permutation(len(subjects))
    drawn = {subjects[int(index)] for index in order[:count]}
    ordered = sorted(cases, key=lambda case: case.id)
    training = tuple(case.id for case in ordered if case.subject not in drawn)
    return training, tuple(case.id for case in ordered if case.subject in drawn)
