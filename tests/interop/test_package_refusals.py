"""Packages that are damaged or hostile are refused in one line, and nothing of them is left."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.interop import archive as archives
from selfcfg.interop import package_read
from selfcfg.interop.package_read import import_package
from selfcfg.interop.package_write import write_package
from tests.interop.conftest import plan_of
from tests.interop.test_nnunet_export import our_model

MODEL = "supervised__standard__small"
RUN, PLAN, WEIGHTS = (f"{MODEL}/fold_0/{name}" for name in ("run.json", "plan.json", "final.safetensors"))
Contents = dict[str, bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """The files of a package that is as it should be."""
    folder = tmp_path_factory.mktemp("package")
    file = write_package(our_model(folder, plan_of()), folder / "m.zip").file
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(contents: Contents, file: Path, *more: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (*contents.items(), *more):
            archive.writestr(name, content)
    return file


def listed(contents: Contents, **changes: object) -> Contents:
    """The files with a manifest that is true of them."""
    manifest = json.loads(contents["manifest.json"])
    files = {name: content for name, content in contents.items() if name != "manifest.json"}
    manifest["files"] = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    return {"manifest.json": json.dumps({**manifest, **changes}).encode(), **files}


def refused(file: Path, message: str, kind: type[SelfcfgError] = DataError) -> None:
    out = file.with_name("imported")
    with pytest.raises(kind, match=message) as caught:
        import_package(file, out)
    assert "\n" not in str(caught.value) and ".tmp-" not in str(caught.value)
    assert sorted(file.parent.iterdir()) == [file]


def edited(contents: Contents, name: str, **changes: object) -> Contents:
    return listed({**contents, name: json.dumps({**json.loads(contents[name]), **changes}).encode()})


NAMES = {
    "/etc/passwd": "'/etc/passwd' is an absolute path; nothing was unpacked",
    "C:/a": "is an absolute path",
    "C:\\a": "is an absolute path",
    "\\\\server\\a": "is an absolute path",
    "../a": "is a path that leads out of the folder",
    f"{MODEL}/../../a": "is a path that leads out of the folder",
    f"{MODEL}\\..\\a": "is a path that leads out of the folder",
    f"{MODEL}/fold_0\\best.safetensors": "which no package holds",
    f"{MODEL}/fold_0/./best.json": "which no package holds",
    f"{MODEL}/fold_0/last.pt": "last.pt' in it, which no package holds",
    f"{MODEL}/fold_0/code.py": "which no package holds",
    "setup.py": "which no package holds",
    f"a/b/c/d/e/{RUN}": "which no package holds",
    "con/fold_0/run.json": "which no package holds",
    "a./fold_0/run.json": "which no package holds",
    "a\x1b[2J/fold_0/run.json": r"\\x1b\[2J/fold_0/run.json' is a name with signs that cannot be seen",
    "a\u202eb/fold_0/run.json": r"\\u202eb/fold_0/run.json' is a name with signs",
    f"{MODEL}/fold_1/run.json": "of which its manifest says nothing",
    RUN.upper(): "are the same name to some systems",
    WEIGHTS: "are the same name to some systems",
    MODEL: "are the same name to some systems",
    "stra\u00dfe/fold_0/run.json STRASSE/fold_0/run.json": "are the same name to some systems",
    "\u00e9/fold_0/run.json e\u0301/fold_0/run.json": "are the same name to some systems",
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", NAMES, ids=ascii)
def test_names(names: str, good: Contents, tmp_path: Path) -> None:
    added = [(name, b"{}") for name in names.split()]
    refused(packed(good, tmp_path / "m.zip", *added), NAMES[names])


def as_kind(mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{MODEL}/quality.json")
    entry.external_attr = mode << 16
    return entry


@pytest.mark.parametrize(
    ("mode", "message"), [(stat.S_IFLNK | 0o777, "is a link"), (stat.S_IFIFO, "is no file"), (stat.S_IFCHR, "no file")]
)
def test_links_and_devices(mode: int, message: str, good: Contents, tmp_path: Path) -> None:
    refused(packed(good, tmp_path / "m.zip", (as_kind(mode), b"/etc/passwd")), message)


MANIFESTS: dict[str, tuple[Callable[[Contents], Contents], str]] = {
    "none": (lambda c: {name: c[name] for name in c if name != "manifest.json"}, "it is an experiment of selfcfg"),
    "no JSON": (lambda c: {**c, "manifest.json": b"{"}, r"m\.zip/manifest\.json: not valid JSON, line 1"),
    "a key twice": (
        lambda c: {**c, "manifest.json": c["manifest.json"].replace(b'"model"', b'"model": "x", "model"')},
        "the key 'model' stands twice in one object",
    ),
    "another kind": (lambda c: listed(c, format="a zoo"), "format: found 'a zoo'"),
    "a later version": (lambda c: listed(c, version=2), "version: "),
    "another key": (lambda c: listed(c, run="rm"), "run: unknown key"),
    "no files": (lambda c: {**c, "manifest.json": json.dumps({"selfcfg": "1", "model": MODEL}).encode()}, "files: is"),
    "negative size": (
        lambda c: {**c, "manifest.json": re.sub(rb'"size": \d+', b'"size": -1', c["manifest.json"], count=1)},
        r"files\.README\.md\.size: must be greater than or equal to 0, found -1",
    ),
    "another size": (
        lambda c: {**c, "manifest.json": re.sub(rb'"size": (\d+)', rb'"size": \g<1>1', c["manifest.json"], count=1)},
        "bytes, its manifest says",
    ),
    "another hash": (
        lambda c: {**c, "README.md": c["README.md"].swapcase()},
        r"'README\.md' is not the file that its manifest says",
    ),
    "a file that is not there": (
        lambda c: {name: c[name] for name in c if name != RUN},
        "which its manifest names, but is not there",
    ),
    "a model that is not there": (lambda c: listed(c, model="other"), "the model 'other' of its manifest is not in it"),
    "a model elsewhere": (lambda c: listed(c, model="../other"), r"the model '\.\./other' holds the part '\.\.'"),
    "a model in no folder": (lambda c: listed(c, model=""), "the model '' holds the part ''"),
    "no weights": (
        lambda c: listed({name: c[name] for name in c if name != WEIGHTS}),
        r"imported/.*final\.safetensors is missing",
    ),
    "other weights": (lambda c: listed({**c, WEIGHTS: c[WEIGHTS][:-4] + bytes(4)}), "does not match its checksum"),
    "a pickle": (lambda c: listed({**c, WEIGHTS: b"\x80\x04." + bytes(len(c[WEIGHTS]))}), "not a whole safetensors"),
    "another plan": (lambda c: edited(c, PLAN, memory_gb=3.0), "is not the plan it was trained by"),
    "a dataset elsewhere": (lambda c: edited(c, RUN, dataset="../../x"), r"the name '\.\./\.\./x' holds the part"),
    "a first model elsewhere": (lambda c: edited(c, RUN, previous="/etc"), "the name '/etc' holds the part ''"),
    "an unfinished run": (lambda c: edited(c, RUN, status="running"), "its training is not finished"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MANIFESTS)
def test_what_does_not_fit_together(kind: str, good: Contents, tmp_path: Path) -> None:
    change, message = MANIFESTS[kind]
    refused(packed(change(good), tmp_path / "m.zip"), message)


def test_a_selected_model_of_experiments_elsewhere(good: Contents, tmp_path: Path) -> None:
    member = {"experiment": "../x", "configuration": "small", "folds": [0], "plan_hash": "", "weights": {}, "weight": 1}
    content = json.dumps({"dataset": "D", "members": [member]}).encode()
    refused(packed(listed({**good, "selected/model.json": content}), tmp_path / "m.zip"), r"the name '\.\./x' holds")


def test_bombs(good: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = {**good, f"{MODEL}/quality.json": b" " * (8 << 20)}
    refused(packed(listed(bomb), tmp_path / "m.zip"), rf"'{MODEL}/quality\.json' unpacks to 8388608 bytes of \d+; not")
    file = packed(listed(good), tmp_path / "m.zip")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in listed(good).items():
            archive.writestr(name, content)
    refused(file, "is compressed otherwise than by deflate")
    packed(listed(good), file)
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    refused(file, "bytes unpacked, 1000 at most")
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    refused(file, "files in it, 3 at most")
    monkeypatch.undo()
    monkeypatch.setattr(package_read, "MAX_MEMBERS", 3)
    refused(file, "files in it, 3 at most")
    monkeypatch.undo()
    monkeypatch.setattr(package_read, "MAX_TEXT", 1000)
    refused(file, "bytes, 1000 at most")


def test_entries_that_share_their_bytes(good: Contents, tmp_path: Path) -> None:
    """As in the bombs of D. Fifield, 2019: the directory names one stretch of bytes many times."""
    quoted = {**good, f"{MODEL}/quality.json": bytes(range(256)) * 400, f"{MODEL}/calibration.json": b"{}"}
    file = tmp_path / "m.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in listed(quoted).items():
            archive.writestr(name, content)
    raw = bytearray(file.read_bytes())
    names = [f"{MODEL}/{name}.json".encode() for name in ("quality", "calibration")]
    place, other = (raw.rindex(name) - 46 for name in names)
    raw[other + 16 : other + 28] = raw[place + 16 : place + 28]
    raw[other + 42 : other + 46] = raw[place + 42 : place + 46]
    file.write_bytes(raw)
    refused(file, r"its entries overlap|damaged|its manifest says")


def test_sizes_that_are_not_true(good: Contents, tmp_path: Path) -> None:
    file = packed(good, tmp_path / "m.zip")
    raw = bytearray(file.read_bytes())
    for place in (match.start() for match in re.finditer(b"PK\x01\x02", bytes(raw))):
        size = struct.unpack_from("<I", raw, place + 24)[0]
        struct.pack_into("<I", raw, place + 24, size + 1)
    file.write_bytes(raw)
    refused(file, "damaged|its manifest says|not valid JSON")


def test_cut_short_changed_and_no_archive(good: Contents, tmp_path: Path) -> None:
    file = packed(good, tmp_path / "m.zip")
    whole = file.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        file.write_bytes(whole[:length])
        refused(file, "it is empty|not copied or downloaded whole|damaged")
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 9]) + whole[middle + 9 :])
    refused(file, "damaged|not the file that its manifest says")
    file.unlink()
    with pytest.raises(UsageError, match="there is no such file"):
        import_package(file, tmp_path / "m")


def test_targets_that_are_there(good: Contents, tmp_path: Path) -> None:
    file = packed(good, tmp_path / "m.zip")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(UsageError, match="it is there already; name another place with --out"):
            import_package(file, tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_folders_that_a_tool_stored_are_harmless(good: Contents, tmp_path: Path) -> None:
    folders = [(f"{MODEL}/", b""), (f"{MODEL}/fold_0/", b"")]
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name, content in (*folders, *good.items()):
            archive.writestr(name, content)
    assert import_package(tmp_path / "m.zip", tmp_path / "m").networks == 1
    with zipfile.ZipFile(tmp_path / "m.zip", "a") as archive:
        archive.writestr("another/", b"")
    with pytest.raises(DataError, match="'another/' in it, which no package holds"):
        import_package(tmp_path / "m.zip", tmp_path / "n")


def test_a_full_disk_leaves_nothing(good: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package_read, "extract", full)
    refused(packed(good, tmp_path / "m.zip"), "No space left on device; free some space", SelfcfgError)
