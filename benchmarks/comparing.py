"""What `selfcfg compare` concludes on real data: of two strategies with few labels, and of nnU-Net's own output.

    python benchmarks/comparing.py --data DIR --work DIR [--peer PYTHON] [--only strategies,foreign]

`strategies` takes the scores that `selfcfg benchmark label-efficiency` leaves, as `label_efficiency_study.py` asks for
it: training from scratch and after pretraining on several domains, 8 labelled subjects of the hippocampus, three seeds.
`foreign` trains on 160 subjects here and with nnunetv2 2.8.1, whose environment PYTHON is the interpreter of, on the
same plan, batch and number of steps, and compares the 40 others: from nnU-Net's label maps, and from its summary.json.
The comparison itself is kept in ``benchmarks/results/comparing``; what is there is not done again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import hippocampus
import label_efficiency_study as efficiency
from recording import made_on
from studying import DOMAINS, MADE_ON, RESULTS, converted, ours, planned

from selfcfg.engine.comparison.records import FILE
from selfcfg.files import write_json

NAME = "comparing"
"""Of the folder of its results."""

ARMS = ("scratch", "several")
EXTENT = efficiency.WHOLE._replace(fractions="0.05")
STEPS = hippocampus.EPOCHS * hippocampus.ITERATIONS
MARGIN = 0.01
METRICS = "dice,nsd,hd95"


def strategies(options: argparse.Namespace) -> Iterator[tuple[str, list[object]]]:
    """Two arms of label efficiency after each budget."""
    name, out = "hippocampus", options.work / "studies" / NAME
    for domain in efficiency.POOLED:
        converted(domain, options.data, options.work)
    target = efficiency.TARGETS[name]
    planned(name, options.work, target.patch_size, target.batch_size, target.spacing)
    arms = efficiency.arms_of(",".join(ARMS), ablate=False)
    words = efficiency.words_of(name, arms, EXTENT, options.work, options.jobs)
    ours("benchmark", "label-efficiency", DOMAINS[name].number, *words, "--out", out)
    for budget in ("short", "converged"):
        pairs = [f"{arm}={out}/scores/{arm}-{EXTENT.fractions}-{budget}-*" for arm in ARMS]
        yield f"strategies_{budget}", [*pairs, "--baseline", ARMS[0], "--workspace", options.work]


def foreign(options: argparse.Namespace) -> Iterator[tuple[str, list[object]]]:
    """A training here and one with nnU-Net, from its label maps and from its scores."""
    work = options.work / "foreign"
    raw = hippocampus.prepare(options.data / "hippocampus", work)
    hippocampus.train_ours(raw, work, 0, hippocampus.EPOCHS, NAME)
    peer = hippocampus.Peer(options.peer, work, raw)
    if not (peer.fold(NAME) / "validation" / "summary.json").is_file():
        peer.train(hippocampus.EPOCHS, NAME)
    here = f"selfcfg={work}/results/{raw.name}/supervised__standard__3d_fullres__{NAME}"
    there, described = f"nnunetv2={peer.fold(NAME) / 'validation'}", ["--dataset-json", raw / "dataset.json"]
    asked = [here, there, *described, "--margin", MARGIN, "--workspace", work]
    yield "foreign_label_maps", [*asked, "--references", raw / "labelsTr", "--metric", METRICS]
    yield "foreign_scores", [*asked, "--metric", "dice"]


TITLES = {
    "strategies_short": "From scratch and after pretraining on several domains, 8 labelled subjects, 100 steps",
    "strategies_converged": "From scratch and after pretraining on several domains, 8 labelled subjects, 600 steps",
    "foreign_label_maps": f"nnU-Net's label maps, {STEPS} steps each, scored here",
    "foreign_scores": "The same trainings, nnU-Net as it scored itself",
}
"""Of each comparison, for people."""

PARTS = {"strategies": strategies, "foreign": foreign}


def main() -> None:
    """Every part, and of each comparison what is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", type=Path, help="needed for foreign")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.work = options.work.absolute()
    for part in options.only.split(","):
        if list((RESULTS / NAME).glob(f"{part}_*/{MADE_ON}")):
            continue
        for name, words in PARTS[part](options):
            out, target = options.work / "comparisons" / name, RESULTS / NAME / name
            ours("compare", *words, "--out", out)
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(out / FILE, target / FILE)
            write_json(target / MADE_ON, [made_on()])


if __name__ == "__main__":
    main()
