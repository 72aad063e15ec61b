"""Foreign files that are refused: each by its own code, before the runtime sees it where that can be."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from defectoscope.errors.models import InvalidModel, ModelBatchFixed, ModelNotEqual, ModelNotOnnx
from tests.unit.trainer.foreign_models import (
    HEIGHT,
    WIDTH,
    body,
    float_constant,
    int_constant,
    make_foreign,
    make_model,
    save,
)
from trainer.foreign import FileLimits, ForeignFacts, wrap_foreign
from trainer.foreign.prove import draw_images, prove

FACTS = ForeignFacts(architecture="DeepLabV3Plus", encoder="resnet101")
NODE = helper.make_node


def ending_with(*nodes, channels=2, constants=(), **facts):
    return make_foreign(channels=channels, then=nodes, more_constants=constants, output="output", **facts)


def branching(node):
    """The node stands in a branch that is never taken."""
    outcome = helper.make_tensor_value_info("output_of_branch", TensorProto.FLOAT, None)
    taken = helper.make_graph([NODE("Identity", ["logits"], ["output_of_branch"])], "taken", [], [outcome])
    other = helper.make_graph([node], "other", [], [outcome])
    return ending_with(
        NODE("If", ["always"], ["output"], then_branch=taken, else_branch=other),
        constants=[helper.make_tensor("always", TensorProto.BOOL, [], [True])],
    )


def in_function(node, *, domains=()):
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    function = helper.make_function("local", "wrapper", ["x"], ["y"], [node], opsets)
    return ending_with(
        NODE("wrapper", ["logits"], ["output"], domain="local"), domains=["local", *domains], functions=[function]
    )


def doubling_functions(depth):
    """Each function calls the one below twice: written out, 2 ** depth operators."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [helper.make_function("local", "f0", ["x"], ["y"], [NODE("Neg", ["x"], ["y"])], opsets)]
    for level in range(1, depth):
        below = f"f{level - 1}"
        calls = [NODE(below, ["x"], ["z"], domain="local"), NODE(below, ["z"], ["y"], domain="local")]
        functions.append(helper.make_function("local", f"f{level}", ["x"], ["y"], calls, opsets))
    last = NODE(f"f{depth - 1}", ["logits"], ["output"], domain="local")
    return ending_with(last, domains=["local"], functions=functions)


def with_external_weights(place):
    model = make_foreign()
    if place == "attribute":
        value = float_constant("", [1.0])
        model.graph.node.insert(0, NODE("Constant", [], ["never_used"], value=value))
        tensor = model.graph.node[0].attribute[0].t
    else:
        tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    return model


def with_declared_size(dims):
    model = make_foreign()
    model.graph.initializer[0].ClearField("dims")
    model.graph.initializer[0].dims.extend(dims)
    return model


def with_huge_sparse_constant():
    sparse = helper.make_sparse_tensor(float_constant("vast", [1.0]), int_constant("vast_index", [5]), [2**20, 2**20])
    return ending_with(NODE("Identity", ["logits"], ["output"]), sparse=[sparse])


def that_unfolds_on_the_way():
    return ending_with(
        NODE("ConstantOfShape", ["vast"], ["ones"]),
        NODE("ReduceMax", ["ones"], ["one"], keepdims=0),
        NODE("Add", ["logits", "one"], ["output"]),
        constants=[int_constant("vast", [2**17, 2**17])],
    )


def loop():
    outcome = helper.make_tensor_value_info("same", TensorProto.BOOL, [])
    number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
    before = helper.make_tensor_value_info("before", TensorProto.BOOL, [])
    inside = helper.make_graph([NODE("Identity", ["before"], ["same"])], "inside", [number, before], [outcome])
    return ending_with(
        NODE("Loop", ["", "always"], [], body=inside),
        NODE("Identity", ["logits"], ["output"]),
        constants=[helper.make_tensor("always", TensorProto.BOOL, [], [True])],
    )


def calling_itself():
    return in_function(NODE("wrapper", ["x"], ["y"], domain="local"))


def with_two_inputs():
    nodes, constants = body()
    other = helper.make_tensor_value_info("other", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])
    nodes[0].input[0] = "sum"
    return make_model([NODE("Add", ["input", "other"], ["sum"]), *nodes], constants, more_inputs=[other])


def with_two_outputs():
    other = helper.make_tensor_value_info("averaged", TensorProto.FLOAT, ["N", 4, HEIGHT, WIDTH])
    return make_foreign(more_outputs=[other])


def of_another_input(shape, *, dtype=TensorProto.FLOAT):
    """A graph that takes anything, so that only the declared input is at fault."""
    return make_model(
        [NODE("Cast", ["input"], ["logits"], to=TensorProto.FLOAT)], [], input_shape=shape, input_type=dtype
    )


def probabilities_by_hand():
    return ending_with(
        NODE("Exp", ["logits"], ["powers"]),
        NODE("ReduceSum", ["powers", "channel_axis"], ["sum"], keepdims=1),
        NODE("Div", ["powers", "sum"], ["output"]),
        constants=[int_constant("channel_axis", [1])],
    )


def coupled_images():
    """What BatchNorm in training mode does: each image is seen beside the mean of the batch."""
    return ending_with(
        NODE("ReduceMean", ["logits"], ["mean_of_batch"], axes=[0], keepdims=1),
        NODE("Sub", ["logits", "mean_of_batch"], ["centred"]),
        NODE("Add", ["logits", "centred"], ["output"]),
    )


def one_image_only():
    """Its batch of 1 is a part of a size that nobody can tell from another."""
    return ending_with(
        NODE("Reshape", ["logits", "as_list"], ["listed"]),
        NODE("Reshape", ["listed", "as_image"], ["output"]),
        constants=[int_constant("as_list", [2 * HEIGHT * WIDTH]), int_constant("as_image", [1, 2, HEIGHT, WIDTH])],
        input_shape=(1, 3, HEIGHT, WIDTH),
    )


def that_matches_patterns():
    return ending_with(
        NODE("RegexFullMatch", ["text"], ["is_match"], pattern="(a+)+b"),
        NODE("Identity", ["logits"], ["output"]),
        constants=[helper.make_tensor("text", TensorProto.STRING, [1], [b"a" * 40])],
        opset=20,
    )


def as_large_as_the_picture_says():
    """Harmless for every picture but one whose mean is high: then it asks for terabytes."""
    return ending_with(
        NODE("ReduceMax", ["input"], ["brightest"], keepdims=0),
        NODE("Mul", ["brightest", "much"], ["many"]),
        NODE("Cast", ["many"], ["count"], to=TensorProto.INT64),
        NODE("Unsqueeze", ["count", "first_axis"], ["size"]),
        NODE("ConstantOfShape", ["size"], ["vast"]),
        NODE("ReduceSum", ["vast"], ["sum"], keepdims=0),
        NODE("Add", ["logits", "sum"], ["output"]),
        constants=[float_constant("much", 1e-3), int_constant("first_axis", [0])],
    )


def as_large_as_the_picture_says_in_a_branch():
    outcome = helper.make_tensor_value_info("output_of_branch", TensorProto.FLOAT, None)
    inside = helper.make_graph(
        [
            NODE("Cast", ["logits"], ["counts"], to=TensorProto.INT64),
            NODE("Reshape", ["counts", "flat"], ["listed"]),
            NODE("Slice", ["listed", "zero", "four"], ["size"]),
            NODE("Expand", ["logits", "size"], ["output_of_branch"]),
        ],
        "inside",
        [],
        [outcome],
    )
    other = helper.make_graph([NODE("Identity", ["logits"], ["output_of_branch"])], "other", [], [outcome])
    return ending_with(
        NODE("If", ["never"], ["output"], then_branch=inside, else_branch=other),
        constants=[
            helper.make_tensor("never", TensorProto.BOOL, [], [False]),
            int_constant("flat", [-1]),
            int_constant("zero", [0]),
            int_constant("four", [4]),
        ],
    )


def with_a_giant_attribute():
    model = ending_with(NODE("Identity", ["logits"], ["output"]))
    model.graph.node[0].attribute.append(helper.make_attribute("notes", [1] * (2**20 + 1)))
    return model


def with_a_blob():
    """What a node of a precompiled engine holds, under the name of an innocent one."""
    model = ending_with(NODE("Identity", ["logits"], ["output"]))
    model.graph.node[0].attribute.append(helper.make_attribute("notes", bytes(2**20 + 1)))
    return model


IDENTITY = NODE("Identity", ["x"], ["y"])
RANDOM = NODE("RandomNormalLike", ["logits"], ["output_of_branch"])
REFUSED = {
    "external-weights": (lambda: with_external_weights("initializer"), "model_external_data", "other files"),
    "external-attribute": (lambda: with_external_weights("attribute"), "model_external_data", "other files"),
    "vast-constant": (lambda: with_declared_size([2**20, 2**20]), "model_too_large", "declares 4398046511104 bytes"),
    "negative-constant": (lambda: with_declared_size([-1, 4]), "model_not_onnx", "negative size"),
    "data-short-of-its-size": (lambda: with_declared_size([4, 3, 3, 4]), "model_not_onnx", "not valid ONNX"),
    "vast-sparse-constant": (with_huge_sparse_constant, "model_too_large", "declares"),
    "vast-value": (that_unfolds_on_the_way, "model_too_large", "declares 68719476736 bytes"),
    "functions-that-double": (lambda: doubling_functions(40), "model_too_large", "more than 100000 operators"),
    "function-that-calls-itself": (calling_itself, "model_not_onnx", "calls itself"),
    "old-opset": (lambda: make_foreign(opset=10), "model_opset_refused", "older than 11"),
    "custom-operator": (
        lambda: ending_with(NODE("Magic", ["logits"], ["output"], domain="acme"), domains=["acme"]),
        "model_operator_refused",
        r"acme\.Magic",
    ),
    "runtime-operator": (
        lambda: ending_with(NODE("Gelu", ["logits"], ["output"], domain="com.microsoft"), domains=["com.microsoft"]),
        "model_operator_refused",
        r"com\.microsoft\.Gelu",
    ),
    "custom-operator-in-a-function": (
        lambda: in_function(NODE("Magic", ["x"], ["y"], domain="acme"), domains=["acme"]),
        "model_operator_refused",
        r"acme\.Magic",
    ),
    "precompiled-engine": (
        lambda: ending_with(
            NODE("EPContext", ["logits"], ["output"], domain="com.microsoft", ep_cache_context=b"native code"),
            domains=["com.microsoft"],
        ),
        "model_operator_refused",
        r"com\.microsoft\.EPContext",
    ),
    "learned-trees": (
        lambda: ending_with(NODE("Scaler", ["logits"], ["output"], domain="ai.onnx.ml"), domains=["ai.onnx.ml"]),
        "model_operator_refused",
        r"ai\.onnx\.ml\.Scaler",
    ),
    "patterns": (that_matches_patterns, "model_operator_refused", "RegexFullMatch"),
    "size-of-the-pixels": (as_large_as_the_picture_says, "model_operator_refused", "ConstantOfShape.*on the picture"),
    "size-of-the-pixels-in-a-branch": (
        as_large_as_the_picture_says_in_a_branch,
        "model_operator_refused",
        "Expand.*on the picture",
    ),
    "giant-attribute": (with_a_giant_attribute, "model_too_large", '"notes" has 1048577 values'),
    "blob-in-an-attribute": (with_a_blob, "model_too_large", '"notes" has 1048577 values'),
    "random-operator-in-a-branch": (lambda: branching(RANDOM), "model_operator_refused", "RandomNormalLike"),
    "endless-loop": (loop, "model_operator_refused", "Loop"),
    "unknown-operator": (
        lambda: ending_with(NODE("Magic", ["logits"], ["output"])),
        "model_not_onnx",
        "not valid ONNX.*Magic",
    ),
    "two-inputs": (with_two_inputs, "model_input_refused", "2 inputs"),
    "input-of-rank-3": (lambda: of_another_input((3, HEIGHT, WIDTH)), "model_input_refused", r"\(3, 24, 40\)"),
    "input-of-one-channel": (lambda: of_another_input(("N", 1, 8, 8)), "model_input_refused", r"\(any, 1, 8, 8\)"),
    "channels-last": (lambda: of_another_input(("N", 8, 8, 3)), "model_input_refused", "channels last"),
    "half-input": (
        lambda: of_another_input(("N", 3, 8, 8), dtype=TensorProto.FLOAT16),
        "model_input_refused",
        "float16, not float32",
    ),
    "two-outputs": (with_two_outputs, "model_output_refused", "2 outputs"),
    "output-of-rank-3": (
        lambda: ending_with(
            NODE("ReduceMax", ["logits"], ["output"], axes=[1], keepdims=0), output_shape=("N", HEIGHT, WIDTH)
        ),
        "model_output_refused",
        r"\(any, 24, 40\)",
    ),
    "output-of-three-channels": (
        lambda: ending_with(NODE("Concat", ["logits", "logits"], ["output"], axis=1)),
        "model_output_refused",
        r"\(1, 4, 24, 40\)",
    ),
    "smaller-output": (
        lambda: ending_with(NODE("MaxPool", ["logits"], ["output"], kernel_shape=[2, 2], strides=[2, 2])),
        "model_output_refused",
        r"\(1, 2, 12, 20\)",
    ),
    "classes-for-output": (
        lambda: ending_with(NODE("ArgMax", ["logits"], ["output"], axis=1), output_type=TensorProto.INT64),
        "model_output_refused",
        "int64",
    ),
    "no-numbers": (
        lambda: ending_with(
            NODE("Sub", ["logits", "average_of_all"], ["zero"]),
            NODE("Log", ["zero"], ["output"]),
            constants=[float_constant("average_of_all", 1e6)],
        ),
        "model_output_refused",
        "not numbers",
    ),
    "sigmoid-of-two": (
        lambda: ending_with(NODE("Sigmoid", ["logits"], ["output"])),
        "model_output_not_logits",
        "Sigmoid on 2 channels",
    ),
    "softmax-of-one": (
        lambda: ending_with(NODE("Softmax", ["logits"], ["output"], axis=1), channels=1),
        "model_output_not_logits",
        "Softmax on 1 channel",
    ),
    "hard-sigmoid": (
        lambda: ending_with(NODE("HardSigmoid", ["logits"], ["output"]), channels=1),
        "model_output_not_logits",
        "HardSigmoid",
    ),
    "probabilities-by-hand": (probabilities_by_hand, "model_output_not_logits", "add up to 1"),
    "softmax-over-the-image": (
        lambda: ending_with(NODE("Softmax", ["logits"], ["output"], axis=3)),
        "model_not_equal",
        "not give the masks",
    ),
    "open-sides": (lambda: make_foreign(input_shape=("N", 3, "H", "W")), "model_size_unknown", "say the size"),
    "coupled-images": (coupled_images, "model_batch_fixed", "2 images at once"),
    "one-image-only": (one_image_only, "model_batch_fixed", "2 at once"),
}


@pytest.mark.parametrize(("make", "code", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_is_refused_by_name(make, code, words, tmp_path):
    path = save(make(), tmp_path / "foreign.onnx")
    # Sound weights where the external ones are said to be: nobody may go and fetch them.
    (tmp_path / "weights.bin").write_bytes(bytes(4 * 4 * 27))

    with pytest.raises(InvalidModel, match=words) as refusal:
        wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS)

    assert refusal.value.code == code
    assert not (tmp_path / "served.onnx").exists()


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.onnx", onnx.ModelProto().SerializeToString())
    return file.getvalue()


def field(number, body):
    """A field of a message as it stands in a file: no library writes what is nested too deeply to be read."""
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


def nested_branches(depth):
    """A sound model with branches within branches."""
    node = field(4, b"Identity")
    for _ in range(depth):
        branch = field(1, b"then_branch") + field(6, field(1, node))
        node = field(4, b"If") + field(5, branch)
    return make_foreign().SerializeToString() + field(7, field(1, node))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(nested_branches(20_000), id="deep-branches"),
        pytest.param(b"", id="empty"),
        pytest.param(b"import torch\n", id="text"),
        pytest.param(bytes(1000), id="zeros"),
        pytest.param(zipped(), id="zip"),
        pytest.param(make_foreign().SerializeToString()[:-20], id="cut-off"),
        pytest.param(np.random.default_rng(1).bytes(5000), id="noise"),
        pytest.param(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString(), id="empty-graph"),
    ],
)
def test_what_is_no_onnx_is_refused_by_name(data, tmp_path):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(data)

    with pytest.raises(ModelNotOnnx):
        wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS)


def test_a_name_that_is_no_text_is_refused_by_name(tmp_path):
    path = save(make_foreign(), tmp_path / "foreign.onnx")
    named = path.read_bytes()
    assert b"Conv" in named
    path.write_bytes(named.replace(b"Conv", b"Con\xff"))

    with pytest.raises(ModelNotOnnx):
        wrap_foreign(path, out=tmp_path / "wrapped.onnx", facts=FACTS)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ModelNotOnnx, match="cannot be read"):
        wrap_foreign(tmp_path / "none.onnx", out=tmp_path / "served.onnx", facts=FACTS)


def test_a_file_of_too_many_parts_is_refused(tmp_path):
    path = save(make_foreign(), tmp_path / "foreign.onnx")

    with pytest.raises(InvalidModel, match="more than 10 parts") as refusal:
        wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS, limits=FileLimits(max_parts=10))

    assert refusal.value.code == "model_too_large"


def test_a_file_over_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "foreign.onnx"
    path.write_bytes(b"no model at all, and never looked at")

    with pytest.raises(InvalidModel, match="at most 10 are accepted") as refusal:
        wrap_foreign(path, out=tmp_path / "served.onnx", facts=FACTS, limits=FileLimits(max_bytes=10))

    assert refusal.value.code == "model_too_large"


@pytest.mark.parametrize(
    ("size_wh", "code"),
    [
        pytest.param((256, 256), "model_size_conflict", id="another-than-in-the-file"),
        pytest.param((40, 20), "model_size_conflict", id="another-height"),
    ],
)
def test_a_size_that_the_file_contradicts_is_refused(size_wh, code, tmp_path):
    path = save(make_foreign(), tmp_path / "foreign.onnx")
    facts = ForeignFacts(architecture="a", encoder="b", size_wh=size_wh)

    with pytest.raises(InvalidModel, match="40 x 24") as refusal:
        wrap_foreign(path, out=tmp_path / "served.onnx", facts=facts)

    assert refusal.value.code == code


def test_a_size_beyond_the_limit_is_refused(tmp_path):
    path = save(make_foreign(input_shape=("N", 3, "H", "W")), tmp_path / "foreign.onnx")
    facts = ForeignFacts(architecture="a", encoder="b", size_wh=(100_000, 8))

    with pytest.raises(InvalidModel, match="100000 x 8") as refusal:
        wrap_foreign(path, out=tmp_path / "served.onnx", facts=facts)

    assert refusal.value.code == "model_too_large"


def answer(levels):
    """A model of the contract that knows each image's answer by the image's first pixel."""
    return lambda batch: np.stack([levels[int(image[0, 0, 0])] for image in batch])


@pytest.fixture
def eight():
    """Eight tiny images that say their number, and exact levels for each."""
    images = [np.full((4, 4, 3), number, dtype=np.uint8) for number in range(8)]
    expected = [np.full((4, 4), 100.0 + number) for number in range(8)]
    return images, expected


def test_levels_two_steps_apart_are_no_proof(eight):
    images, expected = eight
    levels = [np.rint(one).astype(np.uint8) for one in expected]
    levels[3][1, 2] += 2

    with pytest.raises(ModelNotEqual, match="2/255 apart"):
        prove(images, expected, served=answer(levels), lowest_level=128)


def test_a_pixel_that_changes_sides_is_no_proof(eight):
    images, expected = eight
    expected[5][0, 0] = 127.3
    levels = [np.rint(one).astype(np.uint8) for one in expected]
    levels[5][0, 0] = 128

    with pytest.raises(ModelNotEqual, match="1 pixels changed sides"):
        prove(images, expected, served=answer(levels), lowest_level=128)


def test_a_pixel_on_the_very_edge_may_change_sides_and_is_counted(eight):
    images, expected = eight
    expected[5][0, 0] = 127.49
    levels = [np.rint(one).astype(np.uint8) for one in expected]
    levels[5][0, 0] = 128

    proof = prove(images, expected, served=answer(levels), lowest_level=128)

    # Image 5 is seen alone, in a pair and twice in the batches of seven.
    assert proof.edge_pixels == 4
    assert proof.max_level_difference == 1


def test_an_answer_that_depends_on_the_batch_is_no_proof(eight):
    images, expected = eight
    levels = [np.rint(one).astype(np.uint8) for one in expected]

    def served(batch):
        answers = answer(levels)(batch)
        return answers if len(batch) < 7 else answers[::-1]

    with pytest.raises(ModelBatchFixed, match="7 images at once"):
        prove(images, expected, served=served, lowest_level=128)


def test_the_images_of_a_proof_differ_and_are_always_the_same():
    first, second = draw_images((33, 21)), draw_images((33, 21))

    assert len({image.tobytes() for image in first}) == len(first) == 8
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert {image.shape for image in first} == {(21, 33, 3)}
