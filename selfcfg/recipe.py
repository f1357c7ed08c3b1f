"""A training strategy as ordered stages, as it is written in TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from selfcfg.errors import DataError, UsageError, nearest
from selfcfg.records import Problem, Record

RECIPE = "recipe.json"
"""In the folder of a recipe's results: the recipe as it was used, with every setting of every stage."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""What becomes a folder's name; it has no dot, as ``--set`` writes STAGE.setting."""

Fold = Annotated[int, Field(strict=True, ge=0)]


class Images(Record):
    """A dataset whose images are pretrained on, as one of a group of related ones.

    Args:
        name: id or folder name of a dataset in the workspace, or a path, which has a slash.
        group: name of the group that it belongs to; default: a group of its own.
    """

    name: str
    group: str | None = None


class Stage(Record):
    """One training of a recipe.

    Args:
        name: of its folder; `init` of later stages and ``--set NAME.setting=value`` call it by this.
        trainer: its algorithm, by entry-point name: `selfcfg list trainers`.
        settings: the trainer's settings that differ from its defaults.
        folds: those it trains, or "all"; default: those that ``--fold`` asks for.
        init: what its first weights are taken from: the name of an earlier stage, of which each fold takes the run of
            the same fold; or the path of a run or a weights file, which has a slash. Default: random weights.
        unlabelled: datasets whose images are pretrained on besides the dataset's own: ids, folder names, or paths,
            which have a slash.
        datasets: the same with the group that each belongs to.
        reference: for trainers that need one, the labelled dataset that guides them: an id, a folder name, or a path,
            which has a slash. Default: what ``--reference`` names.
    """

    name: Name
    trainer: str
    settings: dict[str, Any] = {}
    folds: Literal["all"] | tuple[Fold, ...] | None = None
    init: str | None = None
    unlabelled: tuple[str, ...] = ()
    datasets: tuple[Images, ...] = ()
    reference: str | None = None

    @property
    def images(self) -> tuple[Images, ...]:
        """`unlabelled` and `datasets` together."""
        return (*(Images(name=name) for name in self.unlabelled), *self.datasets)


class Recipe(Record):
    """Stages that are trained one after the other, each of them able to start from the weights of one before it.

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
        problems += _between_stages(content)
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
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise DataError(f"read {source}", f"not valid TOML ({error})", "mend the file") from error
        return cls.parse({"name": name, **content}, source)

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
            changes |= {"init": stage.init and absolute(stage.init)}
            changes |= {"reference": stage.reference and absolute(stage.reference)}
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


def is_path(name: str) -> bool:
    """Whether a text is the path of something, and not the name of a stage or a dataset: it has a slash."""
    return "/" in name or "\\" in name


def _between_stages(content: Any) -> Iterator[Problem]:
    """What is wrong between the stages of a recipe as it was read, as far as they can be told apart."""
    said = content.get("stage") if isinstance(content, Mapping) else None
    stages = [stage if isinstance(stage, Mapping) else {} for stage in said] if isinstance(said, list | tuple) else []
    names = [str(stage.get("name")) for stage in stages]
    if said is not None and not said:
        yield Problem(("stage",), "must hold one stage or more")
    for index, (name, stage) in enumerate(zip(names, stages, strict=True)):
        before, init = names[:index], stage.get("init")
        if stage.get("folds") == []:
            yield Problem(("stage", index, "folds"), "must name a fold or more, or be left out")
        if name in before:
            yield Problem(("stage", index, "name"), f"'{name}' is the name of stage[{before.index(name)}] already")
        if name.startswith("fold_"):
            yield Problem(("stage", index, "name"), f"must not begin as the folders of folds do, found '{name}'")
        if not isinstance(init, str) or init in before or is_path(init):
            continue
        if init in names:
            what = f"must be an earlier stage, found '{init}', which is not trained before this one"
        else:
            what = f"no stage '{init}', {nearest(init, set(before))}; the path of a run has a slash, such as ./{init}"
        yield Problem(("stage", index, "init"), what)
