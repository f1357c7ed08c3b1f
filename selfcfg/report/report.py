"""The report of an experiment: one HTML file, and Markdown with pictures beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfcfg.dataset import Dataset
from selfcfg.engine.scoring.evaluate import Evaluation, with_readers, with_subgroups
from selfcfg.engine.scoring.validation import cross_validated
from selfcfg.files import write_text
from selfcfg.plan import Plan
from selfcfg.project import Project
from selfcfg.report.markdown import PICTURES, markdown_report
from selfcfg.report.names import AS_THEY_ARE, HIDDEN, PLAIN, Names, Naming, Written
from selfcfg.report.page.experiment import experiment_of, facts_of_experiment
from selfcfg.report.page.render import write_page
from selfcfg.report.scores_file import SCORES, cases_table
from selfcfg.runs import RunRecord, fold_folders
from selfcfg.workspace import Workspace


@dataclass(frozen=True)
class Asked:
    """What a report on an experiment is to hold besides.

    Args:
        attributes: table of attributes of cases, for scores by groups.
        readers: folders of other readers' labels.
        naming: what cases are called.
        jobs: worker processes at most.
    """

    attributes: Path | None = None
    readers: tuple[Path, ...] = ()
    naming: Naming = AS_THEY_ARE
    jobs: int = 1


NOTHING_ELSE = Asked()


def write_report(
    folder: Path,
    evaluation: Evaluation,
    dataset: Dataset,
    plan: Plan,
    *,
    fingerprint: Path | None = None,
    names: Names = PLAIN,
) -> Written:
    """Writes report.html, report.md with its pictures, and cases.csv into an experiment's folder; links are relative.

    Args:
        folder: the experiment, parent of its folds.
        evaluation: cross-validated scores of all folds that are finished.
        dataset: what it was trained on.
        plan: what it was trained with.
        fingerprint: the file of what was measured of the dataset, where it is known.
        names: what cases are called; hidden ones are written into a folder of their own, `HIDDEN`.

    Raises:
        DataError: the folder holds no run.
    """
    experiment = experiment_of(folder, evaluation, dataset, plan, fingerprint)
    facts = facts_of_experiment(folder, evaluation, experiment, names)
    place = folder / HIDDEN if names.is_hidden else folder
    if names.is_hidden:
        _remove_earlier(place / PICTURES)
    write_text(place / "report.md", markdown_report(folder, place, evaluation, experiment, names))
    if facts.scores is not None:
        write_text(place / SCORES, cases_table(facts.scores, names))
    return Written(write_page(place / "report.html", facts), place / "report.md")


def report_experiment(folder: Path, workspace: Workspace, asked: Asked = NOTHING_ELSE) -> Written:
    """The report of an experiment that was trained and scored before.

    Raises:
        DataError: it has no scores yet, or a file of it is not usable.
        UsageError: its dataset is not in the workspace, or what is asked for besides is not there.
    """
    runs = fold_folders(folder)
    scores = cross_validated(folder)
    project = Project.of(workspace, str(workspace.dataset_folder(RunRecord.read(runs[0].record).dataset)))
    dataset = project.dataset
    if asked.attributes is not None:
        scores = with_subgroups(scores, asked.attributes)
    if asked.readers:
        references = dataset.root / "labelsTr"
        scores = with_readers(scores, references, asked.readers, dataset.labels, jobs=asked.jobs)
    ids = {text for case in dataset.cases for text in (case.id, case.subject)}
    names = asked.naming.names(ids | {case.case for case in scores.cases}, folder / HIDDEN)
    plan = Plan.read(runs[0].plan)
    written = write_report(folder, scores, dataset, plan, fingerprint=project.fingerprint_file, names=names)
    asked.naming.keep(names)
    return written


def _remove_earlier(pictures: Path) -> None:
    """Removes the pictures of an earlier anonymised report: beside this one they would stand under other names."""
    for pattern in ("case-*.png", "curves_*.png"):
        for picture in pictures.glob(pattern):
            picture.unlink()
