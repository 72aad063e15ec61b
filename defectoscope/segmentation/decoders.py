"""Who decodes files from outside for a process: itself, or processes of its own that may be lost.

Both give the same pixels and the same errors; see `defectoscope.segmentation.isolation` for the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.decode import decode_label
from defectoscope.segmentation.image_file import DEFAULT_LIMITS, DecodeLimits
from defectoscope.segmentation.quick_decode import OpenedImage, open_image


class Decoder(Protocol):
    """Decodes images and labels; used by many threads at once."""

    @property
    def limits(self) -> DecodeLimits:
        """What a file may weigh."""

    def open(self, data: bytes) -> OpenedImage:
        """Check an image as far as its header goes; its pixels are decoded when they are asked for.

        Raises:
            InvalidImage: the error says why.
        """

    def label(self, data: bytes) -> UInt8Array:
        """Decode a label to a class mask, (H, W) uint8 of 0, 1 and 255, as `decode_label` does.

        Raises:
            InvalidLabel: the error says why.
        """

    def close(self) -> None:
        """End what was started for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectDecoder:
    """Decodes in the thread that asks. A fault in a native decoder ends the whole process."""

    limits: DecodeLimits = DEFAULT_LIMITS

    def open(self, data: bytes) -> OpenedImage:
        """See `Decoder`."""
        return open_image(data, limits=self.limits)

    def label(self, data: bytes) -> UInt8Array:
        """See `Decoder`."""
        return decode_label(data, limits=self.limits)

    def close(self) -> None:
        """Nothing was started."""
