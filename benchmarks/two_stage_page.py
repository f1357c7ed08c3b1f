"""The page on the two-stage study: its systems, its claims, and its ablations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from verdicts import between, makers, no_worse, probability, verdict

from selfcfg.kernels.statistics import estimate, non_inferiority, paired
from selfcfg.report.tables import table

SEEDS, SYSTEMS = 3, 26
"""Of the study when it is done; systems: ten plain networks, ten candidates, three students, three ensembles."""

MARGIN = 0.01
"""Dice by which a student that matches may be worse: that of ``selfcfg benchmark distillation``."""

Row = Mapping[str, Any]
Scores = dict[str, float]


def _named(name: str) -> Callable[[Sequence[Row]], list[Row]]:
    return lambda rows: [row for row in rows if row["system"] == name]


def _numbered(name: str) -> Callable[[Sequence[Row]], list[Row]]:
    return lambda rows: [row for row in rows if row["system"].removeprefix(name).isdigit()]


def _best_single(rows: Sequence[Row]) -> list[Row]:
    """The candidate of one seed that validation chose."""
    kept = [row for row in rows if row.get("kept")]
    return [max(kept, key=lambda row: row["validation"])] if kept else []


GROUPS: dict[str, Callable[[Sequence[Row]], list[Row]]] = {
    "plain": _numbered("plain"),
    "plain, twice the labels": _numbered("twice"),
    "best single": _best_single,
    "student": _named("student"),
    "ensemble of the winners": _named("ensemble of two_stage"),
    "ensemble of plain": _named("ensemble of plain"),
    "student of plain": _named("of-plain"),
    "ensemble of plain, twice the labels": _named("ensemble of twice"),
    "student of plain, twice the labels": _named("of-twice"),
}
"""By name, the rows of one seed whose mean it is."""

CLAIMS = (
    ("student", "best single", "Distillation is better than the best of its teachers"),
    ("best single", "plain", "Auxiliary tasks are better than none"),
    ("student", "plain", "Both stages are better than plain training"),
    ("student", "student of plain", "The tasks add something to an ensemble that is distilled"),
    ("ensemble of the winners", "ensemble of plain", "The tasks add something to an ensemble"),
)
MATCHES = ("student", "plain, twice the labels", "The student matches plain training with twice the labels")


def page(rows: Sequence[Row]) -> list[str]:
    """Blocks of Markdown on the rows of ``two_stage.jsonl``."""
    ablated = [row for row in rows if row["system"].startswith(("student balance", "student of "))]
    main = [row for row in rows if row not in ablated]
    seeds = sorted({row["seed"] for row in main})
    groups = {name: _by_seed(main, choose, seeds) for name, choose in GROUPS.items()}
    tasks = {row["system"]: _by_seed(main, _named(row["system"]), seeds) for row in main if "validation" in row}
    there = len({(row["seed"], row["system"]) for row in main})
    return [
        f"**{there} of {SEEDS * SYSTEMS} systems** are there, of {SEEDS} seeds: {', '.join(map(str, seeds))}. "
        + makers(rows),
        "## Claims",
        *_claims(groups),
        "## Systems",
        _table(groups, groups["plain"]),
        "## Candidates",
        _table(tasks, groups["plain"]) if tasks else "None is there yet.",
        *_ablations(rows, ablated),
    ]


def _by_seed(
    rows: Sequence[Row], choose: Callable[[Sequence[Row]], list[Row]], seeds: Sequence[int]
) -> dict[int, Scores]:
    """The Dice of each test case by seed, the mean over the rows that are chosen; without seeds that have none."""
    chosen = {seed: choose([row for row in rows if row["seed"] == seed]) for seed in seeds}
    return {
        seed: {case: fmean(row["cases"][case] for row in found) for case in found[0]["cases"]}
        for seed, found in chosen.items()
        if found
    }


def _mean(by_seed: Mapping[int, Scores], seeds: Sequence[int]) -> Scores:
    return {case: fmean(by_seed[seed][case] for seed in seeds) for case in by_seed[seeds[0]]}


def _differences(one: Mapping[int, Scores], other: Mapping[int, Scores]) -> tuple[list[float], list[int]]:
    """By test case, over the seeds that both have; and these."""
    shared = [seed for seed in one if seed in other]
    if not shared:
        return [], []
    mine, theirs = _mean(one, shared), _mean(other, shared)
    return [mine[case] - theirs[case] for case in mine], shared


def _claims(groups: Mapping[str, Mapping[int, Scores]]) -> list[str]:
    lines, missing = [], []
    for one, other, words in CLAIMS:
        differences, shared = _differences(groups[one], groups[other])
        if not shared:
            missing.append(f"{one} against {other}")
            continue
        found = paired(differences, np.random.default_rng(0))
        told = f"{between(found.difference.mean, found.difference.interval, '+')}, p {probability(found.sign_flip)}"
        lines.append(
            f"- {words} ({one} less {other}: {told}): **{verdict(found.difference, is_whole=len(shared) >= SEEDS)}**."
        )
    one, other, words = MATCHES
    differences, shared = _differences(groups[one], groups[other])
    if shared:
        bound = non_inferiority(differences, MARGIN, np.random.default_rng(0))
        low = "too few" if bound.low is None else f"above {bound.low:+.3f} with 95 % confidence"
        judged = no_worse(bound, is_whole=len(shared) >= SEEDS)
        lines.append(f"- {words} ({bound.difference:+.3f}, {low}; margin {MARGIN:g}): **{judged}**.")
    else:
        missing.append(f"{one} against {other}")
    return ["\n".join([*lines, *([f"- Not compared yet: {'; '.join(missing)}."] if missing else [])])]


def _table(groups: Mapping[str, Mapping[int, Scores]], plain: Mapping[int, Scores]) -> str:
    """A row a system: its mean Dice over the test cases, and the difference to plain training."""
    rows = []
    for name, by_seed in groups.items():
        if not by_seed:
            rows.append([name, 0, "missing", "-", "-", "-"])
            continue
        seeds = [*by_seed]
        scores = [fmean(by_seed[seed].values()) for seed in seeds]
        found = estimate([*_mean(by_seed, seeds).values()], np.random.default_rng(0))
        row = [name, len(seeds), between(found.mean, found.interval), f"{min(scores):.3f} to {max(scores):.3f}"]
        differences, shared = _differences(by_seed, plain)
        if not shared or by_seed is plain:
            rows.append([*row, "-", "-"])
            continue
        against = paired(differences, np.random.default_rng(0))
        told = between(against.difference.mean, against.difference.interval, "+")
        rows.append([*row, told, probability(against.sign_flip)])
    heads = ["system", "seeds", "Dice (95 %)", "range over seeds", "difference to plain (95 %)", "p"]
    return table(heads, rows)


def _ablations(rows: Sequence[Row], ablated: Sequence[Row]) -> list[str]:
    """One seed: the share of the teachers in the loss, and their number."""
    if not ablated:
        return ["## Ablations", "None is there yet."]
    seed = ablated[0]["seed"]
    named = {row["system"]: row for row in rows if row["seed"] == seed}
    balances = {"0 (plain0)": "plain0", "0.25": "student balance 0.25", "0.5": "student"}
    balances |= {"0.75": "student balance 0.75", "1": "student balance 1"}
    counts = {f"{count}": f"student of {count}" for count in range(1, 5)} | {"5": "student"}
    blocks = ["## Ablations", f"Of seed {seed} alone; differences are to the student of the study."]
    student = {seed: dict(named["student"]["cases"])} if "student" in named else {}
    for head, systems in (("share of the teachers in the loss", balances), ("teachers, best first", counts)):
        lines = []
        for label, system in systems.items():
            row = named.get(system)
            differences = _differences({seed: row["cases"]}, student)[0] if row and system != "student" else []
            found = paired(differences, np.random.default_rng(0)).difference if differences else None
            told = between(found.mean, found.interval, "+") if found else "-"
            lines.append([label, f"{row['dice']:.3f}" if row else "missing", told])
        blocks.append(table([head, "Dice", "difference (95 %)"], lines))
    return blocks
