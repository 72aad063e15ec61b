"""The recipe: the mission's defaults, presets, and one sentence for what cannot be."""

from __future__ import annotations

import pytest

from defectoscope.errors import InvalidRequest
from trainer.config import PRESETS, TrainingConfig


def test_the_defaults_are_the_recipe_of_the_mission():
    config = TrainingConfig.resolve({})

    assert (config.architecture, config.encoder, config.encoder_weights) == ("DeepLabV3Plus", "resnet101", "imagenet")
    assert (config.input_size_wh, config.epochs, config.batch_size) == ((256, 256), 50, 8)
    assert (config.optimizer, config.learning_rate, config.loss) == ("adam", 1e-4, "cross_entropy")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipe_survives_the_row_it_is_stored_in(preset):
    config = TrainingConfig.resolve({"preset": preset, "seed": 7})

    assert TrainingConfig.resolve(config.to_json()) == config


def test_fields_change_a_preset():
    config = TrainingConfig.resolve({"preset": "quick", "epochs": 3})

    assert config == PRESETS["quick"].model_copy(update={"epochs": 3})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        pytest.param({"preset": "slow"}, "There is no preset 'slow'; there are default, quick", id="preset"),
        pytest.param({"epoch": 3}, "epoch: Extra inputs", id="unknown field"),
        pytest.param({"epochs": 0}, "epochs: Input should be greater", id="no epochs"),
        pytest.param({"batch_size": 1}, "batch_size: Input should be greater", id="batch of one"),
        pytest.param({"input_size_wh": [100, 64]}, r"input_size_wh\.0: Input should be a multiple of 32", id="side"),
        pytest.param({"input_size_wh": [96, 96], "half_size_share": 0.5}, "multiples of 64", id="half of 96"),
        pytest.param({"learning_rate": float("nan")}, "learning_rate", id="rate that is no number"),
        pytest.param({"loss": "focal"}, "loss: Input should be", id="loss"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_one_sentence(values, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        TrainingConfig.resolve(values)
