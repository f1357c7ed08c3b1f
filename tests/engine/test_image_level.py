"""What models say of whole images: the mean over tiles and networks, the table of it, and its scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from selfcfg.engine.prediction.image_level import Teller, told_of
from selfcfg.engine.prediction.image_table import TABLE, read_image_table, write_image_table
from selfcfg.engine.prediction.ledger import Ledger, LedgerEntry
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.sliding import Window
from selfcfg.engine.scoring.image_scores import combined_image_scores, image_score_lines, score_image_targets
from selfcfg.errors import DataError
from selfcfg.geometry import Geometry
from selfcfg.image_targets import GivenTarget, ImageLevel
from selfcfg.nets.image_head import ImageHead
from selfcfg.testing import CPU, IMAGE_TARGETS, small_plan

FINDING = GivenTarget(classes=("no", "yes"), values={"a": "no", "b": "yes", "c": "yes", "elsewhere": "no"})
AGE = GivenTarget(unit="years", values={"a": 40.0, "b": 60.0})
TARGETS = {"finding": FINDING, "age": AGE}


class Means(nn.Module):
    """An encoder whose features are the mean of the image times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.factor * image.flatten(1).mean(1, keepdim=True)


class Lines(ImageHead):
    """A head whose outputs are the feature times 1, 2, 3, 4."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * torch.tensor([1.0, 2.0, 3.0, 4.0])

    @classmethod
    def scaled(cls, scale: tuple[float, float]) -> Lines:
        head = cls(small_plan(2).configurations["small"].topology, IMAGE_TARGETS, 4)
        with torch.no_grad():
            head.scale({"age": scale})
        return head


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("patch", "shape"), [((4, 4, 4), (6, 4, 10)), ((4, 4), (3, 4, 10)), ((8, 8, 8), (6, 9, 8))])
def test_outputs_are_averaged_over_tiles_then_over_networks(patch, shape, batch: int) -> None:
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    tellers = [Teller(Means(1.0), Lines.scaled((50.0, 10.0))), Teller(Means(-3.0), Lines.scaled((20.0, 5.0)))]
    told = told_of(tellers, image, Window(patch=patch, n_outputs=2, batch=batch), CPU)
    if patch == (4, 4):  # every slice, and along x tiles from 0, 3 and 6
        tiles = [image[:, z, :, x : x + 4] for z in range(3) for x in (0, 3, 6)]
    elif patch == (4, 4, 4):
        tiles = [image[:, z : z + 4, :, x : x + 4] for z in (0, 2) for x in (0, 3, 6)]
    else:  # too short along z: one plane of zeros before and behind
        padded = np.pad(image, ((0, 0), (1, 1), (0, 0), (0, 0)))
        tiles = [padded[:, :, y : y + 8] for y in (0, 1)]
    mean = float(np.mean([tile.mean(dtype=np.float64) for tile in tiles]))
    features = [mean, -3 * mean]
    logits = np.mean([[one, 2 * one, 3 * one] for one in features], 0)
    shares = np.exp(logits) / np.exp(logits).sum()
    assert list(told["kind"].probabilities) == ["p", "q", "r"]
    assert list(told["kind"].probabilities.values()) == pytest.approx(shares.tolist(), rel=1e-5)
    assert told["kind"].value == "pqr"[int(shares.argmax())]
    ages = [50 + 10 * 4 * features[0], 20 + 5 * 4 * features[1]]
    assert told["age"].value == pytest.approx(np.mean(ages), rel=1e-5)


class Narrow(Means):
    """An encoder on a device with room for one tile."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if len(image) > 1:
            raise torch.OutOfMemoryError("no room")
        return super().forward(image)


def test_where_memory_has_room_for_one_tile_they_are_taken_one_by_one() -> None:
    plan = small_plan(2)
    place = Geometry(shape=(4, 20, 16), spacing=(1, 1, 1))
    made = [
        Model(plan, plan.configurations["small"], (), CPU, "float32", tellers=(Teller(encoder, Lines.scaled((0, 1))),))
        for encoder in (Means(1.0), Narrow(1.0))
    ]
    image = np.random.default_rng(1).normal(size=(1, *place.shape)).astype(np.float32)
    first, second = (model.image_level(model.prepare("a", image, place)) for model in made)
    assert first["age"].value == pytest.approx(second["age"].value, rel=1e-5)


def level(yes: float, age: float) -> dict[str, ImageLevel]:
    probabilities = {"no": 1 - yes, "yes": yes}
    value = "yes" if yes > 0.5 else "no"
    return {"finding": ImageLevel(value=value, probabilities=probabilities), "age": ImageLevel(value=age)}


def noted(folder: Path, cases: dict[str, dict[str, ImageLevel]], output: str = "there") -> Ledger:
    ledger = Ledger.at(folder)
    for case, told in cases.items():
        ledger.note(case, LedgerEntry(maker="m", input="i", output=output, image_targets=told))
    return ledger


def test_the_table_holds_every_finished_case_exactly(tmp_path: Path) -> None:
    told = {"b": level(1 / 3, 61.0000001), "a.1": level(1 - 1e-12, 40)}
    ledger = noted(tmp_path, told)
    noted(tmp_path, {"unfinished": level(0.5, 1)}, output="")
    noted(tmp_path, {"without": {}})
    noted(tmp_path, {"other": {"weight": ImageLevel(value=3.0)}})
    write_image_table(tmp_path, ledger, TARGETS)
    lines = (tmp_path / TABLE).read_text().splitlines()
    assert lines[0] == "case,finding,finding=no,finding=yes,age" and len(lines) == 3
    found = read_image_table(tmp_path / TABLE, TARGETS)
    assert found == {name: {case: told[case][name] for case in ("a.1", "b")} for name in TARGETS}


def test_without_a_case_of_which_something_was_said_there_is_no_table(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text("an old one\n")
    write_image_table(tmp_path, noted(tmp_path, {"a": {}}))
    assert not (tmp_path / TABLE).exists()


def scored(tmp_path: Path, cases: dict[str, dict[str, ImageLevel]], among=None):
    ledger = noted(tmp_path, cases)
    write_image_table(tmp_path, ledger, TARGETS)
    return score_image_targets(tmp_path / TABLE, TARGETS, among or list(cases))


CASES = {"a": level(0.2, 44), "b": level(0.9, 57), "c": level(0.2, 50), "d": level(0.7, 1)}


def test_scores_leave_missing_values_out_and_count_them(tmp_path: Path) -> None:
    found = scored(tmp_path, CASES)
    finding, age = found["finding"], found["age"]
    assert (finding.n, finding.n_missing, age.n, age.n_missing) == (3, 1, 2, 2)
    assert finding.accuracy == pytest.approx(2 / 3) and finding.balanced_accuracy == pytest.approx(0.75)
    assert finding.auc == pytest.approx(0.75), "of two pairs one is in order and one is a tie"
    assert (age.mae, age.rmse) == (pytest.approx(3.5), pytest.approx(12.5**0.5))
    assert age.r2 == pytest.approx(1 - 12.5 / 100) and age.spearman == pytest.approx(1)
    first, second = image_score_lines(found)
    assert first == "finding: 3 cases, accuracy 0.6667, balanced accuracy 0.75, AUC 0.75; 1 without a value left out"
    assert second.startswith("age: 2 cases, MAE (years) 3.5, RMSE (years) 3.536, R2 0.875, Spearman 1; 2 without")


def test_folds_are_pooled_by_case(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    halves = [dict(list(CASES.items())[:1]), dict(list(CASES.items())[1:])]
    parts = [scored(tmp_path / str(number), half) for number, half in enumerate(halves, 1)]
    assert parts[0]["finding"].auc is None and parts[0]["age"].r2 is None and parts[0]["age"].spearman is None
    assert combined_image_scores(parts) == scored(tmp_path, CASES)


def test_no_value_at_all_is_no_score(tmp_path: Path) -> None:
    found = scored(tmp_path, {"d": level(0.7, 1)})
    assert found["finding"].n == 0 and found["finding"].accuracy is None and found["finding"].n_missing == 1
    assert "accuracy -" in image_score_lines(found)[0]


def test_tables_that_cannot_be_scored_are_refused(tmp_path: Path) -> None:
    table = tmp_path / TABLE
    with pytest.raises(DataError, match=r"1 case not in .*: e; predict them"):
        scored(tmp_path, CASES, [*CASES, "e"])
    table.write_text("name,finding\n")
    with pytest.raises(DataError, match="first column is not 'case'"):
        read_image_table(table, TARGETS)
    table.write_text("case,finding,finding=no,finding=maybe\n")
    with pytest.raises(DataError, match="finding=maybe for the classes no, yes"):
        read_image_table(table, TARGETS)
    table.write_text("case,age\na,old\n")
    with pytest.raises(DataError, match="row of case 'a', target 'age'"):
        read_image_table(table, TARGETS)
