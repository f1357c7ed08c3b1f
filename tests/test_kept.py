"""Which candidates are kept: by score, then by cost, then by order; and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfcfg.errors import SelfcfgError, TrainingDiverged
from selfcfg.recipes.expansion import Slot
from selfcfg.recipes.kept import Contender, Kept, best_of, kept_folders
from selfcfg.recipes.stages import Keep

ALL = Slot("s", "", {}, ("a", "b", "c"))


def contender(key: str, score: float | None, steps: int = 10, diverged: str | None = None) -> Contender:
    return Contender(key=key, values={}, steps=steps, scores={"0": score}, score=score, diverged=diverged)


def kept(*contenders: Contender, keep: Keep = Keep(), slots: tuple[Slot, ...] = (ALL,)) -> Kept:  # noqa: B008
    return best_of("s", keep, slots, contenders, (0,))


def why(choice: Kept) -> dict[str, str]:
    return {one.key: one.why for one in choice.candidates}


def test_the_best_score_wins() -> None:
    choice = kept(contender("a", 0.7), contender("b", 0.9), contender("c", 0.8))
    assert choice.kept == {"s:best": "b"}
    assert why(choice) == {"a": "0.2000 worse than b", "b": "the best", "c": "0.1000 worse than b"}


def test_of_a_distance_the_lowest_is_the_best() -> None:
    keep = Keep(best_by="hd95")
    assert kept(contender("a", 7), contender("b", 3), contender("c", 8), keep=keep).kept == {"s:best": "b"}


def test_a_tie_goes_to_the_cheaper() -> None:
    choice = kept(contender("a", 0.9, 20), contender("b", 0.90001, 30), contender("c", 0.9, 10))
    assert choice.kept == {"s:best": "c"}
    assert why(choice)["c"] == "tied for the best, and cheaper"
    assert why(choice)["b"] == "tied with c, which needs fewer steps (10)"


def test_a_tie_at_the_same_cost_goes_to_the_first() -> None:
    choice = kept(contender("a", 0.1), contender("b", 0.9), contender("c", 0.9))
    assert choice.kept == {"s:best": "b"}
    assert why(choice)["c"] == "tied with b, which comes first"


def test_each_place_has_its_best() -> None:
    slots = (Slot("s", "u", {"x": "u"}, ("a", "b")), Slot("s", "v", {"x": "v"}, ("c",)))
    choice = kept(contender("a", 0.2), contender("b", 0.1), contender("c", 0.0), slots=slots, keep=Keep(per="x"))
    assert choice.kept == {"s:u": "a", "s:v": "c"}
    assert why(choice) == {"a": "the best for x = u", "b": "0.1000 worse than a", "c": "the only one for x = v"}


def test_one_that_diverged_or_has_no_score_is_left_out() -> None:
    choice = kept(contender("a", None, diverged="p/fold_0"), contender("b", 0.1), contender("c", None))
    assert choice.kept == {"s:best": "b"}
    assert why(choice)["a"] == "p/fold_0 diverged" and "no score" in why(choice)["c"]


def test_a_place_without_any_score_is_an_error() -> None:
    gone = [contender(key, None, diverged=f"{key}/fold_0") for key in "abc"]
    with pytest.raises(TrainingDiverged, match="keep the best of stage 's': no candidate has a score"):
        kept(*gone)
    with pytest.raises(SelfcfgError, match="hold no foreground"):
        kept(*(contender(key, None) for key in "abc"))


def test_the_page_shows_every_candidate_and_the_file_reads_back(tmp_path: Path) -> None:
    choice = kept(contender("a", 0.7), contender("b", 0.9), contender("c", None))
    choice.write_whole(tmp_path / "s")
    page = (tmp_path / "s" / "candidates.md").read_text()
    assert "| b | 0.9000 | 10 | yes | the best |" in page and "| c | - | 10 | no |" in page
    assert Kept.read(tmp_path / "s" / "candidates.json") == choice
    assert kept_folders(tmp_path, "s") == [tmp_path / "b"]
    assert kept_folders(tmp_path, "other") == []
