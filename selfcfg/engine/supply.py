"""What the streams of one fold draw from: its own cases, further images, and the labelled reference dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from selfcfg.dataset import Dataset
from selfcfg.engine.data.collection import Collection
from selfcfg.engine.data.source import Domain, Source
from selfcfg.engine.distillation.lessons import Lessons
from selfcfg.engine.trainer import Need
from selfcfg.errors import UsageError
from selfcfg.image_targets import Values, encoded
from selfcfg.plan import Plan
from selfcfg.splits import Split


@dataclass(frozen=True)
class Supply:
    """All that is there for one fold.

    Args:
        store_folder: of the dataset's own cases.
        split: the fold's.
        pictures: by case of the dataset, the hash of its image files.
        collection: the other datasets.
        previous: folder of the previous stage's label maps, in a cascade; else None.
        lessons: what teachers say; None without any.
        image_values: the image-level values of the dataset's cases.
    """

    store_folder: Path
    split: Split
    pictures: Mapping[str, str]
    collection: Collection
    previous: Path | None = None
    lessons: Lessons | None = None
    image_values: Values = field(default_factory=dict)

    def sources(
        self, needs: Mapping[str, Need], train: tuple[str, ...], validation: tuple[str, ...]
    ) -> dict[str, Source]:
        """Where each stream draws from; no other dataset gives an image that the fold validates.

        Args:
            needs: by stream; optional ones are left out without further images.
            train: the cases whose labels may be trained on.
            validation: those that streams with labels are validated on.
        """
        unseen = {self.pictures[case] for case in self.split.val}
        further, guide = self.collection.without(unseen), self.collection.reference
        seen = guide and guide.without(unseen)
        found = {}
        for stream, need in needs.items():
            if need.optional and not further:
                continue
            if need.reference:
                if seen is not None:
                    found[stream] = Source((seen.domain,), need, plan=seen.plan)
            elif need.is_labelled:
                found[stream] = self._labelled(need, train, validation)
            else:
                found[stream] = self._unlabelled(need, further)
        return found

    def _labelled(self, need: Need, train: tuple[str, ...], validation: tuple[str, ...]) -> Source:
        soft = self.lessons.own if need.soft and self.lessons else None
        values = self.image_values if need.image_targets else None
        if values is not None:
            if values.keys().isdisjoint(train):
                found = "no training case of the fold has a value"
                raise UsageError("train on image-level targets", found, "give values in dataset.json: image_targets")
            train, validation = (tuple(case for case in cases if case in values) for cases in (train, validation))
        domain = Domain(self._store_for(need), train, validation, soft=soft)
        return Source((domain,), need, self.previous, image_values=values)

    def _unlabelled(self, need: Need, further: tuple[Domain, ...]) -> Source:
        """All cases of the fold, and of further sets."""
        store, split = self._store_for(need), self.split
        if not need.soft:
            return Source((Domain(store, split.train, split.val), *further), need, self.previous)
        own, others = (self.lessons.own, self.lessons.further) if self.lessons else (None, ())
        at = others or (None,) * len(further)  # teachers speak in training alone
        taught = (replace(one, soft=where, validation=()) for one, where in zip(further, at, strict=True))
        return Source((Domain(store, split.train, soft=own), *taught), need, self.previous)

    def _store_for(self, need: Need) -> Path:
        return self.collection.own if need.one_channel and self.collection.own else self.store_folder


def values_for(needs: Mapping[str, Need], plan: Plan, dataset: Dataset) -> Values:
    """By case, the values of the plan's image-level targets; empty where no stream needs them.

    Raises:
        UsageError: the targets in dataset.json are not those of the plan.
    """
    if not any(need.image_targets for need in needs.values()):
        return {}
    return encoded(plan.image_targets, dataset.description.image_targets)
