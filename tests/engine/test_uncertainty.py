"""How unsure predictions are: against a hand computation, and what is written of it."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.predict import PredictOptions, find_inputs, predict_cases
from selfcfg.engine.prediction.quality import Quality
from selfcfg.engine.prediction.sliding import Disagreement, Window, slide
from selfcfg.engine.prediction.uncertainty import uncertainty_of
from selfcfg.engine.scoring.evaluate import evaluate
from selfcfg.errors import DataError
from selfcfg.io import read_image, read_label, write_label
from selfcfg.kernels.calibration import tempered
from selfcfg.kernels.uncertainty import disagreement, entropy
from selfcfg.labels import LabelSchema
from tests.engine.test_predict import GEOMETRY, plan, random_image, save_images
from tests.engine.test_sliding import CPU, Asymmetric, collected, image

SCORED = Quality(
    confidence=0.9,
    n_cases=20,
    n_subjects=20,
    mean_dice=0.8,
    left_out="fold",
    error=0.02,
    error_of_mean=0.05,
    p=0.01,
    rank_correlation=0.7,
    is_useful=True,
    reason="",
    features=("expected_dice",),
    mean=(0.5,),
    scale=(0.1,),
    coefficients=(0.05,),
    intercept=0.8,
    penalty=0.1,
    half_width=0.06,
    weights={},
)


class Unsure(nn.Module):
    """Logits that follow the image; no output depends on neighbours, so that tiles agree."""

    def __init__(self, n_outputs: int, seed: int, *, lopsided: bool = False) -> None:
        super().__init__()
        self.weight = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, n_outputs).astype(np.float32))
        self.lopsided = lopsided

    def forward(self, given: Tensor) -> Tensor:
        logits = given.mean(1, keepdim=True) * self.weight.view(1, -1, *[1] * (given.ndim - 2))
        return logits * torch.linspace(0.5, 2, given.shape[-1]) if self.lopsided else logits


def unsure_model(n_networks: int = 1, **changes: object) -> Model:
    own = plan(3)
    (configuration,) = own.configurations.values()
    networks = tuple(Unsure(2, seed) for seed in range(n_networks))
    return replace(Model(own, configuration, networks, CPU, "float32"), **changes)


def by_hand(probabilities: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """Normalised entropy over the first axis, in plain numpy and double precision."""
    p = np.clip(probabilities.astype(np.float64), 1e-300, 1)
    if exclusive:
        return -(p * np.log(p)).sum(0) / np.log(len(p))
    q = np.clip(1 - probabilities.astype(np.float64), 1e-300, 1)
    return -(p * np.log(p) + q * np.log(q)).mean(0) / np.log(2)


# --- kernels


@pytest.mark.parametrize("exclusive", [True, False])
def test_entropy_and_disagreement_equal_their_definition(exclusive: bool) -> None:
    members = torch.from_numpy(np.random.default_rng(0).dirichlet([0.5] * 3, (4, 10)).transpose(0, 2, 1).copy())
    own = entropy(members, 1, exclusive=exclusive)
    np.testing.assert_allclose(own.numpy(), [by_hand(one.numpy(), exclusive=exclusive) for one in members])
    mean = members.mean(0)
    found = disagreement(mean, own.mean(0), 0, exclusive=exclusive)
    expected = by_hand(mean.numpy(), exclusive=exclusive) - own.mean(0).numpy()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert (found > 0).all()


def test_certainty_has_no_entropy_and_ignorance_all_of_it() -> None:
    assert entropy(torch.tensor([1.0, 0.0, 0.0]), 0, exclusive=True) == 0
    assert entropy(torch.full((5,), 0.2), 0, exclusive=True).item() == pytest.approx(1)
    assert entropy(torch.tensor([1.0, 0.0]), 0, exclusive=False) == 0
    assert entropy(torch.tensor([0.5, 0.5]), 0, exclusive=False) == 1


# --- sliding


@pytest.mark.parametrize(
    ("patch", "mirror", "batch", "exclusive", "temperature"),
    [
        ((4, 8, 8), (0, 2), 1, True, 1.0),
        ((4, 8, 8), (0, 1, 2), 3, True, 1.5),
        ((8, 8), (1, 2), 5, False, 1.0),
        ((4, 8, 8), (), 2, False, 0.7),
    ],
)
def test_disagreement_equals_a_computation_by_hand_of_one_tile(
    patch: tuple[int, ...], mirror: tuple[int, ...], batch: int, exclusive: bool, temperature: float
) -> None:
    shape = (4, 8, 8)
    networks = [Asymmetric(len(patch), 3, seed) for seed in range(2)]
    volume = image(shape)
    window = Window(patch, 3, mirror, batch=batch, disagreement=Disagreement(exclusive, temperature))
    found = collected(slide(networks, volume, window, CPU))
    plain = collected(slide(networks, volume, Window(patch, 3, mirror, batch=batch), CPU))
    np.testing.assert_array_equal(found[:3], plain)
    said = []
    crop = torch.from_numpy(volume)[None]
    for network, size in itertools.product(networks, range(len(mirror) + 1)):
        for axes in itertools.combinations(mirror, size):
            turned = [axis + 2 for axis in axes]
            flipped = crop.flip(turned)
            with torch.no_grad():
                if len(patch) == 2:
                    logits = torch.stack([network(flipped[:, :, z]) for z in range(shape[0])], 2)
                else:
                    logits = network(flipped)
            logits = logits.flip(turned)[0] / temperature
            said.append((logits.softmax(0) if exclusive else logits.sigmoid()).numpy())
    expected = by_hand(np.mean(said, 0), exclusive=exclusive) - np.mean(
        [by_hand(one, exclusive=exclusive) for one in said], 0
    )
    np.testing.assert_allclose(found[3], expected, atol=1e-5)
    assert found[3].max() > 0.01


def test_one_network_without_mirroring_does_not_disagree_however_tiles_overlap() -> None:
    window = Window((4, 8, 8), 3, disagreement=Disagreement(exclusive=True))
    found = collected(slide([Asymmetric(3, 3, 0)], image((9, 14, 13)), window, CPU))
    assert (found[3] == 0).all()


def test_disagreement_is_averaged_over_tiles_like_logits() -> None:
    volume = image((10, 9, 17))
    networks = [Unsure(2, seed) for seed in range(3)]
    window = Window((4, 8, 8), 2, step=0.5, disagreement=Disagreement(exclusive=True))
    found = collected(slide(networks, volume, window, CPU))
    said = [network(torch.from_numpy(volume)[None])[0].softmax(0).numpy() for network in networks]
    expected = by_hand(np.mean(said, 0), exclusive=True) - np.mean([by_hand(one, exclusive=True) for one in said], 0)
    np.testing.assert_allclose(found[2], expected, atol=1e-5)


# --- a prediction


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_maps_lie_where_the_image_says_and_agree_with_its_probabilities(order: tuple[int, int, int]) -> None:
    model = unsure_model(2, plan=plan(3, order=order))
    given = (random_image(), GEOMETRY.spacing)
    found = model.predict(given, probabilities=True, uncertainty=True)
    assert found.uncertainty is not None
    assert found.uncertainty.disagreement is not None
    expected = by_hand(found.probabilities, exclusive=True)
    np.testing.assert_allclose(found.uncertainty.entropy, expected, atol=5e-3)
    assert (found.uncertainty.entropy[..., :2] == 0).all(), "outside of the box that is not empty"
    assert found.uncertainty.disagreement.max() > 0
    assert found.uncertainty.entropy.dtype == found.uncertainty.disagreement.dtype == np.float32
    again = uncertainty_of(found.probabilities, found.labels, model.plan.labels)
    np.testing.assert_allclose(again.entropy, found.uncertainty.entropy, atol=5e-3)
    own, other = found.uncertainty.volumes["organ"], again.volumes["organ"]
    assert own.voxels == other.voxels == (found.labels == 1).sum()
    assert own.expected_dice == pytest.approx(other.expected_dice, abs=1e-3)
    inside = found.probabilities[1][found.labels == 1].astype(np.float64).sum()
    total = found.probabilities[1].astype(np.float64).sum()
    assert own.expected_dice == pytest.approx(2 * inside / (own.voxels + total), rel=1e-3)


def test_nothing_changes_where_it_is_not_asked_for() -> None:
    model, given = unsure_model(2), (random_image(), GEOMETRY.spacing)
    plain, unsure = model.predict(given, probabilities=True), model.predict(given, probabilities=True, uncertainty=True)
    assert plain.uncertainty is None
    np.testing.assert_array_equal(plain.labels, unsure.labels)
    np.testing.assert_array_equal(plain.probabilities, unsure.probabilities)


@pytest.mark.parametrize("regions", [False, True])
def test_a_temperature_changes_probabilities_and_no_label(regions: bool) -> None:
    own = plan(3)
    if regions:
        schema = LabelSchema(labels={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
        own = own.model_copy(update={"labels": schema})
    given = (random_image(), GEOMETRY.spacing)
    plain, warm = (
        unsure_model(2, plan=own, temperature=temperature).predict(given, probabilities=True, uncertainty=True)
        for temperature in (1.0, 1.8)
    )
    np.testing.assert_array_equal(plain.labels, warm.labels)
    inside = (slice(None), slice(None), slice(None), slice(2, None))
    expected = tempered(plain.probabilities, 1.8, exclusive=not regions)
    np.testing.assert_allclose(warm.probabilities[inside], expected[inside], atol=2e-3)
    assert warm.uncertainty.entropy.mean() > plain.uncertainty.entropy.mean()
    said = warm.uncertainty.untempered
    np.testing.assert_array_equal(said.entropy, plain.uncertainty.entropy)
    assert said.volumes == plain.uncertainty.volumes and plain.uncertainty.untempered is None
    assert unsure_model(temperature=1.8).identity != unsure_model().identity


# --- folders


def predicted(folder: Path, model: Model, **options: bool):
    return predict_cases(model, find_inputs(folder / "in", model.plan), folder / "out", PredictOptions(**options))


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "out" / "quality.csv").open()))


def test_maps_are_written_apart_and_an_evaluation_does_not_take_them_for_label_maps(tmp_path: Path) -> None:
    save_images(tmp_path / "in", a=0, b=1)
    model = unsure_model(2)
    predicted(tmp_path, model, uncertainty=True)
    values, geometry = read_image(tmp_path / "out" / "uncertainty" / "a_entropy.nii.gz")
    expected = model.predict(tmp_path / "in" / "a_0000.nii.gz", uncertainty=True).uncertainty
    np.testing.assert_array_equal(values[0], expected.entropy)
    assert values.dtype == np.float32
    assert geometry.differences(GEOMETRY) == []
    for case in "ab":
        label, where = read_label(tmp_path / "out" / f"{case}.nii.gz")
        write_label(tmp_path / "references" / f"{case}.nii.gz", label, where)
    assert evaluate(tmp_path / "references", tmp_path / "out", model.plan.labels).unmatched == ()
    assert [row["predicted_dice"] for row in table(tmp_path)] == ["", ""]
    assert all(float(row["disagreement_foreground"]) > 0 for row in table(tmp_path))


def test_the_table_names_the_doubtful_first_and_survives_runs_over_parts(tmp_path: Path) -> None:
    save_images(tmp_path / "in", a=0, b=1)
    model = unsure_model(quality=SCORED)
    first = predicted(tmp_path, model)
    assert set(first.doubtful) == {"a", "b"}
    assert not (tmp_path / "out" / "uncertainty").exists()
    save_images(tmp_path / "in", c=2)
    second = predicted(tmp_path, model)
    assert (second.done, second.skipped) == (("c",), ("a", "b"))
    rows = table(tmp_path)
    dice = [float(row["predicted_dice"]) for row in rows]
    assert sorted(row["case"] for row in rows) == ["a", "b", "c"]
    assert dice == sorted(dice)
    for row in rows:
        exact = 0.8 + 0.05 * (float(row["expected_dice"]) - 0.5) / 0.1
        assert float(row["predicted_dice"]) == pytest.approx(min(exact, 1), abs=1e-4)
        assert float(row["low"]) == pytest.approx(max(exact - 0.06, 0), abs=1e-4)
    assert second.doubtful == tuple(row["case"] for row in rows)


def test_what_another_model_predicted_has_features_and_no_score(tmp_path: Path) -> None:
    save_images(tmp_path / "in", a=0)
    predicted(tmp_path, unsure_model(quality=SCORED, temperature=1.8))
    (tmp_path / "in" / "a_0000.nii.gz").unlink()
    save_images(tmp_path / "in", b=1)
    predicted(tmp_path, unsure_model(quality=SCORED))
    assert {row["case"]: row["predicted_dice"] != "" for row in table(tmp_path)} == {"a": False, "b": True}
    assert all(row["entropy_foreground"] for row in table(tmp_path))


def test_unusual_images_come_first_with_what_is_unusual(tmp_path: Path) -> None:
    save_images(tmp_path / "in", a=0, b=1)
    own = plan(3)
    odd = own.model_copy(update={"median_spacing": tuple(3 * side for side in own.median_spacing)})
    predicted(tmp_path, unsure_model(quality=SCORED, plan=odd))
    assert all("spacing" in row["unusual"] for row in table(tmp_path))
    assert all(float(row["input_spacing"]) == pytest.approx(np.log(3), rel=1e-4) for row in table(tmp_path))


def test_what_lacks_maps_or_features_is_predicted_again(tmp_path: Path) -> None:
    save_images(tmp_path / "in", a=0)
    model = unsure_model()
    assert predicted(tmp_path, model).done == ("a",)
    assert not (tmp_path / "out" / "quality.csv").exists()
    assert predicted(tmp_path, model, uncertainty=True).done == ("a",)
    assert predicted(tmp_path, model, uncertainty=True).skipped == ("a",)
    assert predicted(tmp_path, model).skipped == ("a",)
    assert len(table(tmp_path)) == 1, "a table that is there stays"
    (tmp_path / "out" / "uncertainty" / "a_disagreement.nii.gz").write_bytes(b"")
    assert predicted(tmp_path, model, uncertainty=True).done == ("a",)


def test_a_table_of_somebody_else_is_kept(tmp_path: Path) -> None:
    save_images(tmp_path / "in", a=0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "quality.csv").write_text("mine\n")
    with pytest.raises(DataError, match=r"quality\.csv exists and was not made here"):
        predicted(tmp_path, unsure_model(), uncertainty=True)
    assert (tmp_path / "out" / "quality.csv").read_text() == "mine\n"
    assert predicted(tmp_path, unsure_model()).done == ("a",)
