"""Files of probabilities beside label maps: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from selfcfg.errors import DataError
from selfcfg.files import replacing
from selfcfg.labels import LabelSchema

KEY = "probabilities"

_SLACK = 1e-3
"""How far beyond 0 and 1 rounding may carry a probability."""


def write_probabilities(path: Path, probabilities: NDArray[np.float16]) -> None:
    """Writes probabilities as .npz with the key "probabilities", whole or not at all.

    Compressed at the fastest level: most probabilities are 0 or 1, and the usual level takes several times longer.
    """
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{KEY}.npy", "w", force_zip64=True) as stream,
    ):
        np.lib.format.write_array(stream, np.ascontiguousarray(probabilities), allow_pickle=False)


def read_probabilities(
    path: Path, asked: str, labels: LabelSchema, shape: tuple[int, ...]
) -> NDArray[np.floating[Any]]:
    """The probabilities (n_outputs, Z, Y, X) of a case.

    Args:
        path: the file, as `write_probabilities` makes it; nnU-Net's are alike.
        asked: for messages, with the name of the case.
        labels: meaning of the outputs.
        shape: (Z, Y, X) of the label map beside it.

    Raises:
        DataError: there is no such file, it is damaged, has another shape, or holds what is no probability.
    """
    if not path.is_file():
        remedy = "predict with --save-probabilities: they lie beside the label maps as CASE.npz"
        raise DataError(asked, f"there are no probabilities, {path}", remedy)
    wanted = (labels.n_outputs, *shape)
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{KEY}.npy" not in archive.namelist():
                raise DataError(asked, f"no '{KEY}' in {path}", "predict with --save-probabilities")
            with archive.open(f"{KEY}.npy") as stream:
                there, dtype = _header(stream)
            if there == wanted and dtype.kind == "f":
                with archive.open(f"{KEY}.npy") as stream:
                    found = np.lib.format.read_array(stream, allow_pickle=False)
                    stream.read()  # to the end, where its checksum is compared
    except DataError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise DataError(asked, f"{path} is damaged ({error})", "predict with --save-probabilities again") from error
    if there != wanted:
        kind = "regions" if labels.has_regions else "classes with the background"
        remedy = "give probabilities of these label maps, and their dataset.json"
        raise DataError(asked, f"{path} has the shape {there}, {wanted} ({kind}, Z, Y, X) is needed", remedy)
    if dtype.kind != "f" or not (found.min() >= -_SLACK and found.max() <= 1 + _SLACK):
        remedy = "predict with --save-probabilities again"
        raise DataError(asked, f"{path} holds values that are no probabilities", remedy)
    values: NDArray[np.floating[Any]] = found
    return values


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a stored array, before memory is taken for it."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype
