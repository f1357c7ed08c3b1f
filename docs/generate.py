"""The parts of the reference that are read off the installed package: commands, file formats, settings."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

from selfcfg.cli import main
from selfcfg.cli.app import app
from selfcfg.records import Record
from selfcfg.registry import load, registered

RECORDS = {
    "dataset.json": "selfcfg.dataset:DatasetDescription",
    "fixes.json": "selfcfg.fixes:Fixes",
    "fingerprint.json": "selfcfg.fingerprint:Fingerprint",
    "plans/*.json, plan.json": "selfcfg.plan:Plan",
    "splits_final.json (each entry)": "selfcfg.splits:Split",
    "preprocessed case": "selfcfg.engine.store:CaseInfo",
    "run.json": "selfcfg.runs:RunRecord",
    "summary.json": "selfcfg.engine.evaluate:Evaluation",
}


def fill(_sphinx: object, _page: str, source: list[str]) -> None:
    """Replaces the markers ``<!-- commands -->``, ``<!-- files -->`` and ``<!-- settings -->`` of a page."""
    for marker, made in (("commands", commands), ("files", files), ("settings", settings)):
        text = f"<!-- {marker} -->"
        if text in source[0]:
            source[0] = source[0].replace(text, "\n".join(made()))


def commands() -> Iterator[str]:
    """What every command answers to ``--help``."""
    for name in _names(app):
        yield f"\n## selfcfg {name}\n\n```text\n{_help(name)}\n```\n"


def _names(app: Any) -> Iterator[str]:
    for command in app.registered_commands:
        yield command.name or command.callback.__name__.replace("_", "-")
    for group in app.registered_groups:
        for name in _names(group.typer_instance):
            yield f"{group.name} {name}"


def _help(name: str) -> str:
    said = io.StringIO()
    with redirect_stdout(said):
        main([*name.split(), "--help"])
    return said.getvalue().strip()


def files() -> Iterator[str]:
    """Every file format: its keys as a table, and its JSON schema."""
    for title, place in RECORDS.items():
        module, _, name = place.partition(":")
        record: type[Record] = getattr(importlib.import_module(module), name)
        schema = record.model_json_schema()
        yield f"\n## {title}\n\n{_first_sentence(record)}\n"
        yield "| key | kind | needed | meaning |\n| :-- | :-- | :-- | :-- |"
        meanings = _meanings(record)
        required = set(schema.get("required", ()))
        for key, value in schema["properties"].items():
            needed = "yes" if key in required else "no"
            yield f"| `{key}` | {_cell(_kind(value))} | {needed} | {_cell(meanings.get(key, ''))} |"
        code = f"```json\n{json.dumps(schema, indent=1)}\n```"
        yield f"\n<details><summary>JSON schema</summary>\n\n{code}\n\n</details>\n"


def _meanings(record: type[Record]) -> dict[str, str]:
    """What the ``Args:`` of a docstring say of each key."""
    section = (inspect.getdoc(record) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {key: " ".join(text.split()) for key, text in entries}


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(repr(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
        return f"list of {_kind(items)}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"object of {_kind(inner)}" if isinstance(inner, dict) else "object"
    return str(schema.get("type", "any"))


def settings() -> Iterator[str]:
    """The settings of every installed trainer."""
    for name in registered("trainers"):
        trainer = load("trainers", name)
        yield f"\n## {name}\n\n{_first_sentence(trainer)}\n"
        yield "| setting | default | meaning |\n| :-- | :-- | :-- |"
        for key, field in trainer.settings_type.model_fields.items():
            default = field.get_default()
            shown = "its own table" if isinstance(default, Record) else f"`{default}`"
            yield f"| `{key}` | {shown} | {_cell(field.description or '')} |"
            if isinstance(default, Record):
                yield from (f"| `{key}.{inner}` | `{value}` | |" for inner, value in default)


def _first_sentence(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
