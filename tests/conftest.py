"""What every test can use: a clean environment, the real cases where they are, and one tiny dataset a session.

Nothing heavy is imported here: collecting the suite must stay quick.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selfcfg.dataset import Dataset

# Before anything imports torch, and inherited by every process a test starts: one thread each, no display.
os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1", "MPLBACKEND": "Agg"})
# A shell has what it starts in the background ignore Ctrl-C, and so would the trainings that tests send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

USERS_OWN = ("SELFCFG_WORKSPACE", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
"""Settings of whoever runs the tests that must not reach them."""


@pytest.fixture(autouse=True)
def leave_no_trace() -> Iterator[None]:
    """Environment, working folder, seeds and threads are the same before every test, whatever the last one did."""
    environment, folder = dict(os.environ), Path.cwd()
    for name in USERS_OWN:
        os.environ.pop(name, None)
    _seed()
    yield
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _seed() -> None:
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """A function from the name of a real dataset to its folder; skips the test where it is not there."""
    root = Path(os.environ.get("SELFCFG_REAL_DATA") or pytestconfig.rootpath.parent / "shared" / "data")

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no real data '{name}' in {root}; set SELFCFG_REAL_DATA to the folder that holds it")
        return root / name

    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight synthetic 3D cases of about 14 x 24 x 20 voxels and two test cases; copy the folder before changing it."""
    from selfcfg.convert.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("raw") / "Dataset901_Tiny"
    return make_synthetic(folder, n_cases=8, mean_shape=(14, 24, 20), n_test=2)


@pytest.fixture
def no_curves() -> Iterator[None]:
    """Trainings of the test, in its own process, draw no curves: of short ones that takes most of the time."""
    from selfcfg.engine.training.journal import without_curves

    with without_curves():
        yield


def slim(plan: Path) -> None:
    """Makes the networks of a plan an eighth as wide, so that training takes less time."""
    content = json.loads(plan.read_text())
    for configuration in content["configurations"].values():
        configuration["topology"]["features"] = [width // 8 for width in configuration["topology"]["features"]]
    plan.write_text(json.dumps(content))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks whatever uses the real cases as ``real``, so that it can be left out by marker."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real")
