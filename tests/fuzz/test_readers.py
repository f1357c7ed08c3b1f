"""Whatever is in a file of others, its reader answers with a result or with an error that a user can mend.

No other exception, no crash, no minute of computing, and no memory that so small a file cannot justify. What a reader
was found not to stand is kept in `test_findings.py`; `coverage_guided.py` looks for more.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfcfg.errors import SelfcfgError
from tests.fuzz.mutations import Change, changed
from tests.fuzz.targets import TARGETS, scratch

resource = pytest.importorskip("resource", reason="memory is only limited on Unix")

EXAMPLES = 60
SECONDS = 5.0
"""Of computing, for a file of a few kilobytes."""

MEMORY = 512 << 20
"""Bytes that a reader may ask the system for: what deflate can make of the largest of these files, several times."""

NO_ROOM = ("does not fit into memory", "bad_alloc", "Failed to allocate", "Unable to allocate", "Cannot allocate")

CHANGES = st.lists(
    st.builds(Change, st.integers(0, 1000), st.floats(0, 1), st.integers(0, 2**16), st.integers(0, 2**16)),
    min_size=1,
    max_size=4,
)


@contextmanager
def bounded() -> Iterator[None]:
    """Within the block memory is refused beyond what is reasonable."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is only limited where /proc tells its size")
@pytest.mark.parametrize("name", TARGETS)
def test_only_our_errors_come_out(name: str) -> None:
    target = TARGETS[name]
    seeds, folder = target.seeds(), scratch()
    whole = target.whole or (lambda content: content)
    for seed in seeds:
        try:
            target.run(folder, whole(seed))
        except SelfcfgError:
            if target.takes:
                raise

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(which=st.integers(0, len(seeds) - 1), changes=CHANGES)
    def check(which: int, changes: list[Change]) -> None:
        content = whole(changed(seeds[which], changes, target.kind))
        start = time.process_time()
        try:
            with bounded():
                target.run(folder, content)
        except SelfcfgError as error:
            assert not any(words in str(error) for words in NO_ROOM), error
            str(error).encode("utf-8", "backslashreplace")
        assert time.process_time() - start < SECONDS

    try:
        check()
    finally:
        shutil.rmtree(folder)
