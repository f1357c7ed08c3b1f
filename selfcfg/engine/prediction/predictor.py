"""What predicting cases needs of a model: one network, several of a plan, or an ensemble of different plans."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from selfcfg.engine.data.store import CaseInfo
from selfcfg.engine.prediction.model import Prediction
from selfcfg.engine.prediction.quality import Quality
from selfcfg.engine.prediction.uncertainty import Wanted
from selfcfg.fingerprint import Fingerprint
from selfcfg.geometry import Geometry
from selfcfg.plan import Plan


class Ready(Protocol):
    """A case that a predictor has preprocessed."""

    @property
    def info(self) -> CaseInfo:
        """What was done to it."""
        ...


class Predictor(Protocol):
    """Whatever predicts a label map of an image."""

    @property
    def plan(self) -> Plan:
        """What the images have to be like, and what the labels mean."""
        ...

    @property
    def facts(self) -> Fingerprint | None:
        """Of the training cases."""
        ...

    @property
    def identity(self) -> str:
        """The hash of everything that makes the predictions."""
        ...

    @property
    def tells(self) -> bool:
        """Whether it says something of images as a whole."""
        ...

    @property
    def quality(self) -> Quality | None:
        """Says how good a prediction is likely to be, where it was fitted."""
        ...

    def prepare(self, case: str, array: npt.NDArray[Any], geometry: Geometry) -> Ready:
        """An image (C, Z, Y, X) preprocessed."""
        ...

    def predict(
        self,
        image: Any,
        *,
        mirroring: bool = ...,
        step: float = ...,
        probabilities: bool = ...,
        uncertainty: bool = ...,
    ) -> Prediction:
        """The prediction for one image, see `selfcfg.engine.prediction.model.Model.predict`."""
        ...

    def predict_prepared(
        self,
        prepared: Any,
        *,
        mirroring: bool = ...,
        step: float = ...,
        probabilities: bool = ...,
        uncertainty: Wanted | None = ...,
        told: bool = ...,
    ) -> Prediction:
        """The prediction for what `prepare` made."""
        ...
