"""selfcfg: self-configuring segmentation with selectable training strategies.

Importing the package imports nothing heavy; the names below load what they need on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "SelfcfgError": "selfcfg.errors",
    "Geometry": "selfcfg.geometry",
    "LabelSchema": "selfcfg.labels",
    "Dataset": "selfcfg.dataset",
    "Fingerprint": "selfcfg.fingerprint",
    "Plan": "selfcfg.plan",
    "Topology": "selfcfg.topology",
    "Trainer": "selfcfg.engine.trainer",
    "Settings": "selfcfg.engine.trainer",
    "Batch": "selfcfg.engine.trainer",
    "load_model": "selfcfg.engine.prediction.opening",
}

__all__ = [
    "Batch",
    "Dataset",
    "Fingerprint",
    "Geometry",
    "LabelSchema",
    "Plan",
    "SelfcfgError",
    "Settings",
    "Topology",
    "Trainer",
    "__version__",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'selfcfg' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
