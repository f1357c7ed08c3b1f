"""The table of docs/performance.md says what the results hold, and nothing around it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hot_paths import table
from benchmarks.hot_paths.contests import Row
from benchmarks.hot_paths.rows_use import help_text

RESULT = {
    "row": "help",
    "seconds": [0.2, 0.25, 0.3],
    "peer_seconds": [5.0, 4.0, 3.0],
    "megabytes": [1024, 1000, 1000],
    "peer_megabytes": [2048, 2000, 2000],
    "first_ratio": 25.0,
    "ratio": 16.0,
    "memory_ratio": 2.0,
    "equality": [{"what": "labels that are equal", "value": 0.5, "limit": 0.9999, "holds": False}],
    "cores": 2,
    "machine": {"processor": "a processor", "instructions": "AVX2"},
    "versions": {"selfcfg": "0.1.0", "torch": "2.13", "python": "3.11"},
    "peer": {"nnunetv2": "2.8.1", "torch": "2.13", "python": "3.11"},
}


@pytest.mark.parametrize(("aim", "told"), [(5, "| 5x |"), (20, "| 20x (missed) |")])
def test_a_row_shows_ratios_and_what_was_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aim: float, told: str
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    monkeypatch.setattr(table, "PAGE", page)
    table.write_page({"help": Row("--help", "", aim, help_text)}, [RESULT])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| 4 s | 250 ms | 25.0x | 16.0x |" in text and told in text
    assert "2.00 / 1.00 GB" in text and "**labels that are equal: 0.5**" in text
