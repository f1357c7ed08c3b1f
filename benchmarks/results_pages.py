"""Writes the pages of docs/results from the committed results of the studies; a study without results has no page.

    python benchmarks/results_pages.py

Tables, plots, intervals and judgements are made anew from ``benchmarks/results`` each time, and the reports there, too.
What people have to say is in ``notes.md`` in the folder of a study's results, and is taken into the page as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import comparing
import fuzzing_page
import label_efficiency_study as efficiency
import reference_study as guided
import two_stage_page
from label_page import Claim, Design, gradients, picture_of, section, subjects_of
from studying import MADE_ON, RESULTS
from verdicts import RULE, makers

from selfcfg.engine.comparison.records import FILE as COMPARISON
from selfcfg.engine.comparison.records import Comparison
from selfcfg.engine.label_efficiency.results import PROTOCOL, Protocol, read_results
from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.files import read_json, write_text
from selfcfg.report.comparison import pairs_table, scores_table
from selfcfg.report.label_efficiency import PLOT, write_label_report

DOCS = Path(__file__).resolve().parents[1] / "docs"
INDEX = re.compile(r"(```\{toctree\}\n:caption: Results\n:maxdepth: 1\n\n).*?(```)", re.DOTALL)

MADE = "This page is made by `python benchmarks/results_pages.py` from the results that are committed; do not edit it."

GAIN = [Claim(arm, "scratch", "Pretraining is better than none") for arm in efficiency.ARMS if arm != "scratch"]
DETAIL = [
    Claim("several", "hierarchical", "Images of several domains are better than the target's own"),
    Claim("hierarchical", "contrastive", "Contrast with reconstruction is better than momentum contrast"),
    Claim("sequential", "contrastive", "The order of slices adds to contrast"),
]
MATCHING = ("fish", "cosine", "pcgrad")
GUIDED = [
    Claim("ssl", "scratch", "Pretraining without labels is better than none"),
    Claim("sum", "scratch", "Pretraining with both tasks is better than none"),
    Claim("sum", "ssl", "The reference makes pretraining better"),
    Claim("sum", "reference", "It is not the reference alone"),
    Claim("sum", "ssl_reference", "Both at once is better than one after the other"),
    *(Claim(way, "sum", "Matching the gradients is better than adding them") for way in MATCHING),
]


def pages(results: Path = RESULTS) -> dict[str, str]:
    """The text of each page by its name, of those studies that have results."""
    by_name = {
        "label-efficiency": label_efficiency,
        "two-stage": two_stage,
        "reference-guided": reference_guided,
        "comparisons": comparisons,
        "fuzzing": fuzzing,
    }
    made = {name: list(make(results)) for name, make in by_name.items()}
    return {name: "\n\n".join(blocks) + "\n" for name, blocks in made.items() if blocks}


def label_efficiency(results: Path) -> Iterator[str]:
    """What pretraining without labels is worth."""
    folders = _folders(results / efficiency.NAME)
    if not folders:
        return
    yield from _opening(
        "Results: pretraining without labels",
        "Training from scratch and after pretraining on the same few labels, with equal steps and on the same test "
        "cases, as `selfcfg benchmark label-efficiency` compares them ([how](../how-to/label-efficiency.md)): 2D "
        "networks of 0.5 million parameters. `several` is `hierarchical` on images of five datasets, all other arms "
        "have the target's own images alone.",
        "label_efficiency_study.py",
    )
    yield from _notes(results / efficiency.NAME)
    for folder in folders:
        is_ablation = folder.name.endswith("_ablations")
        arms = efficiency.arms_of("", ablate=is_ablation)
        parts = [Claim(kind.arm, arm, _told(kind)) for arm, kind in arms.items() if arm != kind.arm]
        claims = parts if is_ablation else [*GAIN, *DETAIL]
        extent = efficiency.WHOLE._replace(fractions="0.05", seeds=1) if is_ablation else efficiency.WHOLE
        if folder.name.endswith(efficiency.LONG):
            arms = {arm: arms[arm] for arm in efficiency.LONG_ARMS.split(",")}
            extent, claims = efficiency.LONGER, [one for one in claims if one.arm in arms]
        yield from section(folder, Design([*arms], extent.fractions.split(","), extent.seeds, claims))


def _told(kind: efficiency.Kind) -> str:
    return f"The term {kind.without} helps" if kind.without else "The pretrained decoder helps"


def reference_guided(results: Path) -> Iterator[str]:
    """What a reference and matching add."""
    folders = _folders(results / guided.NAME)
    if not folders:
        return
    yield from _opening(
        "Results: pretraining guided by a reference",
        "Unlabelled head-and-neck CT, a labelled reference of the same kind, and targets with few labels "
        "([the trainer](../strategies/reference_guided.md)). `ssl` learns without labels, `reference` from the "
        "reference, `ssl_reference` from one after the other, `sum`, `fish`, `cosine` and `pcgrad` from both at once. "
        "A way of matching is a reason for a default only where its Dice is above that of `sum`.",
        "reference_study.py",
    )
    yield from _notes(results / guided.NAME)
    for folder in folders:
        fractions = guided.FRACTIONS[folder.name].split(",")
        yield from section(folder, Design([*guided.ARMS], fractions, guided.SEEDS, GUIDED))
        yield from gradients(folder / guided.GRADIENTS)


def two_stage(results: Path) -> Iterator[str]:
    """What auxiliary tasks and distillation are worth."""
    file = results / "two_stage.jsonl"
    if not file.is_file():
        return
    yield from _opening(
        "Results: two stages of auxiliary tasks and distillation",
        "Chest radiographs (Montgomery), 10 of the 98 for training labelled, 20 for the controls with twice the "
        "labels; 20 images to choose by and 20 to test on, which nothing is chosen by "
        "([the study it is a small form of](../studies/two-stage.md)). `plain` is the mean of five networks that "
        "differ in their seed.",
        "two_stage_study.py",
    )
    yield from _notes(results / "two_stage")
    yield from two_stage_page.page([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])


def comparisons(results: Path) -> Iterator[str]:
    """What the command that compares concludes of real systems."""
    folders = sorted(file.parent for file in (results / comparing.NAME).glob(f"*/{COMPARISON}"))
    if not folders:
        return
    yield "# Results: what is concluded of two systems"
    yield (
        "`selfcfg compare` ([how](../how-to/compare.md)) on real systems, its sentences as they are. "
        "The mean over classes is what it concludes on; seeds are averaged first."
    )
    yield f"{MADE} The results are made by"
    yield "```text\npython benchmarks/comparing.py --data DIR --work DIR --peer PYTHON\n```"
    yield from _notes(results / comparing.NAME)
    for folder in folders:
        found = Comparison.read(folder / COMPARISON)
        yield f"## {comparing.TITLES[folder.name]}"
        yield "\n".join(f"- {sentence}" for sentence in found.conclusions)
        for metric in found.metrics:
            yield f"### {METRICS[metric].title}"
            yield scores_table(found, metric)
            yield pairs_table(found, metric)
        yield makers(read_json(folder / MADE_ON))


def fuzzing(results: Path) -> Iterator[str]:
    """What readers of files were put to."""
    file = results / fuzzing_page.FILE
    if not file.is_file():
        return
    yield "# Results: files that readers do not stand"
    yield (
        "A search guided by the branches that a file reaches, in everything that reads files of others: anything but a "
        "result or one of our errors is a finding, as are 10 seconds of computing for one file and 2.5 GB of memory."
    )
    yield f"{MADE} The results are made by"
    command = f"python -m tests.fuzz.coverage_guided --out benchmarks/results/{fuzzing_page.FILE}"
    yield f"```text\npip install atheris\n{command}\n```"
    yield from fuzzing_page.page([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])


def _folders(folder: Path) -> list[Path]:
    """The benchmarks in a folder that have finished a job."""
    return sorted(file.parent for file in folder.glob("*/results.jsonl"))


def _opening(title: str, what: str, script: str) -> list[str]:
    command = f"```text\npython benchmarks/{script} --data DIR --work DIR\n```"
    return [f"# {title}", what, f"{MADE} The results are made by", command, RULE]


def _notes(folder: Path) -> list[str]:
    """What people say of a study."""
    file = folder / "notes.md"
    return ["## Notes", file.read_text(encoding="utf-8").strip()] if file.is_file() else []


def indexed(index: str, names: list[str]) -> str:
    """The documentation's index with these pages of results, and no others."""
    return INDEX.sub(lambda found: found[1] + "".join(f"results/{name}\n" for name in names) + found[2], index)


def main() -> None:
    """All pages, and their entries in the index."""
    made, index = pages(), DOCS / "index.md"
    for folder in (*_folders(RESULTS / efficiency.NAME), *_folders(RESULTS / guided.NAME)):
        write_label_report(folder, Protocol.read(folder / PROTOCOL), read_results(folder), subjects_of(folder))
        (DOCS / "results").mkdir(exist_ok=True)
        shutil.copyfile(folder / PLOT, DOCS / "results" / picture_of(folder))
    for name, text in made.items():
        write_text(DOCS / "results" / f"{name}.md", text)
    write_text(index, indexed(index.read_text(encoding="utf-8"), [*made]))
    print("written:", ", ".join(made) or "nothing, there are no results")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
