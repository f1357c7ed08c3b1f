"""Commands that compare strategies on one dataset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from selfcfg.cli.clusters import Cluster, ClusterOption, ClusterSetOption, Here
from selfcfg.cli.options import (
    ConfigurationOption,
    DatasetArgument,
    DebugOption,
    DeviceOption,
    JobsOption,
    JsonOption,
    PlanOption,
    SetOption,
    Speaker,
    WorkspaceOption,
    open_project,
    settings_of,
    split_values,
)
from selfcfg.cli.training import ReferenceOption, UnlabelledOption, reference_folder, unlabelled_sets
from selfcfg.errors import SelfcfgError, UsageError, counted, listed

if TYPE_CHECKING:
    from selfcfg.engine.label_efficiency.benchmark import Benchmark
    from selfcfg.engine.label_efficiency.jobs import Finished
    from selfcfg.engine.label_efficiency.wanted import LabelEfficiency
    from selfcfg.project import Project

benchmark = typer.Typer(help="Compares training strategies.", no_args_is_help=True, rich_markup_mode=None)

ArmsOption = Annotated[
    list[str] | None,
    typer.Option(help="scratch, or trainers, NAME=TRAINER to have one twice; what only pretrains is fine-tuned"),
]

ArmSetOption = Annotated[
    list[str] | None, typer.Option(metavar="ARM.KEY=VALUE", help="like --set, for one arm alone; repeat")
]

PretrainSetOption = Annotated[
    list[str] | None, typer.Option(metavar="ARM.KEY=VALUE", help="a setting of an arm that pretrains; repeat")
]

PretrainOnOption = Annotated[
    list[str] | None, typer.Option(metavar="ARM:IMAGES", help="like --unlabelled, for one arm alone; repeat")
]

PretrainFromOption = Annotated[
    list[str] | None, typer.Option(metavar="ARM:OTHER", help="an arm's pretraining starts from another's; repeat")
]

RATES = (0.1, 0.03, 0.01)
"""Learning rates to choose from that need not be named; few steps want high ones (`benchmarks` has a study)."""

BUDGETS = {"short": 100, "converged": 600}
"""Steps of the budgets that may be named without; of a small network on two cores a minute or two, and several."""


@benchmark.command("label-efficiency")
def label_efficiency(
    dataset: DatasetArgument,
    arms: ArmsOption = None,
    fractions: Annotated[
        list[str] | None, typer.Option(help="labelled subjects: 3 is their number, 0.05 or 1.0 their share; commas")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="repetitions, each with other labelled subjects")] = 3,
    budgets: Annotated[
        list[str] | None, typer.Option(help="steps with labels: NAME=STEPS with commas; short and converged need none")
    ] = None,
    rates: Annotated[list[str] | None, typer.Option(help="rates to choose from; default: 0.1,0.03,0.01")] = None,
    settings: SetOption = None,
    arm_set: ArmSetOption = None,
    pretrain_set: PretrainSetOption = None,
    unlabelled: UnlabelledOption = None,
    pretrain_on: PretrainOnOption = None,
    pretrain_from: PretrainFromOption = None,
    reference: ReferenceOption = None,
    configuration: ConfigurationOption = None,
    planner: PlanOption = None,
    mirroring: Annotated[bool, typer.Option(help="also predict mirrored images")] = True,
    out: Annotated[
        Path | None, typer.Option(help="folder of the benchmark; default: label-efficiency in the dataset's results")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="keep weights and predictions of finished jobs")] = False,
    device: DeviceOption = None,
    cluster: ClusterOption = None,
    cluster_set: ClusterSetOption = None,
    only: Annotated[str | None, typer.Option(metavar="JOB", help="this job alone, what it needs being done")] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="trainings at once, each on one core; 0: one a core, with an accelerator one")
    ] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Trains each arm with few labels and tells what pretraining is worth; given again, it goes on where it stopped."""
    from selfcfg.engine.label_efficiency.wanted import LabelEfficiency  # noqa: PLC0415

    wanted = LabelEfficiency(
        arms=arms_of(split_values(arms) or ["scratch", "masked"]),
        fractions=tuple(amount_of(text) for text in split_values(fractions)) or (0.05, 0.1, 1.0),
        seeds=seeds,
        budgets=budgets_of(split_values(budgets) or list(BUDGETS)),
        rates=tuple(rate_of(text) for text in split_values(rates)) or RATES,
        settings=settings_of(settings),
        tuning=_by_arm("--arm-set", arm_set),
        pretraining=_by_arm("--pretrain-set", pretrain_set),
        unlabelled=unlabelled_sets(unlabelled, workspace),
        further={arm: unlabelled_sets(sets, workspace) for arm, sets in _sets_by_arm(pretrain_on).items()},
        pretrain_from=_arm_by_arm(pretrain_from),
        reference=reference_folder(reference, workspace),
        configuration=configuration,
        planner=planner,
        mirroring=mirroring,
        device=device,
        elsewhere=cluster is not None,
    )
    speaker, project = Speaker(as_json), open_project(dataset, workspace)
    there = Cluster.of(cluster, cluster_set, speaker, project, workspace, Here(device, jobs, only))
    _compare(speaker, project, wanted, out or project.results / "label-efficiency", _How(jobs, keep, only, there))


class _How(NamedTuple):
    """How a benchmark is run."""

    jobs: int
    keep: bool
    only: str | None
    cluster: Cluster | None


def _compare(speaker: Speaker, project: Project, wanted: LabelEfficiency, folder: Path, how: _How) -> None:
    """Runs a benchmark of label efficiency, here or on a cluster, or one job of it."""
    from selfcfg.engine.label_efficiency.benchmark import open_benchmark  # noqa: PLC0415
    from selfcfg.engine.label_efficiency.jobs import Finished, run_alone, run_benchmark  # noqa: PLC0415
    from selfcfg.engine.label_efficiency.results import read_results  # noqa: PLC0415

    folder = folder.absolute()
    if how.cluster and how.cluster.kind == "slurm":
        _prepare(how.cluster, wanted, folder, how.keep)
    opened = open_benchmark(project, wanted, folder)
    cases = f"{len(opened.train)} training cases, {len(opened.test)} test cases"
    speaker.say(f"{project.name}: {counted(len(opened.jobs()), 'job')}, {cases}")
    if how.only is not None:
        run_alone(opened, how.only, keep=how.keep)
        speaker.done({"benchmark": str(folder), "job": how.only})
    elif how.cluster:
        from selfcfg.engine.cluster.benchmarks import benchmark_name, benchmark_tasks  # noqa: PLC0415

        tasks = benchmark_tasks(how.cluster.caller, opened, _options(wanted, how.keep))
        if how.cluster.run(benchmark_name(project, folder), tasks):
            done = {result.name: result for result in read_results(folder)}
            _tell(speaker, opened, Finished([done[job.name] for job in opened.jobs()], {}))
    else:
        _tell(speaker, opened, run_benchmark(opened, jobs=how.jobs, keep=how.keep))


def _options(wanted: LabelEfficiency, keep: bool) -> list[str]:
    """The benchmark as options."""
    from selfcfg.engine.cluster.commands import benchmark_options  # noqa: PLC0415

    return [*benchmark_options(wanted), *(["--keep"] if keep else [])]


def _prepare(cluster: Cluster, wanted: LabelEfficiency, folder: Path, keep: bool) -> None:
    """Has a job preprocess what the benchmark reads, so that it can be opened here."""
    from selfcfg.engine.cluster.benchmarks import benchmark_name, preparing_task  # noqa: PLC0415

    task = preparing_task(cluster.caller, wanted, folder, _options(wanted, keep))
    cluster.run(f"{benchmark_name(cluster.caller.project, folder)}-prepare", [task])


@benchmark.command("distillation")
def distillation(
    run: Annotated[Path, typer.Argument(help="experiment or fold folder of a student")],
    images: Annotated[Path | None, typer.Option(help="test images; default: the validation cases of each fold")] = None,
    labels: Annotated[Path | None, typer.Option(help="their label maps")] = None,
    margin: Annotated[float, typer.Option(min=1e-6, help="Dice by which the student may be worse")] = 0.01,
    nsd_tolerance: Annotated[float, typer.Option(min=0, help="mm; pixels for pictures")] = 2.0,
    mirroring: Annotated[bool, typer.Option(help="also predict mirrored images")] = True,
    out: Annotated[Path | None, typer.Option(help="folder of the report; default: distillation in the run's")] = None,
    device: DeviceOption = None,
    jobs: JobsOption = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Puts a student beside its teachers and their ensemble: Dice, NSD, time, size, and whether it is no worse."""
    from selfcfg.engine.distillation.side_by_side import Task, side_by_side  # noqa: PLC0415
    from selfcfg.report import distillation as page  # noqa: PLC0415
    from selfcfg.report.tables import for_terminal  # noqa: PLC0415
    from selfcfg.runs import RunRecord, fold_folders  # noqa: PLC0415

    if (images is None) != (labels is None):
        raise UsageError("benchmark distillation", "one of --images and --labels", "give both, or neither")
    speaker, folds = Speaker(as_json), fold_folders(run)
    record = RunRecord.read(folds[0].record)
    project, folder = open_project(record.dataset, workspace), (out or run / "distillation").absolute()
    systems = side_by_side(run, Task(project, images, labels, folder, mirroring, nsd_tolerance, device, jobs))
    subjects = {case.id: case.subject for case in project.dataset.cases} if images is None else {}
    title = f"{record.dataset}, {record.configuration}, {folds[0].path.parent.name}"
    against = page.write_distillation_report(folder, title, systems, subjects, margin)
    speaker.say(for_terminal(page.table_of(systems, subjects, page.best_teacher(systems, subjects))))
    speaker.say("\n".join(one.sentence() for one in against))
    speaker.say(f"report: {folder / page.PAGE}")
    speaker.done({**page.as_json(systems, subjects, against), "report": str(folder / page.PAGE)})


def _tell(speaker: Speaker, benchmark: Benchmark, finished: Finished) -> None:
    """The report on all jobs that are done; then whatever kept others from it."""
    from selfcfg.report.label_cells import baseline_of, conclusions, rates_at_an_end  # noqa: PLC0415
    from selfcfg.report.label_efficiency import PAGE, table_of, write_label_report  # noqa: PLC0415
    from selfcfg.report.tables import for_terminal  # noqa: PLC0415

    folder, (results, failed) = benchmark.folder, finished
    told = []
    if results:
        cells = write_label_report(folder, benchmark.protocol(), results, benchmark.subjects)
        baseline = baseline_of(results)
        speaker.say(for_terminal(table_of(cells, baseline, with_budget=True)))
        at_an_end = rates_at_an_end(results, benchmark.wanted.rates)
        speaker.say("\n".join([*conclusions(cells, baseline), *at_an_end]))
        speaker.say(f"report: {folder / PAGE}")
        told = [cell.as_json() for cell in cells]
    if failed:
        reasons = listed((f"{name}: {error}" for name, error in failed.items()), 10, "\n  ")
        found = f"{counted(len(failed), 'job')} failed, the others are done:\n  {reasons}\n"
        raise SelfcfgError("benchmark label-efficiency", found, "mend these and give the same command again")
    shown = [result.model_dump(mode="json", exclude={"cases", "train", "kept_out"}) for result in results]
    speaker.done({"results": shown, "comparisons": told, "report": str(folder / PAGE)})


def amount_of(text: str) -> int | float:
    """A number of subjects ("3"), or with a point their share ("0.05", "1.0").

    Raises:
        UsageError: neither.
    """
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        remedy = "write 3 for three subjects, 0.05 or 1.0 for a share of them"
        raise UsageError("--fractions", f"'{text}' is not a number", remedy) from None


def arms_of(texts: list[str]) -> dict[str, str]:
    """The trainer of each arm given as NAME=TRAINER, by the trainer's name alone, or as "scratch".

    Raises:
        UsageError: a name is there twice, or cannot be a folder's.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, trainer = text.partition("=")
        if name in found:
            raise UsageError("--arms", f"'{name}' is there twice", "give names of your own: NAME=TRAINER")
        if not re.fullmatch(r"[A-Za-z0-9_+-]+", name):
            raise UsageError("--arms", f"'{name}' is no name", "use letters, digits, _, + and -")
        found[name] = trainer or ("supervised" if name == "scratch" else name)
    return found


def budgets_of(texts: list[str]) -> dict[str, int]:
    """The steps of each budget given as NAME=STEPS, or by a name that has some already.

    Raises:
        UsageError: neither.
    """
    found = {}
    for text in texts:
        name, _, steps = text.partition("=")
        if not steps.isdigit() and text not in BUDGETS:
            raise UsageError("--budgets", f"'{text}' is not NAME=STEPS", f"write it as short={BUDGETS['short']}")
        found[name] = int(steps) if steps else BUDGETS[name]
    return found


def rate_of(text: str) -> float:
    """A learning rate.

    Raises:
        UsageError: not a number.
    """
    try:
        return float(text)
    except ValueError:
        raise UsageError("--rates", f"'{text}' is not a number", "write them as 0.1,0.03") from None


def _sets_by_arm(values: list[str] | None) -> dict[str, list[str]]:
    """What is given as ARM:IMAGES, by arm."""
    found: dict[str, list[str]] = {}
    for text in split_values(values):
        arm, colon, images = text.partition(":")
        if not colon or not images:
            raise UsageError("--pretrain-on", f"'{text}' is not ARM:IMAGES", f"write it as masked:{text.strip(':')}")
        found.setdefault(arm, []).append(images)
    return found


def _arm_by_arm(values: list[str] | None) -> dict[str, str]:
    """What is given as ARM:OTHER, by arm."""
    found: dict[str, str] = {}
    for text in split_values(values):
        arm, _, other = text.partition(":")
        if not arm or not other:
            raise UsageError("--pretrain-from", f"'{text}' is not ARM:OTHER", "write it as guided:masked")
        if arm in found:
            raise UsageError("--pretrain-from", f"'{arm}' is there twice", "give one arm that it starts from")
        found[arm] = other
    return found


def _by_arm(option: str, values: list[str] | None) -> dict[str, dict[str, str]]:
    """The settings given as ARM.KEY=VALUE, by arm."""
    found: dict[str, dict[str, str]] = {}
    for name, value in settings_of(values, option).items():
        arm, dot, key = name.partition(".")
        if not dot:
            raise UsageError(option, f"'{name}' names no arm", f"write it as masked.{name}={value}")
        found.setdefault(arm, {})[key] = value
    return found
