"""The scripts that Slurm runs: what a person would write by hand, and can read, change and submit alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfcfg.cluster.arrays import Array
from selfcfg.cluster.site import Site
from selfcfg.cluster.tasks import Task
from selfcfg.files import write_text

BODY = r"""
note() { # event, exit code: a line that tells how far the job is, for selfcfg status
  printf '{"event": "%s", "code": %s, "time": %s, "job": "%s", "host": "%s"}\n' \
    "$1" "$2" "$(date +%s)" "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}" "$(hostname)" >>"$state"
}

# SIGUSR1 comes before the time limit (--signal above), or where a site preempts with the user's signal: the command is
# asked to save, and the job is put back into the queue, where it goes on. At the limit only where this turn has kept
# something: else it would begin anew for ever. SIGTERM (preemption, scancel) reaches the command by itself, at the
# latest with the end of the site's grace time; then it is Slurm that puts the job back, or does not.
asked=
child=
trap 'asked=$(date +%s); [ -z "$child" ] || kill -TERM "$child"' USR1
trap : TERM

note started 0
ends=${SLURM_JOB_END_TIME:-$(date -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s 2>/dev/null)}
run &
child=$!
[ -z "$asked" ] || kill -TERM "$child"
while kill -0 "$child" 2>/dev/null; do wait "$child"; done
wait "$child"
code=$?
if [ -n "$asked" ] && [ "$code" -ne 0 ]; then
  if [ "$asked" -ge "$((${ends:-0} - warning))" ] && ! kept; then
    echo "its time limit came before it had kept anything: give it more, --cluster-set $kind.time=HH:MM:SS" >&2
    note overdue "$code"
    exit "$code"
  fi
  if scontrol requeue "$SLURM_JOB_ID"; then
    note requeued "$code"
    exit "$code"
  fi
fi
note ended "$code"
exit "$code"
"""


EARLY = 90
"""Seconds by which Slurm may send the signal of the time limit too early; it looks every minute."""

BEGINNING = (".*", "run.json", "plan.json", "log.jsonl")
"""Names of files that are written when a training goes on, before it has done anything."""


@dataclass(frozen=True)
class Place:
    """Where the scripts of a graph, what they print and how far they are lies.

    Args:
        folder: of the graph.
    """

    folder: Path

    def script(self, array: str) -> Path:
        """The script of an array."""
        return self.folder / f"{array}.sh"

    def log(self, array: str, index: int, *, is_array: bool) -> Path:
        """What a task printed, and what Slurm said of it."""
        return self.folder / "logs" / (f"{array}.{index}.log" if is_array else f"{array}.log")

    def state(self, array: str, index: int) -> Path:
        """The lines in which a task tells how far it is."""
        return self.folder / "state" / f"{array}.{index}.jsonl"

    def make_ready(self) -> None:
        """Makes the folders that Slurm does not make."""
        for name in ("logs", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)


def job_name(graph: str, array: str) -> str:
    """The name under which Slurm shows an array; no other graph has it."""
    return f"selfcfg-{graph}-{array}"


def write_script(place: Place, graph: str, array: Array, site: Site) -> Path:
    """Writes the script of an array.

    Args:
        place: of the graph.
        graph: a text that tells this graph from all others in the queue.
        array: what it runs.
        site: how it is to be submitted.
    """
    kind, resources = array.first.kind, array.first.resources
    log = place.folder / "logs" / (f"{array.name}.%a.log" if array.is_array else f"{array.name}.log")
    options = {
        "job-name": job_name(graph, array.name),
        **({"array": _ranges(array.tasks)} if array.is_array else {}),
        "output": str(log),
        "open-mode": "append",
        "requeue": "",
        "kill-on-invalid-dep": "yes",
        "signal": f"B:USR1@{site.warning}",
        **site.sbatch(kind, resources),
    }
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{name}={_quoted(value)}" if value else f"#SBATCH --{name}" for name, value in options.items()]
    lines += [
        "# Written by selfcfg. Each command below can be typed by hand; given again, it goes on where it was.",
        "",
    ]
    if setup := site.said(kind).get("setup"):
        lines += [setup]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in site.environment.items()]
    lines += ['export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"', f"cd {shlex.quote(str(site.folder))} || exit 1"]
    lines += [f'selfcfg() {{ exec {shlex.join(site.program)} "$@"; }}']
    state = place.folder / "state" / array.name
    lines += [f'state={shlex.quote(str(state))}."${{SLURM_ARRAY_TASK_ID:-0}}".jsonl']
    lines += [f"kind={kind} warning={site.warning + EARLY}", *_run(array), *_kept(array)]
    write_text(place.script(array.name), "\n".join(lines) + "\n" + BODY)
    return place.script(array.name)


def write_submit(place: Place, arrays: Sequence[Array]) -> Path:
    """Writes submit.sh, which submits all arrays in order."""
    lines = ["#!/bin/bash", "# Submits the jobs beside it, each waiting for those that it needs.", "set -euo pipefail"]
    lines += ['cd "$(dirname "${BASH_SOURCE[0]}")"', "mkdir -p logs state"]
    ids = {array.name: f"${{job_{number}%%;*}}" for number, array in enumerate(arrays)}
    for number, array in enumerate(arrays):
        waits = ",".join(one.text(ids) for one in array.waits)
        dependency = f'--dependency="{waits}" ' if waits else ""
        tasks = ", ".join(task.name for task in array.tasks.values())
        lines += [f"# {tasks}", f"job_{number}=$(sbatch --parsable {dependency}{array.name}.sh)"]
        lines += [f'echo "{array.name}: ${{job_{number}}}"']
    file = place.folder / "submit.sh"
    write_text(file, "\n".join(lines) + "\n")
    return file


def _run(array: Array) -> list[str]:
    """A function that does the task of this job."""
    lines = ["run() {", '  case "${SLURM_ARRAY_TASK_ID:-0}" in']
    for number, task in _numbered(array):
        lines += [f"  {number}) # {task.name}", f"    selfcfg {shlex.join([*task.command, *task.options])} ;;"]
    unknown = 'echo "no task of this script has the index ${SLURM_ARRAY_TASK_ID:-0}" >&2'
    return [*lines, "  *)", f"    {unknown}", "    exit 2 ;;", "  esac", "}"]


def _kept(array: Array) -> list[str]:
    """A function that tells whether the task of this job has written anything in this turn that it can go on from."""
    lines = ["kept() {", "  local places=()", '  case "${SLURM_ARRAY_TASK_ID:-0}" in']
    for number, task in _numbered(array):
        lines += [f"  {number}) places=({shlex.join(map(str, task.keeps))}) ;;"] if task.keeps else []
    others = " ".join(f"! -name {shlex.quote(name)}" for name in BEGINNING)
    found = f'find "${{places[@]}}" -type f -newer "$state" {others} -print -quit 2>/dev/null'
    return [*lines, "  esac", f'  [ ${{#places[@]}} -gt 0 ] && [ -n "$({found})" ]', "}"]


def _numbered(array: Array) -> list[tuple[int, Task]]:
    """The tasks with the index that each has in the script."""
    return [(index if array.is_array else 0, task) for index, task in array.tasks.items()]


def _quoted(value: str) -> str:
    """A value in an #SBATCH line, where sbatch takes a word apart at spaces outside of quotes."""
    return f'"{value}"' if " " in value else value


def _ranges(indices: Iterable[int]) -> str:
    """Numbers as Slurm takes them: "0-4,7"."""
    found: list[list[int]] = []
    for index in sorted(indices):
        if found and found[-1][-1] == index - 1:
            found[-1].append(index)
        else:
            found.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)
