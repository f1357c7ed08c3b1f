"""The scores of a system, wherever they come from: runs, evaluations of ours or of nnU-Net, or label maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from selfcfg.engine.comparison.nnunet import is_nnunet, read_nnunet
from selfcfg.engine.comparison.scoring import LabelScoring, score_here
from selfcfg.engine.comparison.values import ClassValues, Scored
from selfcfg.engine.scoring.evaluate import SUMMARY, Evaluation
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.engine.scoring.validation import pooled
from selfcfg.errors import DataError, UsageError, listed, nearest
from selfcfg.files import read_json
from selfcfg.image_files import ending_in, image_files
from selfcfg.labels import LabelSchema
from selfcfg.recipes.recipe import RECIPE
from selfcfg.runs import RunRecord, fold_folders

Kind = Literal["experiment", "evaluation", "nnU-Net's evaluation", "label maps scored here"]

_WHAT_IT_MAY_BE = (
    "give an experiment or fold folder, a folder with summary.json (of selfcfg evaluate or nnU-Net), or label maps"
)


class Given(NamedTuple):
    """A system as it was asked for: its name, and the folder of each repetition."""

    name: str
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class System:
    """A system that is compared.

    Args:
        name: of it.
        kind: where its scores come from.
        runs: the scores of each repetition, such as trainings with other seeds.
        dataset: name of the dataset of a run; empty where it is not known.
    """

    name: str
    kind: Kind
    runs: tuple[Scored, ...]
    dataset: str = ""


def given_systems(texts: list[str]) -> tuple[Given, ...]:
    """The systems given as NAME=PATH, NAME=PATH,PATH or PATH, which is named after its folder.

    A path with ``*`` stands for all that match it.

    Raises:
        UsageError: a name is there twice, is empty, or cannot be a folder's; or nothing matches a path.
    """
    found: dict[str, Given] = {}
    for text in texts:
        name, equals, rest = ("", "", "") if Path(text).exists() else text.partition("=")
        parts = [part.strip() for part in (rest if equals else text).split(",") if part.strip()]
        paths = tuple(path for part in parts for path in _matching(part))
        name = name.strip() if equals else (paths[0].absolute().name if paths else "")
        if not name or not paths:
            raise UsageError("compare", f"'{text}' is not NAME=PATH", "write it as baseline=results/experiment")
        if name in (".", "..") or set(name) & set("/\\"):
            raise UsageError("compare", f"'{name}' cannot be a name", "give one without slashes: NAME=PATH")
        if name in found:
            raise UsageError("compare", f"'{name}' is there twice", "give names of your own: NAME=PATH")
        found[name] = Given(name, paths)
    return tuple(found.values())


def _matching(text: str) -> list[Path]:
    """The path that a text is, or all that match it."""
    path = Path(text)
    if "*" not in text or path.exists():
        return [path]
    root = Path(path.anchor)
    if found := sorted(root.glob(str(path.relative_to(root)))):
        return found
    raise UsageError(f"compare '{text}'", "nothing matches it", _WHAT_IT_MAY_BE)


def refuse_baseline(baseline: str | None, names: Iterable[str]) -> None:
    """Raises when a baseline is not among the systems.

    Raises:
        UsageError: names the nearest one.
    """
    known = list(names)
    if baseline is not None and baseline not in known:
        raise UsageError("--baseline", f"there is no '{baseline}'", nearest(baseline, known))


def read_system(given: Given, labels: LabelSchema | None, scoring: LabelScoring | None) -> System:
    """The scores of all repetitions of a system.

    Args:
        given: what was asked for.
        labels: names for the classes of an evaluation by nnU-Net; None: the values that they have there.
        scoring: how label maps are scored; None: they are not.

    Raises:
        UsageError: nothing that can be compared is there.
        DataError: what is there is not usable.
    """
    read = [
        _read(path, labels, scoring, given.name if len(given.paths) == 1 else f"{given.name}-{number}")
        for number, path in enumerate(given.paths, 1)
    ]
    kinds = dict.fromkeys(kind for kind, _, _ in read)
    if len(kinds) > 1:
        found = f"its repetitions are of different kinds ({listed(kinds)})"
        raise UsageError(f"compare '{given.name}'", found, "give repetitions that were scored in the same way")
    return System(given.name, read[0][0], tuple(scored for _, scored, _ in read), read[0][2])


def _read(path: Path, labels: LabelSchema | None, scoring: LabelScoring | None, name: str) -> tuple[Kind, Scored, str]:
    """Kind, scores and dataset of one repetition."""
    asked = f"compare '{name}' ({path})"
    if path.is_file() and path.suffix == ".json":
        return _summary(path, labels)
    if not path.is_dir():
        raise UsageError(asked, "there is no such folder", _WHAT_IT_MAY_BE)
    if is_run(path):
        return "experiment", scored_of(pooled(path)), RunRecord.read(fold_folders(path)[0].record).dataset
    folds = sorted(path.glob(f"fold_*/validation/{SUMMARY}"))
    predictions = label_maps([file.parent for file in folds] or [path])
    if scoring is not None and predictions:
        return "label maps scored here", scored_of(score_here(asked, predictions, scoring, name)), ""
    own = [file for file in (path / SUMMARY, path / "validation" / SUMMARY) if file.is_file()][:1]
    if summaries := own or folds:
        parts = [_summary(file, labels) for file in summaries]
        return parts[0][0], _together(asked, [scored for _, scored, _ in parts]), ""
    if predictions:
        found = "label maps that were not scored yet"
        raise UsageError(asked, found, "add --references DIR --dataset-json FILE, and they are scored here")
    raise UsageError(asked, "neither scores nor label maps in it", _WHAT_IT_MAY_BE)


def scored_of(evaluation: Evaluation) -> Scored:
    """What of an evaluation is compared."""
    cases = {
        case.case: {
            name: ClassValues(
                {metric: scores.value(metric) for metric in METRICS},
                n_reference=scores.tp + scores.fn,
                n_prediction=scores.tp + scores.fp,
            )
            for name, scores in case.scores.items()
        }
        for case in evaluation.cases
    }
    return Scored(
        cases,
        evaluation.empty,
        evaluation.nsd_tolerance,
        evaluation.distance_unit,
        evaluation.volume_unit,
        evaluation.extras,
    )


def is_run(path: Path) -> bool:
    """Whether a folder is an experiment, a recipe's or a fold's."""
    return (
        (path / "run.json").is_file()
        or (path / RECIPE).is_file()
        or next(path.glob("fold_*/run.json"), None) is not None
    )


def label_maps(folders: list[Path]) -> dict[str, Path]:
    """The label maps of folders by case; empty where there are none."""
    found: dict[str, Path] = {}
    for folder in folders:
        if any(ending_in(file.name) for file in folder.iterdir() if file.is_file()):
            found |= image_files(folder)
    return found


def _summary(file: Path, labels: LabelSchema | None) -> tuple[Kind, Scored, str]:
    content = read_json(file)
    if is_nnunet(content):
        return "nnU-Net's evaluation", read_nnunet(file, content, labels), ""
    return "evaluation", scored_of(Evaluation.parse(content, str(file))), ""


def _together(asked: str, parts: list[Scored]) -> Scored:
    """The cases of the folds of one cross-validation."""
    cases: dict[str, Mapping[str, ClassValues]] = {}
    for part in parts:
        if twice := sorted(set(cases) & set(part.cases)):
            raise DataError(asked, f"in more than one fold: {listed(twice)}", "give one fold's folder")
        if part.settings != parts[0].settings:
            raise DataError(asked, "its folds were scored with different settings", "score them again alike")
        cases |= part.cases
    first = parts[0]
    return replace(first, cases=cases)
