"""The table of docs/performance.md, written from the results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfcfg.files import write_text

from .contests import Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEADS = ("row", "what", "nnU-Net", "selfcfg", "first", "median", "aim", "memory", "equal")


def write_page(rows: Mapping[str, Row], results: Sequence[Mapping[str, Any]]) -> str:
    """Puts the table of all results between the marks of the page, and gives it."""
    newest = {result["row"]: result for result in results if result["row"] in rows}
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    lines += [_line(name, row, newest[name]) for name, row in rows.items() if name in newest]
    table = "\n".join([*lines, "", *_sources(list(newest.values()))])
    before, _, rest = PAGE.read_text().partition(BEGIN)
    write_text(PAGE, f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}")
    return table


def _line(name: str, row: Row, result: Mapping[str, Any]) -> str:
    unit = f" {row.unit}" if row.unit else ""
    seconds = [_seconds(result[side], unit) for side in ("peer_seconds", "seconds")]
    ratios = [f"{result[key]:.1f}x" if key in result else "-" for key in ("first_ratio", "ratio")]
    aim = "-" if row.aim is None else f"{row.aim:g}x" + ("" if result["ratio"] >= row.aim else " (missed)")
    cells = (f"`{name}`", row.title, *seconds, *ratios, aim, _memory(row, result), _equality(result["equality"]))
    return "| " + " | ".join(cells) + " |"


def _seconds(values: Sequence[float], unit: str) -> str:
    if not values:
        return "-"
    median = statistics.median(values)
    return (f"{median:.3g} s" if median >= 1 else f"{1e3 * median:.3g} ms") + unit


def _memory(row: Row, result: Mapping[str, Any]) -> str:
    """Peaks of either side in GB, and their ratio."""
    own, other = (max(result[side], default=0) / 1024 for side in ("megabytes", "peer_megabytes"))
    if not other:
        missed = row.limit_mb is not None and 1024 * own > row.limit_mb
        return f"{own:.2f} GB" + (" (missed)" if missed else "")
    missed = row.memory is not None and result["memory_ratio"] < row.memory
    return f"{other:.2f} / {own:.2f} GB" + (" (missed)" if missed else "")


def _equality(checks: Sequence[Mapping[str, Any]]) -> str:
    if not checks:
        return "-"
    found = [f"{check['what']}: {check['value']:.6g}" for check in checks]
    return "; ".join(text if check["holds"] else f"**{text}**" for text, check in zip(found, checks, strict=True))


def _sources(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each machine and set of versions that the results come from."""
    found = {}
    for result in results:
        machine, versions, peer = result["machine"], result["versions"], result["peer"]
        text = f"{machine['processor']} ({machine['instructions']}), {result['cores']} cores"
        text += f"; selfcfg {versions['selfcfg']}, torch {versions['torch']}, Python {versions['python']}"
        text += f"; nnunetv2 {peer['nnunetv2']}, torch {peer['torch']}, Python {peer['python']}"
        found.setdefault(text, []).append(result["row"])
    single = len(found) == 1
    return [f"Measured on {text}{'' if single else ': ' + ', '.join(rows)}." for text, rows in found.items()]
