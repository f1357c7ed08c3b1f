"""The gates on our own source that ruff does not hold: sizes, and the ways of loading that could run foreign code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(file for folder in ("selfcfg", "planners", "trainers") for file in (ROOT / folder).rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 350, 60, 7


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


every_file = pytest.mark.parametrize("file", FILES, ids=name)


@every_file
def test_sizes(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= MAX_FILE, f"{lines} lines; split it by what changes for different reasons"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = body_lines(node)
            assert length <= MAX_FUNCTION, f"{node.name}: {length} lines without its docstring"


@every_file
def test_no_print_no_assert_no_pickle(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert; raise an error that says what to do"
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"pickle", "dill", "joblib"}, f"line {node.lineno}"
        if isinstance(node, ast.Call):
            check_call(node)


def check_call(node: ast.Call) -> None:
    called = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    assert called != "print", f"line {node.lineno}: print; use selfcfg.progress.say"
    if called == "torch.load":
        assert given.get("weights_only") == "True", f"line {node.lineno}: torch.load without weights_only=True"
    if called in ("np.load", "numpy.load"):
        assert given.get("allow_pickle", "False") == "False", f"line {node.lineno}: np.load with allow_pickle"


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its ``def`` to its end, without its docstring."""
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    inner = docstring.end_lineno - docstring.lineno + 1 if docstring and docstring.end_lineno else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - inner
