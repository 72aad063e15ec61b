"""A small pool of decoding processes behind the interface of every decoder."""

from __future__ import annotations

import os
import sys
from functools import partial
from queue import LifoQueue
from typing import Any

import numpy as np

from defectoscope.errors.catalogue import from_json
from defectoscope.errors.images import ImageDecoderDied, InvalidImage, InvalidLabel
from defectoscope.errors.installation import PlatformUnsupported
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.decode import DecodedImage
from defectoscope.segmentation.image_file import DEFAULT_LIMITS, DecodeLimits
from defectoscope.segmentation.isolation.process import DecoderProcess, ProcessDied, ProcessLimits
from defectoscope.segmentation.isolation.shared import map_pixels
from defectoscope.segmentation.quick_decode import OpenedImage

#: A process may die of memory that another one took, so that a file is blamed only the second time.
_TRIES = 2

_NO_PIXELS: UInt8Array = np.empty(0, dtype=np.uint8)


class IsolatedDecoder:
    """Decodes in processes of its own; as many files at once as there are processes, the others wait."""

    def __init__(
        self,
        *,
        limits: DecodeLimits = DEFAULT_LIMITS,
        process_limits: ProcessLimits | None = None,
        processes: int = 0,
    ) -> None:
        """Prepare the pool; a process is started when it is first needed.

        Args:
            limits: what a file may weigh.
            process_limits: what a process may use.
            processes: how many; 0 for one for each core that this process may use.

        Raises:
            PlatformUnsupported: the system has no sealed shared memory.
        """
        if sys.platform != "linux":
            raise PlatformUnsupported(
                "Decoding in processes of its own needs Linux; set DEFECTOSCOPE_DECODE__ISOLATION=off."
            )
        self.limits = limits
        self._idle: LifoQueue[DecoderProcess] = LifoQueue()
        self._processes = [
            DecoderProcess(limits=limits, process_limits=process_limits or ProcessLimits())
            for _ in range(processes or len(os.sched_getaffinity(0)))
        ]
        for process in self._processes:
            self._idle.put(process)

    def open(self, data: bytes) -> OpenedImage:
        """See `Decoder`.

        Raises:
            DecoderUnavailable: no process can be started.
        """
        facts, _ = self._ask({"do": "open"}, data)
        height, width = facts["shape_hw"]
        return OpenedImage(
            data=data,
            shape_hw=(height, width),
            format=facts["format"],
            source_mode=facts["source_mode"],
            read_pixels=partial(self._decode, data),
        )

    def label(self, data: bytes) -> UInt8Array:
        """See `Decoder`.

        Raises:
            DecoderUnavailable: no process can be started.
        """
        try:
            _, class_mask = self._ask({"do": "label"}, data)
        except InvalidImage as exc:
            raise InvalidLabel(f"The label cannot be read: {exc.message}", reason=exc.code) from exc
        return class_mask

    def close(self) -> None:
        """Kill every process; nobody may be asking any more."""
        for process in self._processes:
            process.end()

    def _decode(self, data: bytes, least_size_wh: tuple[int, int] | None) -> DecodedImage:
        facts, pixels = self._ask({"do": "decode", "least_size_wh": least_size_wh}, data)
        height, width = facts["shape_hw"]
        return DecodedImage(
            pixels=pixels, shape_hw=(height, width), format=facts["format"], source_mode=facts["source_mode"]
        )

    def _ask(self, order: dict[str, Any], data: bytes) -> tuple[dict[str, Any], UInt8Array]:
        for _ in range(_TRIES):
            process = self._idle.get()
            try:
                answer, pixels = _ask_once(process, order, data)
            except ProcessDied:
                continue
            finally:
                self._idle.put(process)
            if "error" in answer:
                raise from_json(answer["error"], unknown=InvalidImage)
            return answer, pixels
        raise ImageDecoderDied


def _ask_once(process: DecoderProcess, order: dict[str, Any], data: bytes) -> tuple[dict[str, Any], UInt8Array]:
    answer, descriptor = process.ask(order, data)
    if descriptor is None:
        return answer, _NO_PIXELS
    try:
        return answer, map_pixels(descriptor, answer["shape"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        # Who gives something else than it says is not asked again.
        process.end()
        raise ProcessDied from exc
