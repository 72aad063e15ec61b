"""Files as notebooks export them, by both exporters of torch, from a network that was trained."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
import torch

from tests.images import draw_part
from trainer.foreign import ForeignFacts, wrap_foreign
from trainer.runtime import onnx_engine
from trainer.served import torch_engine

FACTS = ForeignFacts(architecture="DeepLabV3Plus", encoder="resnet10t")
BATCH = {0: "batch"}

EXPORTS = {
    "one-image-opset-11": {"dynamo": False, "opset_version": 11},
    "one-image-opset-17": {"dynamo": False, "opset_version": 17},
    "any-number": {"dynamo": False, "opset_version": 17, "dynamic_axes": {"input": BATCH, "output": BATCH}},
    "any-number-and-size": {
        "dynamo": False,
        "opset_version": 16,
        "dynamic_axes": {"input": {0: "n", 2: "h", 3: "w"}, "output": {0: "n", 2: "h", 3: "w"}},
    },
    "one-image-by-the-newer-exporter": {"dynamo": True, "external_data": False},
    "any-number-by-the-newer-exporter": {
        "dynamo": True,
        "external_data": False,
        "dynamic_shapes": ({0: torch.export.Dim("batch", min=1)},),
    },
}


def export_as_a_notebook(network, path, **how):
    example = torch.zeros(2 if "dynamic_shapes" in how else 1, 3, 64, 64)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        # The exporters warn about their own future and about shapes that they take for constants.
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (example,), path, input_names=["input"], output_names=["output"], **how)
    return path


@pytest.mark.parametrize("how", EXPORTS.values(), ids=EXPORTS.keys())
def test_a_notebooks_file_gives_the_levels_of_its_network(how, tiny_training, tmp_path):
    # Weights that lie channels last, as our training leaves them, would make the newer exporter write strides of one
    # image into the graph.
    network = copy.deepcopy(tiny_training.network).eval().to(memory_format=torch.contiguous_format)
    path = export_as_a_notebook(network, tmp_path / "deeplabv3_plus_model.onnx", **how)
    parts = np.stack([draw_part(height=64, width=64, seed=seed, with_defect=seed != 2)[0] for seed in range(5)])
    facts = ForeignFacts(architecture=FACTS.architecture, encoder=FACTS.encoder, size_wh=(64, 64))

    report = wrap_foreign(path, out=tmp_path / "served.onnx", facts=facts)

    levels, expected = onnx_engine(report.path)(parts), torch_engine(network)(parts)
    assert report.proof.max_level_difference <= 1
    assert np.abs(levels.astype(int) - expected.astype(int)).max() <= 1
    assert (levels >= 128).any()
    assert (levels < 128).any()
