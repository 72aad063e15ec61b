"""The int8 file: calibrated on training images, per channel, the classifier and what follows left as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from defectoscope.errors.training import TrainingInterrupted, VariantNotMade
from tests.images import encode
from trainer.data import read_directory
from trainer.export import stamp
from trainer.quantise import calibration_batches, write_int8
from trainer.runtime import onnx_engine, read_contract


@pytest.fixture(scope="module")
def numbered_files(tmp_path_factory):
    """As many labelled files as the most that a test needs; the grey of the n-th is n."""
    directory = tmp_path_factory.mktemp("numbered")
    for kind, shape in (("images", (10, 20, 3)), ("labels", (10, 20))):
        for split in ("train", "val"):
            (directory / kind / split).mkdir(parents=True)
            for number in range(200 if split == "train" else 1):
                grey = number if kind == "images" else 0
                path = directory / kind / split / f"{number:03}.png"
                path.write_bytes(encode(np.full(shape, grey, dtype=np.uint8), "PNG"))
    return read_directory(directory).train


@pytest.fixture(scope="module")
def int8_path(tiny_training, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model-int8.onnx"
    batches = calibration_batches(tiny_training.files.train, contract=tiny_training.contract)
    write_int8(tiny_training.model_path, path, batches=batches)
    return path


def test_the_file_keeps_the_contract_and_takes_another_stamp(tiny_training, int8_path):
    numbered = replace(tiny_training.contract, version=7)

    assert read_contract(int8_path) == tiny_training.contract
    stamp(int8_path, numbered)

    assert read_contract(int8_path) == numbered
    assert {prop.key.split(".")[0] for prop in onnx.load(int8_path).metadata_props} == {"defectoscope"}


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_answers_at_every_batch_size(int8_path, batch):
    images = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)

    levels = onnx_engine(int8_path)(images)

    assert levels.dtype == np.uint8
    assert levels.shape == (batch, 64, 64)


def test_every_kernel_but_the_classifier_is_int8_with_a_scale_for_each_channel(int8_path):
    model = onnx.load(int8_path)
    weights = {weight.name: weight for weight in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}

    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    quantised = [makers[node.input[1]] for node in convolutions if node.input[1] in makers]

    assert len(convolutions) - len(quantised) == 1
    for dequantise in quantised:
        kernel, kernel_scale = (weights[name] for name in dequantise.input[:2])
        assert kernel.data_type == TensorProto.INT8
        assert kernel_scale.dims == [kernel.dims[0]]


def test_nothing_after_the_classifier_is_quantised(int8_path):
    model = onnx.load(int8_path)
    order = [node.op_type for node in model.graph.node]

    last_conv = len(order) - 1 - order[::-1].index("Conv")
    assert "QuantizeLinear" not in order[last_conv:]
    assert {"Resize", "Sigmoid", "Round"} <= set(order[last_conv:])
    assert {entry.domain for entry in model.opset_import} == {""}


def test_the_file_is_less_than_half_as_large(tiny_training, int8_path):
    assert int8_path.stat().st_size < tiny_training.model_path.stat().st_size / 2


@pytest.mark.parametrize(("count", "used"), [(3, 3), (64, 64), (65, 64), (200, 64)])
def test_calibration_takes_a_bounded_number_of_images_evenly_spread(tiny_training, numbered_files, count, used):
    batches = list(calibration_batches(numbered_files[:count], contract=tiny_training.contract))

    taken = np.concatenate(batches)
    steps = np.diff([*taken[:, 0, 0, 0].tolist(), count])
    assert taken.shape == (used, 64, 64, 3)
    assert max(len(batch) for batch in batches) <= 8
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


def test_a_stop_is_heard_between_two_calibration_batches(tiny_training, numbered_files):
    taken = []

    def stop_after_the_first():
        if taken:
            raise TrainingInterrupted

    batches = calibration_batches(numbered_files, contract=tiny_training.contract, check=stop_after_the_first)
    taken.append(next(batches))

    with pytest.raises(TrainingInterrupted):
        next(batches)


def test_without_a_training_image_there_is_no_int8(tiny_training, tmp_path):
    with pytest.raises(VariantNotMade, match="no training image"):
        write_int8(tiny_training.model_path, tmp_path / "model-int8.onnx", batches=[])

    assert list(tmp_path.iterdir()) == []


def test_a_graph_without_weights_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["defect"])],
        "nothing",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4])],
        [helper.make_tensor_value_info("defect", TensorProto.UINT8, ["batch", 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "model.onnx")

    with pytest.raises(VariantNotMade):
        write_int8(tmp_path / "model.onnx", tmp_path / "model-int8.onnx", batches=[np.zeros((1, 4), dtype=np.uint8)])


def test_a_place_that_cannot_be_written_to_is_named(tiny_training, tmp_path):
    batches = calibration_batches(tiny_training.files.train, contract=tiny_training.contract)

    with pytest.raises(VariantNotMade, match="could not be read or written"):
        write_int8(tiny_training.model_path, tmp_path / "missing" / "model-int8.onnx", batches=batches)
