"""A training strategy as ordered stages: read from TOML, and checked as a whole."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from selfcfg.errors import DataError, UsageError, listed, nearest
from selfcfg.recipes.expansion import Expansion, expand
from selfcfg.recipes.rules import between_stages
from selfcfg.recipes.stages import Name, Stage, is_path
from selfcfg.records import Problem, Record

RECIPE = "recipe.json"
"""In the folder of a recipe's results: the recipe as it was used, with every setting of every stage."""


class Recipe(Record):
    """Stages that are trained one after the other, each of them able to start from the weights of those before it.

    Args:
        name: begins the name of the results' folder; default: the file's name without its ending.
        description: what it does and where it is from; `selfcfg list recipes` shows the first line.
        stage: its stages, in order: one ``[[stage]]`` each.
    """

    name: Name
    description: str = ""
    stage: tuple[Stage, ...]

    @classmethod
    def attempt(cls, content: Any) -> tuple[Self | None, list[Problem]]:
        """The recipe held by `content`, or None and everything that is wrong with it, between its stages too."""
        made, problems = super().attempt(content)
        problems += between_stages(content)
        if made is not None and not problems:
            problems += made.expansion.problems
        return (None if problems else made), problems

    @classmethod
    def read(cls, path: Path) -> Self:
        """The recipe in a TOML file, or in the ``recipe.json`` of a training; relative paths in it count from the file.

        Raises:
            UsageError: there is no such file.
            DataError: neither TOML nor JSON, or not a recipe; everything wrong is named.
        """
        if path.suffix == ".json":
            return super().read(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise UsageError(f"recipe {path}", "there is no such file", "check the path") from error
        except (OSError, ValueError) as error:
            raise DataError(f"read {path}", str(error), "give a TOML file in UTF-8") from error
        return cls.from_toml(text, path.stem, str(path))._counted_from(path.parent)

    @classmethod
    def from_toml(cls, text: str, name: str, source: str) -> Self:
        """The recipe that a TOML text holds.

        Args:
            text: to read.
            name: of the recipe where the text gives none.
            source: of the text, for messages.

        Raises:
            DataError: not TOML, or not a recipe; everything wrong is named.
        """
        try:
            content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"read {source}", f"not valid TOML ({error})", "mend the file") from error
        return cls.parse({"name": name, **content}, source)

    @property
    def expansion(self) -> Expansion:
        """Its stages with their candidates."""
        return expand(self.stage)

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return next(iter(self.description.strip().splitlines()), "")

    def changed(self, settings: Mapping[str, Any]) -> Self:
        """The recipe with other settings, each named ``STAGE.setting``.

        Raises:
            UsageError: a name begins with no stage of the recipe.
        """
        names = [stage.name for stage in self.stage]
        given: dict[str, dict[str, Any]] = {name: {} for name in names}
        for key, value in settings.items():
            stage, dot, setting = key.partition(".")
            if not dot or stage not in given:
                found = f"the recipe {self.name} has no stage '{stage}'" if dot else "no stage is named"
                remedy = f"write it as STAGE.{setting or key}=..., {nearest(stage, names)}"
                raise UsageError(f"--set {key}", found, remedy)
            given[stage][setting] = value
        for one in self.stage:
            if clash := [name for name in given[one.name] if name in one.varied]:
                found = f"foreach says it for each candidate: {listed(one.varied[clash[0]])}"
                raise UsageError(f"--set {one.name}.{clash[0]}", found, "change foreach in a recipe file of your own")
            if given[one.name] and not one.trains:
                found = f"the stage '{one.name}' chooses among candidates and trains nothing"
                raise UsageError(f"--set {one.name}.{next(iter(given[one.name]))}", found, "name a stage that trains")
        wholes = [{**stage.settings, **given[stage.name]} for stage in self.stage]
        stages = [one.model_copy(update={"settings": whole}) for one, whole in zip(self.stage, wholes, strict=True)]
        return self.model_copy(update={"stage": tuple(stages)})

    def _counted_from(self, folder: Path) -> Self:
        """The recipe with absolute paths."""

        def absolute(name: str) -> str:
            return str((folder / name).absolute()) if is_path(name) else name

        stages = []
        for stage in self.stage:
            changes: dict[str, Any] = {"unlabelled": tuple(absolute(name) for name in stage.unlabelled)}
            changes["datasets"] = tuple(one.model_copy(update={"name": absolute(one.name)}) for one in stage.datasets)
            changes["init"] = stage.init and absolute(stage.init)
            changes["teachers"] = tuple(absolute(name) for name in stage.teachers)
            changes["reference"] = stage.reference and absolute(stage.reference)
            if "init" in stage.foreach:
                changes["foreach"] = {**stage.foreach, "init": [absolute(name) for name in stage.foreach["init"]]}
            stages.append(stage.model_copy(update=changes))
        return self.model_copy(update={"stage": tuple(stages)})


def shipped_recipes() -> dict[str, Recipe]:
    """The recipes that come with selfcfg, by name."""
    folder = files("selfcfg.trainers") / "recipes"
    found = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    names = {file.name.removesuffix(".toml"): file for file in sorted(found, key=lambda file: file.name)}
    return {name: Recipe.from_toml(file.read_text(encoding="utf-8"), name, file.name) for name, file in names.items()}


def find_recipe(given: str) -> Recipe:
    """The recipe of a name or in a file.

    Raises:
        UsageError: neither a recipe that comes with selfcfg nor a file.
        DataError: the file holds no recipe.
    """
    if Path(given).suffix in (".toml", ".json"):
        return Recipe.read(Path(given))
    known = shipped_recipes()
    if given not in known:
        remedy = f"{nearest(given, known)}; a file of your own ends with .toml"
        raise UsageError(f"recipe '{given}'", "none of this name comes with selfcfg", remedy)
    return known[given]
