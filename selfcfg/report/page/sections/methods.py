"""A paragraph for the methods of a paper, filled in from the records of the runs: nothing that they do not say."""

from __future__ import annotations

from collections.abc import Iterator

from selfcfg.engine.scoring.metrics import METRICS
from selfcfg.errors import counted, listed
from selfcfg.geometry import times
from selfcfg.kernels.statistics import FEWEST, RESAMPLES
from selfcfg.report.page.blocks import Section, Table, Text
from selfcfg.report.page.facts import Experiment, Facts
from selfcfg.report.tables import span

_NORMALIZATION = {
    "ct": "clipped to the 0.5 and 99.5 percentiles of the foreground of all cases, then centred and scaled by its "
    "mean and standard deviation",
    "zscore": "centred and scaled by the mean and standard deviation of each image",
    "none": "left as they are",
    "rescale_to_0_1": "scaled to the range 0 to 1",
    "rgb_to_0_1": "divided by 255",
}

_INSIDE = ", inside what is not zero alone, the rest staying 0"
"""Of a channel that is normalised within the mask."""

_NAMES = {
    "dice": "the Dice coefficient",
    "nsd": "the normalised surface distance",
    "hd95": "the 95th percentile of the Hausdorff distance",
    "assd": "the average symmetric surface distance",
}


def methods(facts: Facts) -> Section:
    """How it was done, in sentences to be taken over."""
    parts = [*_trained(facts.experiment)] if facts.experiment is not None else []
    parts += [*_scored(facts)]
    lead = (
        "Written from the records of the runs. Check it, and add what a program cannot know: whose images these are, "
        "who drew the references, and why."
    )
    quoted = (Text(part, "quote") for part in parts)
    return Section("methods", "Methods paragraph", (Text(lead, "note"), *quoted, *_sources(facts)))


def _trained(experiment: Experiment) -> Iterator[str]:
    plan, record = experiment.plan, experiment.record
    configuration, settings = experiment.configuration, experiment.record.settings
    network = configuration.topology
    schemes = dict(zip(plan.channels, configuration.normalization, strict=True))
    told = "; ".join(
        f"{name}: {_NORMALIZATION[scheme]}{_INSIDE * masked}"
        for (name, scheme), masked in zip(schemes.items(), configuration.use_mask_for_norm, strict=True)
    )
    spacing = (
        f"resampled to {times(configuration.spacing)} mm" if plan.dimensions == 3 else "taken at their own resolution"
    )
    patch = settings.get("patch_size") or configuration.patch_size
    yield (
        f"A {network.kind} U-Net with {network.n_stages} stages ({network.features[0]} to {max(network.features)} "
        f"feature maps, "
        f"{configuration.dimensions}D) was configured by selfcfg {record.versions.get('selfcfg', '')} (planner "
        f"“{plan.planner}”, {plan.memory_gb:g} GB) from {counted(len(experiment.cases), 'case')} of "
        f"{counted(experiment.n_subjects, 'subject')}. Images were {spacing}; intensities were normalised by channel "
        f"({told}). "
        f"The network saw patches of {times(patch)} voxels, "
        f"{settings.get('batch_size') or configuration.batch_size} in a batch."
    )
    if settings:
        yield " ".join(_schedule(experiment))
    yield from _validated(experiment)


def _validated(experiment: Experiment) -> Iterator[str]:
    """How cases were divided, as far as the records tell."""
    if not any(record.validation for _, record in experiment.folds):
        yield "No case was held out for validation."
        return
    validated = [record for _, record in experiment.folds if record.fold in experiment.scored]
    if not validated:
        return
    subjects = {case.id: case.subject for case in experiment.dataset.cases}
    shared = 0
    for record in validated:
        sides = ({subjects.get(case, case) for case in cases} for cases in (record.train, record.validation))
        shared += len(set.intersection(*sides))
    apart = f"{counted(shared, 'subject')} had cases on both sides" if shared else "no subject had cases on both sides"
    was = "was" if len(validated) == 1 else "were"
    yield (
        f"{counted(len(validated), 'fold')} ({listed((record.fold for record in validated), 8)}) of a cross-validation "
        f"{was} trained; each case held out was predicted by the network that had not trained on it ({apart})."
    )


def _schedule(experiment: Experiment) -> Iterator[str]:
    """How long it was trained, and from what."""
    record, settings = experiment.record, experiment.record.settings
    epochs, steps = settings.get("epochs"), settings.get("iterations_per_epoch")
    if epochs and steps:
        rate, optimizer = settings.get("learning_rate"), settings.get("optimizer")
        how = f" ({optimizer}, initial learning rate {rate:g})" if rate and optimizer else ""
        yield (
            f"The strategy “{record.trainer}” trained {_epochs(experiment, epochs)} of {steps} steps{how}, seed "
            f"{record.seed}."
        )
    if record.previous is not None:
        yield "With each image the network saw the label map that a first network had predicted of it (a cascade)."
    if record.label_fraction < 1:
        yield f"Labels of {100 * record.label_fraction:g} % of the training subjects were used."
    if record.init is None and record.origin is None:
        yield "Weights were initialised at random."
    if record.init is not None:
        taken = f" ({', '.join(record.taken_over.taken)})" if record.taken_over is not None else ""
        yield f"It started from the weights of an earlier run{taken}."
    if record.teachers:
        yield f"It learnt from {counted(len(record.teachers), 'teacher')}."
    if record.stage is not None:
        yield f"It is the stage “{record.stage.stage}” of the recipe “{record.stage.recipe}”."


def _epochs(experiment: Experiment, planned: int) -> str:
    """Of the folds that are finished, as their logs have it."""
    done = {len(experiment.logs[fold]) for fold in experiment.scored} - {0}
    return f"up to {planned} epochs (ended after {span(done)})" if done - {planned} else f"{planned} epochs"


def _scored(facts: Facts) -> Iterator[str]:
    found = facts.found
    if found is None:
        return
    named = [_NAMES.get(metric, METRICS[metric].title) for metric in found.metrics]
    if "nsd" in found.metrics and found.nsd_tolerance is not None:
        tolerance = f" (tolerance {found.nsd_tolerance:g}{found.unit('distance')})"
        named = [name + tolerance if name == _NAMES["nsd"] else name for name in named]
    absent = "left out of its case" if found.empty == "exclude" else "counted as found perfectly"
    yield (
        f"Label maps were scored by {', '.join(named)}, by class, on {counted(found.cases, 'case')} of "
        f"{counted(found.subjects, 'subject')}. A class that neither reference nor prediction holds was {absent}. "
        "Cases of a subject were averaged first. Intervals are 95 % percentile bootstrap intervals over subjects "
        f"({RESAMPLES} resamples, expanded for small samples), none with fewer than {FEWEST} subjects."
    )
    if facts.evaluation is not None:
        yield "A class that was missed or invented altogether has an overlap of 0 and the image's diagonal as distance."
    if found.pairs:
        yield (
            "Systems were compared by sign-flip permutation tests of the paired differences of subjects, corrected by "
            "Holm's method, and by the intervals of these differences."
        )


def _sources(facts: Facts) -> list[Table]:
    if facts.found is None or not facts.sources:
        return []
    lost = {system.name: str(system.lost) for system in facts.found.systems}
    rows = tuple((name, kind, lost[name]) for name, kind in facts.sources)
    return [Table("Where the scores come from", ("system", "scores", "cases not compared"), rows, numbers_from=2)]
