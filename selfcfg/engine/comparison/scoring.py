"""Label maps that come without scores are scored here; what is done and unchanged is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selfcfg.engine.scoring.evaluate import SUMMARY, Evaluation, combine, evaluate
from selfcfg.engine.scoring.scores import Scoring
from selfcfg.errors import DataError, listed
from selfcfg.files import hash_file, hash_json, read_json, write_json
from selfcfg.image_files import image_files, stem_in
from selfcfg.labels import LabelSchema
from selfcfg.progress import progress, quietly

SOURCES = "sources.json"
"""By case, the hash of what its scores in the summary.json beside it were made from."""

_AT_ONCE = 8
"""Cases a process between two savings."""


@dataclass(frozen=True)
class LabelScoring:
    """How label maps are scored.

    Args:
        references: folder of the reference label maps.
        labels: meaning of the values.
        how: with which settings.
        jobs: worker processes at most.
        folder: for the scores, a folder a system.
    """

    references: Path
    labels: LabelSchema
    how: Scoring
    jobs: int
    folder: Path


def score_here(asked: str, predictions: Mapping[str, Path], scoring: LabelScoring, name: str) -> Evaluation:
    """The scores of the predictions that have a reference, also written into a folder of this name.

    Args:
        asked: for messages.
        predictions: label map of each case.
        scoring: how.
        name: of the folder.

    Raises:
        DataError: no prediction has a reference, or one cannot be compared with its own.
    """
    references = image_files(scoring.references)
    both = sorted(set(predictions) & set(references))
    if not both:
        found = f"none of its label maps ({listed(predictions)}) has a reference ({listed(references)})"
        raise DataError(asked, found, "label maps and references of a case must have the same name")
    sources = {case: _source(predictions[case], references[case], scoring) for case in both}
    folder = scoring.folder / name
    parts = _kept(folder, sources)
    done = {case.case for part in parts for case in part.cases}
    missing = [case for case in both if case not in done]
    size = _AT_ONCE * scoring.jobs
    with progress(f"score {name}", len(missing)) as step:
        for start in range(0, len(missing), size):
            some = missing[start : start + size]
            with quietly():
                found_scores = evaluate(
                    {case: references[case] for case in some},
                    {case: predictions[case] for case in some},
                    scoring.labels,
                    nsd_tolerance=scoring.how.nsd_tolerance,
                    empty=scoring.how.empty,
                    extras=scoring.how.extras,
                    jobs=scoring.jobs,
                )
            parts = [combine([*parts, found_scores])]
            parts[0].write(folder)
            write_json(folder / SOURCES, {case.case: sources[case.case] for case in parts[0].cases})
            for case in some:
                step(case)
    return combine(parts)


def _source(prediction: Path, reference: Path, scoring: LabelScoring) -> str:
    settings = [scoring.labels.model_dump(mode="json"), scoring.how.nsd_tolerance, scoring.how.empty]
    settings += [scoring.how.extras.model_dump(mode="json")]
    beside = prediction.with_name(f"{stem_in(prediction.name)}.npz")
    if "calibration" in scoring.how.extras.metrics and beside.is_file():
        settings += [hash_file(beside)]
    return hash_json([hash_file(prediction), hash_file(reference), *settings])


def _kept(folder: Path, sources: Mapping[str, str]) -> list[Evaluation]:
    """The earlier scores of cases whose files and settings are unchanged, as one evaluation; none where none are."""
    if not (folder / SOURCES).is_file() or not (folder / SUMMARY).is_file():
        return []
    try:
        earlier, made = Evaluation.read(folder / SUMMARY), read_json(folder / SOURCES)
    except DataError:  # of another version, or damaged: made again
        return []
    cases = tuple(case for case in earlier.cases if sources.get(case.case, "") == made.get(case.case))
    if len(cases) < len(earlier.cases):
        earlier = earlier.model_copy(update={"cases": cases, "calibration": None})
    return [earlier] if cases else []
