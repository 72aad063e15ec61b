"""Draws the foreign files that the tests need: small graphs that find dark spots, each foreign in one stated way."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEIGHT = 40, 24
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def float_constant(name, values):
    return numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)


def int_constant(name, values):
    return numpy_helper.from_array(np.asarray(values, dtype=np.int64), name)


def body(*, channels=2, name="logits", input_name="input"):
    """A convolution that averages the neighbourhood, and one that makes the darker side the defect."""
    rng = np.random.default_rng(5)
    average = np.full((4, 3, 3, 3), 1 / 27) + rng.normal(0, 0.01, (4, 3, 3, 3))
    weights = np.array([[2.0, 1.0, 0.5, 0.1], [-2.5, -0.7, -0.4, -0.3]])[-channels:]
    nodes = [
        helper.make_node("Conv", [input_name, "average"], ["averaged"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["averaged", "weights", "bias"], [name], kernel_shape=[1, 1]),
    ]
    constants = [
        float_constant("average", average),
        float_constant("weights", weights.reshape(channels, 4, 1, 1)),
        float_constant("bias", [0.3, -0.4][-channels:]),
    ]
    return nodes, constants


def make_model(
    nodes,
    constants,
    *,
    output="logits",
    input_name="input",
    input_shape=("N", 3, HEIGHT, WIDTH),
    output_shape=("N", "K", "Y", "X"),
    input_type=TensorProto.FLOAT,
    output_type=TensorProto.FLOAT,
    more_inputs=(),
    more_outputs=(),
    opset=17,
    ir_version=8,
    domains=(),
    functions=(),
    sparse=(),
):
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(input_name, input_type, input_shape), *more_inputs],
        [helper.make_tensor_value_info(output, output_type, output_shape), *more_outputs],
        constants,
        sparse_initializer=list(sparse),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions))


def make_foreign(*, channels=2, then=(), more_constants=(), output="logits", **facts):
    """The usual body, and further nodes behind it."""
    nodes, constants = body(channels=channels)
    return make_model([*nodes, *then], [*constants, *more_constants], output=output, **facts)


def save(model, path):
    onnx.save(model, path)
    return path


def draw_scenes(count):
    """Images with dark spots that differ in place and size: (N, H, W, 3) uint8."""
    rng = np.random.default_rng(count)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    scenes = []
    for _ in range(count):
        grey = rng.normal(150, 25, (HEIGHT, WIDTH, 3))
        centre_x, centre_y, radius = rng.integers(5, 35), rng.integers(4, 20), rng.integers(2, 7)
        grey[(x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2] -= 110
        scenes.append(grey)
    return np.clip(np.rint(scenes), 0, 255).astype(np.uint8)


def ask_original(model, scenes):
    """What the foreign file says of each image alone, as (N, C, H, W)."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return np.concatenate(
        [
            session.run(None, {taken.name: ((scene / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)})[0]
            for scene in scenes
        ]
    )


def softmax_levels(logits):
    """Levels of the defect channel by the definition of softmax; one channel stands beside a zero."""
    logits = logits.astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return 255 * powers[:, 1] / powers.sum(axis=1)


def ask_served(path, scenes):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["defect"], {"image": scenes})[0]
