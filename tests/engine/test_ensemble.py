"""An ensemble of models that are made up: weighted means, one preprocessing for members alike, decoding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from selfcfg.engine.data.preprocess import Prepared
from selfcfg.engine.prediction.averaging import decoded, votes
from selfcfg.engine.prediction.ensemble import Ensemble, Member
from selfcfg.engine.prediction.model import Model
from selfcfg.engine.prediction.postprocessing import Step
from selfcfg.image_targets import ImageLevel
from tests.engine.test_postprocessing import CLASSES, NESTED
from tests.engine.test_predict import GEOMETRY, plan, random_image


class Sure(nn.Module):
    """The class "organ" with the same probability everywhere."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = float(np.log(probability / (1 - probability)))

    def forward(self, image: Tensor) -> Tensor:
        zero = torch.zeros_like(image[:, :1])
        return torch.cat([zero, zero + self.logit], 1)


class Telling(Model):
    """A model that says something of images as a whole."""

    tells = True

    def image_level(self, prepared: Prepared) -> dict[str, ImageLevel]:
        share = self.networks[0].logit > 0
        kinds = {"ill": 0.9 if share else 0.2, "well": 0.1 if share else 0.8}
        return {
            "kind": ImageLevel(value="ill" if share else "well", probabilities=kinds),
            "age": ImageLevel(value=10.0),
        }


def member(weight: float, probability: float, key: str = "same", kind: type[Model] = Model) -> Member:
    made = plan(3)
    (configuration,) = made.configurations.values()
    model = kind(made, configuration, (Sure(probability),), torch.device("cpu"), "float32")
    return Member(f"m{probability}", weight, model, model.identity, key, model.tells, lambda: model)


def test_probabilities_are_weighted_and_decide_the_label() -> None:
    image = (random_image(), GEOMETRY.spacing)
    for weights, expected in (((0.25, 0.75), 0.25 * 0.9 + 0.75 * 0.3), ((0.5, 0.5), 0.6)):
        ensemble = Ensemble((member(weights[0], 0.9), member(weights[1], 0.3)))
        found = ensemble.predict(image, probabilities=True)
        inside = found.probabilities[1][:, :, 3:]
        np.testing.assert_allclose(inside, expected, atol=1e-3)
        assert (found.labels[:, :, 3:] == (expected > 0.5)).all()
        assert ensemble.predict(image).probabilities is None


def test_members_that_see_the_same_image_share_it() -> None:
    members = member(0.5, 0.9), member(0.25, 0.3), member(0.25, 0.3, key="other")
    first, second, third = Ensemble(members).prepare("case", random_image(), GEOMETRY).images
    assert first is second and first is not third


def test_what_is_said_of_the_whole_image_is_averaged_where_all_say_it() -> None:
    image = (random_image(), GEOMETRY.spacing)
    both = Ensemble((member(0.25, 0.9, kind=Telling), member(0.75, 0.3, kind=Telling)))
    told = both.predict(image).image_level
    np.testing.assert_allclose(told["kind"].probabilities["ill"], 0.25 * 0.9 + 0.75 * 0.2)
    assert told["kind"].value == "well" and told["age"].value == 10.0
    assert Ensemble((member(0.5, 0.9, kind=Telling), member(0.5, 0.3))).predict(image).image_level == {}


def entropy_bits(probability: float) -> float:
    return float(-sum(p * np.log2(p) for p in (probability, 1 - probability)))


def test_members_disagree_by_what_their_mean_is_less_sure_of_than_each() -> None:
    image = (random_image(), GEOMETRY.spacing)
    both = Ensemble((member(0.25, 0.9), member(0.75, 0.3))).predict(image, uncertainty=True).uncertainty
    mean = entropy_bits(0.25 * 0.9 + 0.75 * 0.3)
    own = 0.25 * entropy_bits(0.9) + 0.75 * entropy_bits(0.3)
    np.testing.assert_allclose(both.entropy[:, :, 3:], mean, atol=2e-3)
    np.testing.assert_allclose(both.disagreement[:, :, 3:], mean - own, atol=3e-3)
    alone = Ensemble((member(1.0, 0.9),)).predict(image, uncertainty=True).uncertainty
    np.testing.assert_allclose(alone.entropy[:, :, 3:], entropy_bits(0.9), atol=2e-3)
    assert (alone.disagreement == 0).all()
    assert Ensemble((member(1.0, 0.9),)).predict(image).uncertainty is None


def test_a_step_changes_what_is_known_of_the_classes() -> None:
    image = (random_image(), GEOMETRY.spacing)
    removed = Ensemble((member(1.0, 0.9),), (Step(kind="min_size", target="organ", value=1e9, unit="mm3"),))
    found = removed.predict(image, uncertainty=True)
    assert not found.labels.any() and found.uncertainty.volumes["organ"].voxels == 0
    assert removed.quality is None


def test_weights_and_steps_make_another_model() -> None:
    one, other = (member(0.5, 0.9), member(0.5, 0.3)), (member(0.4, 0.9), member(0.6, 0.3))
    step = (Step(kind="keep_largest"),)
    assert len({Ensemble(one).identity, Ensemble(other).identity, Ensemble(one, step).identity}) == 3


def test_probabilities_become_labels_as_the_labels_say() -> None:
    exclusive = np.array([[0.2, 0.4, 0.5], [0.4, 0.4, 0.5], [0.4, 0.2, 0.0]])
    assert decoded(exclusive, CLASSES).tolist() == [1, 0, 0], "of equals the first"
    regions = np.array([[0.9, 0.9, 0.4, 0.9], [0.2, 0.9, 0.2, 0.2], [0.1, 0.9, 0.1, 0.9]])
    assert decoded(regions, NESTED).tolist() == [1, 3, 0, 3], "later regions over earlier ones"
    assert votes(regions, NESTED).tolist() == [1, 7, 0, 5]
