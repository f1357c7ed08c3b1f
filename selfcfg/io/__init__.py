"""Readers and writers of image files by suffix; every byte is verified before a reader sees it.

The names below load what they need on first use, so importing the package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfcfg.io.cases import CaseArrays, hash_case, hash_images, read_case
    from selfcfg.io.images import read_header, read_image, read_label, write_image, write_label
    from selfcfg.io.problems import FileProblem

_PUBLIC = {
    "CaseArrays": "selfcfg.io.cases",
    "FileProblem": "selfcfg.io.problems",
    "hash_case": "selfcfg.io.cases",
    "hash_images": "selfcfg.io.cases",
    "read_case": "selfcfg.io.cases",
    "read_header": "selfcfg.io.images",
    "read_image": "selfcfg.io.images",
    "read_label": "selfcfg.io.images",
    "write_image": "selfcfg.io.images",
    "write_label": "selfcfg.io.images",
}

__all__ = [
    "CaseArrays",
    "FileProblem",
    "hash_case",
    "hash_images",
    "read_case",
    "read_header",
    "read_image",
    "read_label",
    "write_image",
    "write_label",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'selfcfg.io' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)
