"""One definition of what happens before and after the model: decoding, resizing, thresholds, defects, scores, pictures.

Whoever segments an image, wherever it runs, goes through here. Nothing in this package knows an engine, a database,
a storage or a process.
"""

from __future__ import annotations

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.contract import INPUT_NAME, OUTPUT_NAME, Engine, ModelContract
from defectoscope.segmentation.decode import DecodedImage, DecodeLimits, decode_image, decode_index_label, decode_label
from defectoscope.segmentation.masks import decode_mask, encode_class_mask, encode_mask
from defectoscope.segmentation.metrics import IGNORED, PixelCounts, count_pixels, per_image_mean, pooled
from defectoscope.segmentation.overlay import encode_overlay
from defectoscope.segmentation.regions import Defect, find_defects
from defectoscope.segmentation.segment import (
    Segmentation,
    SegmentationParams,
    from_model_output,
    segment,
    segment_batch,
    to_model_input,
)

__all__ = [
    "IGNORED",
    "INPUT_NAME",
    "OUTPUT_NAME",
    "DecodeLimits",
    "DecodedImage",
    "Defect",
    "Engine",
    "ModelContract",
    "PixelCounts",
    "Segmentation",
    "SegmentationParams",
    "UInt8Array",
    "count_pixels",
    "decode_image",
    "decode_index_label",
    "decode_label",
    "decode_mask",
    "encode_class_mask",
    "encode_mask",
    "encode_overlay",
    "find_defects",
    "from_model_output",
    "per_image_mean",
    "pooled",
    "segment",
    "segment_batch",
    "to_model_input",
]
