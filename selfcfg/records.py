"""The base of every value that is stored as JSON: frozen, typed, and strict about what it reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from selfcfg.errors import DataError, counted, listed, nearest
from selfcfg.files import hash_json, read_json, write_text

MAX_SHOWN = 30
"""Problems of one file that are told one by one."""

_UNION_MEMBER = re.compile(r"(int|float|str|bool)$|(tuple|list|dict|literal)\[")


Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""Several names; a single one may be given by itself."""


class Problem(NamedTuple):
    """Something wrong with a value that was read.

    Args:
        place: keys and indices that lead to it.
        what: what was found, and what is allowed.
    """

    place: tuple[str | int, ...]
    what: str

    def __str__(self) -> str:
        """One line that starts with the place, such as ``configurations.2d.topology.strides[2]``."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.place)
        place = "".join(steps).removeprefix(".")
        return f"{place}: {self.what}" if place else self.what


class Record(BaseModel):
    """A frozen value with declared fields only; unknown fields are refused with the nearest valid name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, content: Any, source: str) -> Self:
        """The record held by `content`, which was read from `source` (a path or an option, for messages).

        Raises:
            DataError: a field is unknown, missing or of the wrong type; every such field is named.
        """
        made, problems = cls.attempt(content)
        if made is None:
            raise unusable(source, problems)
        return made

    @classmethod
    def attempt(cls, content: Any) -> tuple[Self | None, list[Problem]]:
        """The record held by `content`, or None and everything that is wrong with it."""
        try:
            return cls.model_validate(content), []
        except ValidationError as error:
            return None, _problems(error, cls)

    @classmethod
    def keys(cls) -> list[str]:
        """The keys that it may have in a file."""
        return [field.alias or name for name, field in cls.model_fields.items()]

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


class Sparing(Record):
    """A record some of whose fields are not stored where they are empty, so that files without them stay as they were.

    A subclass names these fields in `spared`.
    """

    spared: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {name: value for name, value in content.items() if value or name not in self.spared}


def refuse(problems: Iterable[Problem], record: Record) -> None:
    """For validators: refuses a record whose values do not fit together, with every problem at its own place.

    Raises:
        ValidationError: there is a problem; pydantic adds the place of the record to those of the problems.
    """
    details = [
        InitErrorDetails(type=PydanticCustomError("inconsistent", problem.what), loc=problem.place, input=None)
        for problem in problems
    ]
    if details:
        raise ValidationError.from_exception_data(type(record).__name__, details)


def unusable(
    source: str, problems: Sequence[Problem], remedy: str = "mend the value or make the file again"
) -> DataError:
    """The error that tells every problem of what was read from `source`: one in the line, several in a list."""
    found = str(problems[0])
    if len(problems) > 1:
        every = listed(problems, MAX_SHOWN, "\n  ")
        found = f"{counted(len(problems), 'problem')}\n  {every}\n"
    return DataError(source, found, remedy)


def _problems(error: ValidationError, model: type[Record]) -> list[Problem]:
    """Everything pydantic objected to; what it says of each member of a union is one problem."""
    at: dict[tuple[str | int, ...], dict[str, None]] = {}
    for item in error.errors():
        place = tuple(
            step for step in item["loc"] if isinstance(step, int) or not (step == "[key]" or _UNION_MEMBER.match(step))
        )
        at.setdefault(place, {})[_said(item, model)] = None
    return [Problem(place, " or ".join(said)) for place, said in at.items()]


def _said(item: ErrorDetails, model: type[Record]) -> str:
    """One objection of pydantic in our words: what must be, and what was found."""
    kind, message, value = item["type"], item["msg"], item["input"]
    found = f", found {_shown(value)}"
    if kind == "extra_forbidden":
        return "unknown key, " + nearest(str(item["loc"][-1]), _keys_at(model, item["loc"][:-1]))
    if kind == "literal_error" and (choices := re.findall(r"'([^']+)'", item["ctx"]["expected"])):
        return f"found {_shown(value)}, " + nearest(str(value), choices)
    if kind in ("inconsistent", "value_error"):
        return message.removeprefix("Value error, ") + ("" if value is None or isinstance(value, dict) else found)
    if kind in ("model_type", "dict_type"):
        return "must be an object" + found
    if kind == "missing":
        return "is missing"
    message = re.sub(r"^(Input|Tuple|Dictionary|List|String) should ", "must ", message)
    return message.replace("a valid tuple", "a list") + found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[Record], place: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a nested place, as far as the annotations tell."""
    current: type[Record] = model
    for step in place:
        field = current.model_fields.get(str(step))
        nested = _nested_model(field.annotation) if field else None
        current = nested or current
    return current.keys()


def _nested_model(annotation: Any) -> type[Record] | None:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _nested_model(argument):
            return found
    return None
