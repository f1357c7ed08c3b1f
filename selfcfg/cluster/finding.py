"""The graphs of a workspace, by name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from selfcfg.cluster.graph import FOLDER, GRAPH
from selfcfg.errors import UsageError, listed, nearest


class Found(NamedTuple):
    """A graph on disk."""

    name: str
    folder: Path


def graphs_of(results: Path) -> list[Found]:
    """The graphs of all datasets; each is named by the dataset's folder and its own."""
    files = sorted(results.glob(f"*/{FOLDER}/*/{GRAPH}"))
    return [Found(f"{file.parents[2].name}/{file.parent.name}", file.parent) for file in files]


def find_graph(results: Path, given: str) -> Found:
    """The graph of a name, with or without the dataset's, or in a folder.

    Raises:
        UsageError: there is none, or several.
    """
    every = graphs_of(results)
    path = Path(given)
    if (path / GRAPH).is_file():
        return Found(path.name, path)
    fitting = [one for one in every if given in (one.name, one.folder.name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"graph '{given}'", f"there are {listed(one.name for one in fitting)}", "name one of them")
    remedy = nearest(given, [one.name for one in every])
    raise UsageError(f"graph '{given}'", f"there is none in {results}", remedy)
