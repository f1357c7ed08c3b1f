"""The JSON schema of plans that the documentation holds: current, complete, and of one mind with the types."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from selfcfg.plan import Configuration, Plan
from selfcfg.topology import Topology

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads((DOCS / "reference" / "plan.schema.json").read_text(encoding="utf-8"))


def test_it_is_what_the_types_give(generate: Any) -> None:
    stored = (DOCS / "reference" / "plan.schema.json").read_text(encoding="utf-8")
    assert stored == generate.plan_schema(), "run: python docs/generate.py"


def test_every_key_has_a_meaning(schema: dict[str, Any]) -> None:
    for name, part in {"Plan": schema, **schema["$defs"]}.items():
        for key, value in part["properties"].items():
            assert value["description"], f"{name}.{key}: say it in the docstring's Args"


def test_it_knows_every_key_and_no_other(schema: dict[str, Any]) -> None:
    parts = {"Plan": schema, **schema["$defs"]}
    for record in (Plan, Configuration, Topology):
        assert set(parts[record.__name__]["properties"]) == set(record.keys())
        assert parts[record.__name__]["additionalProperties"] is False


def test_a_configuration_needs_its_keys_unless_it_inherits(schema: dict[str, Any]) -> None:
    whole, heir = schema["$defs"]["Configuration"]["anyOf"]
    assert {"patch_size", "topology"} <= set(whole["required"])
    assert "strides" in whole["properties"]["topology"]["required"]
    assert heir == {"required": ["inherits_from"]}
    assert "required" not in schema["$defs"]["Topology"], "an heir may name a part of the network only"
