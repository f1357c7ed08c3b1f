"""What the pretrainings of a benchmark of label efficiency logged: kept beside its results, and told on its page."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from statistics import fmean, median
from typing import Any

from selfcfg.files import write_text
from selfcfg.report.tables import table

FILE = "pretrainings.csv"
HEADS = ("arm", "seed", "seconds", "kind", "name", "first", "last")
"""`kind` is "loss" (a term in training) or "kept out" (a score on images that are not trained on)."""

_FOLDER = re.compile(r".*__(?P<arm>.+)-seed(?P<seed>\d+)$")


def note_pretrainings(out: Path, target: Path) -> None:
    """Adds the finished pretrainings that a benchmark has left in `out` to those that are kept in `target`."""
    rows = {(row["arm"], row["seed"], row["kind"], row["name"]): row for row in _read(target)}
    for log in sorted(out.glob("runs/*/fold_*/log.jsonl")):
        found = _FOLDER.match(log.parts[-3])
        record = json.loads((log.parent / "run.json").read_text(encoding="utf-8"))
        if found is None or record["status"] != "finished":
            continue
        epochs = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        seconds = round(sum(epoch["seconds"] for epoch in epochs))
        for kind, part in (("loss", "terms"), ("kept out", "validation")):
            for name, value in epochs[-1][part].items():
                if value is None:
                    continue
                first = epochs[0][part].get(name)
                told = {"first": "" if first is None else f"{first:.4g}", "last": f"{value:.4g}"}
                key = (found["arm"], found["seed"], kind, name)
                rows[key] = {**dict(zip(HEADS, (*key[:2], seconds, *key[2:]), strict=False)), **told}
    if not rows:
        return
    stream = io.StringIO()
    writer = csv.DictWriter(stream, HEADS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for _, row in sorted(rows.items()))
    write_text(target / FILE, stream.getvalue())


def what_was_learnt(folder: Path) -> list[str]:
    """A table with a row an arm, means over seeds; nothing where no pretraining is kept."""
    rows = _read(folder)
    if not rows:
        return []
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        seconds = {row["seed"]: float(row["seconds"]) for row in mine}
        cells = [_told([row for row in mine if row["kind"] == kind]) for kind in ("loss", "kept out")]
        lines.append([arm, *cells, len(seconds), f"{median(seconds.values()) / 60:.1f}"])
    told = (
        "What the pretrainings logged, means over seeds: each term of the loss in the first and the last epoch ("
        "contrast begins with an empty queue, where guessing is easier), and where images were kept out the scores on "
        "them. *Chance* and *by intensities* are what is told without looking at structure; *spread* is 1 where "
        "vectors point everywhere and 0 where they have collapsed. Minutes are the median over seeds, on a machine "
        "that did other work as well."
    )
    return [told, table(["arm", "loss", "on images kept out", "seeds", "minutes"], lines, numbers_from=3)]


def _told(rows: list[dict[str, Any]]) -> str:
    words = []
    for name in dict.fromkeys(row["name"] for row in rows):
        last = [float(row["last"]) for row in rows if row["name"] == name]
        first = [float(row["first"]) for row in rows if row["name"] == name and row["first"]]
        begun = f"{fmean(first):.2f} to " if first and rows[0]["kind"] == "loss" else ""
        words.append(f"{name} {begun}{fmean(last):.2f}")
    return ", ".join(words) or "-"


def _read(folder: Path) -> list[dict[str, Any]]:
    if not (folder / FILE).is_file():
        return []
    with (folder / FILE).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
