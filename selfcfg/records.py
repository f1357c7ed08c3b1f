"""The base of every value that is stored as JSON: frozen, typed, and strict about what it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from selfcfg.errors import DataError, nearest
from selfcfg.files import hash_json, read_json, write_text


class Record(BaseModel):
    """A frozen value with declared fields only; unknown fields are refused with the nearest valid name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, content: Any, source: str) -> Self:
        """The record held by `content`, which was read from `source` (a path or an option, for messages).

        Raises:
            DataError: a field is unknown, missing or of the wrong type; every such field is named.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise DataError(source, explain(error, cls), "mend the value or make the file again") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record stored in a JSON file.

        Raises:
            DataError: no such file, not JSON, or not this kind of record.
        """
        return cls.parse(read_json(path), str(path))

    def write(self, path: Path) -> None:
        """Stores the record as JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    def content_hash(self) -> str:
        """The hash of the record's values, 32 hex digits."""
        return hash_json(self.model_dump(mode="json"))


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line that names every field pydantic objected to, what it expected and what it got."""
    parts = []
    for item in error.errors():
        place = ".".join(str(step) for step in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, item["loc"][:-1])
            parts.append(f"unknown key '{place}', " + nearest(str(item["loc"][-1]), known))
        elif item["type"] == "missing":
            parts.append(f"key '{place}' is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            got = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"
            parts.append((f"{place}: " if place else "") + message + got)
    return "; ".join(parts)


def _fields_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The field names allowed at a nested place, as far as the annotations tell."""
    current: type[BaseModel] = model
    for step in place:
        field = current.model_fields.get(str(step))
        nested = _nested_model(field.annotation) if field else None
        current = nested or current
    return list(current.model_fields)


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _nested_model(argument):
            return found
    return None
