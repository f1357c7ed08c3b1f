from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfcfg.engine.checkpoint import load_state, load_weights, save_state, save_weights, take_over
from selfcfg.errors import DataError, SelfcfgError, UsageError
from selfcfg.files import write_text
from selfcfg.nets.unet import build_parts
from selfcfg.runs import RunFolder
from selfcfg.testing import small_plan
from selfcfg.topology import Topology

TOPOLOGY = small_plan(3).configurations["small"].topology
WIDER = TOPOLOGY.model_copy(update={"features": (4, 6, 10)})


def network(channels: int = 1, outputs: int = 3, topology: Topology = TOPOLOGY, seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    return build_parts(topology, channels, outputs)


def same(a: nn.ModuleDict, b: nn.ModuleDict) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 5] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


class TestWeights:
    def test_come_back_with_their_metadata(self, tmp_path: Path) -> None:
        parts, other = network(seed=1).to(memory_format=torch.channels_last_3d), network(seed=2)
        save_weights(tmp_path / "w.safetensors", parts, {"plan_hash": "abc"})
        assert load_weights(tmp_path / "w.safetensors", other)["plan_hash"] == "abc"
        assert same(parts, other)
        assert list(tmp_path.iterdir()) == [tmp_path / "w.safetensors"]

    def test_the_same_weights_are_the_same_bytes(self, tmp_path: Path) -> None:
        names = {name: name for name in "abcdefgh"}
        save_weights(tmp_path / "a.safetensors", network(), names)
        save_weights(tmp_path / "b.safetensors", network(), dict(reversed(names.items())))
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()

    def test_parts_that_are_not_asked_for_are_ignored(self, tmp_path: Path) -> None:
        parts = network(seed=1)
        parts["projection"] = nn.Linear(3, 4)
        save_weights(tmp_path / "w.safetensors", parts, {})
        load_weights(tmp_path / "w.safetensors", network())

    @pytest.mark.parametrize(
        ("other", "words"),
        [
            (network(channels=2), ["(4, 1, 3, 3, 3)", "(4, 2, 3, 3, 3)", "encoder.stages.0"]),
            (network(outputs=4), ["(3, 4, 1, 1, 1)", "(4, 4, 1, 1, 1)", "head.seg_layers"]),
            (network(topology=small_plan(2).configurations["small"].topology), ["(4, 1, 3, 3)", "more"]),
        ],
        ids=["channels", "outputs", "dimensions"],
    )
    def test_of_another_network_name_both_shapes(self, tmp_path: Path, other: nn.ModuleDict, words: list[str]) -> None:
        save_weights(tmp_path / "w.safetensors", network(), {})
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(DataError) as caught:
            load_weights(tmp_path / "w.safetensors", other)
        assert all(word in str(caught.value) for word in [*words, "w.safetensors"])
        assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items()), "half loaded"

    def test_of_another_depth_are_refused_both_ways(self, tmp_path: Path) -> None:
        deeper = Topology(
            features=(4, 6, 8, 8),
            kernel_sizes=((3, 3, 3),) * 4,
            strides=((1, 1, 1), *((2, 2, 2),) * 3),
            encoder_blocks=(1,) * 4,
            decoder_blocks=(1,) * 3,
        )
        for first, second in ((TOPOLOGY, deeper), (deeper, TOPOLOGY)):
            save_weights(tmp_path / "w.safetensors", network(topology=first), {})
            with pytest.raises(DataError, match=r"\(8, 8, \d, \d, \d\) .*and \d+ more"):
                load_weights(tmp_path / "w.safetensors", network(topology=second))

    @pytest.mark.parametrize("harm", [damage, cut])
    def test_damaged_files_are_refused(self, tmp_path: Path, harm: Callable[[Path], None]) -> None:
        path = tmp_path / "w.safetensors"
        save_weights(path, network(), {})
        harm(path)
        with pytest.raises(DataError, match=r"w.safetensors: (its content does not match|not a whole)"):
            load_weights(path, network())

    def test_missing_and_foreign_files(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no such file"):
            load_weights(tmp_path / "w.safetensors", network())
        write_text(tmp_path / "w.safetensors", "not weights")
        with pytest.raises(DataError, match="not a whole safetensors file"):
            load_weights(tmp_path / "w.safetensors", network())


def state(value: float) -> dict[str, Any]:
    return {"format": 1, "tensor": torch.full((50_000,), value), "inner": {"numbers": [1, 2.5, None, "text"]}}


class TestState:
    def test_newest_and_the_one_before(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        assert load_state(run) is None
        for value in (1.0, 2.0, 3.0):
            save_state(run, state(value))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
        found = load_state(run)
        assert found is not None
        assert found["inner"] == {"numbers": [1, 2.5, None, "text"]}
        assert found["tensor"][0] == 3
        run.last.unlink()
        found = load_state(run)
        assert found is not None
        assert found["tensor"][0] == 2

    def test_the_same_state_is_the_same_bytes_whoever_made_its_texts(self, tmp_path: Path) -> None:
        first, second = (RunFolder(tmp_path / name) for name in "ab")
        for run, other in ((first, "step"), (second, "".join(["st", "ep"]))):
            save_state(run, {"optimizer": {0: {"step": 1}}, "position": {other: 1}, "taken": [other]})
        assert first.last.read_bytes() == second.last.read_bytes()

    @pytest.mark.parametrize("harm", [damage, cut, lambda path: path.write_bytes(b"")])
    def test_falls_back_where_the_newest_is_damaged_and_says_so(
        self, tmp_path: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = RunFolder(tmp_path)
        save_state(run, state(1.0))
        save_state(run, state(2.0))
        harm(run.last)
        found = load_state(run)
        assert found is not None
        assert found["tensor"][0] == 1
        said = capsys.readouterr().err
        assert "last.pt" in said
        assert "damaged" in said
        assert "previous.pt" in said
        harm(run.previous)
        with pytest.raises(DataError, match="no checkpoint can be read"):
            load_state(run)

    def test_nothing_but_data_is_loaded(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        torch.save({"harm": os.getcwd}, run.last)
        with pytest.raises(DataError, match="no checkpoint can be read"):
            load_state(run)

    def test_a_full_disk_leaves_the_newest_checkpoint_intact(self, tmp_path: Path) -> None:
        run = RunFolder(tmp_path)
        save_state(run, state(1.0))
        save_state(run, state(2.0))
        code = _in_child(lambda: _saves_on_a_full_disk(run))
        assert code == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
        found = load_state(run)
        assert found is not None
        assert found["tensor"][0] == 2


def _saves_on_a_full_disk(run: RunFolder) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for save in (lambda: save_state(run, state(3.0)), lambda: save_weights(run.final, big(), {})):
        with pytest.raises(SelfcfgError, match=r"write .*(last\.pt|final\.safetensors).*free some space"):
            save()


def big() -> nn.ModuleDict:
    return nn.ModuleDict({"encoder": nn.Linear(300, 300)})


def _in_child(action: Callable[[], None]) -> int:
    """Runs an action in a forked process, whose limits end with it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestTakeOver:
    def test_the_same_network_is_taken_whole(self, tmp_path: Path) -> None:
        source, parts = network(seed=1), network(seed=2)
        save_weights(tmp_path / "w.safetensors", source, {})
        report = take_over(tmp_path / "w.safetensors", parts)
        assert report.taken == ("encoder", "decoder", "head")
        assert not report.adapted
        assert not report.skipped
        assert same(source, parts)

    def test_parts_that_do_not_fit_stay_as_they_were(self, tmp_path: Path) -> None:
        source, parts = network(seed=1, outputs=5), network(seed=2)
        source["projection"], parts["rotation"] = nn.Linear(2, 2), nn.Linear(2, 2)
        before = parts["head"].seg_layers[0].weight.clone()
        save_weights(tmp_path / "w.safetensors", source, {})
        report = take_over(tmp_path / "w.safetensors", parts)
        assert report.taken == ("encoder", "decoder")
        assert set(report.skipped) == {"head", "rotation"}
        assert "(5, 6, 1, 1, 1)" in report.skipped["head"]
        assert "(3, 6, 1, 1, 1)" in report.skipped["head"]
        assert torch.equal(parts["head"].seg_layers[0].weight, before)
        assert "took over encoder, decoder" in str(report)
        assert "left head as it was" in str(report)

    def test_parts_that_are_not_wanted_stay_as_they_were(self, tmp_path: Path) -> None:
        source, parts, before = network(seed=1), network(seed=2), network(seed=2)
        save_weights(tmp_path / "w.safetensors", source, {})
        report = take_over(tmp_path / "w.safetensors", parts, ("encoder",))
        assert report.taken == ("encoder",)
        assert set(report.skipped) == {"decoder", "head"}
        assert same(source["encoder"], parts["encoder"])
        assert all(same(before[part], parts[part]) for part in report.skipped)
        with pytest.raises(UsageError, match=r"'heads'.*did you mean 'head'"):
            take_over(tmp_path / "w.safetensors", parts, ("encoder", "heads"))

    @pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 1), (2, 4)])
    def test_the_input_convolution_is_adapted_to_other_channels(self, tmp_path: Path, old: int, new: int) -> None:
        source, parts = network(old, seed=1), network(new, seed=2)
        save_weights(tmp_path / "w.safetensors", source, {})
        report = take_over(tmp_path / "w.safetensors", parts)
        assert report.taken == ("encoder", "decoder", "head")
        assert list(report.adapted) == ["encoder.stages.0.0.convs.0.conv.weight"]
        image = torch.randn(2, 1, 8, 8, 8)
        # channels that all hold the same give the response they gave before
        before = source["encoder"](image.expand(-1, old, -1, -1, -1))[0]
        after = parts["encoder"](image.expand(-1, new, -1, -1, -1))[0]
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)

    def test_nothing_fits(self, tmp_path: Path) -> None:
        parts = network(seed=2)
        save_weights(tmp_path / "w.safetensors", network(topology=WIDER), {})
        before = {name: tensor.clone() for name, tensor in parts.state_dict().items()}
        with pytest.raises(DataError, match=r"nothing fits.*\(10, 6, 3, 3, 3\) there and \(8, 6, 3, 3, 3\)"):
            take_over(tmp_path / "w.safetensors", parts)
        assert all(torch.equal(before[name], tensor) for name, tensor in parts.state_dict().items())

    def test_from_a_run_folder(self, tmp_path: Path) -> None:
        for fold in (0, 1):
            write_text(tmp_path / f"fold_{fold}" / "run.json", "{}")
        with pytest.raises(UsageError, match=r"several folds \(fold_0, fold_1\)"):
            take_over(tmp_path, network())
        with pytest.raises(DataError, match="no weights in it yet"):
            take_over(tmp_path / "fold_0", network())
        source, parts = network(seed=1), network(seed=2)
        save_weights(tmp_path / "fold_0" / "final.safetensors", source, {})
        take_over(tmp_path / "fold_0", parts)
        assert same(source, parts)
        with pytest.raises(UsageError, match="no such folder"):
            take_over(tmp_path / "nowhere", parts)
