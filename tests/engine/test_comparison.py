"""What a comparison says of systems, from scores made up to be clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from selfcfg.engine.comparison.alignment import MEAN, aligned
from selfcfg.engine.comparison.compare import Wanted, compare
from selfcfg.engine.comparison.records import Comparison, Pair
from selfcfg.engine.comparison.systems import System
from selfcfg.engine.comparison.values import ClassValues, Scored
from selfcfg.engine.scoring.extras import AVERAGED, Extras
from selfcfg.engine.scoring.metrics import ALWAYS, METRICS, metrics_of
from selfcfg.engine.scoring.scores import ClassScores
from selfcfg.errors import DataError, UsageError
from selfcfg.kernels.statistics import paired, subject_means

N = 24


def run(dice: Sequence[float] | Mapping[str, float], **more: Any) -> Scored:
    """Scores of one class: a Dice a case; further metrics as sequences."""
    named = dice if isinstance(dice, Mapping) else {f"c{number:02d}": value for number, value in enumerate(dice)}
    series = {name: more.pop(name) for name in METRICS if name in more}
    cases = {}
    for place, (case, value) in enumerate(named.items()):
        found = {"dice": float(value)} | {name: float(values[place]) for name, values in series.items()}
        cases[case] = {"organ": ClassValues(found, 100, 90)}
    return Scored(cases, more.pop("empty", "exclude"), more.pop("tolerance", 2.0), "mm", "ml")


def system(name: str, *runs: Scored) -> System:
    return System(name, "evaluation", runs)


def noise(seed: int, spread: float = 0.02, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, n)


def compared(*systems: System, **wanted: Any) -> Comparison:
    return compare(systems, Wanted(**wanted))[0]


def only(found: Comparison) -> Pair:
    (pair,) = [pair for pair in found.pairs if pair.family == "main"]
    return pair


def three(shifts: Sequence[float] = (0.0, 0.0, -0.1), spread: float = 0.02) -> list[System]:
    common = 0.8 + noise(9)
    return [
        system(name, run(common + shift + noise(seed, spread)))
        for seed, (name, shift) in enumerate(zip("abc", shifts, strict=True))
    ]


def test_only_cases_that_all_have_are_compared_and_each_systems_losses_are_told() -> None:
    one, other = run({"x": 0.9, "y": 0.8, "z": 0.7}), run({"z": 0.6, "y": 0.5})
    found = aligned([system("a", one), system("b", other)], {})
    assert found.cases == ("y", "z") and found.lost == {"a": 1, "b": 0}
    assert found.values["dice"][:, :, 0].tolist() == [[0.8, 0.7], [0.5, 0.6]]
    text = "\n".join(compared(system("a", one), system("b", other)).conclusions)
    assert "Compared are the 2 cases that all systems have; left out: 1 case of a." in text
    with pytest.raises(DataError, match=r"no case is common to all \(a: x, y, z; b: v\)"):
        aligned([system("a", one), system("b", run({"v": 1.0}))], {})


def classes(reference: int, prediction: int, dice: float | None, hd95: float | None = 1.0) -> ClassValues:
    return ClassValues({"dice": dice, "hd95": hd95}, reference, prediction)


def test_a_class_that_is_not_there_counts_only_where_somebody_invents_it() -> None:
    organ = classes(9, 9, 0.8)
    nothing, invented = classes(0, 0, None, None), classes(0, 5, 0.0, 30.0)
    tables = [[nothing, nothing], [nothing, invented]]
    systems = [
        system(
            name,
            Scored(
                {case: {"organ": organ, "lesion": lesion} for case, lesion in zip("xy", row, strict=True)}, "exclude"
            ),
        )
        for name, row in zip("ab", tables, strict=True)
    ]
    found = aligned(systems, {})
    dice, hd95 = (found.values[metric][:, :, 1] for metric in ("dice", "hd95"))
    assert np.isnan(dice[:, 0]).all() and dice[:, 1].tolist() == [1.0, 0.0] and hd95[:, 1].tolist() == [0.0, 30.0]
    assert found.nobody["dice"] == {"organ": 0, "lesion": 1}
    assert found.failed["lesion"] == {"a": 0, "b": 1}
    means, _ = found.of("dice", MEAN)
    assert means.tolist() == [[0.8, 0.9], [0.8, 0.4]]
    lesion, which = found.of("dice", "lesion")
    assert lesion.tolist() == [[1.0], [0.0]] and which.tolist() == [1]


def test_what_one_system_has_no_value_for_is_left_out_for_all_and_told() -> None:
    good, failed = classes(9, 9, 0.8, 1.0), classes(9, 0, 0.0, None)
    systems = [
        system("a", Scored({"x": {"organ": good}, "y": {"organ": good}}, "exclude")),
        system("b", Scored({"x": {"organ": failed}, "y": {"organ": good}}, "exclude")),
    ]
    found = aligned(systems, {})
    assert np.isnan(found.values["hd95"][:, :, 0]).tolist() == [[True, False], [True, False]]
    assert found.undefined["hd95"] == {"organ": {"a": 0, "b": 1}}
    text = "\n".join(compare(systems, Wanted())[0].conclusions)
    assert "HD95 is not defined for some classes of some cases (a 0, b 1)" in text and "looks better than it is" in text
    assert "missed or invented altogether: a 0, b 1" in text


def test_scores_of_different_settings_are_refused() -> None:
    fine, coarse = (run([0.8], nsd=[0.9], tolerance=tolerance) for tolerance in (1.0, 2.0))
    with pytest.raises(UsageError, match=r"different settings: NSD's tolerance \(1.0: a; 2.0: b\)"):
        aligned([system("a", fine), system("b", coarse)], {})
    assert aligned([system("a", fine), system("b", coarse)], {}, ("dice",)).cases
    with pytest.raises(UsageError, match=r"different settings: empty \(exclude: a; score: b\)"):
        aligned([system("a", run([0.8])), system("b", run([0.8], empty="score"))], {})


def test_scores_against_other_references_are_refused() -> None:
    other = Scored({"c00": {"organ": ClassValues({"dice": 0.8}, 101, 90)}}, "exclude")
    with pytest.raises(DataError, match="case 'c00' holds 100 voxels of organ for a, 101 for b"):
        aligned([system("a", run([0.8])), system("b", other)], {})


def test_classes_that_only_some_have_are_left_out_and_none_in_common_is_an_error() -> None:
    both = Scored({"c00": {"organ": classes(100, 9, 0.5), "lesion": classes(3, 3, 0.5)}}, "exclude")
    found = aligned([system("a", both), system("b", run([0.8]))], {})
    assert (found.classes, found.left_out) == (("organ",), ("lesion",))
    strange = Scored({"c00": {"1": classes(100, 9, 0.5)}}, "exclude")
    with pytest.raises(DataError, match=r"no class is common to all \(a: organ; b: 1\).*--dataset-json"):
        aligned([system("a", run([0.8])), system("b", strange)], {})


def test_a_metric_has_to_be_known_and_to_be_there() -> None:
    assert metrics_of(["hd95", "dice", "hd95"]) == ("hd95", "dice")
    with pytest.raises(UsageError, match="did you mean 'dice'"):
        metrics_of(["Dice"])
    with pytest.raises(UsageError, match="'hd95' was not computed for b; choose from dice"):
        compared(system("a", run([0.8], hd95=[1.0])), system("b", run([0.8])), metrics=("hd95",))
    assert compared(system("a", run([0.8], hd95=[1.0])), system("b", run([0.8]))).metrics == ("dice",)


def test_every_metric_that_is_compared_is_one_of_the_scores_of_a_class() -> None:
    made = {name for names in AVERAGED.values() for name in names}
    assert set(ALWAYS) <= set(ClassScores.model_fields)
    assert set(METRICS) - set(ALWAYS) <= made


def test_metrics_on_request_are_compared_where_they_were_computed_alike() -> None:
    def asked(value: float, match: str) -> Scored:
        scored = run([0.8, 0.9], lesion_f1=[value, value])
        return replace(scored, extras=Extras(metrics=("lesions",), match=match))

    same = compared(system("a", asked(1.0, "iou:0.5")), system("b", asked(0.5, "iou:0.5")), metrics=("lesion_f1",))
    assert same.metrics == ("lesion_f1",) and same.pairs[0].difference == pytest.approx(0.5)
    with pytest.raises(UsageError, match=r"metrics on request .*match overlap"):
        compared(system("a", asked(1.0, "iou:0.5")), system("b", asked(0.5, "overlap")), metrics=("lesion_f1",))


def test_repetitions_are_averaged_case_by_case() -> None:
    found = aligned([system("a", run([0.5, 0.9]), run([0.7, 0.9])), system("b", run([0.5, 0.5]))], {})
    assert found.values["dice"][:, :, 0] == pytest.approx(np.array([[0.6, 0.9], [0.5, 0.5]]))


def test_repetitions_that_overlap_are_told() -> None:
    base = 0.8 + noise(1)
    wide = system("a", *(run(base + shift + noise(seed, 0.005)) for seed, shift in enumerate((-0.02, 0.02, 0.06))))
    found = compared(wide, system("b", run(base), run(base + 0.01)))
    assert found.systems[0].repetitions == pytest.approx(
        [base.mean() + shift for shift in (-0.02, 0.02, 0.06)], abs=0.003
    )
    assert only(found).verdict == "better" and "Single repetitions overlap" in found.conclusions[0]
    assert "how much these vary: Dice of a 0.7" in found.conclusions[-1]
    apart = compared(system("a", run(base + 0.1), run(base + 0.11)), system("b", run(base), run(base + 0.01)))
    assert "overlap" not in "\n".join(apart.conclusions)


def test_the_subject_is_the_unit() -> None:
    one, other = 0.8 + noise(1), 0.78 + noise(2)
    subjects = {f"c{number:02d}": f"s{number // 3}" for number in range(N)}
    pair = only(compared(system("a", run(one)), system("b", run(other)), subjects=subjects))
    means = [*subject_means(one - other, [*subjects.values()]).values()]
    assert (pair.cases, pair.subjects) == (N, N // 3)
    assert pair.difference == pytest.approx(np.mean(means))
    expected = paired(means, np.random.default_rng(0))
    assert pair.sign_flip == expected.sign_flip and pair.wilcoxon == expected.wilcoxon
    assert pair.better + pair.equal + pair.worse == N


@pytest.mark.parametrize(("shift", "verdict"), [(0.05, "better"), (-0.05, "worse"), (0.0, "no difference shown")])
def test_verdicts(shift: float, verdict: str) -> None:
    base = 0.8 + noise(1)
    found = compared(system("a", run(base + shift + noise(2))), system("b", run(base + noise(3))))
    pair, text = only(found), found.conclusions[0]
    assert pair.verdict == verdict
    if shift:
        assert text.startswith(f"a is {verdict} than b: Dice {pair.difference:+.4f}, 95 % interval ")
        assert np.sign([pair.rank_biserial, pair.standardized]).tolist() == [np.sign(shift)] * 2
    else:
        assert text.startswith("No difference between a and b is shown") and "does not show that they are equal" in text


def test_a_lower_distance_is_better() -> None:
    far = 5 + noise(1, 0.5)
    near = far - 2 + noise(2, 0.5)
    dice = [0.8] * N
    found = compared(system("a", run(dice, hd95=near)), system("b", run(dice, hd95=far)), metrics=("hd95",), margin=0.5)
    pair = only(found)
    assert pair.difference < -1 and pair.verdict == "better" and pair.better > N / 2
    assert pair.rank_biserial is not None and pair.rank_biserial > 0.5
    assert pair.no_worse and pair.no_worse.is_shown and pair.no_worse.low == pytest.approx(-(pair.high or 0))
    assert pair.no_better and not pair.no_better.is_shown and pair.no_better.low == pytest.approx(pair.low)
    assert "HD95 -" in found.conclusions[0] and " mm" in found.conclusions[0]


@pytest.mark.parametrize(
    ("shift", "margin", "verdict", "words"),
    [
        (0.0, 0.03, "equivalent", "a and b are shown to differ by less than the margin of 0.03"),
        (0.004, 0.008, "no worse", "a is shown to be no worse than b by the margin of 0.008 or more"),
        (-0.004, 0.008, "no better", "b is shown to be no worse than a by the margin of 0.008 or more"),
        (0.0, 0.001, "no difference shown", "No difference between a and b is shown"),
        (-0.02, 0.04, "worse", "The difference is shown to be smaller than the margin of 0.04"),
    ],
)
def test_margins(shift: float, margin: float, verdict: str, words: str) -> None:
    base, wobble = 0.8 + noise(1), noise(2, 0.015)
    wobble -= wobble.mean()
    found = compared(system("a", run(base + shift + wobble)), system("b", run(base)), margin=margin)
    assert only(found).verdict == verdict
    assert words in found.conclusions[0]


def test_too_few_subjects_allow_no_conclusion() -> None:
    found = compared(system("a", run([0.9] * 5)), system("b", run([0.1] * 5)), margin=0.1)
    pair = only(found)
    assert pair.verdict == "too few" and pair.difference == pytest.approx(0.8)
    assert (pair.low, pair.sign_flip, pair.sign_flip_holm, pair.wilcoxon, pair.rank_biserial) == (None,) * 5
    assert pair.no_worse is None and found.rankings == ()
    assert found.conclusions[0].startswith("Nothing may be concluded") and "5 subjects" in found.conclusions[0]


def test_p_values_are_corrected_within_their_family() -> None:
    hd95 = [5 + noise(seed, 0.5) for seed in range(3)]
    systems = [system(one.name, run([*_dice(one)], hd95=far)) for one, far in zip(three(), hd95, strict=True)]
    found = compared(*systems)
    for family, count in (("main", 3), ("further", 3)):
        mine = [pair for pair in found.pairs if pair.family == family]
        assert len(mine) == count
        smallest = min(mine, key=lambda pair: pair.sign_flip or 1)
        assert smallest.sign_flip and smallest.sign_flip_holm == min(1, 3 * smallest.sign_flip)


def _dice(one: System) -> list[float]:
    return [scores["organ"].values["dice"] or 0.0 for scores in one.runs[0].cases.values()]


def test_with_a_baseline_only_it_is_compared_with() -> None:
    found = compared(*three(), baseline="b")
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b"), ("c", "b")]
    assert found.rankings[0].standings[0].beats is None
    with pytest.raises(UsageError, match="there is no 'd'; known: a, b, c"):
        compared(*three(), baseline="d")


def test_a_ranking_says_how_sure_it_is_and_who_cannot_be_told_apart() -> None:
    found = compared(*three())
    by_means = found.rankings[0]
    assert [standing.system for standing in by_means.standings][-1] == "c"
    assert {standing.system: standing.beats for standing in by_means.standings} == {"a": 1, "b": 1, "c": 0}
    assert sum(standing.first for standing in by_means.standings) == pytest.approx(1)
    text = "\n".join(found.conclusions)
    assert "By Dice these cannot be told apart: a and b." in text
    clear = "\n".join(compared(*three((0.1, 0.0, -0.1))).conclusions)
    assert "By the rank of means (Dice), a is first, and is so in more than 99 % of resamplings" in clear


def test_two_ways_of_ranking_that_disagree_name_no_winner() -> None:
    often = np.full(N, 0.91)
    often[:4] = 0.1
    systems = [system("often", run(often)), system("always", run(np.full(N, 0.9))), system("bad", run(np.full(N, 0.2)))]
    assert "do not name a winner" in "\n".join(compared(*systems).conclusions)


def test_metrics_that_contradict_each_other_are_told() -> None:
    dice, far = 0.8 + noise(1), 5 + noise(2, 0.5)
    one = system("a", run(dice + 0.05 + noise(3), hd95=far + 3 + noise(4, 0.5)))
    text = "\n".join(compared(one, system("b", run(dice, hd95=far))).conclusions)
    assert "Dice and HD95 contradict each other" in text and "a worse than b in HD95 (+" in text


def test_a_single_system_has_scores_and_nothing_to_be_compared_with() -> None:
    found = compared(system("a", run(0.8 + noise(1))))
    assert found.pairs == () and found.rankings == () and len(found.scores) == 1
    assert found.conclusions[0].startswith("a: Dice 0.") and "95 % interval" in found.conclusions[0]
    assert "nothing to compare it with" in found.conclusions[1]


def test_the_same_seed_gives_the_same_page_and_it_survives_the_disk() -> None:
    first, again, other = (compared(*three(), margin=0.02, seed=seed) for seed in (1, 1, 2))
    assert first == again and first != other
    assert Comparison.model_validate_json(first.model_dump_json()) == first


def test_equal_systems_are_seldom_called_different() -> None:
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(30):
        systems = [system(name, run(0.8 + rng.normal(0, 0.02, 10))) for name in "abc"]
        wrong += any(pair.verdict in ("better", "worse") for pair in compared(*systems).pairs)
    assert wrong <= 5
