"""The program: its commands, and how an error becomes one line and an exit code."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from selfcfg import __version__
from selfcfg.cli import (
    benchmarking,
    calibrating,
    clusters,
    comparing,
    data,
    exchange,
    inference,
    inspection,
    planning,
    selecting,
    training,
)
from selfcfg.cli.sharing import ARGUMENTS, code_of_process, is_first, refuse_other_command
from selfcfg.errors import (
    AlreadyTold,
    ProcessLost,
    SelfcfgError,
    Stopped,
    ToldElsewhere,
    TrainingDiverged,
    printable,
)

STOPPED = Stopped.exit_code
TRAINING = ("train", "plan-and-train", "run")
OF_ALL = (Stopped, TrainingDiverged)
"""What ends all processes that train together at once."""
_WrongUse: Any = typer.BadParameter.__mro__[1]  # UsageError of the click that typer brings or uses

app = typer.Typer(
    help="Self-configuring medical image segmentation. For research use; not a medical device.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(inspection.demo)
app.add_typer(data.convert, name="convert")
app.command("check")(data.check)
app.command("fingerprint")(data.fingerprint)
app.command("plan")(planning.plan)
app.command("forecast")(planning.forecast)
app.command("preprocess")(data.preprocess)
app.command("train")(training.train)
app.command("plan-and-train")(training.plan_and_train)
app.command("run")(selecting.run)
app.command("select")(selecting.select)
app.command("calibrate")(calibrating.calibrate)
app.command("predict")(inference.predict)
app.command("evaluate")(inference.evaluate)
app.command("compare")(comparing.compare)
app.add_typer(benchmarking.benchmark, name="benchmark")
app.add_typer(exchange.importing, name="import")
app.command("export")(exchange.export)
app.command("report")(inspection.report)
app.command("status")(clusters.status)
app.command("cancel")(clusters.cancel)
app.command("list")(inspection.list_things)
app.command("show")(inspection.show)
app.command("doctor")(inspection.doctor)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        sys.stdout.write(f"selfcfg {__version__}\n")
        raise typer.Exit


def run(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    token = ARGUMENTS.set(tuple(arguments))
    try:
        refuse_other_command(arguments)
        code = app(arguments, prog_name="selfcfg", standalone_mode=False)
    except SelfcfgError as error:
        return _failed_with(error, arguments)
    except typer.Exit as stop:
        return stop.exit_code
    except _WrongUse as error:
        usage = error.ctx.get_usage() + "\n" if error.ctx else ""
        message = error.format_message() or "nothing was asked"
        if type(error).__name__ == "NoSuchOption" and arguments[0] in TRAINING:
            message += " Settings of the trainer are given as --set KEY=VALUE, see: selfcfg list trainers"
        return _failed(message, 2, arguments, usage)
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted; the same command goes on (train: with --resume)", STOPPED, arguments)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}; see to the file, its disk and who may use it", 1, arguments)
    finally:
        ARGUMENTS.reset(token)
    return code if isinstance(code, int) else 0


def _failed_with(error: SelfcfgError, arguments: list[str]) -> int:
    """Tells an error, if no other process does; the exit code."""
    is_lost = isinstance(error, ProcessLost) and "--debug" not in arguments
    if is_lost or isinstance(error, AlreadyTold | ToldElsewhere) or (not is_first() and isinstance(error, OF_ALL)):
        return code_of_process(error)
    _failed(str(error), error.exit_code, arguments)
    return code_of_process(error)


def _failed(message: str, code: int, arguments: list[str], usage: str = "") -> int:
    if "--debug" in arguments and sys.exc_info()[1] is not None and code != 2:
        import traceback  # noqa: PLC0415

        traceback.print_exc()
    sys.stderr.write(f"{usage}{'stopped' if code == STOPPED else 'error'}: {printable(message)}\n")
    if "--json" in arguments:
        sys.stdout.write(json.dumps({"error": message, "exit_code": code}) + "\n")
    return code
