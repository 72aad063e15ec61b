"""One definition of what happens before and after the model: decoding, resizing, thresholds, defects, scores, pictures.

Whoever segments an image, wherever it runs, goes through here. Nothing in this package knows an engine, a database,
a storage or a process.
"""

from __future__ import annotations

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.contract import (
    INPUT_NAME,
    OUTPUT_NAME,
    RESIZE_POLICIES,
    Engine,
    ModelContract,
    ResizePolicy,
)
from defectoscope.segmentation.decode import DecodedImage, DecodeLimits, decode_image, decode_index_label, decode_label
from defectoscope.segmentation.decoders import Decoder, DirectDecoder
from defectoscope.segmentation.layout import Assembly, Layout, lay_out
from defectoscope.segmentation.masks import decode_mask, encode_class_mask, encode_mask
from defectoscope.segmentation.metrics import IGNORED, PixelCounts, count_pixels, per_image_mean, pooled
from defectoscope.segmentation.overlay import encode_overlay
from defectoscope.segmentation.quick_decode import OpenedImage, decode_quickly, open_image
from defectoscope.segmentation.regions import Defect, find_defects
from defectoscope.segmentation.segment import (
    assemble_batch,
    from_model_output,
    segment,
    segment_batch,
    to_model_input,
)
from defectoscope.segmentation.threshold import Segmentation, SegmentationParams, find_lowest_level

__all__ = [
    "IGNORED",
    "INPUT_NAME",
    "OUTPUT_NAME",
    "RESIZE_POLICIES",
    "Assembly",
    "DecodeLimits",
    "DecodedImage",
    "Decoder",
    "Defect",
    "DirectDecoder",
    "Engine",
    "Layout",
    "ModelContract",
    "OpenedImage",
    "PixelCounts",
    "ResizePolicy",
    "Segmentation",
    "SegmentationParams",
    "UInt8Array",
    "assemble_batch",
    "count_pixels",
    "decode_image",
    "decode_index_label",
    "decode_label",
    "decode_mask",
    "decode_quickly",
    "encode_class_mask",
    "encode_mask",
    "encode_overlay",
    "find_defects",
    "find_lowest_level",
    "from_model_output",
    "lay_out",
    "open_image",
    "per_image_mean",
    "pooled",
    "segment",
    "segment_batch",
    "to_model_input",
]
