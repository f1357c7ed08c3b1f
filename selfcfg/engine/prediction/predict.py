"""Many cases through a model: what is done already is kept, a bad case stops no other, all is told at the end."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from selfcfg.dataset import Case
from selfcfg.engine.data.inputs import doubts, find_inputs, label_ending, refuse_unfit
from selfcfg.engine.prediction.image_table import TABLE, holds_values, write_image_table
from selfcfg.engine.prediction.ledger import Ledger, LedgerEntry
from selfcfg.engine.prediction.model import Model, Prediction
from selfcfg.engine.prediction.predictor import Predictor, Ready
from selfcfg.engine.prediction.probabilities import write_probabilities
from selfcfg.engine.prediction.quality import features_of, input_features
from selfcfg.engine.prediction.quality_table import TABLE as QUALITY_TABLE
from selfcfg.engine.prediction.quality_table import Row, holds_features, told, write_quality_table
from selfcfg.engine.prediction.uncertainty import MAPS, Wanted, map_file
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.files import hash_file, hash_json
from selfcfg.image_files import ending_in
from selfcfg.io import hash_images, read_case, read_label, write_label
from selfcfg.progress import progress, say
from selfcfg.records import Record

__all__ = ["Failure", "Model", "Outcome", "PredictOptions", "Prediction", "find_inputs", "predict_cases"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class PredictOptions:
    """How to predict.

    Args:
        mirroring: also predict mirrored copies and average, where the training mirrored.
        step: largest distance between tiles, in tile lengths.
        probabilities: also write ``<case>.npz`` with the key "probabilities", float16 (classes, Z, Y, X).
        overwrite: predict finished cases again, and write over files that were not predicted here.
        uncertainty: also write maps of how unsure the prediction is into the folder ``uncertainty``, and what is known
            of how good it is; the latter also where the model can say how good predictions are likely to be.
    """

    mirroring: bool = True
    step: float = 0.5
    probabilities: bool = False
    overwrite: bool = False
    uncertainty: bool = False


class Failure(Record):
    """One case that could not be predicted, and why."""

    case: str
    reason: str


class Outcome(Record):
    """What became of each case.

    Args:
        done: predicted now.
        skipped: predicted before by the same model from the same files.
        failed: could not be predicted.
        warnings: what is unusual about the inputs, in words.
        doubtful: the cases in the order in which to look at them, where something is known of how good they are.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[Failure, ...]
    warnings: tuple[str, ...]
    doubtful: tuple[str, ...] = ()


def predict_cases(
    model: Predictor, cases: Mapping[str, tuple[Path, ...]], output: Path, options: PredictOptions | None = None
) -> Outcome:
    """Predicts every case into ``<output>/<case><ending of its image>``; the next case is read during the current one.

    What the model says of whole images is in ``<output>/image_targets.csv``, and how good the predictions are likely to
    be in ``<output>/quality.csv``, of cases that were done before, too.

    Args:
        model: what predicts.
        cases: case id to its image files, see `find_inputs`.
        output: folder, made where there is none.
        options: how to predict.

    Raises:
        SelfcfgError: the output folder cannot be made or written to.
        DataError: there is a table of that name, which was not made here.
    """
    job = _Job(model, output, options or PredictOptions(), told=len(cases) == 1)
    ends: dict[str, _End | Future[_End]] = {}
    writing: Future[_End] | None = None
    steps = nullcontext(_untold) if job.told else progress("predict", len(cases))
    with steps as step, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        for case, ready in _ahead(reader, job.read, cases):
            made = _attempt(case, job.predict, ready) if isinstance(ready, _Ready) else ready
            if writing is not None:
                writing.result()
            if isinstance(made, _Made):
                ends[case] = writing = writer.submit(_attempt, case, job.write, made)
            else:
                ends[case] = made
            step(case)
    finished = {case: end.result() if isinstance(end, Future) else end for case, end in ends.items()}
    job.write_table()
    doubtful = [row for row in job.write_quality() if row.case in cases]
    if len(doubtful) > 1:
        say(told(doubtful))
    return _outcome(finished, job.warnings, [row.case for row in doubtful])


_End = Literal["done", "skipped"] | Failure


@dataclass(frozen=True)
class _Ready:
    """A case that was read and preprocessed."""

    case: str
    source: str
    file: Path
    prepared: Ready
    image: npt.NDArray[np.float32] | None
    unusual: tuple[str, ...]


@dataclass(frozen=True)
class _Made:
    """A case that was predicted and not written yet."""

    ready: _Ready
    prediction: Prediction


class _Job:
    """The three steps of a case: read, predict, write. Each runs in one thread of its own, one case at a time."""

    def __init__(self, model: Predictor, output: Path, options: PredictOptions, *, told: bool) -> None:
        self.model, self.output, self.options, self.told = model, output, options, told
        self.maker = hash_json([model.identity, options.mirroring, options.step])
        self.warnings: list[str] = []
        self.replaces = False
        self.ledger = _open_ledger(output)
        self.uncertainty: Wanted | None = "all" if options.uncertainty else "entropy" if model.quality else None
        self.has_table = self._own_table(TABLE, holds_values(self.ledger), bool(model.tells))
        self.has_quality = self._own_table(QUALITY_TABLE, holds_features(self.ledger), self.uncertainty is not None)

    def read(self, case: str, files: tuple[Path, ...]) -> _Ready | Literal["skipped"]:
        """The preprocessed case, or that it is done already."""
        described = Case(id=case, images=files, label=None, subject=case)
        file = self.output / f"{case}{label_ending(files)}"
        source = hash_images(described)
        if not self.options.overwrite:
            entry = self.ledger.entry(case)
            if entry is not None and self._is_done(case, entry, file, source):
                return "skipped"
            if file.exists():
                self._refuse_foreign(case, entry, file)
        arrays = read_case(described)
        plan = self.model.plan
        refuse_unfit(case, len(arrays.image), arrays.geometry, plan)
        prepared = self.model.prepare(case, arrays.image, arrays.geometry)
        found = doubts(arrays.image, prepared.info, plan, self.model.facts)
        if found:
            self.warnings.append(f"case '{case}' is unlike the training cases: {'; '.join(found)}")
            say(f"warning: {self.warnings[-1]}")
        kept = arrays.image if self.uncertainty else None
        return _Ready(case, source, file, prepared, kept, tuple(found))

    def predict(self, ready: _Ready) -> _Made:
        """The prediction of a case."""
        options = self.options
        prediction = self.model.predict_prepared(
            ready.prepared,
            mirroring=options.mirroring,
            step=options.step,
            probabilities=options.probabilities,
            uncertainty=self.uncertainty,
            told=self.told,
        )
        return _Made(ready, prediction)

    def write(self, made: _Made) -> Literal["done"]:
        """Writes the label map, and the probabilities if asked for; the ledger knows of them before they are there."""
        ready, beside = made.ready, self._probabilities(made.ready.case)
        self.ledger.note(ready.case, LedgerEntry(maker=self.maker, input=ready.source))
        beside.unlink(missing_ok=True)
        for name in MAPS:
            map_file(ready.file, ready.case, name).unlink(missing_ok=True)
        write_label(ready.file, made.prediction.labels, made.prediction.geometry)
        size = 0
        if made.prediction.probabilities is not None:
            write_probabilities(beside, made.prediction.probabilities)
            size = beside.stat().st_size
        known = self._doubted(made)
        entry = LedgerEntry(
            maker=self.maker,
            input=ready.source,
            output=hash_file(ready.file),
            probabilities=size,
            image_targets=dict(made.prediction.image_level),
            **known,
        )
        self.ledger.note(ready.case, entry)
        return "done"

    def _doubted(self, made: _Made) -> dict[str, Any]:
        """What the ledger is to know of how sure a prediction is, whose maps it writes if they are wanted."""
        ready, prediction, plan = made.ready, made.prediction, self.model.plan
        if prediction.uncertainty is None or ready.image is None:
            return {}
        labels, info = prediction.labels, ready.prepared.info
        features = features_of(labels, prediction.uncertainty, prediction.geometry, plan, self.model.facts)
        features |= input_features(ready.image, labels, info.spacing, info.cropped_shape, plan)
        sizes = {}
        if self.options.uncertainty:
            sizes = prediction.uncertainty.write(ready.file, ready.case, prediction.geometry)
        return {"uncertainty": sizes, "features": features, "unusual": ready.unusual}

    def write_table(self) -> None:
        """Writes the table of what is known of whole images, where there is something, or was."""
        if self.model.tells or self.has_table:
            targets = self.model.plan.image_targets if self.model.tells else None
            write_image_table(self.output, self.ledger, targets)

    def write_quality(self) -> list[Row]:
        """Writes the table of how good predictions are likely to be, where something is known, or was."""
        if self.uncertainty is None and not self.has_quality:
            return []
        return write_quality_table(self.output, self.ledger, self.model.quality, self.maker)

    def _own_table(self, name: str, is_ours: bool, is_wanted: bool) -> bool:
        """Whether there is a table already; somebody else's is kept."""
        file = self.output / name
        if not file.exists() or is_ours:
            return file.exists()
        if is_wanted and not self.options.overwrite:
            remedy = "choose another output folder, or move that file away"
            raise DataError(f"predict into {self.output}", f"{file.name} exists and was not made here", remedy)
        return False

    def _is_done(self, case: str, entry: LedgerEntry, file: Path, source: str) -> bool:
        if self.options.probabilities:
            beside = self._probabilities(case)
            if not beside.is_file() or beside.stat().st_size != entry.probabilities:
                return False
        if self.uncertainty is not None and not entry.features:
            return False
        if self.options.uncertainty:
            maps = {name: map_file(file, case, name) for name in MAPS}
            if {name: one.stat().st_size for name, one in maps.items() if one.is_file()} != entry.uncertainty:
                return False
        return entry.describes(file, self.maker, source)

    def _refuse_foreign(self, case: str, entry: LedgerEntry | None, file: Path) -> None:
        """A file of somebody's, or one changed since, is kept; says once that files made otherwise are made again."""
        remedy = "choose another output folder, or move that file away"
        if entry is not None and entry.maker != self.maker and not self.replaces:
            self.replaces = True
            say("some cases were predicted by another model or with other options: they are predicted again")
        if entry is None:
            raise DataError(f"predict case '{case}'", f"{file} exists and was not predicted here", remedy)
        if entry.output and hash_file(file) != entry.output and _is_whole(file):
            raise DataError(f"predict case '{case}'", f"{file} was changed after it was predicted", remedy)

    def _probabilities(self, case: str) -> Path:
        return self.output / f"{case}.npz"


def _is_whole(file: Path) -> bool:
    try:
        read_label(file)
    except DataError:
        return False
    return True


def _open_ledger(output: Path) -> Ledger:
    """The ledger of an output folder, which is made where there is none.

    Raises:
        UsageError: the name is that of a file.
        SelfcfgError: the folder cannot be made or written to.
    """
    if not output.is_dir() and ending_in(output.name):
        raise UsageError(f"output {output}", "a file name", "give a folder; files are named after their cases")
    return Ledger.at(output)


def _ahead(
    executor: ThreadPoolExecutor,
    function: Callable[[str, tuple[Path, ...]], _Ready | Literal["skipped"]],
    cases: Mapping[str, tuple[Path, ...]],
) -> Iterator[tuple[str, _Ready | _End]]:
    """Yields each case with the result of `function`, which works on the next case meanwhile."""
    names = list(cases)
    coming = {name: executor.submit(_attempt, name, function, name, cases[name]) for name in names[:1]}
    for name, following in itertools.zip_longest(names, names[1:]):
        result = coming.pop(name).result()
        if following is not None:
            coming[following] = executor.submit(_attempt, following, function, following, cases[following])
        yield name, result


def _attempt(case: str, function: Callable[..., Result], *arguments: Any) -> Result | Failure:
    """The result of one step of a case, or the failure of that case."""
    try:
        return function(*arguments)
    except SelfcfgError as error:
        return Failure(case=case, reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever one case does, the others are still to be predicted
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return Failure(case=case, reason=f"unexpected {type(error).__name__}: {error} ({where}); please report it")


def _untold(note: str) -> None:
    """In the place of a progress over cases: a single case tells how far it is itself."""


def _outcome(ends: Mapping[str, _End], warnings: Sequence[str], doubtful: Sequence[str]) -> Outcome:
    return Outcome(
        done=tuple(case for case, end in ends.items() if end == "done"),
        skipped=tuple(case for case, end in ends.items() if end == "skipped"),
        failed=tuple(end for end in ends.values() if isinstance(end, Failure)),
        warnings=tuple(warnings),
        doubtful=tuple(doubtful),
    )
