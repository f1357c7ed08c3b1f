"""The folds of an experiment: trained to their final weights, and scored on whole cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.engine.checkpoint import weights_of
from selfcfg.engine.device import choose_device
from selfcfg.engine.experiment import Experiment
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.engine.scoring.validation import Keeping, predict_validation, score_validation
from selfcfg.engine.training.loop import fit
from selfcfg.errors import listed
from selfcfg.kernels.ranks import ALONE, Ranks
from selfcfg.progress import say
from selfcfg.runs import RunFolder, RunRecord


@dataclass(frozen=True)
class FoldResult:
    """One finished fold: its folder and the scores of its validation cases; None of a pretraining."""

    run: RunFolder
    evaluation: Evaluation | None


def train_fold(experiment: Experiment, fold: int, ranks: Ranks = ALONE) -> FoldResult:
    """Trains one fold and scores its validation cases; a finished fold is only scored, a pretraining is not.

    Of several processes each predicts the validation cases that are dealt to it, and the first scores them all.

    Raises:
        UsageError: the folder holds another or an unfinished run.
        Stopped: stopped on request; the same call with `resume` continues.
    """
    run = fit_fold(experiment, fold, ranks)
    if not experiment.trainer_type.segments(experiment.settings):
        return FoldResult(run, None)
    cases, keeping = RunRecord.read(run.record).validation, experiment.request.probabilities
    if ranks.size > 1:
        predict_cases(experiment, run, ranks.dealt(cases), probabilities=keeping)
        ranks.gathered(["predicted"])
    scores = ranks.first(lambda: score_cases(experiment, run, cases, run.validation, probabilities=keeping))
    return FoldResult(run, scores)


def fit_fold(experiment: Experiment, fold: int, ranks: Ranks = ALONE) -> RunFolder:
    """The folder of one fold, trained to its final weights; a finished one is left as it is.

    Raises:
        UsageError: the folder holds another or an unfinished run.
        Stopped: stopped on request; the same call with `resume` continues.
    """
    request, run, record = experiment.request, experiment.run(fold), experiment.record(fold)
    facts = experiment.folder / "fingerprint.json"
    ranks.first(lambda: None if facts.is_file() else experiment.facts.write(facts))
    device = choose_device(request.device)
    batches = experiment.batches(record, ranks)
    init = experiment.init(fold)
    if not run.final.is_file():
        if init is not None and init.exists():
            _warn_of_seen(weights_of(init), record)
        for teacher in experiment.lessons[fold].ensemble.teachers if fold in experiment.lessons else ():
            for one in teacher.runs:
                _warn_of_seen(one.final, record)
    trainer, resume = experiment.trainer(record.train), request.resume
    fit(trainer, run, record, batches, device=device, resume=resume, init=init, ranks=ranks)
    return run


def score_cases(
    experiment: Experiment,
    run: RunFolder,
    cases: Sequence[str],
    destination: Path,
    *,
    mirroring: bool = True,
    probabilities: Keeping = "none",
) -> Evaluation:
    """The scores of any cases of the dataset predicted by a trained fold, written into `destination` too.

    The label maps go into the run's folder of validation cases; `mirroring` is that of `Model.predict_prepared`,
    `probabilities` that of `predict_validation`.
    """
    predictions = predict_cases(experiment, run, cases, mirroring=mirroring, probabilities=probabilities)
    return score_validation(experiment.project, experiment.plan.labels, predictions, destination, experiment.jobs)


def predict_cases(
    experiment: Experiment,
    run: RunFolder,
    cases: Sequence[str],
    *,
    mirroring: bool = True,
    probabilities: Keeping = "none",
) -> dict[str, Path]:
    """The label maps of cases of the dataset by a trained fold, which lie in its folder of validation cases."""
    return predict_validation(
        run,
        cases,
        experiment.store,
        experiment.project.dataset.description.label_ending,
        device=experiment.request.device,
        precision=experiment.settings.precision,
        previous=experiment.previous,
        mirroring=mirroring,
        probabilities=probabilities,
    )


def _warn_of_seen(weights: Path, record: RunRecord) -> None:
    """Says that the scores will be too good where other weights were trained on what is to be validated."""
    maker = weights.parent / "run.json"
    other = RunRecord.read(maker) if maker.is_file() else record
    if other.origin is not None:
        say(f"note: it is not known which cases {weights.parent} was trained on; scores are too good if it saw these")
    if other.dataset == record.dataset and (seen := sorted(set(other.train) & set(record.validation))):
        found = f"{weights.parent} was trained on validation cases of this fold ({listed(seen)})"
        say(f"warning: {found}: scores will be too good")
