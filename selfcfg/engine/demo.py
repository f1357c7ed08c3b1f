"""The whole road on a synthetic dataset, small enough for minutes on two processor cores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.engine import pipeline
from selfcfg.engine.choice import TrainRequest
from selfcfg.engine.experiment import open_experiment
from selfcfg.engine.folds import train_fold
from selfcfg.engine.prediction.loading import load_model
from selfcfg.engine.prediction.predict import PredictOptions, find_inputs, predict_cases
from selfcfg.engine.scoring.evaluate import evaluate
from selfcfg.engine.scoring.validation import cross_validated
from selfcfg.errors import SelfcfgError, counted
from selfcfg.parallel import default_jobs
from selfcfg.project import Project
from selfcfg.report.report import write_report
from selfcfg.workspace import Workspace

NAME = "Dataset999_Demo"
N_CASES, N_TEST = 12, 3
SETTINGS = {"epochs": 8, "iterations_per_epoch": 15, "validation_iterations": 2, "batch_size": 2}
"""Enough for a Dice above 0.8 on the synthetic classes; a real training takes far more."""


def run_demo(workspace: Workspace, say: Callable[[str], None]) -> tuple[float, Path]:
    """Makes the dataset, checks, measures, plans, preprocesses, trains one fold, predicts, evaluates and reports.

    Args:
        workspace: where to work; what is there already is kept, so the demo can be interrupted and run again.
        say: receives one line a step.

    Returns:
        The mean foreground Dice of the test cases, and the path of the report.
    """
    jobs = default_jobs()
    root = workspace.raw / NAME
    if not root.is_dir():
        make_synthetic(root, n_cases=N_CASES, n_test=N_TEST)
    project = Project.of(workspace, str(root))
    say(f"1. dataset   {len(project.dataset.cases)} training and {N_TEST} test cases in {root}")
    say(f"2. check     {counted(len(pipeline.checked(project, jobs)), 'warning')}")
    facts = pipeline.fingerprint(project, jobs)
    say(f"3. measure   {project.fingerprint_file}")
    file, plan = pipeline.make_plan(project, facts, "standard")
    say(f"4. plan      {file}")
    experiment = open_experiment(project, TrainRequest(settings=SETTINGS, resume=True), [0], jobs=jobs)
    say(f"5. prepare   {len(experiment.store.cases())} cases in {experiment.store.folder}")
    result = train_fold(experiment, 0)
    say(f"6. train     {result.run.path}")
    predictions = experiment.folder / "test_predictions"
    model = load_model(experiment.folder)
    outcome = predict_cases(model, find_inputs(root / "imagesTs", plan), predictions, PredictOptions())
    if outcome.failed:
        raise SelfcfgError("predict the test cases", outcome.failed[0].reason, "see the message above")
    say(f"7. predict   {predictions}")
    scores = evaluate(root / "labelsTs", predictions, plan.labels, jobs=jobs)
    scores.write(predictions)
    say(f"8. evaluate  {predictions / 'summary.json'}\n{scores.table()}")
    validated = cross_validated(experiment.folder)
    measured = project.fingerprint_file
    report = write_report(experiment.folder, validated, project.dataset, plan, fingerprint=measured)
    return scores.foreground_mean["dice"] or 0.0, report.page
