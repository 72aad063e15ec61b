"""Wraps a foreign ONNX file into the model contract, in this process.

That is for files that may be trusted, and for the process that `trainer.foreign.process` starts for those that may not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, helper

from defectoscope.errors.models import ModelNotOnnx, ModelOutputNotLogits
from defectoscope.segmentation import ModelContract, find_lowest_level
from trainer.foreign.graph import standard_opset
from trainer.foreign.limits import FileLimits
from trainer.foreign.operators import demand_sizes_known
from trainer.foreign.prove import Proof, draw_images, exact_levels, prove, run_float
from trainer.foreign.reading import demand_values_fit, read_model
from trainer.foreign.rewriting import Tail, find_tail, wrap_graph
from trainer.foreign.session import open_model
from trainer.foreign.signature import Signature, fix_input, read_signature

#: The first one whose initializers are no inputs.
_MIN_IR_VERSION = 4
_TWO_CHANNELS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFacts:
    """What a foreign file does not say about itself.

    Attributes:
        architecture: of the network, any text.
        encoder: of the network, any text.
        size_wh: what it was trained on; needed where the file leaves it open, and compared where it does not.
        threshold: in (0, 1]; a pixel is defect when its probability is at least this.
        min_area_px: smaller regions are dropped, in pixels of the image at its own resolution.
    """

    architecture: str
    encoder: str
    size_wh: tuple[int, int] | None = None
    threshold: float = 0.5
    min_area_px: int = 16

    def contract(self, size_wh: tuple[int, int]) -> ModelContract:
        """Return the contract of the wrapped model; what it was trained on is unknown, and its number comes later.

        Raises:
            InvalidModel: a fact is out of its range.
        """
        return ModelContract(
            input_size_wh=size_wh,
            resize_policy="stretch",
            threshold=self.threshold,
            min_area_px=self.min_area_px,
            class_names=("background", "defect"),
            architecture=self.architecture,
            encoder=self.encoder,
            dataset_revision=None,
            version=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapReport:
    """A wrapped model and what was found out about it.

    Attributes:
        path: the file of the contract.
        contract: that it carries.
        source_sha256: of the foreign file.
        opset: standard operator set, that of the foreign file.
        channels: of the foreign output.
        tail: what the foreign output was: logits, or a softmax or sigmoid that was taken off.
        fixed_batch: how many images the foreign file took at once; None for any number, as the wrapped one.
        proof: that both are equal; the parity of the variant.
    """

    path: Path
    contract: ModelContract
    source_sha256: str
    opset: int
    channels: int
    tail: Tail
    fixed_batch: int | None
    proof: Proof

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "path": str(self.path),
            "contract": self.contract.to_metadata(),
            "source_sha256": self.source_sha256,
            "opset": self.opset,
            "channels": self.channels,
            "tail": self.tail,
            "fixed_batch": self.fixed_batch,
            "proof": self.proof.to_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> WrapReport:
        """Read what `to_json` wrote."""
        proof = values["proof"]
        return cls(
            **{
                **values,
                "path": Path(values["path"]),
                "contract": ModelContract.from_metadata(values["contract"]),
                "proof": Proof(**{**proof, "batch_sizes": tuple(proof["batch_sizes"])}),
            }
        )


def wrap_foreign(path: Path, *, out: Path, facts: ForeignFacts, limits: FileLimits | None = None) -> WrapReport:
    """Wrap a foreign file into the model contract and prove that it gives the same masks.

    Args:
        path: an ONNX file: one float32 input (N, 3, H, W), images normalised by the statistics of ImageNet, and one
            output of logits, (N, 2, H, W) with the defect second, or (N, 1, H, W) of the defect alone. A softmax or
            sigmoid at its very end is taken off.
        out: the file to write; nothing is written when the foreign file is refused.
        facts: what the file does not say.
        limits: what it may weigh; the defaults of `FileLimits`.

    Raises:
        InvalidModel: one of its kinds says why the file is refused.
    """
    limits = limits or FileLimits()
    model = read_model(path, limits=limits)
    signature = read_signature(model, size_wh=facts.size_wh, limits=limits)
    demand_sizes_known(model.graph, signature.input_name)
    contract = facts.contract(signature.size_wh)
    fix_input(model, signature, batch=1 if signature.batch is None else signature.batch)
    demand_values_fit(model, limits=limits)

    images = draw_images(signature.size_wh)
    outputs = _run_original(model, images, signature=signature)
    channels = outputs[0].shape[0]
    tail, activation = find_tail(model.graph, signature.output_name, channels=channels)
    if tail == "logits":
        _demand_logits(outputs)
    expected = [exact_levels(output, tail=tail) for output in outputs]

    wrap_graph(model, signature, channels=channels, activation=activation)
    _sign(model, contract)
    proof = prove(images, expected, served=open_model(model), lowest_level=find_lowest_level(contract.threshold))
    out.write_bytes(model.SerializeToString())
    return WrapReport(
        path=out,
        contract=contract,
        source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        opset=standard_opset(model),
        channels=channels,
        tail=tail,
        fixed_batch=signature.batch,
        proof=proof,
    )


def _run_original(
    model: ModelProto, images: list[npt.NDArray[np.uint8]], *, signature: Signature
) -> list[npt.NDArray[np.float32]]:
    run = open_model(model)
    return [run_float(run, image, batch=signature.batch) for image in images]


def _demand_logits(outputs: list[npt.NDArray[np.float32]]) -> None:
    """Refuse two channels that are probabilities by their values, whatever operators they come from."""
    if all(
        len(output) == _TWO_CHANNELS and (output >= 0).all() and np.allclose(output.sum(axis=0), 1, atol=1e-3)
        for output in outputs
    ):
        raise ModelOutputNotLogits(
            "The model's two channels add up to 1: they are probabilities, made in a way that cannot be undone; "
            "export the logits."
        )


def _sign(model: ModelProto, contract: ModelContract) -> None:
    """Write the contract into the metadata, in place of all that is there, and check the file as a whole."""
    opset = standard_opset(model)
    model.ClearField("opset_import")
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = max(model.ir_version, _MIN_IR_VERSION)
    for field in ("metadata_props", "training_info", "functions"):
        model.ClearField(field)
    helper.set_model_props(model, contract.to_metadata())
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ModelNotOnnx(f"The wrapped model is not valid ONNX: {exc}") from exc
