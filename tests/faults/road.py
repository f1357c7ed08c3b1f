"""The road from images to a selected model in steps that can be disturbed, and what each leaves when nobody does."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from selfcfg.convert.synthetic import make_synthetic
from selfcfg.files import write_json
from tests.conftest import slim

NAME, NUMBER = "Dataset905_Faults", "905"
LOG = "log.jsonl"
"""The one file in which two undisturbed runs may differ: it holds seconds."""

CASES = [f"case_{number:03}" for number in range(5)]
SPLITS = [{"train": CASES[2:], "val": CASES[:2]}, {"train": CASES[:2], "val": CASES[2:]}]
"""Two folds, which all that is done with several can be shown by."""

HEAVY = (
    "torch", "scipy.ndimage", "SimpleITK", "lightning_fabric.fabric", "matplotlib.pyplot", "jinja2", "blosc2",
    "scipy.stats", "skimage.measure._polygon", "skimage.measure._find_contours",
    "selfcfg.engine.folds", "selfcfg.engine.training.processes",
    "selfcfg.cli.app", "selfcfg.engine.pipeline", "selfcfg.engine.recipes.jobs", "selfcfg.engine.selection.select",
    "selfcfg.engine.prediction.loading", "selfcfg.report.report", "selfcfg.report.page.experiment",
)  # fmt: skip
"""Imported once, by the process that all disturbed ones are forked from: starting one then takes milliseconds."""

SHORT = {"epochs": 2, "iterations_per_epoch": 2, "validation_iterations": 1, "batch_size": 2, "workers": 0}
SETS = [word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")]
STAGE = ", ".join(f"{key} = {value}" for key, value in SHORT.items())
RECIPE = f"""
[[stage]]
name = "pretrain"
foreach = {{ trainer = ["masked", "contrastive"] }}
settings = {{ {STAGE} }}

[[stage]]
name = "finetune"
trainer = "supervised"
init = "pretrain"
settings = {{ {STAGE} }}
keep = {{ best_by = "dice" }}
"""


@dataclass(frozen=True)
class Step:
    """A command that is run where those before it were.

    Args:
        name: for people.
        command: its words; FOLDER stands for the folder of everything.
        makes: a path whose existence says that the command has done all it does, for one that refuses to do it twice.
    """

    name: str
    command: tuple[str, ...]
    makes: str | None = None

    def words(self, folder: Path) -> list[str]:
        """The command in a folder."""
        return [word.replace("FOLDER", str(folder)) for word in self.command]


PLACE = ("--workspace", "FOLDER/w")
ALONE = ("--jobs", "1", *PLACE)
EXPERIMENT = f"FOLDER/w/results/{NAME}/supervised__standard__2d"
STEPS = (
    Step(
        "convert",
        ("convert", "folder", "--images", "FOLDER/in/imagesTr", "--labels", "FOLDER/in/labelsTr", "--id", NUMBER,
         "--name", "Faults", "--channels", "a,b", *PLACE),
        makes=f"w/raw/{NAME}",
    ),
    Step("plan", ("plan", NUMBER, *ALONE)),
    Step("preprocess", ("preprocess", NUMBER, "-c", "2d", *ALONE)),
    Step("train", ("train", NUMBER, "-c", "2d", "--fold", "all", "--resume", "--save-probabilities", *SETS, *ALONE)),
    Step("predict", ("predict", EXPERIMENT, "-i", "FOLDER/in/imagesTs", "-o", "FOLDER/out", *PLACE)),
    Step("select", ("select", NUMBER, *PLACE)),
    Step("graph", ("train", NUMBER, "--recipe", "FOLDER/two.toml", "-c", "2d", "--fold", "0", "--resume", *ALONE)),
)  # fmt: skip


class Ended(NamedTuple):
    """How a command ended.

    Args:
        code: exit code; minus the signal that killed it.
        said: all that it wrote.
        seconds: that it took.
    """

    code: int
    said: str
    seconds: float


class Running:
    """A command in a process of its own, forked from one that has imported everything.

    Args:
        command: words of the command line.
        before: called in that process before the command, to disturb it; picklable.
    """

    def __init__(self, command: Sequence[str], before: Callable[[], None] | None = None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*HEAVY, __name__])
        reader, writer = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(target=_run, args=(list(command), writer, before))
        self.began, self._said = time.monotonic(), bytearray()
        self.process.start()
        writer.close()
        self._listening = threading.Thread(target=self._listen, args=(reader,), daemon=True)
        self._listening.start()

    def _listen(self, reader: Connection) -> None:
        with reader:
            while words := os.read(reader.fileno(), 1 << 16):
                self._said += words

    def ended(self, timeout: float = 200) -> Ended:
        """Waits for its end.

        Raises:
            TimeoutError: it hangs.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f"still running after {timeout:g} s: {self._said[-500:].decode(errors='replace')}")
        self._listening.join(10)
        said = self._said.decode(errors="replace")
        return Ended(self.process.exitcode, said, time.monotonic() - self.began)

    def kill(self) -> None:
        """Kills it, and all that it has started."""
        if self.process.exitcode is None and self.process.pid is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet, or has just ended
                self.process.kill()
        self.process.join()

    def killed_after(self, seconds: float) -> Ended:
        """Kills it unless it has ended by then."""
        self.process.join(seconds)
        self.kill()
        return self.ended()


def _run(command: list[str], writer: Connection, before: Callable[[], None] | None) -> None:
    """In the forked process: the command line, in a process group of its own; what it says goes to whoever listens."""
    os.setpgid(0, 0)
    os.dup2(writer.fileno(), 1)
    os.dup2(writer.fileno(), 2)
    writer.close()
    from selfcfg.cli import main
    from selfcfg.engine.training.journal import without_curves

    if before is not None:
        before()
    with without_curves():
        code = main(command)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Road:
    """All steps as they end when nobody disturbs them, each kept to start the next one from.

    Args:
        root: an empty folder.
        steps: that are walked, in this order.
    """

    def __init__(self, root: Path, steps: Sequence[Step] = STEPS) -> None:
        self.root, self.place = root, root / "place"
        self.steps = {step.name: step for step in steps}
        self.seconds: dict[str, float] = {}
        self._found: dict[str, dict[str, str]] = {}
        self.place.mkdir(parents=True)
        dataset = make_synthetic(self.place / "in", n_cases=len(CASES), mean_shape=(6, 24, 20), n_test=2)
        (dataset.root / "dataset.json").unlink()
        (self.place / "two.toml").write_text(RECIPE)
        Running(["--version"]).ended()  # what all are forked from is there: the first step takes no longer than later
        for step in steps:
            self._walk(step)
            if step.name == "convert":
                write_json(self.place / "w" / "raw" / NAME / "splits_final.json", SPLITS)
            if step.name == "plan":
                slim(next(self.place.rglob("plans/standard.json")))

    def _walk(self, step: Step) -> None:
        """Runs a step that nobody disturbs, and keeps what it gives."""
        shutil.copytree(self.place, self.root / f"before {step.name}")
        ended = self.run(step.name).ended()
        assert ended.code == 0, f"{step.name}: {ended.said}"
        self.seconds[step.name], self._found[step.name] = ended.seconds, contents(self.place)

    def start(self, name: str) -> None:
        """Lays the place as it was before a step."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.root / f"before {name}", self.place)

    def run(self, name: str, before: Callable[[], None] | None = None, further: Sequence[str] = ()) -> Running:
        """Starts a step, its command with further words, after a call that disturbs it."""
        return Running([*self.steps[name].words(self.place), *further], before)

    def is_done(self, name: str) -> bool:
        """Whether a step that refuses to be done twice is done."""
        makes = self.steps[name].makes
        return makes is not None and (self.place / makes).exists()

    def finished(self, name: str) -> list[str]:
        """Runs a step to its end, and tells what is then not as it should be."""
        if not self.is_done(name) and (ended := self.run(name).ended()).code:
            return [f"{name} ended with {ended.code}: {ended.said[-500:]}"]
        return self.differences(name)

    def differences(self, name: str) -> list[str]:
        """What is not as an undisturbed step leaves it: files that lack, are left over, or have another content."""
        expected, found = self._found[name], contents(self.place)
        told = [f"lacks {file}" for file in sorted(expected.keys() - found.keys())]
        told += [f"left over: {file}" for file in sorted(found.keys() - expected.keys())]
        shared = sorted(expected.keys() & found.keys())
        changed = [file for file in shared if expected[file] != found[file] and Path(file).name != LOG]
        return told + [f"differs: {file}" for file in changed]


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder by its path; files of locks are left out, being nobody's result."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }
