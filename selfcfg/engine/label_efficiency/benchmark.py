"""How good trainings are with few labels: with and without pretraining, on the same labels, steps and test cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from selfcfg import registry
from selfcfg.engine.choice import TrainRequest, choose, parse_settings
from selfcfg.engine.experiment import Experiment, open_experiment
from selfcfg.engine.label_efficiency.results import PROTOCOL, Arm, Job, Protocol
from selfcfg.engine.label_efficiency.wanted import LabelEfficiency, refuse_nonsense
from selfcfg.engine.trainer import Settings, Trainer
from selfcfg.errors import UsageError, listed
from selfcfg.files import hash_json
from selfcfg.parallel import default_jobs
from selfcfg.project import Project
from selfcfg.runs import INCIDENTAL
from selfcfg.splits import Split, labelled_subjects

SUPERVISED = "supervised"

FOLD = 0
"""The fold whose validation cases are the test cases."""

EPOCHS = 20
"""Of a job: the learning rate falls in so many stairs. Each ends with a checkpoint, so more would cost time."""

SCORES = "scores"
"""Folder with the scores of each job in a folder of its own."""

KEPT_OUT_OF, MOST_KEPT_OUT = 5, 10
"""Every fifth labelled subject, ten at most, is kept out of training where the learning rate is chosen."""

DECIDED = ("epochs", "iterations_per_epoch", "learning_rate")
"""Settings of a training with labels that its job decides."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark whose arms are opened: cases are preprocessed, nothing is trained yet.

    Args:
        folder: of everything it makes.
        wanted: what was asked for.
        tuned: by arm, the training with labels.
        pretrained: by arm that pretrains, the training without.
        train: ids of the cases that may be trained on.
        test: ids of the cases that every job is scored on; no training knows of them.
    """

    folder: Path
    wanted: LabelEfficiency
    tuned: Mapping[str, Experiment]
    pretrained: Mapping[str, Experiment]
    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def subjects(self) -> dict[str, str]:
        """Each case's subject."""
        project = next(iter(self.tuned.values())).project
        return {case.id: case.subject for case in project.dataset.cases}

    def jobs(self) -> list[Job]:
        """All jobs, seed by seed, so that the arms can be compared from the first ones on."""
        wanted = self.wanted
        return [
            Job(arm=arm, fraction=fraction, budget=budget, seed=seed)
            for seed in range(wanted.seeds)
            for budget in wanted.budgets
            for fraction in wanted.fractions
            for arm in wanted.arms
        ]

    def scores(self, job: Job) -> Path:
        """The folder of a job's scores of the test cases, which `compare` reads."""
        return self.folder / SCORES / job.name

    def protocol(self) -> Protocol:
        """What all jobs share."""
        first = next(iter(self.tuned.values()))
        sources = {case: first.store.open(case).info.source for case in (*self.train, *self.test)}
        return Protocol(
            dataset=first.project.name,
            planner=first.plan_name,
            configuration=first.configuration_name,
            plan_hash=first.plan.content_hash(),
            data_hash=hash_json(sources),
            train=self.train,
            test=self.test,
            rates=self.wanted.rates,
            mirroring=self.wanted.mirroring,
            budgets=self.wanted.budgets,
            arms={name: self._arm(name) for name in self.wanted.arms},
        )

    def _arm(self, name: str) -> Arm:
        tuned, before = self.tuned[name], self.pretrained.get(name)
        shown = _shown(tuned.settings)
        arm = Arm(
            trainer=tuned.request.trainer,
            settings={key: value for key, value in shown.items() if key not in DECIDED},
            unlabelled=tuned.collection.hashes,
            reference=tuned.collection.reference_hash,
        )
        if before is None:
            return arm
        seen = before.collection
        changes = {
            "pretrainer": before.request.trainer,
            "pretraining": _shown(before.settings),
            "pretrained_from": self.wanted.pretrain_from.get(name),
            "unlabelled": seen.hashes,
            "reference": seen.reference_hash,
        }
        return arm.model_copy(update=changes)

    def pretrained_as(self, arm: str) -> str:
        """The first arm that is pretrained in the same way; what it learns is taken for all of them."""

        def way(name: str) -> list[TrainRequest]:
            return [self.pretrained[one].request for one in self.wanted.pretrainings(name)]

        return next(other for other in self.pretrained if way(other) == way(arm))

    def pretraining(self, arm: str, seed: int) -> Experiment:
        """The pretraining of an arm with a seed, which all fractions, budgets and rates share."""
        arm = self.pretrained_as(arm)
        experiment = self.pretrained[arm]
        changes: dict[str, Any] = {"seed": seed, "name": f"{arm}-seed{seed}"}
        if arm in self.wanted.pretrain_from:
            changes["init"] = self.pretraining(self.wanted.pretrain_from[arm], seed).run(FOLD).final
        return replace(experiment, request=experiment.request.model_copy(update=changes))

    def training(self, job: Job, rate: float) -> Experiment:
        """The training of a job with one learning rate."""
        experiment, labelled = self.tuned[job.arm], self.labelled(job)
        changes: dict[str, Any] = {
            "seed": job.seed,
            "name": f"{job.name}-{rate:g}",
            "label_fraction": job.fraction if isinstance(job.fraction, float) else 1.0,
        }
        if job.arm in self.pretrained:
            changes["init"] = self.pretraining(job.arm, job.seed).run(FOLD).final
        settings = settings_of(self.wanted, job.arm, experiment.trainer_type, job.budget, rate)
        request = experiment.request.model_copy(update=changes)
        # several jobs run at once, and starting processes to score a case would take longer than scoring it
        return replace(experiment, request=request, settings=settings, labelled=labelled, jobs=1)

    def labelled(self, job: Job) -> Split:
        """The labelled cases of a job, the same for all arms: to train on, and those kept out, which may be none.

        Both grow with the fraction, since every fifth subject of the seeded order is kept out, wherever it ends.
        """
        subjects = self.subjects
        order = labelled_subjects(self.train, subjects, job.fraction, job.seed)
        kept = order[KEPT_OUT_OF - 1 :: KEPT_OUT_OF][:MOST_KEPT_OUT] if len(self.wanted.rates) > 1 else ()
        return Split(
            train=tuple(case for case in self.train if subjects[case] in order and subjects[case] not in kept),
            val=tuple(case for case in self.train if subjects[case] in kept),
        )


def open_benchmark(project: Project, wanted: LabelEfficiency, folder: Path) -> Benchmark:
    """The benchmark with all its arms opened, so that whatever is wrong with one is said before anything is trained.

    Args:
        project: of the dataset.
        wanted: what to compare.
        folder: where everything goes; what is finished there is kept.

    Raises:
        UsageError: an arm, a number, a setting or a configuration cannot be used; or the folder holds a benchmark that
            was made otherwise.
        DataError: cases cannot be read, or the splits leak.
    """
    refuse_nonsense(wanted)
    place = replace(project, results=folder / "runs")
    requests = _requests(wanted)
    for request in (*requests.tuned.values(), *requests.pretrained.values()):
        if choose(place, request).configuration.after is not None:
            raise UsageError("benchmark a cascade", "it trains two stages", "name another configuration with -c")
    different = {request.content_hash(): request for one in requests for request in one.values()}
    opened = {key: open_experiment(place, one, [FOLD], jobs=default_jobs()) for key, one in different.items()}
    tuned, pretrained = ({arm: opened[one.content_hash()] for arm, one in part.items()} for part in requests)
    split = next(iter(tuned.values())).splits[FOLD]
    subjects = {case.id: case.subject for case in project.dataset.cases}
    for fraction in wanted.fractions:
        labelled_subjects(split.train, subjects, fraction, 0)
    benchmark = Benchmark(folder, wanted, _blind(tuned), _blind(pretrained), split.train, split.val)
    protocol = benchmark.protocol()
    if (file := folder / PROTOCOL).is_file():
        protocol = protocol.joined(Protocol.read(file), folder)
    protocol.write(file)
    return benchmark


class _Requests(NamedTuple):
    """By arm, what is trained with labels; and by arm that pretrains, what is trained without."""

    tuned: dict[str, TrainRequest]
    pretrained: dict[str, TrainRequest]


def _requests(wanted: LabelEfficiency) -> _Requests:
    """What the arms are, their settings and budgets tried.

    Raises:
        UsageError: there is no such trainer, or it cannot be compared in this way.
    """
    found = _Requests({}, {})
    for arm, name in wanted.arms.items():
        trainer: type[Trainer[Any]] = registry.load("trainers", name)
        settings = parse_settings(trainer, wanted.pretraining.get(arm, {}))
        pretrains = not trainer.segments(settings)
        if pretrains:
            _refuse_labels(arm, trainer, settings)
            found.pretrained[arm] = _request(wanted, arm, name, wanted.pretraining.get(arm, {}))
            trainer = registry.load("trainers", SUPERVISED)
        elif arm in wanted.pretraining:
            raise UsageError(f"--pretrain-set {arm}", "this arm does not pretrain", "use --set")
        found.tuned[arm] = _request(wanted, arm, SUPERVISED if pretrains else name, wanted.settings_of(arm))
        if arm in wanted.further and not any(arm in part and part[arm].unlabelled for part in found):
            raise UsageError(f"--pretrain-on {arm}", "this arm learns from no images without labels", "leave it out")
        for budget in wanted.budgets:
            if not trainer.segments(settings_of(wanted, arm, trainer, budget, wanted.rates[0])):
                raise UsageError("--set", f"with these settings the arm '{arm}' only pretrains", "give --pretrain-set")
    _refuse_idle(wanted, found)
    return found


def _request(wanted: LabelEfficiency, arm: str, name: str, settings: Mapping[str, Any]) -> TrainRequest:
    trainer: type[Trainer[Any]] = registry.load("trainers", name)
    typed = parse_settings(trainer, settings)
    return TrainRequest(
        configuration=wanted.configuration,
        planner=wanted.planner,
        trainer=name,
        settings=_quick(settings),
        unlabelled=(*wanted.unlabelled, *wanted.further.get(arm, ())) if trainer.unlabelled(typed) else (),
        reference=wanted.reference if trainer.takes_reference(typed) else None,
        resume=True,
        device=wanted.device,
        elsewhere=wanted.elsewhere,
    )


def settings_of(wanted: LabelEfficiency, arm: str, trainer: type[Trainer[Any]], budget: str, rate: float) -> Settings:
    """The settings of an arm's training with labels: as many steps as the budget has, in equal epochs.

    Raises:
        UsageError: the steps cannot be dealt out, or a setting cannot be used.
    """
    steps, given = wanted.budgets[budget], wanted.settings_of(arm)
    each = given.get("iterations_per_epoch", steps // min(EPOCHS, steps))
    if not str(each).isdigit() or not int(each) or steps % int(each):
        remedy = f"take a multiple of {EPOCHS} steps, or set iterations_per_epoch to a divisor of them"
        raise UsageError(f"budget '{budget}'", f"{steps} steps are no multiple of epochs of {each}", remedy)
    decided = {"epochs": steps // int(each), "iterations_per_epoch": int(each), "learning_rate": rate}
    return parse_settings(trainer, {**_quick(given), **decided})


def _blind(experiments: Mapping[str, Experiment]) -> dict[str, Experiment]:
    """The experiments without the test cases and copies of them: no stream of batches can draw what is not there."""
    found = {}
    for arm, one in experiments.items():
        split = one.splits[FOLD]
        pictures = {case.picture for case in one.facts.cases if case.case in split.val}
        guide = one.collection.reference and one.collection.reference.without(pictures)
        collection = replace(one.collection, further=one.collection.without(pictures), reference=guide)
        found[arm] = replace(one, splits=(split.model_copy(update={"val": ()}),), collection=collection)
    return found


def _quick(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of short jobs in a row: starting a worker process, or validating, would cost more than it gives."""
    return {"workers": 0, "validation_iterations": 0, **settings}


def _shown(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in settings.model_dump(mode="json").items() if name not in INCIDENTAL}


def _refuse_labels(arm: str, trainer: type[Trainer[Any]], settings: Settings) -> None:
    """Raises for a trainer that pretrains with labels: of these every fraction would have all."""
    if labelled := trainer.labelled(settings):
        found = f"it pretrains with labels (stream {listed(labelled)}), which a fraction would not limit"
        raise UsageError(f"arm '{arm}'", found, "compare strategies that segment, or pretrain without labels")


def _refuse_idle(wanted: LabelEfficiency, found: _Requests) -> None:
    """Raises for an option that no arm, or not the one it names, has a use for."""
    for pair in wanted.pretrain_from.items():
        if idle := [arm for arm in pair if arm not in found.pretrained]:
            told = f"the arm '{idle[0]}' does not pretrain"
            raise UsageError(f"--pretrain-from {pair[0]}:{pair[1]}", told, "name two arms that do")
    if wanted.unlabelled and not any(one.unlabelled for part in found for one in part.values()):
        raise UsageError("--unlabelled", "no arm learns from images without labels", "leave it out, or add such an arm")
    if wanted.reference and not any(one.reference for part in found for one in part.values()):
        raise UsageError("--reference", "no arm is guided by a labelled dataset", "leave it out, or add such an arm")
