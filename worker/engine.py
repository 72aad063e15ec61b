"""ONNX Runtime as the engine: one session for each model file, with buffers for each batch size that stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime

from defectoscope.errors.engine import DeviceLost, EngineFailed, EngineOutOfMemory
from defectoscope.errors.models import InvalidModel
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, ModelContract, UInt8Array
from worker.device import CPU, RUNTIME_ERRORS, EngineOptions, open_session
from worker.failures import name_failure
from worker.page_locked import allocate

#: What a call ends in. A lack of memory comes from numpy as well as from the runtime, whose std::bad_alloc it is.
_RUN_ERRORS = (*RUNTIME_ERRORS, MemoryError)


class OnnxEngine:
    """Calls one model, (N, H, W, 3) uint8 RGB in, (N, H, W) uint8 out, 255 = certain defect; one thread at a time."""

    def __init__(self, path: Path, *, options: EngineOptions) -> None:
        """Load a model file and check that it keeps the contract.

        Args:
            path: the ONNX file.
            options: device, threads and batch size.

        Raises:
            InvalidModel: not an ONNX file, or without the contract's metadata, input or output.
            ProviderUnavailable: a GPU was demanded and cannot be used.
        """
        self._session = open_session(path, options)
        self.provider: str = self._session.get_providers()[0]
        self.runtime_version: str = onnxruntime.__version__
        self.contract = ModelContract.from_metadata(self._session.get_modelmeta().custom_metadata_map)
        _check_signature(self._session, self.contract)
        self.batch_size = options.batch_size
        self._device_id = None if self.provider == CPU else options.device_id
        self._buffers: dict[int, _Buffers] = {}

    def __call__(self, images: UInt8Array) -> UInt8Array:
        """Run the model on (N, H, W, 3) uint8 RGB, any N: the `Engine` of `defectoscope.segmentation`.

        Raises:
            EngineFailed: the runtime refused or failed.
        """
        try:
            (probabilities,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: images})
        except _RUN_ERRORS as exc:
            raise self._named(exc) from exc
        return np.asarray(probabilities, dtype=np.uint8)

    def fit(self, waiting: int) -> int:
        """Return how many of the images that wait make the next batch.

        On the CPU that is all of them, up to the batch size. On a GPU it is a power of two: each size has its search
        for the fastest kernels, its memory plan and its buffers, so that sizes must be few.
        """
        most = min(waiting, self.batch_size)
        return most if self.provider == CPU else 1 << (most.bit_length() - 1)

    def run(self, images: Sequence[UInt8Array]) -> tuple[list[UInt8Array], float]:
        """Run the model on a batch.

        Args:
            images: (h, w, 3) uint8 RGB each, of the contract's input size; at most `batch_size`.

        Returns:
            (h, w) uint8 defect probabilities of each, 255 = 1.0, and the seconds of the call.

        Raises:
            EngineOutOfMemory: fewer images may fit; `batch_size` was halved.
            DeviceLost: the GPU has failed, and this process cannot use it any more.
            EngineFailed: the runtime refused or failed.
        """
        started = perf_counter()
        try:
            buffers = self._buffers.get(len(images))
            if buffers is None:
                buffers = _Buffers(self._session, len(images), self.contract, device_id=self._device_id)
                self._buffers[len(images)] = buffers
            probabilities = buffers.run(images)
        except _RUN_ERRORS as exc:
            raise self._named(exc) from exc
        return list(probabilities), perf_counter() - started

    def warm(self) -> None:
        """Run every batch size once: the first call plans memory and picks kernels.

        Raises:
            EngineOutOfMemory, DeviceLost, EngineFailed: as `run`.
        """
        width, height = self.contract.input_size_wh
        blank = np.zeros((height, width, 3), dtype=np.uint8)
        size = self.batch_size
        while size:
            self.run([blank] * size)
            size = 0 if self.provider == CPU else size // 2

    def _named(self, exc: Exception) -> EngineFailed | DeviceLost:
        error = name_failure(exc, on_gpu=self.provider != CPU)
        if isinstance(error, EngineOutOfMemory):
            self.batch_size = max(1, self.batch_size // 2)
            self._buffers.clear()
        return error


class _Buffers:
    """Input and output of one batch size, at one place for good; for a GPU in page-locked memory."""

    def __init__(
        self, session: onnxruntime.InferenceSession, count: int, contract: ModelContract, *, device_id: int | None
    ) -> None:
        width, height = contract.input_size_wh
        self._session = session
        self._images = allocate((count, height, width, 3), device_id=device_id)
        self._probabilities = allocate((count, height, width), device_id=device_id)
        self._binding = session.io_binding()
        self._binding.bind_output(
            OUTPUT_NAME, "cpu", 0, np.uint8, self._probabilities.shape, self._probabilities.ctypes.data
        )

    def run(self, images: Sequence[UInt8Array]) -> UInt8Array:
        """Return (N, h, w) uint8 for as many (h, w, 3) uint8 as there is room for."""
        np.stack(images, out=self._images)
        # A binding copies an input to the GPU when it is bound and never again: bound once, every call would see the
        # images of the first (microsoft/onnxruntime#5857). An output is copied back by each call.
        self._binding.bind_cpu_input(INPUT_NAME, self._images)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return self._probabilities.copy()


def _check_signature(session: onnxruntime.InferenceSession, contract: ModelContract) -> None:
    inputs = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    outputs = [(node.name, node.type, node.shape[1:]) for node in session.get_outputs()]
    width, height = contract.input_size_wh
    if inputs != [(INPUT_NAME, "tensor(uint8)", [height, width, 3])]:
        raise InvalidModel(f"The model's input is {inputs}, not {INPUT_NAME} uint8 (N, {height}, {width}, 3).")
    if any(isinstance(node.shape[0], int) for node in (*session.get_inputs(), *session.get_outputs())):
        raise InvalidModel("The model's batch size is fixed; the contract demands any number of images.")
    if outputs != [(OUTPUT_NAME, "tensor(uint8)", [height, width])]:
        raise InvalidModel(f"The model's output is {outputs}, not {OUTPUT_NAME} uint8 (N, {height}, {width}).")
