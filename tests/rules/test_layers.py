"""Imports point down one table of layers, without circles; heavy packages stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"selfcfg": ROOT / "selfcfg", "selfcfg.planners": ROOT / "planners", "selfcfg.trainers": ROOT / "trainers"}

LAYERS = {
    0: "selfcfg selfcfg.errors selfcfg.files selfcfg.records selfcfg.registry selfcfg.geometry selfcfg.progress "
    "selfcfg.parallel selfcfg.locks selfcfg.image_files selfcfg.sheets",
    1: "selfcfg.labels selfcfg.image_targets selfcfg.dataset selfcfg.splits selfcfg.fixes selfcfg.fingerprint "
    "selfcfg.topology selfcfg.plan selfcfg.project selfcfg.inheritance selfcfg.recipes selfcfg.runs selfcfg.workspace "
    "selfcfg.cluster",
    2: "selfcfg.io selfcfg.kernels selfcfg.nets",
    3: "selfcfg.convert selfcfg.engine selfcfg.engine.label_efficiency.results selfcfg.planners selfcfg.trainers",
    4: "selfcfg.engine.prediction selfcfg.engine.scoring selfcfg.engine.calibration selfcfg.engine.comparison "
    "selfcfg.engine.distillation selfcfg.engine.supply",
    5: "selfcfg.engine.training selfcfg.interop selfcfg.report selfcfg.engine.selection.records",
    6: "selfcfg.engine.choice selfcfg.engine.pipeline selfcfg.engine.experiment selfcfg.engine.folds "
    "selfcfg.engine.forecasting selfcfg.engine.cluster selfcfg.engine.recipes "
    "selfcfg.engine.label_efficiency selfcfg.engine.selection "
    "selfcfg.engine.calibration.calibrate "
    "selfcfg.engine.demo selfcfg.testing",
    7: "selfcfg.cli selfcfg.__main__",
}
"""The layer of each module; a package's entry holds for every module in it that has no entry of its own."""

FORBIDDEN = {
    "selfcfg.kernels": "selfcfg.plan selfcfg.dataset selfcfg.runs selfcfg.workspace selfcfg.io selfcfg.nets",
    "selfcfg.io": "selfcfg.plan selfcfg.runs selfcfg.kernels selfcfg.nets",
    "selfcfg.planners": "selfcfg.io selfcfg.kernels selfcfg.nets selfcfg.convert",
    "selfcfg.trainers": "selfcfg.planners",
}
"""What a package must not import although its layer would allow it."""

PLANNERS_MAY_USE = "selfcfg.engine.planner"

TORCH = ("torch", "lightning", "lightning_fabric", "dynamic_network_architectures", "batchgenerators")
WITHOUT_TORCH = ("selfcfg.io", "selfcfg.planners", "selfcfg.convert")


@dataclass(frozen=True)
class Module:
    """One source file: its import name, and every module it names in an import."""

    name: str
    is_package: bool
    tree: ast.Module

    def imports(self, *, top_level_only: bool = False) -> Iterator[str]:
        nodes = _at_import_time(self.tree) if top_level_only else ast.walk(self.tree)
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(node)
                yield from (f"{base}.{alias.name}" for alias in node.names)

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + (1 if self.is_package else 0)]
        return ".".join([*parts, *([node.module] if node.module else [])])


def _at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, no ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _at_import_time(node)


@cache
def modules() -> dict[str, Module]:
    found = {}
    for package, folder in FOLDERS.items():
        for file in sorted(folder.rglob("*.py")):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = Module(name, is_package, ast.parse(file.read_text(encoding="utf-8")))
    return found


def known(name: str) -> str | None:
    """The module of ours that an imported name belongs to, or None for everybody else's."""
    while name:
        if name in modules():
            return name
        name = name.rpartition(".")[0]
    return None


@cache
def layer(name: str) -> int:
    table = {entry: number for number, entries in LAYERS.items() for entry in entries.split()}
    while name not in table or (name == "selfcfg" and name not in modules()):
        name = name.rpartition(".")[0]
        assert name, f"{name} is in no layer"
    return table[name]


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def edges() -> list[tuple[str, str]]:
    """Every import of one of our modules by another."""
    found = {
        (module.name, target)
        for module in modules().values()
        for imported in module.imports()
        if (target := known(imported)) is not None and target != module.name
    }
    return sorted(found)


def test_every_module_at_the_top_has_a_layer() -> None:
    table = {entry for entries in LAYERS.values() for entry in entries.split()}
    direct = {name for name in modules() if name.count(".") == 1}
    assert direct <= table, f"put these into the table of layers: {sorted(direct - table)}"


def test_imports_point_down() -> None:
    upwards = [f"{a} ({layer(a)}) imports {b} ({layer(b)})" for a, b in edges() if layer(b) > layer(a)]
    assert not upwards


def test_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for a, b in edges():
        graph.setdefault(a, set()).add(b)
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "imports in a circle: " + " -> ".join([*path[path.index(name) :], name])
        if name in finished:
            return
        for target in sorted(graph.get(name, ())):
            visit(target, (*path, name))
        finished.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_forbidden_neighbours(package: str) -> None:
    forbidden = FORBIDDEN[package].split()
    found = [(a, b) for a, b in edges() if inside(a, package) and any(inside(b, other) for other in forbidden)]
    assert not found


def test_nothing_in_selfcfg_imports_planners_or_trainers() -> None:
    plugins = ("selfcfg.planners", "selfcfg.trainers")
    found = [
        (a, b) for a, b in edges() if any(inside(b, p) for p in plugins) and not any(inside(a, p) for p in plugins)
    ]
    assert not found, "planners and trainers are found by entry-point name"


def test_planners_see_only_the_central_types_and_their_contract() -> None:
    found = [
        (a, b)
        for a, b in edges()
        if inside(a, "selfcfg.planners")
        and not inside(b, "selfcfg.planners")
        and layer(b) > 1
        and b != PLANNERS_MAY_USE
    ]
    assert not found


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_no_torch_in(package: str) -> None:
    found = [
        (m.name, i) for m in modules().values() if inside(m.name, package) for i in m.imports() if _heavy(i, TORCH)
    ]
    assert not found


def test_packages_and_the_lower_layers_import_nothing_heavy() -> None:
    heavy = (*TORCH, "numpy", "scipy", "SimpleITK", "nibabel", "matplotlib", "tifffile", "PIL", "blosc2", "skimage")
    light = [m for m in modules().values() if m.is_package or layer(m.name) <= 1 or inside(m.name, "selfcfg.cli")]
    allowed = {"selfcfg.splits"}  # grouped, stratified folds are drawn with numpy
    found = [
        (m.name, i) for m in light for i in m.imports(top_level_only=True) if _heavy(i, heavy) and m.name not in allowed
    ]
    assert not found


def _heavy(imported: str, packages: tuple[str, ...]) -> bool:
    return imported.partition(".")[0] in packages
