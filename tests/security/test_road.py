"""Names are data on the whole road, and nothing on it needs or opens a network."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from selfcfg.convert.code_table import rows_of
from selfcfg.interop.package_read import import_package
from tests.security.road import LABEL, NAMES

ROOT = Path(__file__).parents[2]
APART = ["unshare", "--map-root-user", "--net"]
"""Runs a command in a network namespace of its own, which has no route to anywhere."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="its file names cannot hold these signs"),
]


class Road(NamedTuple):
    folder: Path
    apart: bool


def can_be_apart() -> bool:
    if shutil.which(APART[0]) is None:
        return False
    return subprocess.run([*APART, "true"], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    folder, apart = tmp_path_factory.mktemp("road") / "place", can_be_apart()
    folder.mkdir()
    command = [*(APART if apart else ()), sys.executable, "-m", "tests.security.road", str(folder)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return Road(folder, apart)


def test_it_needs_no_network(road: Road) -> None:
    if not road.apart:
        pytest.skip("network namespaces are not permitted here; the guard within the process was")
    assert (road.folder / "answers.json").is_file()


def test_the_guard_sees_a_connection() -> None:
    code = "import sys, socket; from tests.security.road import guard; sys.addaudithook(guard); "
    for ask in ("socket.socket().connect(('127.0.0.1', 9))", "socket.getaddrinfo('localhost', 80)"):
        done = subprocess.run([sys.executable, "-c", code + ask], check=False, cwd=ROOT, capture_output=True)
        assert done.returncode == 99


def test_every_case_goes_the_whole_road(road: Road) -> None:
    answers = json.loads((road.folder / "answers.json").read_text())
    predicted = answers[next(name for name in answers if name.startswith("predict"))]
    assert sorted(predicted["done"]) == sorted(NAMES) and not predicted["failed"]
    assert {file.stem for file in (road.folder / "predictions").glob("*.png")} == set(NAMES)


def test_nothing_was_run_and_nothing_left_its_folder(road: Road) -> None:
    assert not [file for file in road.folder.rglob("*") if file.name in ("pwned", "other")]
    assert not (ROOT / "pwned").exists() and not Path("pwned").exists()
    assert sorted(file.name for file in road.folder.parent.iterdir()) == ["place"]


def test_no_cell_of_a_table_is_a_formula_and_reading_gives_the_names_back(road: Road) -> None:
    tables = [file for file in road.folder.rglob("*.csv")]
    assert {"metrics.csv", "quality.csv"} <= {file.name for file in tables}
    found = set()
    for file in tables:
        for row in csv.reader(file.open(encoding="utf-8-sig", newline="")):
            for cell in row:
                assert not cell.startswith(("=", "@", "+")), (file, cell)
                assert not cell.startswith("-") or cell[1:].replace(".", "").replace("e-", "").isdigit(), (file, cell)
        found |= {cell for row in rows_of(file) for cell in row}
    assert set(NAMES) <= found


def test_pages_hold_names_as_text(road: Road) -> None:
    pages = list(road.folder.rglob("report.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for name in (*NAMES, LABEL):
            assert "<" not in name or name not in text
        assert "&lt;b&gt;=cmd()" in text and "49{%" not in text and "<img src=x" not in text


def test_a_terminal_is_not_steered_and_a_shell_gets_one_word(road: Road) -> None:
    from selfcfg.cli.options import typed
    from selfcfg.errors import printable

    said = (road.folder / "said.txt").read_text(encoding="utf-8")
    assert not [sign for sign in said if sign not in "\n\t\r" and not sign.isprintable() and sign != "\u200b"]
    for name in NAMES:
        word = f"./{name}" if name.startswith("-") else name
        assert shlex.split(f"selfcfg predict {typed(name)}") == ["selfcfg", "predict", word]
        assert "\u202e" not in printable(name)


def test_the_package_knows_no_name(road: Road, tmp_path: Path) -> None:
    import_package(road.folder / "m.zip", tmp_path / "m")
    for file in (tmp_path / "m").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        for name in NAMES:
            assert name.encode() not in content and json.dumps(name).encode() not in content
        assert str(road.folder).encode() not in content


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a\\b", b"a\xff".decode("utf-8", "surrogateescape")], ids=ascii)
def test_names_that_cannot_be_shown_are_refused(name: str, tmp_path: Path) -> None:
    from selfcfg.dataset import channel_files
    from selfcfg.errors import DataError
    from selfcfg.image_files import image_files

    (tmp_path / f"{name}_0000.png").write_bytes(b"")
    for find in (image_files, lambda folder: channel_files(folder, ".png")):
        with pytest.raises(DataError, match="control characters, backslashes, or bytes that are no text"):
            find(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\\b", "", ".", "..", ".x", "a\nb"], ids=ascii)
def test_ids_in_dataset_json_lead_nowhere(name: str) -> None:
    from selfcfg.dataset import DatasetDescription
    from selfcfg.errors import DataError

    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "numTraining": 1}
    with pytest.raises(DataError, match="cannot be the name of a case"):
        DatasetDescription.parse({**content, "file_ending": ".png", "dataset": {name: {"images": ["a"]}}}, "test")
