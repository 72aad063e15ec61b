"""What the hardware offers, and how a batch is divided among devices."""

from __future__ import annotations

import pytest
import torch

from defectoscope.errors.api import InvalidRequest
from trainer.hardware import choose_arithmetic, count_devices, gains_from_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize("wanted", ["bf16", "off"])
def test_an_arithmetic_that_is_asked_for_is_taken(wanted):
    assert choose_arithmetic(wanted, CPU) == wanted


def test_on_a_cpu_the_choice_is_bf16_where_it_is_in_the_hardware():
    assert choose_arithmetic("auto", CPU) == ("bf16" if gains_from_bf16(CPU) else "off")


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(InvalidRequest, match="fp16 needs a GPU"):
        choose_arithmetic("fp16", CPU)


@pytest.mark.parametrize(
    ("wanted", "images", "count"),
    [
        pytest.param("auto", {}, 1, id="one process on a CPU"),
        pytest.param(2, {}, 2, id="as asked for"),
        pytest.param(4, {"batch_size": 6}, 3, id="a batch is divided evenly"),
        pytest.param(4, {"batch_size": 4}, 2, id="each trains on two images at least"),
        pytest.param(4, {"train_count": 5}, 2, id="few images to train on"),
        pytest.param(4, {"val_count": 1}, 1, id="each validates on an image"),
    ],
)
def test_each_device_gets_as_much_of_a_batch_as_the_others(wanted, images, count):
    sizes = {"batch_size": 16, "train_count": 100, "val_count": 20, **images}

    assert count_devices(wanted, CPU, **sizes) == count
