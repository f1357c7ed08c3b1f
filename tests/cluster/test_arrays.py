"""Which tasks become arrays, what they wait for, and the scripts that are written of them; no Slurm is needed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from selfcfg.cluster.arrays import Array, arrays_of
from selfcfg.cluster.scripts import Place, write_script, write_submit
from selfcfg.cluster.site import Site
from selfcfg.cluster.tasks import Resources, Task, in_order
from selfcfg.errors import UsageError

SMALL = Resources(memory=300 * 2**20, seconds=600)
SITE = Site(folder=Path("/tmp"), program=("python", "-m", "selfcfg"))


def task(name: str, *after: str, kind: str = "train", any_of: Sequence[str] = (), takes: Resources = SMALL) -> Task:
    return Task(name=name, kind=kind, command=("train", name), after=after, after_any=tuple(any_of), resources=takes)


def shown(arrays: list[Array]) -> list[tuple[dict[int, str], list[str]]]:
    ids = {array.name: str(number) for number, array in enumerate(arrays)}
    return [
        ({index: one.name for index, one in array.tasks.items()}, [wait.text(ids) for wait in array.waits])
        for array in arrays
    ]


def test_folds_that_wait_for_their_own_folds_wait_index_by_index() -> None:
    tasks = [task(f"a{n}") for n in range(3)] + [task(f"b{n}", f"a{n}") for n in (2, 0)]
    first, second = shown(arrays_of(tasks, {}, 0))
    assert first == ({0: "a0", 1: "a1", 2: "a2"}, [])
    assert second == ({2: "b2", 0: "b0"}, ["aftercorr:0"])


def test_all_that_wait_for_the_same_are_one_array_that_waits_for_exactly_that() -> None:
    tasks = [*(task(f"p{n}", kind="preprocess") for n in range(3)), task("a", "p0", "p1", "p2"), task("b", "p0", "p2")]
    parts, *others = shown(arrays_of(tasks, {}, 0))
    assert parts == ({0: "p0", 1: "p1", 2: "p2"}, [])
    assert others == [({0: "a"}, ["afterok:0"]), ({0: "b"}, ["afterok:0_0:0_2"])]


def test_a_choice_waits_until_its_candidates_have_ended_however_they_did() -> None:
    tasks = [task("a"), task("b"), task("keep", any_of=["a", "b"], kind="keep"), task("last", "keep")]
    assert shown(arrays_of(tasks, {}, 0))[1:] == [({0: "keep"}, ["afterany:0"]), ({0: "last"}, ["afterok:1"])]


def test_what_takes_more_is_another_array_and_what_waits_for_two_of_one_stands_alone() -> None:
    large = SMALL.model_copy(update={"memory": 2**33})
    tasks = [task("a0"), task("a1"), task("large", takes=large), task("b", "a0", "a1"), task("c", "a0", "large")]
    assert shown(arrays_of(tasks, {}, 0)) == [
        ({0: "a0", 1: "a1"}, []),
        ({0: "large"}, []),
        ({0: "b"}, ["afterok:0"]),
        ({0: "c"}, ["afterok:0_0", "afterok:1"]),
    ]


def test_what_runs_already_is_waited_for_by_its_id_and_what_is_done_is_not() -> None:
    tasks = [task("b", "a", "done"), task("c", "b")]
    found = arrays_of(tasks, {"a": "12_3"}, 4)
    assert shown(found) == [({0: "b"}, ["afterok:12_3"]), ({0: "c"}, ["afterok:0"])]
    assert [array.name for array in found] == ["04-00-train", "04-01-train"]


def test_more_tasks_than_an_array_may_have_are_several() -> None:
    sizes = [len(array.tasks) for array in arrays_of([task(str(n)) for n in range(2001)], {}, 0)]
    assert sizes == [1000, 1000, 1]


def test_tasks_that_wait_for_each_other_are_a_mistake() -> None:
    assert [one.name for one in in_order([task("b", "a"), task("a", "gone")])] == ["a", "b"]
    with pytest.raises(ValueError, match="wait for each other: a, b"):
        in_order([task("a", "b"), task("b", "a")])


def test_a_script_says_what_is_asked_for_and_bash_can_read_it(tmp_path: Path) -> None:
    tasks = [task(f"a {n}", takes=Resources(memory=2**31, seconds=3 * 3600, cpus=3, gpus=1)) for n in (0, 1)]
    (array,) = arrays_of(tasks, {}, 0)
    given = ["mem=5G,partition=a,b", "train.time=1:00", "setup=module load cuda", "train.comment=two words"]
    site = Site.here(given, ["train", "keep"], {"nnUNet_raw": "/a b"})
    text = write_script(Place(tmp_path), "key", array, site).read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.MULTILINE))
    wanted = {"mem": "5G", "partition": "a,b", "time": "1:00", "gres": "gpu:1", "cpus-per-task": "3", "array": "0-1"}
    assert options.items() >= {*wanted.items(), ("signal", "B:USR1@120"), ("comment", '"two words"')}
    assert "#SBATCH --requeue\n" in text and "\nmodule load cuda\n" in text
    assert "export nnUNet_raw='/a b'" in text and "selfcfg train 'a 1' ;;" in text
    subprocess.run(["bash", "-n", tmp_path / f"{array.name}.sh"], check=True)


def test_submit_sh_passes_ids_on(tmp_path: Path) -> None:
    tasks = [task("a0"), task("a1"), task("b0", "a0"), task("b1", "a1"), task("c", "a0", "b1", kind="keep")]
    lines = write_submit(Place(tmp_path), arrays_of(tasks, {}, 0)).read_text().splitlines()
    assert [line for line in lines if "sbatch" in line] == [
        "job_0=$(sbatch --parsable 00-00-train.sh)",
        'job_1=$(sbatch --parsable --dependency="aftercorr:${job_0%%;*}" 00-01-train.sh)',
        'job_2=$(sbatch --parsable --dependency="afterok:${job_0%%;*}_0,afterok:${job_1%%;*}_1" 00-02-keep.sh)',
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mem", "'mem' is not KEY=VALUE"),
        ("trian.mem=3G", "'trian' is no kind of job; the kinds are train, keep"),
        ("array=0-3", "'array' is decided by the graph"),
    ],
)
def test_options_that_cannot_be_are_refused(given: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        Site.here([given], ["train", "keep"], {})


def test_what_is_not_asked_for_or_not_wanted_is_left_out() -> None:
    assert "gres" not in SITE.sbatch("train", SMALL)
    assert SITE.model_copy(update={"options": {"gpus": "a100:2"}}).sbatch("train", SMALL)["gres"] == "gpu:a100:2"
    left_out = SITE.model_copy(update={"options": {"mem": "none", "time": "none"}}).sbatch("train", SMALL)
    assert list(left_out) == ["cpus-per-task"]
    by_core = SITE.model_copy(update={"options": {"mem-per-cpu": "2G"}}).sbatch("train", SMALL)
    assert by_core["mem-per-cpu"] == "2G" and "mem" not in by_core
    with pytest.raises(UsageError, match="not a number above 0"):
        SITE.model_copy(update={"options": {"cpus": "0"}}).number("train", "cpus", 4)
