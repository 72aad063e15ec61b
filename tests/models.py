"""A real ONNX model of the contract that any test can check in its head: dark is defect.

The probability of a pixel is 255 minus its brightest channel. At 256 x 256 nothing is resized, so the mask of an image
follows from its pixels by one comparison in numpy (`expect_mask`).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from defectoscope.registry import VariantFile, promote, publish
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, ModelContract

CONTRACT = ModelContract(
    input_size_wh=(256, 256),
    resize_policy="stretch",
    threshold=0.5,
    min_area_px=1,
    class_names=("background", "defect"),
    architecture="darkness",
    encoder="none",
    dataset_revision=None,
    version=None,
)


def write_dark_is_defect(path, contract=CONTRACT, *, batch="N", metadata=None):
    """Write the model; ``batch`` may be a number, ``metadata`` may differ from what the contract says."""
    width, height = contract.input_size_wh
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [INPUT_NAME], ["as_float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["as_float", "channels"], ["brightest"], keepdims=0),
            helper.make_node("Sub", ["white", "brightest"], ["darkness"]),
            helper.make_node("Cast", ["darkness"], [OUTPUT_NAME], to=TensorProto.UINT8),
        ],
        "dark_is_defect",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [batch, height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, [batch, height, width])],
        [
            numpy_helper.from_array(np.array([3], dtype=np.int64), "channels"),
            numpy_helper.from_array(np.array(255, dtype=np.float32), "white"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, contract.to_metadata() if metadata is None else metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def put_in_service(*, database, storage, directory, contract=CONTRACT):
    """Publish the model and promote it; return its number."""
    number = publish(
        database=database,
        storage=storage,
        contract=contract,
        build=lambda numbered: [
            VariantFile(
                precision="fp32", path=write_dark_is_defect(directory / "dark.onnx", numbered), parity={"images": 0}
            )
        ],
        training_run_id=None,
        dataset_revision_id=None,
    )
    promote(database=database, number=number, actor="test", reason="dark is defect", figures={})
    return number


def expect_mask(pixels, *, threshold=0.5):
    """What the model must say of a (256, 256, 3) image: (256, 256) of 0 and 255. Needs a minimum area of 1 pixel."""
    return np.where((255 - pixels.max(axis=2).astype(np.float64)) / 255 >= threshold, 255, 0).astype(np.uint8)
