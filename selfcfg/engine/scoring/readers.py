"""Several readers' labels of the same cases: how far they agree with one another, and the prediction with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Literal

from selfcfg.engine.scoring.metrics import METRICS, ON_REQUEST
from selfcfg.engine.scoring.pairs import Pair, score_pairs
from selfcfg.engine.scoring.scores import CaseScores, Scoring
from selfcfg.engine.scoring.subgroups import MEAN, spread
from selfcfg.engine.scoring.tables import aligned, number
from selfcfg.errors import DataError, UsageError, counted, listed
from selfcfg.image_files import image_files
from selfcfg.kernels.statistics import FEWEST
from selfcfg.labels import LabelSchema
from selfcfg.records import Record
from selfcfg.sheets import comma_separated

PREDICTION = "prediction"
SYMMETRIC = ("dice", "iou", "hd95", "nsd", "volume_error", "hd", "assd")
"""The metrics that are the same whichever of two readers is held to be true, besides what was asked for."""

SHOWN = ("dice", "nsd", "hd95", *ON_REQUEST)

Verdict = Literal["within", "closer", "farther", "too few"]

_SENTENCES: dict[Verdict, str] = {
    "within": "within the range of the readers: no difference is shown, which is not to say that there is none",
    "closer": "closer to the readers than they are to one another",
    "farther": "farther from the readers than they are from one another",
    "too few": f"nothing can be said with fewer than {FEWEST} cases",
}


class Agreement(Record):
    """How far two readers, or a reader and the prediction, agree.

    Args:
        first: a reader.
        second: another one, or "prediction".
        n_cases: that both have.
        mean: by class, and for the mean over classes of each case ("mean"), the mean over cases of each metric.
    """

    first: str
    second: str
    n_cases: int
    mean: dict[str, dict[str, float | None]]


class AgainstReaders(Record):
    """Whether the prediction agrees with the readers as they agree with one another, by one metric, mean over classes.

    Each case has the mean over its readers of the prediction's score with them, and the mean over pairs of its readers.

    Args:
        n_cases: with the prediction and two readers at least.
        prediction: mean score of the prediction with a reader.
        readers: mean score of two readers.
        lowest: of the pairs of readers.
        highest: of the pairs of readers.
        difference: mean over cases of the first less the second.
        low: lower end of its 95 % interval (bootstrap); None for fewer than 6 cases.
        high: its upper end.
        verdict: "within" where the interval holds 0, else on which side of it the prediction is.
    """

    n_cases: int
    prediction: float
    readers: float
    lowest: float
    highest: float
    difference: float
    low: float | None
    high: float | None
    verdict: Verdict

    def sentence(self, metric: str) -> str:
        """What it says, in words."""
        model, people, lowest, highest = (
            number(metric, value) for value in (self.prediction, self.readers, self.lowest, self.highest)
        )
        by_pair = f" ({lowest} to {highest} by pair)" if self.lowest < self.highest else ""
        interval = ""
        if self.low is not None and self.high is not None:
            interval = f"95 % interval {self.low:+.4f} to {self.high:+.4f}, "
        return (
            f"{METRICS[metric].title}: prediction and reader {model}, two readers {people}{by_pair}, "
            f"mean paired difference {self.difference:+.4f} ({interval}{counted(self.n_cases, 'case')}): "
            f"{_SENTENCES[self.verdict]}"
        )


class Readers(Record):
    """The agreement of several readers, and of the prediction with them.

    Args:
        names: the folder of the references first.
        agreements: of each pair that shares cases, the prediction with each reader first.
        comparisons: by metric.
    """

    names: tuple[str, ...]
    agreements: tuple[Agreement, ...]
    comparisons: dict[str, AgainstReaders]

    def text(self) -> str:
        """The agreements as a table, and a sentence a metric."""
        shown = [metric for metric in SHOWN if metric in self.agreements[0].mean[MEAN]]
        rows = [
            (f"{one.first} and {one.second}", *(number(metric, one.mean[MEAN][metric]) for metric in shown))
            for one in self.agreements
        ]
        counts = [str(one.n_cases) for one in self.agreements]
        heads = ("agreement of", *(METRICS[metric].title for metric in shown), "cases")
        lines = aligned(heads, [(*row, count) for row, count in zip(rows, counts, strict=True)])
        said = [self.comparisons[metric].sentence(metric) for metric in shown if metric in self.comparisons]
        return "\n".join([*lines, *said])

    def csv(self) -> str:
        """The agreements: one row a pair, class and metric."""
        heads = ("first", "second", "cases", "class", "metric", "mean")
        rows = (
            (one.first, one.second, one.n_cases, name, metric, value)
            for one in self.agreements
            for name, metrics in one.mean.items()
            for metric, value in metrics.items()
        )
        return comma_separated(heads, rows)


def agreement_of_readers(
    cases: Sequence[CaseScores],
    references: Path,
    readers: Sequence[Path],
    labels: LabelSchema,
    *,
    how: Scoring,
    jobs: int = 1,
) -> Readers:
    """How far readers agree with one another, and the prediction with each of them, on the cases they share.

    Voxels that one of two readers did not annotate are left out of their agreement.

    Args:
        cases: scores of the predictions against the first reader.
        references: folder of the first reader's labels.
        readers: folders of further readers' labels of the same cases; a case may be missing.
        labels: meaning of the values.
        how: cases are scored.
        jobs: worker processes at most.

    Raises:
        UsageError: there is no such folder, no image in it, or it is given twice.
        DataError: a reader has none of the cases, or files cannot be compared; every such case is named.
    """
    how = how.of_label_maps
    names = _names([references, *readers])
    files = {names[0]: {case.case: case.reference for case in cases}}
    predictions = {case.case: case.prediction for case in cases}
    for name, folder in zip(names[1:], readers, strict=True):
        there = image_files(folder)
        files[name] = {case: there[case] for case in predictions if case in there}
        if not files[name]:
            raise DataError(
                f"read reader {folder}",
                f"none of its {len(there)} cases ({listed(there)}) is among those scored ({listed(predictions)})",
                "name its files as the references",
            )
    scored = {(names[0], PREDICTION): {case.case: case for case in cases}}
    wanted = [((name, PREDICTION), files[name], predictions) for name in names[1:]]
    wanted += [((first, second), files[first], files[second]) for first, second in combinations(names, 2)]
    for pair, one, other in wanted:
        shared = [case for case in one if case in other]
        both = pair[1] != PREDICTION
        if shared:
            doing = f"{pair[0]} and {pair[1]}"
            pairs = [Pair(case, one[case], other[case], both) for case in shared]
            found = score_pairs(pairs, labels, how, jobs=jobs, doing=doing).cases
            scored[pair] = {case.case: case for case in sorted(found, key=lambda case: case.case)}
    metrics = (*SYMMETRIC, *(name for name in how.averaged if name in ON_REQUEST))
    agreements = tuple(_agreement(*pair, list(one.values()), metrics) for pair, one in scored.items())
    comparisons = {metric: told for metric in metrics if (told := compared(scored, metric)) is not None}
    return Readers(names=names, agreements=agreements, comparisons=comparisons)


def compared(scored: Mapping[tuple[str, str], Mapping[str, CaseScores]], metric: str) -> AgainstReaders | None:
    """The prediction against the readers by one metric; None where no case has the prediction and two readers.

    Args:
        scored: by two names, of which the second may be "prediction", the scores by case.
        metric: name.
    """
    values = {
        pair: {case: value for case, one in found.items() if (value := one.mean(metric)) is not None}
        for pair, found in scored.items()
    }
    model = {pair: found for pair, found in values.items() if pair[1] == PREDICTION}
    people = {pair: found for pair, found in values.items() if pair[1] != PREDICTION and found}
    per_case = {
        case: (
            fmean(found[case] for found in model.values() if case in found),
            fmean(found[case] for found in people.values() if case in found),
        )
        for case in dict.fromkeys(case for found in people.values() for case in found)
        if any(case in found for found in model.values())
    }
    if not per_case:
        return None
    found = spread({case: first - second for case, (first, second) in per_case.items()}, {})
    pairs = [fmean(one.values()) for one in people.values()]
    first, second = (fmean(both[side] for both in per_case.values()) for side in range(2))
    return AgainstReaders(
        n_cases=len(per_case),
        prediction=first,
        readers=second,
        lowest=min(pairs),
        highest=max(pairs),
        difference=first - second,
        low=found.low,
        high=found.high,
        verdict=_verdict(found.low, found.high, lower_is_better=not METRICS[metric].is_higher_better),
    )


def _verdict(low: float | None, high: float | None, *, lower_is_better: bool) -> Verdict:
    if low is None or high is None:
        return "too few"
    if low <= 0 <= high:
        return "within"
    return "closer" if (high < 0) == lower_is_better else "farther"


def _agreement(first: str, second: str, cases: Sequence[CaseScores], metrics: Sequence[str]) -> Agreement:
    mean: dict[str, dict[str, float | None]] = {}
    for name in (MEAN, *cases[0].scores):
        values = {
            metric: [case.mean(metric) if name == MEAN else case.scores[name].value(metric) for case in cases]
            for metric in metrics
        }
        known = {metric: [value for value in found if value is not None] for metric, found in values.items()}
        mean[name] = {metric: fmean(found) if found else None for metric, found in known.items()}
    return Agreement(first=first, second=second, n_cases=len(cases), mean=mean)


def _names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The folders' names; their paths as given where a name is not of one of them alone."""
    places = [folder.resolve() for folder in folders]
    if twice := [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise UsageError(
            "--readers", f"{twice[0]} is given twice", "give each reader's folder once, the references' not"
        )
    names = [place.name for place in places]
    return tuple(
        name if names.count(name) == 1 and name != PREDICTION else str(folder)
        for name, folder in zip(names, folders, strict=True)
    )
