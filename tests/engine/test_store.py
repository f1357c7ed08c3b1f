import json
import multiprocessing
import resource
from pathlib import Path

import numpy as np
import pytest

from selfcfg.engine.data.store import CaseInfo, FileState, Prepared, Store, StoredCase
from selfcfg.errors import DataError, SelfcfgError
from selfcfg.geometry import Geometry

LOCATIONS = {
    "left kidney": np.array([3, 5, 8], np.uint32),
    "file": np.array([], np.uint32),
    "a/b ä": np.arange(100, dtype=np.uint32),
}


def prepared(case="case_1", shape=(40, 70, 60), channels=2, seed=0, label=True):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    info = CaseInfo.unchanged(case, Geometry(shape=shape, spacing=(2.0, 1.0, 1.0)), source="abc")
    return Prepared(image, rng.integers(-1, 4, shape).astype(np.int16) if label else None, info)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a store but the locks."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and ".locks" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("patch", [None, (16, 32, 32), (32, 48), (128, 128, 128)])
def test_what_is_written_is_read(store, patch):
    case = prepared()
    store.write(case, LOCATIONS, patch=patch)
    found = store.open("case_1")
    assert found.info == case.info
    assert found.image.shape == (2, 40, 70, 60)
    assert found.label.shape == (40, 70, 60)
    np.testing.assert_array_equal(found.image[:], case.image)
    np.testing.assert_array_equal(found.label[:], case.label)
    assert (found.image[:].dtype, found.label[:].dtype) == (np.float32, np.int16)
    assert list(found.locations) == list(LOCATIONS)
    for name, indices in LOCATIONS.items():
        np.testing.assert_array_equal(found.locations[name], indices)
        assert found.locations[name].dtype == np.uint32


def test_any_slicing_is_numpys(store):
    case = prepared(shape=(20, 33, 41))
    store.write(case, {}, patch=(8, 16, 16))
    found = store.open("case_1")
    keys = [
        np.s_[1],
        np.s_[0, 5],
        np.s_[..., 4:9],
        np.s_[:, 3:4, -7:, 2:40:3],
        np.s_[1, -1, -1, -1],
        np.s_[:, 5:5],
        np.s_[:, 10:99, :, :],
    ]
    for key in keys:
        result = found.image[key]
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, case.image[key])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 517), (3, 1, 200), (35, 51, 35)])
@pytest.mark.parametrize("patch", [(64, 64), (40, 56, 40)])
def test_any_shape(store, shape, patch):
    case = prepared(shape=shape, channels=3)
    store.write(case, LOCATIONS, patch=patch)
    np.testing.assert_array_equal(store.open("case_1").image[:], case.image)


def test_a_patch_is_read_without_the_rest(store):
    """A damaged block is met only by who reads it."""
    case = prepared(shape=(96, 128, 128), channels=1)
    store.write(case, {}, patch=(32, 32, 32))
    file = store.folder / "case_1" / "image.b2nd"
    content = bytearray(file.read_bytes())
    found = store.open("case_1")
    assert found.image.shape == case.image.shape, "from here on the file is taken to be whole"
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    file.write_bytes(content)
    np.testing.assert_array_equal(found.image[:, :32, :32, :32], case.image[:, :32, :32, :32])
    np.testing.assert_array_equal(found.image[:, 64:, 64:, 96:], case.image[:, 64:, 64:, 96:])


def test_a_case_without_label(store):
    store.write(prepared(label=False), {})
    found = store.open("case_1")
    assert found.label is None
    assert found.locations == {}


def test_half_precision_takes_half_the_space(store):
    case = prepared(channels=1)
    store.write(case, {})
    whole = (store.folder / "case_1" / "image.b2nd").stat().st_size
    store.write(case, {}, half=True)
    assert (store.folder / "case_1" / "image.b2nd").stat().st_size < 0.6 * whole
    found = store.open("case_1").image[:]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, case.image, rtol=5e-4, atol=1e-6)


def test_values_too_large_for_half_precision_stay_whole(store):
    case = prepared(channels=1)
    case.image[0, 0, 0, 0] = 1e6
    store.write(case, {}, half=True)
    np.testing.assert_array_equal(store.open("case_1").image[:], case.image)


def test_cases_are_whole_folders_only(store):
    assert store.cases() == ()
    for name in ("b", "a"):
        store.write(prepared(name), {})
    (store.folder / ".tmp-12345678-c").mkdir()
    (store.folder / ".tmp-12345678-c" / "case.json").touch()
    (store.folder / "empty").mkdir()
    assert store.cases() == ("a", "b")


def test_writing_again_replaces_the_case_and_leaves_nothing(store):
    store.write(prepared(seed=0), LOCATIONS)
    store.write(prepared(seed=1, label=False), {})
    np.testing.assert_array_equal(store.open("case_1").image[:], prepared(seed=1).image)
    assert sorted(file.name for file in store.folder.rglob("*")) == [
        "case.json",
        "case_1",
        "image.b2nd",
        "locations.npz",
    ]


def test_the_same_case_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        Store(tmp_path / name).write(prepared(), LOCATIONS, patch=(16, 32, 32))
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_an_unknown_case_is_an_error_with_the_nearest_name(store):
    store.write(prepared("patient_12"), {})
    with pytest.raises(DataError, match=r"open case 'patient_13'.*selfcfg preprocess.*did you mean 'patient_12'"):
        store.open("patient_13")


@pytest.mark.parametrize("name", ["", ".hidden", "../outside", "a/b", "a\\b"])
def test_a_case_never_leaves_the_store(store, name):
    with pytest.raises(DataError, match="cannot be a folder name"):
        store.write(prepared(name), {})
    with pytest.raises(DataError, match="cannot be a folder name"):
        store.open(name)


@pytest.mark.parametrize("name", ["image.b2nd", "label.b2nd", "locations.npz"])
@pytest.mark.parametrize("left", [None, 0, 100])
def test_a_file_that_was_cut_is_seen(store, name, left):
    store.write(prepared(), LOCATIONS)
    file = store.folder / "case_1" / name
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left])
    assert store.stored_info("case_1") is None
    if name == "label.b2nd" and left is None:
        return
    found = store.open("case_1")
    with pytest.raises(DataError, match=r"case_1.*damaged; delete .*case_1 and run selfcfg preprocess"):
        {"image.b2nd": found.image, "label.b2nd": found.label}[name][:] if "b2nd" in name else found.locations


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_flipped_bit_is_seen(store, name):
    case = prepared(shape=(20, 30, 30))
    store.write(case, LOCATIONS)
    file = store.folder / "case_1" / f"{name}.b2nd"
    content = bytearray(file.read_bytes())
    for place in range(0, len(content), len(content) // 7):
        content[place] ^= 4
        file.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}.b2nd.*damaged; delete .*case_1 and run selfcfg preprocess"):
            getattr(store.open("case_1"), name)
        content[place] ^= 4
    file.write_bytes(content)
    np.testing.assert_array_equal(getattr(store.open("case_1"), name)[:], getattr(case, name))


def test_a_case_without_checksums_can_be_read(store):
    case = prepared()
    store.write(case, LOCATIONS)
    file = store.folder / "case_1" / "case.json"
    notes = json.loads(file.read_text())
    del notes["checksums"]
    file.write_text(json.dumps(notes))
    np.testing.assert_array_equal(store.open("case_1").image[:], case.image)


def test_damaged_notes_are_no_notes(store):
    store.write(prepared(), {}, inputs=[FileState(name="x.nii", size=3, changed=4)])
    assert store.stored_info("case_1").inputs == (FileState(name="x.nii", size=3, changed=4),)
    (store.folder / "case_1" / "case.json").write_text('{"info": 3}')
    assert store.stored_info("case_1") is None
    assert store.stored_info("never there") is None


def test_new_dates_are_noted_without_writing_the_arrays(store):
    store.write(prepared(), LOCATIONS)
    image = store.folder / "case_1" / "image.b2nd"
    before = image.stat()
    store.renew("case_1", [FileState.of(image)])
    assert store.stored_info("case_1").inputs == (FileState.of(image),)
    assert image.stat().st_mtime_ns == before.st_mtime_ns
    assert store.open("case_1").info == prepared().info


def test_leftovers_of_killed_processes_are_cleared(store):
    for name in (".tmp-0123abcd-case_1", ".tmp-0123abcd-case_10", ".tmp-9999abcd-gone"):
        (store.folder / name).mkdir(parents=True)
        (store.folder / name / "image.b2nd").write_bytes(b"part")
    with store.claim("case_1", wait=True) as free:
        assert free
        assert not (store.folder / ".tmp-0123abcd-case_1").exists()
        assert (store.folder / ".tmp-0123abcd-case_10").exists()
    with store.claim("gone", wait=True):
        other = multiprocessing.get_context("fork").Process(target=store.make_ready)
        other.start()
        other.join()
        assert not (store.folder / ".tmp-0123abcd-case_10").exists()
    store.make_ready()
    assert not list(store.folder.glob(".tmp-*"))


def _try_to_claim(folder, answers):
    with Store(folder).claim("case_1", wait=False) as free:
        answers.put(free)


def test_a_case_belongs_to_one_process_at_a_time(store):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def ask():
        other = context.Process(target=_try_to_claim, args=(store.folder, answers))
        other.start()
        other.join()
        return answers.get(timeout=5)

    with store.claim("case_1", wait=True) as free:
        assert free
        assert ask() is False
    assert ask() is True


def _read(case, expected, answers):
    answers.put(bool(np.array_equal(case.image[:, 3:9], expected)) and case.info.case == "case_1")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_opened_case_can_be_read_in_workers(store, method):
    case = prepared()
    store.write(case, LOCATIONS)
    found = store.open("case_1")
    np.testing.assert_array_equal(found.image[0, 0], case.image[0, 0])
    assert len(found.locations) == 3
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    workers = [context.Process(target=_read, args=(found, case.image[:, 3:9], answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=60) for _ in workers] == [True, True]
    for worker in workers:
        worker.join()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_many_open_cases_hold_no_files_open(store):
    store.write(prepared(shape=(5, 6, 7)), {})
    cases = [StoredCase(store.folder / "case_1") for _ in range(30)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    read = [case.image[0, 0, 0, 0] for case in cases]
    assert len(set(map(float, read))) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def _write_with_little_space(folder, limit, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        Store(folder).write(prepared(), LOCATIONS)
        answers.put("written")
    except SelfcfgError as error:
        answers.put(str(error))


@pytest.mark.parametrize("limit", [0, 1000, 400_000, 1_200_000])
def test_a_disk_that_fills_up_leaves_the_case_as_it_was(store, limit):
    store.write(prepared(seed=5), LOCATIONS)
    before = everything(store.folder)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_write_with_little_space, args=(store.folder, limit, answers))
    child.start()
    message = answers.get(timeout=60)
    child.join()
    assert message.startswith(f"write {store.folder / 'case_1'}: ")
    assert "GB free" in message
    assert "free some space" in message
    assert everything(store.folder) == before


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SelfcfgError, match="file"):
        Store(tmp_path / "file" / "store").write(prepared(), {})
    with pytest.raises(SelfcfgError, match="file"), Store(tmp_path / "file" / "store").claim("a", wait=True):
        pass
