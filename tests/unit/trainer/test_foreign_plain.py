"""Plain files: the very logits of the network, from files of the trainer and from wrapped ones, and back again."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from defectoscope.errors.models import InvalidModel, PlainExportRefused
from tests.images import draw_part
from tests.models import CONTRACT, write_dark_is_defect
from tests.unit.trainer.foreign_models import (
    HEIGHT,
    MEAN,
    STD,
    WIDTH,
    ask_original,
    ask_served,
    draw_scenes,
    make_foreign,
    save,
)
from trainer.foreign import ForeignFacts, wrap_foreign
from trainer.plain import PLAIN_FILE_NAME, to_plain
from trainer.runtime import onnx_engine

FACTS = ForeignFacts(architecture="DeepLabV3Plus", encoder="resnet101")


def draw_parts(count):
    return np.stack([draw_part(height=64, width=64, seed=seed, with_defect=seed != 2)[0] for seed in range(count)])


def normalised(scenes):
    return ((scenes / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def ask_plain(path, scenes):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["output"], {"input": normalised(scenes)})
    return logits


@pytest.fixture(scope="module")
def plain(tiny_training, tmp_path_factory):
    """The plain file of the trained network."""
    return to_plain(tiny_training.model_path, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_plain_file_gives_the_logits_of_the_network(batch, tiny_training, plain):
    parts = draw_parts(batch)

    logits = ask_plain(plain.path, parts)

    with torch.inference_mode():
        expected = tiny_training.network.eval()(torch.from_numpy(normalised(parts))).numpy()
    assert logits.shape == (batch, 2, 64, 64)
    assert np.abs(logits - expected).max() <= 1e-4
    assert np.ptp(expected) > 1


def test_a_plain_file_is_what_a_notebook_exports(plain):
    model = onnx.load(plain.path)

    (taken,), (given,) = model.graph.input, model.graph.output
    assert plain.path.name == PLAIN_FILE_NAME == "deeplabv3_plus_model.onnx"
    assert (taken.name, taken.type.tensor_type.elem_type) == ("input", TensorProto.FLOAT)
    assert (given.name, given.type.tensor_type.elem_type) == ("output", TensorProto.FLOAT)
    assert [dim.dim_param or dim.dim_value for dim in taken.type.tensor_type.shape.dim] == ["batch", 3, 64, 64]
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim] == ["batch", 2, 64, 64]
    assert not model.metadata_props
    assert not {"Sigmoid", "Round"} & {node.op_type for node in model.graph.node}


def test_a_plain_file_wrapped_again_gives_the_served_levels(tiny_training, plain, tmp_path):
    parts = draw_parts(4)

    report = wrap_foreign(plain.path, out=tmp_path / "again.onnx", facts=FACTS)

    levels, expected = onnx_engine(report.path)(parts), onnx_engine(tiny_training.model_path)(parts)
    assert np.abs(levels.astype(int) - expected.astype(int)).max() <= 1
    assert (levels >= 128).any()


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wrapped_file_becomes_plain_with_the_logits_of_the_original(channels, tmp_path):
    foreign = make_foreign(channels=channels)
    served = wrap_foreign(save(foreign, tmp_path / "foreign.onnx"), out=tmp_path / "served.onnx", facts=FACTS)
    scenes = draw_scenes(3)

    report = to_plain(served.path, tmp_path / "plain.onnx")

    logits, expected = ask_plain(report.path, scenes), ask_original(foreign, scenes)
    if channels == 1:
        expected = np.concatenate([np.zeros_like(expected), expected], axis=1)
    assert report.path == tmp_path / "plain.onnx"
    assert np.abs(logits - expected).max() <= 1e-5


def test_wrapping_and_unwrapping_twice_changes_nothing(tmp_path):
    path, scenes = save(make_foreign(channels=1), tmp_path / "foreign.onnx"), draw_scenes(3)
    first = wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS)

    plain = to_plain(first.path, tmp_path / "plain.onnx")
    second = wrap_foreign(plain.path, out=tmp_path / "again.onnx", facts=FACTS)
    last = to_plain(second.path, tmp_path / "last.onnx")

    assert np.array_equal(ask_served(first.path, scenes), ask_served(second.path, scenes))
    assert np.array_equal(ask_plain(plain.path, scenes), ask_plain(last.path, scenes))


def served_model(tmp_path):
    report = wrap_foreign(
        save(make_foreign(), tmp_path / "foreign.onnx"),
        out=tmp_path / "served.onnx",
        facts=dataclasses.replace(FACTS, min_area_px=0),
    )
    return onnx.load(report.path)


def with_other_statistics(model):
    for tensor in model.graph.initializer:
        if tensor.name == "defectoscope/mean":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))


def with_half_weights(model):
    half = numpy_helper.from_array(np.ones(1, dtype=np.float16), "half")
    model.graph.initializer.append(half)


def with_other_white(model):
    for tensor in model.graph.initializer:
        if tensor.name == "defectoscope/white":
            tensor.CopyFrom(numpy_helper.from_array(np.array(254, dtype=np.float32), tensor.name))


def with_swapped_channels(model):
    """A defect that stands first."""
    gathers = [node for node in model.graph.node if node.op_type == "Gather"]
    first, second = gathers[0].input[1], gathers[1].input[1]
    gathers[0].input[1], gathers[1].input[1] = second, first


def with_the_image_used_twice(model):
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["aside"], to=TensorProto.FLOAT))


@pytest.mark.parametrize(
    "change",
    [with_other_statistics, with_half_weights, with_other_white, with_swapped_channels, with_the_image_used_twice],
)
def test_a_graph_without_the_seams_is_refused(change, tmp_path):
    model = served_model(tmp_path)
    change(model)
    path = save(model, tmp_path / "changed.onnx")

    with pytest.raises(PlainExportRefused):
        to_plain(path, tmp_path / "plain.onnx")

    assert not (tmp_path / "plain.onnx").exists()


def test_a_model_without_a_network_inside_is_refused(tmp_path):
    path = write_dark_is_defect(tmp_path / "dark.onnx", dataclasses.replace(CONTRACT, input_size_wh=(WIDTH, HEIGHT)))

    with pytest.raises(PlainExportRefused):
        to_plain(path, tmp_path / "plain.onnx")


def test_a_file_without_a_contract_is_refused(tmp_path):
    path = save(make_foreign(), tmp_path / "foreign.onnx")

    with pytest.raises(InvalidModel, match="lacks the metadata key"):
        to_plain(path, tmp_path / "plain.onnx")
