"""The parts of the reference that are read off the installed package: commands, file formats, settings."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_args

from selfcfg.cli import main
from selfcfg.cli.app import app
from selfcfg.files import write_text
from selfcfg.plan import Plan
from selfcfg.recipes.recipe import Recipe
from selfcfg.records import Record
from selfcfg.registry import load, registered

RECORDS = {
    "dataset.json": "selfcfg.dataset:DatasetDescription",
    "fixes.json": "selfcfg.fixes:Fixes",
    "fingerprint.json": "selfcfg.fingerprint:Fingerprint",
    "plans/*.json, plan.json": "selfcfg.plan:Plan",
    "splits_final.json (each entry)": "selfcfg.splits:Split",
    "preprocessed case": "selfcfg.engine.data.store:CaseInfo",
    "run.json": "selfcfg.runs:RunRecord",
    "recipe.json": "selfcfg.recipes.recipe:Recipe",
    "candidates.json": "selfcfg.recipes.kept:Kept",
    "selected/model.json": "selfcfg.engine.prediction.selected:SelectedModel",
    "manifest.json": "selfcfg.engine.prediction.packaged:Manifest",
    "selected/selection.json": "selfcfg.engine.selection.records:Selection",
    "summary.json": "selfcfg.engine.scoring.evaluate:Evaluation",
    "calibration.json": "selfcfg.engine.calibration.temperature:Temperature",
    "quality.json": "selfcfg.engine.prediction.quality:Quality",
    "comparison.json": "selfcfg.engine.comparison.records:Comparison",
    "protocol.json": "selfcfg.engine.label_efficiency.results:Protocol",
    "cluster/*/graph.json": "selfcfg.cluster.graph:Graph",
    "results.jsonl (each line)": "selfcfg.engine.label_efficiency.results:LabelResult",
}


PLAN_SCHEMA = Path(__file__).parent / "reference" / "plan.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def fill(_sphinx: object, _page: str, source: list[str]) -> None:
    """Replaces the markers of a page, such as ``<!-- commands -->``."""
    made = {"commands": commands, "files": files, "settings": settings}
    made |= {"plan": lambda: keys(Plan), "recipe": lambda: keys(Recipe)}
    for marker, make in made.items():
        text = f"<!-- {marker} -->"
        if text in source[0]:
            source[0] = source[0].replace(text, "\n".join(make()))


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
        yield f"\n## {title}\n\n{_first_sentence(record)}\n"
        yield from _table(record)
        code = f"```json\n{json.dumps(schema_of(record), indent=1)}\n```"
        yield f"\n<details><summary>JSON schema</summary>\n\n{code}\n\n</details>\n"


def keys(whole: type[Record]) -> Iterator[str]:
    """Every object within a record: its keys as a table."""
    for record in _records_in(whole):
        yield f"\n## {record.__name__}\n\n{_first_sentence(record)}\n"
        yield from _table(record)


def schema_of(record: type[Record]) -> dict[str, Any]:
    """The JSON schema of a record and of what it is made of, each key with its meaning."""
    schema = record.model_json_schema()
    known = {part.__name__: part for part in _records_in(record)}
    for name, part in [(record.__name__, schema), *schema.get("$defs", {}).items()]:
        part["description"] = _first_sentence(known[name])
        for key, meaning in _meanings(known[name]).items():
            part["properties"][key]["description"] = meaning
    return {"$schema": DIALECT, **schema}


def plan_schema() -> str:
    """The text of `PLAN_SCHEMA`."""
    return json.dumps(schema_of(Plan), indent=1) + "\n"


def _records_in(annotation: Any) -> list[type[Record]]:
    """The records that an annotation names, each with those it is made of, once."""
    found: dict[type[Record], None] = {}
    if isinstance(annotation, type) and issubclass(annotation, Record):
        found[annotation] = None
        parts = [field.annotation for field in annotation.model_fields.values()]
    else:
        parts = list(get_args(annotation))
    for part in parts:
        found |= dict.fromkeys(_records_in(part))
    return list(found)


def _table(record: type[Record]) -> Iterator[str]:
    schema, meanings = record.model_json_schema(), _meanings(record)
    if "$ref" in schema:
        schema = schema["$defs"][record.__name__]
    yield "| key | kind | needed | meaning |\n| :-- | :-- | :-- | :-- |"
    for key, value in schema["properties"].items():
        field = record.model_fields.get(key)
        needed = "yes" if field is not None and field.is_required() else "no"
        meaning = meanings.get(key) or value.get("description", "")
        yield f"| `{key}` | {_cell(_kind(value))} | {needed} | {_cell(meaning)} |"


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
        inner = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
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
                fields = type(default).model_fields
                for inner, value in default:
                    yield f"| `{key}.{inner}` | `{value}` | {_cell(fields[inner].description or '')} |"


def _first_sentence(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


if __name__ == "__main__":
    write_text(PLAN_SCHEMA, plan_schema())
