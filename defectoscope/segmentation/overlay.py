"""Draws what was found onto the image, for people to look at; nothing is ever read back from an overlay."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.regions import Defect

#: Only the largest defects get a box and a number; more of them hide the picture.
MAX_BOXES = 20

_JPEG_QUALITY = 85
_RED_RGB = (229, 32, 43)
_WHITE_RGB = (255, 255, 255)
_DARK_RGB = (24, 24, 28)
_FILL_OPACITY = 0.38
_FONT = cv2.FONT_HERSHEY_SIMPLEX

#: On a smaller image a number would cover what it names.
_LEAST_SIDE_FOR_BOXES_PX = 96

_Point = tuple[int, int]


def encode_overlay(pixels: UInt8Array, mask: UInt8Array, *, defects: Sequence[Defect] = ()) -> bytes:
    """Draw the mask as a translucent red area with an outline, and numbered boxes around the largest defects.

    Args:
        pixels: (H, W, 3) uint8 RGB; it is not changed.
        mask: (H, W) uint8; anything but 0 is defect.
        defects: those of the mask; the first 20 by number get a box.

    Returns:
        A JPEG of quality 85 of the same size, with full colour resolution: halved, it would blur the red outline.
    """
    canvas = pixels.copy()
    stroke_px = _find_stroke_px(pixels.shape)
    _fill(canvas, mask)
    _outline(canvas, mask, stroke_px=stroke_px)
    if min(canvas.shape[:2]) >= _LEAST_SIDE_FOR_BOXES_PX:
        shown = sorted(defects, key=lambda defect: defect.number)[:MAX_BOXES]
        corners = [_box(canvas, defect, stroke_px=stroke_px) for defect in shown]
        # Numbers come last: a box drawn later must not cross out an earlier number.
        for defect, (near, far) in zip(shown, corners, strict=True):
            _number(canvas, str(defect.number), near=near, far=far, stroke_px=stroke_px)
    _, encoded = cv2.imencode(
        ".jpg",
        cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR),
        [
            cv2.IMWRITE_JPEG_QUALITY,
            _JPEG_QUALITY,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ],
    )
    return encoded.tobytes()


def _find_stroke_px(shape: tuple[int, ...]) -> int:
    """Lines grow with the image: 1 px at 256, 2 px at 1080, 6 px at 4000, so that they survive a fit to the screen."""
    return max(1, round(min(shape[0], shape[1]) / 640))


def _fill(canvas: UInt8Array, mask: UInt8Array) -> None:
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return
    window = np.s_[top : top + height, left : left + width]
    inside = mask[window] != 0
    kept = canvas[window][inside].astype(np.float32) * (1 - _FILL_OPACITY)
    canvas[window][inside] = np.rint(kept + np.array(_RED_RGB, dtype=np.float32) * _FILL_OPACITY).astype(np.uint8)


def _outline(canvas: UInt8Array, mask: UInt8Array, *, stroke_px: int) -> None:
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, contours, -1, _RED_RGB, thickness=stroke_px, lineType=cv2.LINE_8)


def _box(canvas: UInt8Array, defect: Defect, *, stroke_px: int) -> tuple[_Point, _Point]:
    """Draw a white box with dark edges, so that it shows on any ground, at a little distance from the defect."""
    height, width = canvas.shape[:2]
    gap = 2 * stroke_px + 1
    x0, y0, x1, y1 = defect.box_xyxy
    near = (max(x0 - gap, 0), max(y0 - gap, 0))
    far = (min(x1 - 1 + gap, width - 1), min(y1 - 1 + gap, height - 1))
    edge_px = max(1, stroke_px // 2)
    cv2.rectangle(canvas, near, far, _DARK_RGB, thickness=stroke_px + 2 * edge_px)
    cv2.rectangle(canvas, near, far, _WHITE_RGB, thickness=stroke_px)
    return near, far


def _number(canvas: UInt8Array, text: str, *, near: _Point, far: _Point, stroke_px: int) -> None:
    """Write a number on a dark plate beside the box: above it, else below, right or left, wherever there is room.

    Inside the box, where it hides part of the defect, it goes only when the box fills the image.
    """
    height, width = canvas.shape[:2]
    # Hershey digits are 21 units high at scale 1; 11 px is the least that can be read.
    digit_px = max(11, round(min(height, width) / 50))
    scale = digit_px / 21
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, stroke_px)
    pad = max(2, digit_px // 4)
    plate_width, plate_height = text_width + 2 * pad, text_height + 2 * pad
    left, top = min(near[0], width - plate_width), min(near[1], height - plate_height)
    if near[1] >= plate_height:
        top = near[1] - plate_height
    elif far[1] + plate_height < height:
        top = far[1]
    elif far[0] + plate_width < width:
        left = far[0]
    elif near[0] >= plate_width:
        left = near[0] - plate_width
    cv2.rectangle(canvas, (left, top), (left + plate_width, top + plate_height), _DARK_RGB, thickness=cv2.FILLED)
    cv2.putText(
        canvas, text, (left + pad, top + pad + text_height), _FONT, scale, _WHITE_RGB, stroke_px, lineType=cv2.LINE_AA
    )
