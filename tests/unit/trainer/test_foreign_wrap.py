"""Foreign files that are taken: whatever their outward form, the wrapped file gives the levels of the original."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.unit.trainer.foreign_models import (
    HEIGHT,
    WIDTH,
    ask_original,
    ask_served,
    body,
    draw_scenes,
    float_constant,
    int_constant,
    make_foreign,
    make_model,
    save,
    softmax_levels,
)
from trainer.foreign import ForeignFacts, wrap_foreign
from trainer.foreign.rewriting import mean, scale
from trainer.network import Normalise
from trainer.runtime import read_contract

FACTS = ForeignFacts(architecture="DeepLabV3Plus", encoder="resnet101", threshold=0.4, min_area_px=9)


def with_softmax_between_transposes():
    """What exporters write below opset 13, where Softmax flattens all axes from its own on."""
    return make_foreign(
        then=[
            helper.make_node("Transpose", ["logits"], ["last"], perm=[0, 2, 3, 1]),
            helper.make_node("Softmax", ["last"], ["soft"], axis=3),
            helper.make_node("Transpose", ["soft"], ["output"], perm=[0, 3, 1, 2]),
        ],
        output="output",
        opset=12,
    )


def with_batch_in_constants():
    """One image, and its 1 in the sizes of a Reshape and of a Resize."""
    return make_foreign(
        then=[
            helper.make_node("Reshape", ["logits", "flat"], ["flattened"]),
            helper.make_node("Reshape", ["flattened", "small"], ["unflattened"]),
            helper.make_node("Resize", ["unflattened", "", "", "sizes"], ["half"], mode="linear"),
            helper.make_node("Resize", ["half", "", "", "full"], ["output"], mode="linear"),
        ],
        more_constants=[
            int_constant("flat", [1, 2, -1]),
            int_constant("small", [1, 2, HEIGHT, WIDTH]),
            int_constant("sizes", [1, 2, HEIGHT // 2, WIDTH // 2]),
            int_constant("full", [1, 2, HEIGHT, WIDTH]),
        ],
        output="output",
        input_shape=(1, 3, HEIGHT, WIDTH),
        output_shape=(1, 2, HEIGHT, WIDTH),
    )


def with_constants_among_inputs():
    nodes, constants = body()
    inputs = [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, one.dims) for one in constants]
    return make_model(nodes, constants, more_inputs=inputs, opset=11, ir_version=3)


def with_our_names():
    """Its input is called as our output, and its values as ours."""
    nodes, constants = body(input_name="defect", name="defectoscope/logits")
    nodes.append(helper.make_node("Identity", ["defectoscope/logits"], ["image"]))
    return make_model(nodes, constants, input_name="defect", output="image")


def with_functions():
    """A function that calls a function, as newer exporters write them."""
    domain = "pkg.onnxscript.torch_lib"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    inner = helper.make_function(
        domain, "double", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], opsets[:1]
    )
    outer = helper.make_function(
        domain, "four", ["x"], ["y"], [helper.make_node("double", ["x"], ["z"], domain=domain),
                                      helper.make_node("double", ["z"], ["y"], domain=domain)], opsets
    )  # fmt: skip
    return make_foreign(
        then=[helper.make_node("four", ["logits"], ["output"], domain=domain)],
        output="output",
        domains=[domain],
        functions=[inner, outer],
    )


def with_a_branch():
    """An If whose branches use values from around them, one of them called as our input."""

    def branch(op_type):
        outcome = helper.make_tensor_value_info("branched", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op_type, ["logits", "image"], ["branched"])], op_type, [], [outcome])

    return make_foreign(
        then=[
            helper.make_node("Less", ["image", "image"], ["never"]),
            helper.make_node("If", ["never"], ["output"], then_branch=branch("Sub"), else_branch=branch("Mul")),
        ],
        more_constants=[float_constant("image", 1.5)],
        output="output",
    )


LOGITS = {
    "two-channels": make_foreign(),
    "one-channel": make_foreign(channels=1),
    "one-image-at-a-time": make_foreign(input_shape=(1, 3, HEIGHT, WIDTH)),
    "its-batch-in-constants": with_batch_in_constants(),
    "three-images-at-a-time": make_foreign(input_shape=(3, 3, HEIGHT, WIDTH)),
    "sides-left-open": make_foreign(input_shape=("N", 3, "H", "W")),
    "everything-left-open": make_foreign(input_shape=("N", "C", "H", "W")),
    "opset-11": make_foreign(opset=11),
    "opset-22": make_foreign(opset=22, ir_version=10),
    "constants-among-inputs": with_constants_among_inputs(),
    "our-names": with_our_names(),
    "functions": with_functions(),
    "a-branch": with_a_branch(),
    "log-softmax": make_foreign(then=[helper.make_node("LogSoftmax", ["logits"], ["output"], axis=1)], output="output"),
}

ACTIVATED = {
    "softmax": (
        make_foreign(then=[helper.make_node("Softmax", ["logits"], ["output"], axis=1)], output="output"),
        "softmax",
    ),
    "softmax-between-transposes": (with_softmax_between_transposes(), "softmax"),
    "sigmoid": (
        make_foreign(channels=1, then=[helper.make_node("Sigmoid", ["logits"], ["output"])], output="output"),
        "sigmoid",
    ),
}


@pytest.mark.parametrize("model", LOGITS.values(), ids=LOGITS.keys())
def test_the_wrapped_file_gives_the_levels_of_the_original(model, tmp_path):
    path = save(model, tmp_path / "foreign.onnx")
    scenes = draw_scenes(5)

    report = wrap_foreign(path, out=tmp_path / "served.onnx", facts=dataclasses.replace(FACTS, size_wh=(WIDTH, HEIGHT)))

    levels = ask_served(report.path, scenes)
    alone = onnx.ModelProto.FromString(model.SerializeToString())
    if report.fixed_batch == 3:
        alone.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    exact = softmax_levels(ask_original(alone, scenes))
    assert np.abs(levels - exact).max() <= 0.6
    assert 0.02 < np.mean(levels >= 102) < 0.9
    assert report.tail == "logits"


@pytest.mark.parametrize(("model", "tail"), ACTIVATED.values(), ids=ACTIVATED.keys())
def test_an_activation_at_the_end_is_taken_off(model, tail, tmp_path):
    path = save(model, tmp_path / "foreign.onnx")
    scenes = draw_scenes(5)

    report = wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS)

    exact = 255 * ask_original(model, scenes)[:, -1].astype(np.float64)
    assert report.tail == tail
    assert np.abs(ask_served(report.path, scenes) - exact).max() <= 0.6
    assert [node.op_type for node in onnx.load(report.path).graph.node if node.op_type in {"Softmax", "Sigmoid"}] == [
        "Sigmoid"
    ]


@pytest.mark.parametrize("batch", [1, 2, 7, 11])
def test_a_file_for_one_image_takes_any_number_when_wrapped(batch, tmp_path):
    path = save(with_batch_in_constants(), tmp_path / "foreign.onnx")
    scenes = draw_scenes(batch)

    report = wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS)

    exact = softmax_levels(ask_original(with_batch_in_constants(), scenes))
    assert report.fixed_batch == 1
    assert np.abs(ask_served(report.path, scenes) - exact).max() <= 0.6


def test_the_wrapped_file_keeps_the_contract(tmp_path):
    path = save(make_foreign(), tmp_path / "foreign.onnx")

    report = wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS)

    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    contract = read_contract(report.path)
    assert (taken.name, taken.type, taken.shape) == ("image", "tensor(uint8)", ["batch", HEIGHT, WIDTH, 3])
    assert (given.name, given.type, given.shape) == ("defect", "tensor(uint8)", ["batch", HEIGHT, WIDTH])
    assert contract == report.contract
    assert (contract.threshold, contract.min_area_px) == (0.4, 9)
    assert (contract.input_size_wh, contract.version) == ((WIDTH, HEIGHT), None)
    assert (contract.architecture, contract.encoder) == ("DeepLabV3Plus", "resnet101")


def test_what_a_foreign_file_claims_in_its_metadata_is_not_believed(tmp_path):
    model = make_foreign()
    helper.set_model_props(model, {"defectoscope.version": "7", "defectoscope.threshold": "0.01", "author": "someone"})
    path = save(model, tmp_path / "foreign.onnx")

    report = wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS)

    assert {prop.key: prop.value for prop in onnx.load(report.path).metadata_props} == report.contract.to_metadata()


def test_the_proof_says_what_was_compared(tmp_path):
    path = save(make_foreign(), tmp_path / "foreign.onnx")

    proof = wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS).proof

    assert proof.batch_sizes == (1, 2, 7)
    assert proof.images == 8
    assert proof.max_level_difference <= 1
    assert proof.mask_iou == 1.0
    assert proof.flipped_verdicts == 0


def test_normalisation_is_that_of_training():
    normalise = Normalise()

    assert np.array_equal(mean(), normalise.mean.numpy())
    assert np.array_equal(scale(), normalise.scale.numpy())
