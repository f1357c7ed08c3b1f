import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from selfcfg.errors import DataError, SelfcfgError, WorkerDied
from selfcfg.parallel import default_jobs, run_cases


def square(item):
    return item * item


def refuse_odd(item):
    if item % 2:
        raise DataError(f"case {item}", "it is odd", "use an even one")
    return item


def mistake(item):
    return 1 / item


def unpicklable(item):
    return (value for value in [item])


def die(item):
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "exits":
        os._exit(3)
    time.sleep(0.3)
    return os.getpid()


def die_the_first_time(folder):
    time.sleep(0.5)
    if (folder / "may die").exists() and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return True


def overlap(folder):
    """How many of these run at once while this one does."""
    mine = folder / f"{os.getpid()}-{time.monotonic_ns()}"
    mine.touch()
    most = 0
    for _ in range(20):
        most = max(most, len(list(folder.iterdir())))
        time.sleep(0.02)
    mine.unlink()
    return most


def threads(_item):
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_item_is_answered_with_its_result(jobs):
    found = dict(run_cases(square, {str(n): n for n in range(7)}, jobs=jobs, doing="square"))
    assert found == {str(n): n * n for n in range(7)}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_case_never_stops_the_others(jobs):
    found = dict(run_cases(refuse_odd, {str(n): n for n in range(5)}, jobs=jobs, doing="look at"))
    assert [found[name] for name in "024"] == [0, 2, 4]
    for name in "13":
        assert isinstance(found[name], DataError)
        assert str(found[name]) == f"case {name}: it is odd; use an even one"


def test_a_mistake_of_the_program_is_raised_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)measure case 'zero'.*ZeroDivisionError"):
        list(run_cases(mistake, {"one": 1, "zero": 0}, jobs=2, doing="measure"))
    with pytest.raises(ZeroDivisionError):
        list(run_cases(mistake, {"one": 1, "zero": 0}, jobs=1, doing="measure"))


def test_an_answer_that_cannot_be_sent_is_a_mistake_too():
    with pytest.raises(RuntimeError, match="generator"):
        list(run_cases(unpicklable, {"a": 1, "b": 2}, jobs=2, doing="measure"))


def test_a_dead_worker_is_named_with_case_and_cause_and_replaced():
    items = {"a": "a", "b": "killed", "c": "exits", "d": "d", "e": "e"}
    found = dict(run_cases(die, items, jobs=2, doing="preprocess"))
    assert isinstance(found["b"], WorkerDied)
    assert "preprocess case 'b'" in str(found["b"])
    assert "SIGKILL" in str(found["b"])
    assert "--jobs" in str(found["b"])
    assert isinstance(found["c"], WorkerDied)
    assert "exit code 3" in str(found["c"])
    assert all(isinstance(found[name], int) for name in "ade")


def test_a_case_killed_beside_others_is_tried_once_more_on_its_own(tmp_path):
    folders = {name: tmp_path / name for name in ("a", "b", "c")}
    for folder in folders.values():
        folder.mkdir()
    (folders["a"] / "may die").touch()
    assert dict(run_cases(die_the_first_time, folders, jobs=2, doing="preprocess")) == dict.fromkeys(folders, True)
    assert (folders["a"] / "died").exists()


def test_memory_holds_workers_back(tmp_path):
    available = psutil.virtual_memory().available
    items = {str(n): tmp_path for n in range(3)}
    large = dict(run_cases(overlap, items, jobs=2, doing="measure", memory=lambda _: available // 2))
    assert set(large.values()) == {1}
    small = dict(run_cases(overlap, items, jobs=2, doing="measure", memory=lambda _: 1000))
    assert max(small.values()) == 2


def test_workers_compute_on_one_thread():
    assert set(dict(run_cases(threads, {"a": 1, "b": 2}, jobs=2, doing="count")).values()) == {(1, "1")}


def test_nothing_is_left_running_when_the_reader_stops_early():
    before = set(psutil.Process().children(recursive=True))
    results = run_cases(die, {str(n): "fine" for n in range(4)}, jobs=2, doing="wait")
    next(results)
    results.close()
    left = [p for p in psutil.Process().children(recursive=True) if p not in before]
    assert not [p for p in left if "resource_tracker" not in " ".join(p.cmdline())]


def test_no_items_no_processes():
    assert not list(run_cases(square, {}, jobs=8, doing="square"))


def test_default_jobs_is_what_this_process_may_use():
    assert 1 <= default_jobs() <= os.cpu_count()


@pytest.mark.skipif(not Path("/proc").is_dir() or sys.platform == "win32", reason="needs /proc")
@pytest.mark.parametrize("seconds", [0.2, 600], ids=["short work", "in the middle of long work"])
def test_workers_end_with_a_killed_parent(tmp_path, seconds):
    import subprocess

    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from selfcfg.parallel import run_cases\n"
        "def nap(n):\n"
        f"    time.sleep(n and {seconds})\n"
        "    return n\n"
        "if __name__ == '__main__':\n"
        "    for name, _ in run_cases(nap, {str(n): n for n in range(999)}, jobs=2, doing='nap'):\n"
        "        print(name, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    parent.stdout.readline()
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers) >= 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_errors_survive_the_way_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(WorkerDied("a", "b", "c")))
    assert isinstance(error, SelfcfgError)
    assert (error.asked, error.found, error.remedy) == ("a", "b", "c")


@pytest.mark.parametrize("jobs", [1, 2])
def test_items_that_could_not_begin_before_follow(jobs: int) -> None:
    def then(name: str, outcome: object) -> dict[str, int]:
        return {f"{name}+": 0} if name.count("+") < 2 and not isinstance(outcome, SelfcfgError) else {}

    outcomes = dict(run_cases(square, {"a": 1, "b": 2}, jobs=jobs, doing="test", then=then))
    assert set(outcomes) == {"a", "a+", "a++", "b", "b+", "b++"}
    assert outcomes["b"] == 4
