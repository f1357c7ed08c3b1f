"""The small road with names that are paths, markup, formulas and commands; opening a connection ends it.

python -m tests.security.road FOLDER
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = (
    "=cmd()|' C calc'!A0",
    "@SUM(1+1)*cmd",
    "-rf ~",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)<script>",
    "$(touch pwned)",
    "`touch pwned`",
    "a; touch pwned #",
    "{{7*7}}{% raw %}",
    "[bold]x[red]",
    "C:pwned & echo %PATH% > pwned",
    "a|b \"c\" 'd'",
    "\u202egnp.\u200bé 🩻",
)
LABEL = "<b>=cmd()</b>|$(touch other)"
SETS = ["epochs=1", "iterations_per_epoch=1", "validation_iterations=1", "batch_size=2", "workers=0"]
FORBIDDEN = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto", "urllib.Request")


def guard(event: str, arguments: tuple[Any, ...]) -> None:
    """Ends the program where it asks for a name or a connection; sockets between its own processes are none."""
    if event in FORBIDDEN or (
        event in ("socket.connect", "socket.bind") and arguments[0].family != getattr(socket, "AF_UNIX", None)
    ):
        sys.stderr.write(f"network: {event} {arguments!r}\n")
        os._exit(99)


def pictures(folder: Path) -> None:
    """An image and a label of each name: a bright square on noise."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        mask = np.zeros((32, 32), np.uint8)
        mask[6 + number % 5 : 20, 8:22] = 1
        image = rng.integers(0, 60, mask.shape).astype(np.uint8) + mask * 150
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "labels" / f"{name}.png")


def main(folder: Path) -> None:
    """The whole road; what every command answered goes into answers.json, what it said into said.txt."""
    from selfcfg.cli import main as program
    from tests.conftest import slim

    pictures(folder)
    (folder / "names.json").write_text(json.dumps({"background": 0, LABEL: 1}))
    place = ["--workspace", str(folder / "w")]
    raw = folder / "w" / "raw" / "Dataset007_Names"
    answers: dict[str, Any] = {}
    said = io.StringIO()

    def run(*arguments: object) -> Any:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            code = program([*map(str, arguments), "--json"])
        answer = json.loads(out.getvalue().strip().splitlines()[-1])
        if code:
            sys.stderr.write(f"{arguments}: {answer}\n{said.getvalue()[-3000:]}\n")
            sys.exit(1)
        answers["-".join(map(str, arguments[:2]))] = answer
        return answer

    made = ["--images", folder / "images", "--labels", folder / "labels", "--id", 7, "--name", "Names"]
    run("convert", "folder", *made, "--labels-json", folder / "names.json", *place)
    run("check", 7, "--jobs", 1, *place)
    run("plan", 7, "--jobs", 1, *place)
    slim(folder / "w" / "preprocessed" / raw.name / "plans" / "standard.json")
    sets = [part for one in SETS for part in ("--set", one)]
    trained = run("plan-and-train", 7, "--fold", 0, *sets, "--jobs", 1, *place)["run"]
    images, out = folder / "images", folder / "predictions"
    run("predict", trained, "-i", images, "-o", out, "--no-mirroring", "--uncertainty", *place)
    run("evaluate", folder / "labels", out, "--dataset-json", raw / "dataset.json", "--jobs", 1)
    run("export", trained, "--to", "package", "--out", folder / "m.zip", *place)
    run("import", folder / "m.zip", "--out", folder / "m")
    (folder / "answers.json").write_text(json.dumps(answers))
    (folder / "said.txt").write_text(said.getvalue(), encoding="utf-8", errors="surrogateescape")


if __name__ == "__main__":
    sys.addaudithook(guard)
    main(Path(sys.argv[1]))
