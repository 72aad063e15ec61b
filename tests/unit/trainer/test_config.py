"""The recipe: the mission's defaults, presets, and one sentence for what cannot be."""

from __future__ import annotations

import pytest

from defectoscope.errors.api import InvalidRequest
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
        pytest.param({"loss": "hinge"}, "loss: Input should be", id="loss"),
        pytest.param({"class_weights": [1.0, 0]}, "class_weights.*greater than 0", id="class without weight"),
        pytest.param({"augmentation": "mixup"}, "augmentation: Input should be", id="augmentation"),
        pytest.param({"devices": 0}, "devices", id="no devices"),
        pytest.param({"devices": 3}, "batch_size has to be a multiple of devices", id="batch that does not divide"),
        pytest.param({"devices": 8}, "leave each at least two images", id="one image for each device"),
        pytest.param({"patience": 0}, "patience: Input should be greater", id="no patience"),
        pytest.param({"resize_policy": "crop"}, "resize_policy: Input should be", id="way to resize"),
        pytest.param({"model_scale": 0.5}, "go with the resize_policy tile alone", id="scale without tiles"),
        pytest.param({"resize_policy": "tile", "tile_overlap": 129}, "at most half the shorter side", id="overlap"),
        pytest.param({"escape_cost": 5.0}, "given together, or neither", id="one cost only"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_one_sentence(values, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        TrainingConfig.resolve(values)


def test_a_recipe_stored_before_there_were_these_fields_means_what_it_meant():
    later = {"start", "class_weights", "devices", "patience", "escape_cost", "false_call_cost"}
    later |= {"resize_policy", "tile_overlap", "model_scale"}
    stored = {name: value for name, value in TrainingConfig().to_json().items() if name not in later}

    config = TrainingConfig.resolve(stored)

    assert config.resize_policy == "stretch"
    assert (config.start, config.class_weights, config.devices, config.patience) == ("scratch", "none", 1, None)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"class_weights": [1.0, 5.0]}, id="weights"),
        pytest.param({"class_weights": "balanced", "loss": "focal+dice"}, id="balanced focal"),
        pytest.param({"devices": "auto"}, id="all GPUs"),
        pytest.param({"devices": 4, "batch_size": 8}, id="four GPUs"),
        pytest.param({"escape_cost": 100.0, "false_call_cost": 1.0}, id="costs"),
        pytest.param({"resize_policy": "tile", "tile_overlap": 0, "model_scale": 0.5}, id="tiles"),
        pytest.param({"start": "champion", "patience": 5, "autocast": "fp16"}, id="from the champion"),
    ],
)
def test_every_choice_survives_the_row_it_is_stored_in(values):
    config = TrainingConfig.resolve(values)

    assert TrainingConfig.resolve(config.to_json()) == config
