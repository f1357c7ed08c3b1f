"""Results of long computations: a line of JSON a job, with what it was measured on; read again so as to skip it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfcfg.engine.device import choose_device, machine_facts, package_versions

FOLDER = Path(__file__).resolve().parent / "results"


def made_on() -> dict[str, Any]:
    """Versions and machine of this process."""
    return {"versions": package_versions(), "machine": machine_facts(choose_device("cpu"))}


def append(name: str, row: Mapping[str, Any]) -> None:
    """Adds a row to a results file and prints it."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / name).open("a") as stream:
        stream.write(json.dumps({**row, **made_on()}) + "\n")
    print(json.dumps(row), flush=True)


def read(name: str) -> list[dict[str, Any]]:
    """The rows of a results file so far."""
    file = FOLDER / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
