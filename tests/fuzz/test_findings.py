"""Files that fuzzing found readers not to stand, each as small as it could be made."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from selfcfg.errors import SelfcfgError
from tests.fuzz.targets import DESCRIPTION, TARGETS, array_seed, dumped, package_whole, probabilities_whole, record_seed

NRRD = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5 6 3\nencoding: raw\n"
BMP = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 62, 0, 0, 62, 40, 5, 0x02000006, 1, 1, 0, 0, 0, 0, 0, 0)
CYCLE = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 256, 4, 1, 7, 8)
"""A TIFF whose only page names itself as the next."""

FOUND = {
    "the process ended within ITK": ("nrrd", NRRD + b"space directions: (0" + b"9" * 5000 + b",0,0)\n\n"),
    "the process ended within ITK, comments": ("nrrd", NRRD + b"# " + b" " * 900 + b"(" + b" " * 900 + b"\n\n"),
    "134 MB of rows for 62 bytes": ("bmp", BMP + bytes(8)),
    "endless pages": ("tiff", CYCLE),
    "a ValueError of the TOML parser": ("recipe", b"a = " + b"9" * 5000),
    "a TypeError, no list of cases": ("nnU-Net summary", dumped({"metric_per_case": None})),
    "a TypeError, no list of tests": (
        "Decathlon",
        dumped({"modality": {"0": "CT"}, "labels": {"0": "b", "1": "a"}, "training": [{}], "test": True}),
    ),
    "a ValueError, a digit that is none": ("labels", dumped({"\u00b2": "a", "1": "b"})),
    "an OverflowError": (
        "nnU-Net summary",
        b'{"metric_per_case": [{"reference_file": "a", "metrics": {"1": {"Dice": 1, "IoU": 1, "n_ref": Infinity}}}]}',
    ),
    "a UnicodeDecodeError": ("image_targets.csv", b"\xff\xfecase"),
    "a TokenError of numpy's header": (
        "probabilities, whole",
        array_seed().replace(b"'fortran_order'", b"'fortran_(rder'"),
    ),
    "a SyntaxError of numpy's header": ("probabilities, whole", array_seed().replace(b"'shape'", b"'sh\0pe'")),
    "an OSError, a name too long": (
        "Decathlon",
        dumped(
            {
                "modality": {"0": "CT"},
                "labels": {"0": "b", "1": "a"},
                "training": [{"image": "0" * 5000, "label": "a.nii"}],
            }
        ),
    ),
    "a ValueError, a file of no name": (
        "dataset.json",
        dumped({**DESCRIPTION, "dataset": {"a": {"images": ["a\0b"]}}}),
    ),
    "half of a surrogate pair": ("splits", b'[{"train": ["\\ud800"], "val": ["b"]}]'),
    "a key twice": ("dataset.json", dumped(DESCRIPTION).replace(b'"core": 2', b'"core": 2, "core": 1')),
}


@pytest.mark.parametrize("name", FOUND)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    parser, content = FOUND[name]
    with pytest.raises(SelfcfgError):
        TARGETS[parser].run(tmp_path, probabilities_whole(content) if parser == "probabilities, whole" else content)


@pytest.mark.parametrize("text", ["1" * 200_000 + "x", "a" + "[" * 200_000 + "b"], ids=["digits", "brackets"])
def test_tables_take_time_by_their_length_and_not_its_square(text: str, tmp_path: Path) -> None:
    content = f"case,{text}\na,{text}\nb,2\n"
    with pytest.raises(SelfcfgError):
        TARGETS["image targets"].run(tmp_path, content.encode())


@pytest.mark.parametrize("transforms", [{"mirror_p": []}, [1], "x"], ids=str)
def test_settings_of_no_kind_in_a_package(transforms: object, tmp_path: Path) -> None:
    content = json.loads(record_seed())
    content["settings"]["transforms"] = transforms
    target = TARGETS["package, whole"]
    with pytest.raises(SelfcfgError, match="the settings of its training hold transforms="):
        target.run(tmp_path, package_whole(dumped(content)))
