"""The page as one file: whole, escaped, without paths, and allowed to load nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.comparison.records import Comparison
from selfcfg.engine.scoring.evaluate import Evaluation
from selfcfg.errors import DataError, UsageError
from selfcfg.report.names import HIDDEN, PLAIN, Naming
from selfcfg.report.page.experiment import experiment_of, facts_of_experiment
from selfcfg.report.page.facts import Facts
from selfcfg.report.page.outline import sections_of
from selfcfg.report.page.render import TEMPLATES, page
from selfcfg.report.report import Asked, report_experiment, write_report
from selfcfg.runs import RunRecord
from tests.report.conftest import Road
from tests.report.pages import Page, facts, system

HOSTILE = "<script>alert(1)</script>\"'&../../x]]>--><img src=x onerror=alert(1)>"


def facts_of(road: Road) -> Facts:
    experiment = experiment_of(road.folder, road.evaluation, road.dataset, road.plan)
    return facts_of_experiment(road.folder, road.evaluation, experiment, PLAIN)


def written(road: Road) -> str:
    """The page without what else a report has."""
    made = facts_of(road)
    return page(made, sections_of(made))


def test_the_page_of_an_experiment_holds_every_section_and_no_path(road: Road) -> None:
    text = written(road)
    found = Page(text)
    titles = {attributes["id"] for attributes in found.all("section")}
    expected = {"summary", "scores", "cases", "failures", "training", "data", "plan", "methods", "card", "checklist"}
    assert titles == expected
    assert str(road.folder) not in text and "/tmp" not in text and str(Path.home()) not in text
    assert "It fits | whole. More words. To change it: --memory" in found.text
    assert "8 cases of 8 subjects" in found.text and "no subject had cases on both sides" in found.text
    assert "trained 12 epochs" not in found.text, "the number of steps is not in the record, so nothing is said"


def test_headings_links_and_tables_are_as_a_screen_reader_needs_them(road: Road) -> None:
    found = Page(written(road))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [attributes.get("lang") for attributes in found.all("html")] == ["en"]
    assert {tag for tag, _ in found.elements} >= {"header", "nav", "main", "footer", "title"}
    links = [attributes["href"] for attributes in found.all("a")]
    assert links and all(link and link.startswith("#") and link[1:] in ids for link in links)
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(found.all("caption")) == len(found.all("table")) > 5
    drawn = [one for one in found.all("svg") if one.get("aria-hidden") != "true"]
    assert drawn and all(one.get("role") and one.get("aria-label") for one in drawn)


def test_the_policy_allows_the_style_and_the_program_of_the_page_and_nothing_else() -> None:
    text = page(made := facts(), sections_of(made))
    (policy,) = [one["content"] or "" for one in Page(text).all("meta") if one.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:; ") and "unsafe" not in policy
    for kind, pattern in (("style-src", r"<style>(.*?)</style>"), ("script-src", r"<script>(.*?)</script>")):
        (inside,) = re.findall(pattern, text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]+\s(style|on\w+)=", text), "the policy forbids these"


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = page(made := facts(), sections_of(made))
    for _, attributes in Page(text).elements:
        for name in ("src", "href", "action", "data", "poster", "xlink:href"):
            if value := attributes.get(name):
                assert value.startswith(("#", "data:image/jpeg;base64,", "data:,"))
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    assert "url(" not in style and "@import" not in style


def _named(name: str) -> str:
    """A page in which everything has this name."""
    classes = (name, "spleen")
    systems = [system(name, 0, 0, classes, prefix=name), system("other", 0.1, 1, classes, prefix=name)]
    made = facts(systems, title=name, classes=classes)
    return page(made, sections_of(made))


def test_hostile_names_are_text_and_nothing_else() -> None:
    hostile, harmless = (_named(name) for name in (HOSTILE, "x" * len(HOSTILE)))
    found = Page(hostile)
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in Page(harmless).elements]
    assert "<script>alert" not in hostile and "<img" not in hostile
    assert found.text.count("alert(1)") > 20, "it is shown as it is"
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', hostile, re.DOTALL):
        assert json.loads(block)["frames"]


def test_hostile_classes_of_a_dataset_reach_the_page_of_an_experiment_as_text(road: Road) -> None:
    first = road.evaluation.cases[0].model_copy(update={"case": HOSTILE})
    road.evaluation = road.evaluation.model_copy(update={"cases": (first, *road.evaluation.cases[1:])})
    text = written(road)
    assert "<script>alert" not in text and "<img" not in text and "alert(1)" in Page(text).text


def test_the_scores_stand_there_with_their_intervals(road: Road) -> None:
    made = facts_of(road)
    text = Page(page(made, sections_of(made))).text
    assert made.found is not None
    for score in made.found.scores:
        if score.metric in ("dice", "nsd") and score.target != "mean":
            assert score.low is not None and score.high is not None and score.low <= score.mean <= score.high
            assert f"{score.mean:.3f} ({score.low:.3f} to {score.high:.3f})" in text
    assert len([score for score in made.found.scores if score.metric == "dice"]) == 3


def test_failed_and_doubtful_cases_are_named(road: Road) -> None:
    cases = list(road.evaluation.cases)
    missed = cases[0].scores["organ"].model_copy(update={"tp": 0, "fp": 0, "fn": 7, "dice": 0.0})
    large = cases[1].scores["organ"].model_copy(update={"tp": 7, "volume_ref": 1.0, "volume_pred": 2.5, "dice": 0.5})
    cases[0] = cases[0].model_copy(update={"scores": {**cases[0].scores, "organ": missed}})
    cases[1] = cases[1].model_copy(update={"scores": {**cases[1].scores, "organ": large}})
    road.evaluation = road.evaluation.model_copy(update={"cases": tuple(cases)})
    text = Page(written(road)).text
    assert f"{cases[0].case}: organ was missed altogether (7 voxels)" in text
    assert f"{cases[1].case}: organ: the prediction has 2.5 times the volume of the reference" in text
    assert f"missed or invented: {cases[0].case}" in text or f"worst: {cases[0].case}" in text


def test_other_experiments_of_the_dataset_stand_beside_it(road: Road) -> None:
    other = road.folder.with_name("supervised__standard__3d_fullres__other")
    shutil.copytree(road.folder, other)
    text = Page(written(road)).text
    assert "Beside other experiments" in text and "supervised__standard__3d_fullres__other" in text
    assert "8 cases that all 2 experiments validated" in text


def test_groups_of_cases_and_readers_are_there_where_they_are_asked_for(road: Road, tmp_path: Path) -> None:
    rows = [f"{case.id},{'north' if place % 2 else '<south>'}" for place, case in enumerate(road.dataset.cases)]
    (tmp_path / "sites.csv").write_text("\n".join(["case,site", *rows]))
    readers = tmp_path / "second"
    shutil.copytree(road.dataset.root / "labelsTr", readers)
    asked = Asked(attributes=tmp_path / "sites.csv", readers=(readers,))
    text = Page(report_experiment(road.folder, road.workspace, asked).page.read_text(encoding="utf-8")).text
    assert "Is it as good everywhere?" in text and "<south>" in text
    assert "Is it as good as readers?" in text and "labelsTr and second" in text
    summary = Evaluation.read(road.folder / "cross_validation" / "summary.json")
    assert summary.subgroups is None, "the scores of the experiment are left as they were"


def test_the_checklist_counts_what_the_page_answers(road: Road) -> None:
    text = Page(written(road)).text
    assert text.count("here: ") == int(re.findall(r"(\d+) of \d+ topics are answered here", text)[0])


def test_hidden_names_leave_no_id_in_any_file(road: Road, tmp_path: Path) -> None:
    file = tmp_path / "kept" / "names.json"
    asked = Asked(naming=Naming(anonymise=True, key_file=file))
    made = report_experiment(road.folder, road.workspace, asked)
    assert made.page.parent == road.folder / HIDDEN
    ids = {case.id for case in road.dataset.cases}
    files = [one for one in (road.folder / HIDDEN).rglob("*") if one.is_file()]
    assert {one.suffix for one in files} == {".html", ".md", ".csv", ".png"}
    for one in files:
        content = one.read_bytes()
        assert not any(identifier.encode() in content or identifier in one.name for identifier in ids), one.name
        assert str(tmp_path).encode() not in content
    names = json.loads(file.read_text())["names"]
    assert ids <= set(names.values()) and file.stat().st_mode & 0o077 == 0
    first = made.page.read_text(encoding="utf-8")
    assert all(shown in first for shown, identifier in names.items() if identifier in ids)
    assert report_experiment(road.folder, road.workspace, asked).page.read_text(encoding="utf-8") == first


def test_the_order_of_hidden_cases_tells_no_id(road: Road) -> None:
    made = report_experiment(road.folder, road.workspace, Asked(naming=Naming(anonymise=True)))
    rows = [line.split(",")[0] for line in (made.page.parent / "cases.csv").read_text().splitlines()[1:]]
    assert rows == sorted(rows) and len(set(rows)) == 8
    marks = list(dict.fromkeys(re.findall(r"<title>(case-[0-9a-f]+)", made.page.read_text(encoding="utf-8"))))
    assert marks == sorted(marks) and len(marks) == 8


def test_folds_that_are_not_finished_are_not_told_as_trained(road: Road) -> None:
    run = road.folder / "fold_1" / "run.json"
    RunRecord.read(run).model_copy(update={"status": "running"}).write(run)
    settings = {"epochs": 12, "iterations_per_epoch": 5}
    run = road.folder / "fold_0" / "run.json"
    RunRecord.read(run).model_copy(update={"settings": settings}).write(run)
    text = Page(written(road)).text
    assert "1 fold (0) of a cross-validation was trained" in text
    assert "trained up to 12 epochs (ended after 3) of 5 steps" in text
    assert "1 fold alone is scored: a part of the dataset" in text


def test_without_a_key_every_report_has_names_of_its_own(road: Road) -> None:
    asked = Asked(naming=Naming(anonymise=True))
    names = []
    for _ in range(2):
        report_experiment(road.folder, road.workspace, asked)
        names.append({file.name for file in (road.folder / HIDDEN / "pictures").iterdir()})
    assert len(names[0]) == len(names[1]) and names[0].isdisjoint(names[1])


def test_the_table_of_names_is_not_put_beside_the_report(road: Road, tmp_path: Path) -> None:
    inside = Asked(naming=Naming(anonymise=True, key_file=road.folder / HIDDEN / "names.json"))
    with pytest.raises(UsageError, match="which is given away"):
        report_experiment(road.folder, road.workspace, inside)
    (tmp_path / "other.json").write_text('{"key": "00"}')
    with pytest.raises(DataError, match="no table of names"):
        report_experiment(road.folder, road.workspace, Asked(naming=Naming(True, tmp_path / "other.json")))


def test_tables_and_plots_of_many_cases_classes_and_systems_leave_room_for_pictures() -> None:
    classes = [f"structure number {number}" for number in range(24)]
    systems = [system(f"system {number}", number / 50, number, classes, n=50) for number in range(3)]
    text = page(made := facts(systems), sections_of(made))
    assert len(text) - sum(viewer.slices.size for viewer in made.viewers if viewer.slices) < 5_000_000
    found = Page(text)
    marks = [one for one in found.all("circle") if one.get("class") == "mark"]
    assert len(marks) >= 50 * 3 and "better ones are in the CSV file" in found.text


def test_a_model_that_never_scored_has_a_page_that_says_so(road: Road) -> None:
    nothing = {"dice": None, "iou": None, "hd95": None, "nsd": None, "hd": None, "assd": None}
    nothing |= {"volume_error": None, "volume_error_relative": None}
    cases = tuple(
        case.model_copy(update={"scores": {name: one.model_copy(update=nothing) for name, one in case.scores.items()}})
        for case in road.evaluation.cases
    )
    road.evaluation = road.evaluation.model_copy(update={"cases": cases})
    assert "No case has a score" in Page(written(road)).text


def test_a_fold_whose_log_is_gone_has_no_curves(road: Road) -> None:
    assert "Training loss" in Page(written(road)).text
    for run in road.folder.glob("fold_*"):
        (run / "log.jsonl").unlink()
    assert "There is no log of the training." in Page(written(road)).text


def test_paths_in_settings_are_left_out(road: Road) -> None:
    for file in road.folder.glob("fold_*/run.json"):
        RunRecord.read(file).model_copy(update={"settings": {"somewhere": "/data/John Doe/x", "epochs": 3}}).write(file)
    made = write_report(road.folder, road.evaluation, road.dataset, road.plan)
    for text in (made.page.read_text(encoding="utf-8"), made.markdown.read_text(encoding="utf-8")):
        assert "John" not in text and "(a path)" in text


def test_the_colours_can_be_told_from_their_ground_in_both_themes() -> None:
    """WCAG 2.2 AA: 4.5 to 1 for text, 3 to 1 for what is drawn."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    palettes = re.findall(r"(?::root|:root\[data-theme=\"dark\"\]) \{\s*(--page.*?)\}", style, re.DOTALL)
    assert len(palettes) == 2
    for palette in palettes:
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", palette))
        for ground in ("page", "card"):
            assert all(contrast(colors[one], colors[ground]) >= 4.5 for one in ("text", "muted", "link"))
        assert contrast(colors["notice-text"], colors["notice"]) >= 4.5
        assert all(contrast(colors[f"color-{number}"], colors["card"]) >= 3 for number in range(4))
    assert style.count("--color-3: #e39ccb") == 2, "the dark colours are the same by preference and by the switch"


def contrast(one: str, other: str) -> float:
    """Source: WCAG 2.2, relative luminance and contrast ratio."""

    def luminance(color: str) -> float:
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_comparison_without_files_has_a_page_without_cases(tmp_path: Path) -> None:
    from selfcfg.engine.comparison.compare import Wanted, compare
    from selfcfg.report.comparison import write_comparison

    made = write_comparison(tmp_path, *compare([system("new", 0.1, 0), system("old", 0, 1)], Wanted()))
    text = Page(made.page.read_text(encoding="utf-8")).text
    found = Comparison.read(tmp_path / "comparison.json")
    assert all(sentence in text for sentence in found.conclusions)
    assert "Differences" in text and "Cases to look at" not in text
