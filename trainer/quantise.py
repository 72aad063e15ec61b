"""Writes the int8 variant of an exported file: static, per channel, calibrated on training images.

Convolutions and what lies between them work on bytes; enlarging, the classifier and all after it stay fp32. Bytes in
and bytes out stay as they are. The ranges of values are minima and maxima: they need no histogram in memory, and on
trained networks lose no more than the finer ways. It never looks at a validation image: the figures of the variant
would then praise what was tuned on them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quant_pre_process, quantize_static

from defectoscope.errors.training import VariantNotMade
from defectoscope.segmentation import INPUT_NAME, ModelContract, UInt8Array, lay_out
from trainer.data import LabelledFile
from trainer.graph import GRAPH_ERRORS, closing_values, first_line
from trainer.runtime import RUNTIME_ERRORS

#: Training images that the ranges are taken from, evenly spread.
MAX_CALIBRATION_IMAGES = 64
_BATCH = 8
#: Operators that the CPU has for bytes and that are worth it. Enlarging is not: it gains no time and loses edges.
_OPERATORS = ("Conv", "Relu", "Clip", "Add", "Concat", "MaxPool")
#: What the quantiser raises about a graph it cannot handle.
_FAILURES = (*GRAPH_ERRORS, *RUNTIME_ERRORS, ValueError, TypeError, KeyError, RuntimeError)


def calibration_batches(
    files: Sequence[LabelledFile], *, contract: ModelContract, check: Callable[[], None] = lambda: None
) -> Iterator[UInt8Array]:
    """Decode training images, evenly spread, a batch at a time.

    Args:
        files: the training side; at most `MAX_CALIBRATION_IMAGES` of them are used.
        contract: gives the input size.
        check: asked before each batch whether to stop; it raises what it means.

    Returns:
        Arrays of (n, h, w, 3) uint8 RGB, n at most 8.

    Raises:
        InvalidDataset: a file cannot be used.
    """
    count = min(MAX_CALIBRATION_IMAGES, len(files))
    chosen = [files[number * len(files) // count] for number in range(count)]
    for start in range(0, count, _BATCH):
        check()
        batch = []
        for number, file in enumerate(chosen[start : start + _BATCH], start):
            pixels, _ = file.decode()
            layout = lay_out((pixels.shape[0], pixels.shape[1]), contract=contract)
            # Of an image in tiles one is taken, from another place in each.
            batch.append(layout.model_input(pixels, number % layout.count))
        yield np.stack(batch)


def write_int8(source: Path, target: Path, *, batches: Iterable[UInt8Array]) -> None:
    """Write the int8 variant of a file.

    Args:
        source: the fp32 file.
        target: the file to write; `trainer.export.stamp` checks it. A second file of its name with ``.folded`` in
            front of the suffix is written beside it and removed.
        batches: (n, h, w, 3) uint8 RGB training images.

    Raises:
        VariantNotMade: there is no image, or the graph cannot be quantised.
    """
    folded = target.with_suffix(f".folded{target.suffix}")
    reader = _Reader(batches)
    try:
        with _quiet_quantiser():
            # The batch stays a name in the shapes, which is all that the symbolic inference would be needed for.
            quant_pre_process(source, folded, skip_symbolic_shape=True)
            quantize_static(
                folded,
                target,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                nodes_to_exclude=_closing_nodes(folded),
                per_channel=True,
                # Unsigned values and signed weights are what x86 multiplies; signed values would leave convolutions
                # without an activation behind them in fp32.
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        _tidy(source, target)
    except OSError as exc:
        raise VariantNotMade(f"A file that int8 needs could not be read or written: {exc.strerror or exc}.") from exc
    except _FAILURES as exc:
        if not reader.images:
            raise VariantNotMade("There is no training image to calibrate int8 on.") from exc
        raise VariantNotMade(f"The network cannot be quantised: {first_line(exc)}") from exc
    finally:
        folded.unlink(missing_ok=True)


class _Reader:
    """Batches as the quantiser asks for them."""

    def __init__(self, batches: Iterable[UInt8Array]) -> None:
        self._batches = iter(batches)
        self.images = 0

    def get_next(self) -> dict[str, UInt8Array] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        self.images += len(batch)
        return {INPUT_NAME: batch}


def _closing_nodes(path: Path) -> list[str]:
    model = onnx.load(path)
    closing = closing_values(model)
    return [node.name for node in model.graph.node if closing.intersection(node.output)]


def _tidy(source: Path, target: Path) -> None:
    """Give the file the metadata of its source, and see to it that it says no more than it is."""
    model = onnx.load(target)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise VariantNotMade("The network holds nothing that int8 would make faster.")
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load(source, load_external_data=False).metadata_props)
    # ONNX Runtime declares every set of operators it knows; a reader would have to ask which of them matter.
    used = {node.domain for node in model.graph.node}
    declared = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(declared)
    onnx.save(model, target)


@contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """Keep the quantiser's advice, which it gives to the root logger, to itself."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
