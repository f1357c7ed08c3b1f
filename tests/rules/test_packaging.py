"""What pyproject.toml promises is what lies in the folders and what is installed."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from selfcfg.registry import load, registered

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAPPED = PROJECT["tool"]["setuptools"]["package-dir"]


def test_packages_are_the_folders() -> None:
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "selfcfg").rglob("__init__.py")}
    for package, folder in MAPPED.items():
        for file in (ROOT / folder).rglob("__init__.py"):
            folders.add(".".join([package, *file.parent.relative_to(ROOT / folder).parts]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders, "a package missing here is missing from the wheel"


def test_no_source_lies_outside_a_package() -> None:
    for folder in ("selfcfg", *MAPPED.values()):
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").is_file(), f"{file.relative_to(ROOT)} is in no package"


@pytest.mark.parametrize("group", ["planners", "trainers", "tasks"])
def test_entry_points_are_installed_and_load(group: Any) -> None:
    declared = PROJECT["project"]["entry-points"][f"selfcfg.{group}"]
    installed = {name: point.value for name, point in registered(group).items()}
    assert declared.items() <= installed.items(), "run: make install"
    for name in declared:
        assert callable(load(group, name))


@pytest.mark.parametrize("folder", sorted(MAPPED.values()))
def test_bare_import_of_a_mapped_folder_fails_with_one_sentence(folder: str) -> None:
    spec = importlib.util.spec_from_file_location(folder, ROOT / folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    with pytest.raises(ImportError, match=f"this folder is the package selfcfg.{folder}; import it under that name"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("folder", sorted(MAPPED.values()))
def test_links_for_type_checkers(folder: str) -> None:
    link = ROOT / "typings" / "selfcfg" / folder
    if not link.is_dir():
        pytest.skip("this checkout has no symbolic links; only editors lose by it")
    assert link.resolve() == (ROOT / folder).resolve()


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {_plain(line.split("==")[0]): line.split("==")[1] for line in lines if line and not line.startswith("#")}
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    names = {_plain(re.split(r"[^A-Za-z0-9._-]", wanted)[0]) for group in groups for wanted in group} - {"selfcfg"}
    assert names <= set(pins), f"pin these in constraints.txt: {sorted(names - set(pins))}"
    assert pins["torch"] == "2.13.0", "without a local version, so that any build of it fits"


@pytest.mark.slow
def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    kept = ["selfcfg", *MAPPED.values()]
    for folder in kept:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in kept:
        inside = "selfcfg" if folder == "selfcfg" else f"selfcfg/{folder}"
        for file in (one for one in (source / folder).rglob("*") if one.is_file()):
            assert f"{inside}/{file.relative_to(source / folder).as_posix()}" in names
    assert "selfcfg/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)
    assert not {name for name in names if name.startswith(("planners/", "trainers/", "tests/"))}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
