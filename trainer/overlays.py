"""Validation images with the label and the prediction drawn as outlines, for people: the worst, the best, some between.

It refuses to judge: which images are shown follows from their scores alone, so that nobody picks the flattering ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from defectoscope.segmentation import IGNORED, Engine, ModelContract, PixelCounts, UInt8Array, segment
from trainer.evaluate import ScoredImage

Rank = Literal["worst", "between", "best"]

#: Longer side of a picture, at most.
MAX_SIDE_PX = 384
#: A small image is enlarged by a whole factor up to this one, so that its pixels stay what they are.
_LARGEST_FACTOR = 6
#: Blue and orange can be told apart by almost everybody, on paper too. The prediction is thin and drawn last: where
#: both agree, the label shows on either side of it.
LABEL_RGB = (0, 114, 255)
PREDICTION_RGB = (255, 140, 0)
_LABEL_STROKE_PX = 2
_PREDICTION_STROKE_PX = 1
_IGNORED_RGB = (128, 128, 128)
_STRIPE_PX = 4
#: Fractions of a pixel that OpenCV draws in, as a power of two.
_SUBPIXEL_BITS = 4

#: A picture weighs at most this much as long as any of the qualities gets it there: 24 of them keep a page below 3 MB.
_MAX_PICTURE_BYTES = 80_000
_QUALITIES = (85, 70, 55, 40, 25, 10)

_WORST, _BETWEEN, _BEST = 6, 3, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationOverlay:
    """One validation image as the report shows it.

    Attributes:
        name: of the image.
        rank: why it is shown.
        counts: its pixels, at its own resolution.
        plain: JPEG of the image alone.
        outlined: JPEG of the same size with both outlines.
        size_wh: pixels of either.
    """

    name: str
    rank: Rank
    counts: PixelCounts
    plain: bytes
    outlined: bytes
    size_wh: tuple[int, int]


def draw_overlays(
    scores: Sequence[ScoredImage],
    *,
    engine: Engine,
    contract: ModelContract,
    check: Callable[[], None] = lambda: None,
) -> list[ValidationOverlay]:
    """Segment a dozen of the scored images once more and draw what was found beside what is labelled.

    Args:
        scores: from `trainer.evaluate.evaluate`.
        engine: the one they were made with.
        contract: the one they were made with.
        check: asked before each image whether to stop; it raises what it means.

    Returns:
        The pictures, the worst first.

    Raises:
        InvalidDataset: a file cannot be used any more.
    """
    overlays: list[ValidationOverlay] = []
    for rank, score in choose(scores):
        check()
        pixels, class_mask = score.file.decode()
        mask = segment(pixels, engine=engine, contract=contract).mask
        plain, factor = _fit(pixels)
        outlined = _dim_ignored(plain, class_mask)
        _outline(outlined, class_mask == 1, factor=factor, rgb=LABEL_RGB, stroke_px=_LABEL_STROKE_PX)
        _outline(outlined, mask != 0, factor=factor, rgb=PREDICTION_RGB, stroke_px=_PREDICTION_STROKE_PX)
        overlays.append(
            ValidationOverlay(
                name=score.file.name,
                rank=rank,
                counts=score.counts,
                plain=_encode(plain),
                outlined=_encode(outlined),
                size_wh=(plain.shape[1], plain.shape[0]),
            )
        )
    return overlays


def choose(scores: Sequence[ScoredImage]) -> Iterator[tuple[Rank, ScoredImage]]:
    """Pick the worst six, the best three and three evenly between, by IoU and then by the number of wrong pixels.

    Images without a defect that were rightly left clean say little and are shown only when there is nothing else.

    Yields:
        Why an image is shown, and its score; the worst first.
    """
    telling = [score for score in scores if score.counts.tp + score.counts.fp + score.counts.fn] or list(scores)
    telling.sort(
        key=lambda score: (
            score.counts.iou_defect,
            -(score.counts.fp + score.counts.fn),
            score.counts.tp,
            score.file.name,
        )
    )
    worst, others = telling[:_WORST], telling[_WORST:]
    between, best = others[:-_BEST], others[-_BEST:]
    spread = np.linspace(0, len(between), min(_BETWEEN, len(between)), endpoint=False) + len(between) / (2 * _BETWEEN)
    yield from (("worst", score) for score in worst)
    yield from (("between", between[min(int(place), len(between) - 1)]) for place in spread)
    yield from (("best", score) for score in best)


def _fit(pixels: UInt8Array) -> tuple[UInt8Array, float]:
    """Bring an image to the size of a picture.

    Returns:
        The (h, w, 3) picture, and by what the sides were multiplied.
    """
    height, width = pixels.shape[:2]
    factor = MAX_SIDE_PX / max(height, width)
    if factor >= 1:
        factor = float(min(int(factor), _LARGEST_FACTOR))
    size_wh = (max(1, round(width * factor)), max(1, round(height * factor)))
    interpolation = cv2.INTER_NEAREST_EXACT if factor >= 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, size_wh, interpolation=interpolation), dtype=np.uint8), factor


def _dim_ignored(picture: UInt8Array, class_mask: UInt8Array) -> UInt8Array:
    """Return a copy with grey stripes over what neither loss nor score looks at."""
    height, width = picture.shape[:2]
    ignored = cv2.resize((class_mask == IGNORED).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    rows, columns = np.indices((height, width))
    striped = (ignored != 0) & ((rows + columns) // _STRIPE_PX % 2 == 0)
    dimmed = picture.copy()
    dimmed[striped] = _IGNORED_RGB
    return dimmed


def _outline(
    picture: UInt8Array,
    is_inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    *,
    factor: float,
    rgb: tuple[int, int, int],
    stroke_px: int,
) -> None:
    """Draw the edges of a mask of the full resolution: scaled as lines, the smallest defect still leaves a dot."""
    contours, _ = cv2.findContours(is_inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = [np.rint(((contour + 0.5) * factor - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32) for contour in contours]
    cv2.polylines(
        picture, lines, isClosed=True, color=rgb, thickness=stroke_px, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS
    )


def _encode(picture: UInt8Array) -> bytes:
    """Return a JPEG, of the best quality that its share of the page allows."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    data = b""
    for quality in _QUALITIES:
        _, encoded = cv2.imencode(
            ".jpg",
            bgr,
            [
                cv2.IMWRITE_JPEG_QUALITY,
                quality,
                # Halved colour resolution would blur the outlines.
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
            ],
        )
        data = encoded.tobytes()
        if len(data) <= _MAX_PICTURE_BYTES:
            break
    return data
