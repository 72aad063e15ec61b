"""Turns the bytes of a file into upright RGB pixels or into a class mask; ``image_file`` stands guard before it.

Here it is decided what each kind of pixel means. Colour management is refused on purpose: an embedded profile is
ignored, since the model is trained on the stored values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

from defectoscope.errors.images import ImageNotRecognised, InvalidImage, InvalidLabel, LabelValuesUnknown
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.image_file import (
    DEFAULT_LIMITS,
    DecodeLimits,
    load_upright,
    naming_shortage,
    open_checked,
)

__all__ = ["DecodeLimits", "DecodedImage", "decode_image", "decode_index_label", "decode_label"]

#: Channel values of a label up to this one are background: JPEG noise and anti-aliasing around a black ground.
NEAR_BLACK = 50

#: The text chunk of a PNG that says its grey values are classes; `defectoscope.segmentation.masks` writes it.
CLASS_MASK_KEY = "Defectoscope-Class-Mask"
CLASS_MASK_VALUE = "0 background, 1 defect, 255 ignored"

#: By value, whether it is a class of a class mask.
_IS_CLASS = np.isin(np.arange(0x10000), (0, 1, 255))

#: The largest values of 12-bit and 16-bit grey.
_WHITE_12 = 0xFFF
_WHITE_16 = 0xFFFF

_BITS_PER_SAMPLE_TAG = 258
_PHOTOMETRIC_TAG = 262
_ZERO_IS_WHITE = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """An image as the rest of the package wants it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright, C-contiguous and writable; smaller than the image where a reduction was
            asked for.
        shape_hw: height and width of the image in pixels, upright.
        format: "PNG", "JPEG", "TIFF", "BMP" or "WEBP", from the content.
        source_mode: Pillow's mode before conversion, such as "I;16", "CMYK" or "P".
    """

    pixels: UInt8Array
    shape_hw: tuple[int, int]
    format: str
    source_mode: str


def decode_image(data: bytes, *, limits: DecodeLimits = DEFAULT_LIMITS) -> DecodedImage:
    """Decode a PNG, JPEG, TIFF, BMP or WebP file to upright RGB.

    Alpha is dropped and not composited: the colour under a transparent pixel is what the camera or the editor stored,
    and inventing a background would invent an edge. CMYK, YCbCr, HSV, palette, grey and 1-bit become RGB by Pillow's
    formulas. 16-bit grey is scaled by 1/257 with rounding, so that 65535 is 255 and nothing is clipped; 12-bit TIFF by
    255/4095. Where a TIFF says that 0 is white, black and white change places. 16-bit colour keeps the high byte of
    each channel, which is within one level of the same scale. 32-bit integers ("I") are read as 16-bit grey when they
    all lie in 0 to 65535 and refused otherwise; floats ("F") and Lab are refused, because the file does not say which
    value is white.

    A JPEG with further pictures behind the first (MPO, gain maps of phones) is its first picture.

    Args:
        data: the whole file.
        limits: what it may weigh.

    Returns:
        The decoded image.

    Raises:
        ImageEmpty: there are no bytes.
        ImageNotRecognised: the content is not of an accepted format, or of a kind of it that is refused (see above).
        ImageTooLarge: a limit is exceeded, by the bytes or by the declared size.
        ImageTooComplex: it has more parts than any honest file: chunks, segments, scans, tags.
        ImageMultiFrame: the file is animated or has several pages.
        ImageTruncated: the data ends early or is damaged.
    """
    return decode_opened(open_checked(data, limits=limits))


def decode_opened(file: ImageFile.ImageFile) -> DecodedImage:
    """Decode a file that `open_checked` let through; otherwise as `decode_image`."""
    source_mode = file.mode
    with naming_shortage():
        image = load_upright(file)
        grey = _read_deep_grey(image, file)
        if grey is None:
            pixels = np.array(_convert_to_rgb(image))
        else:
            pixels = np.repeat(_scale_to_8_bits(grey, white=_find_white(file))[:, :, np.newaxis], 3, axis=2)
    return DecodedImage(
        pixels=pixels,
        shape_hw=(pixels.shape[0], pixels.shape[1]),
        format=str(image.format),
        source_mode=source_mode,
    )


def decode_label(data: bytes, *, limits: DecodeLimits = DEFAULT_LIMITS) -> UInt8Array:
    """Decode a label file to a class mask.

    A PNG from `encode_class_mask` says itself that its values are classes and is taken at its word. In any other file a
    pixel is defect when
    - 1-bit: it is white;
    - grey: it is above 50 of 255 (near-black is background); but where only 0, 1 and 255 occur, and 1 does, the values
      are classes: 1 is defect and 255 is ignored;
    - colour: any channel is above 50;
    - palette: its colour says so by the same rule, or, where the palette paints every index in use near-black and so
      says nothing, when its index is not 0; but where the indexes in use are 1 and 255, with or without 0, they are
      classes as above.
    16-bit grey that stays within 0 to 255 is read as 8-bit, otherwise scaled by 1/257. Alpha is dropped.

    Args:
        data: the whole file, in any format ``decode_image`` accepts; a lossless one is meant.
        limits: what it may weigh.

    Returns:
        (H, W) uint8, 0 background, 1 defect, 255 ignored, upright.

    Raises:
        LabelValuesUnknown: the file says that its values are classes, and holds others.
        InvalidLabel: the file cannot be decoded; ``details["reason"]`` is the code of the image error.
    """
    with _naming_label():
        file = open_checked(data, limits=limits)
        image = load_upright(file)
        grey = _read_deep_grey(image, file)
        if grey is None:
            return _classify(image)
        if int(grey.max()) > 255:  # noqa: PLR2004 -- beyond 8 bits
            return _cut_grey(_scale_to_8_bits(grey, white=_find_white(file)))
        return _classify_grey(grey.astype(np.uint8))


def decode_index_label(data: bytes, *, limits: DecodeLimits = DEFAULT_LIMITS) -> UInt8Array:
    """Decode a label whose stored values, or palette indexes, are classes; nothing is guessed.

    Args:
        data: the whole file: grey of 8 or 16 bits, palette or 1-bit.
        limits: what it may weigh.

    Returns:
        (H, W) uint8, 0 background, 1 defect, 255 ignored, upright.

    Raises:
        LabelValuesUnknown: another value occurs, or the file holds colours.
        InvalidLabel: the file cannot be decoded; ``details["reason"]`` is the code of the image error.
    """
    with _naming_label():
        file = open_checked(data, limits=limits)
        image = load_upright(file)
        grey = _read_deep_grey(image, file)
        if grey is not None:
            return _check_classes(grey)
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8)
        if image.mode in {"L", "P"}:
            return _check_classes(np.asarray(image))
        if image.mode in {"LA", "La"}:
            return _check_classes(np.asarray(image.convert("LA").getchannel("L")))
    raise LabelValuesUnknown("The label holds colours; class numbers need a grey or palette image.", mode=image.mode)


@contextmanager
def _naming_label() -> Iterator[None]:
    """Have what is wrong with a file leave as an error of the label that it should be."""
    try:
        with naming_shortage():
            yield
    except InvalidImage as exc:
        raise InvalidLabel(f"The label cannot be read: {exc.message}", reason=exc.code) from exc


def _read_deep_grey(image: Image.Image, file: ImageFile.ImageFile) -> npt.NDArray[np.integer] | None:
    """Give (H, W) integers in 0 to 65535 for an image of more than 8 bits of grey, None for any other."""
    if image.mode.startswith("I;16"):
        stored = np.asarray(image)
        # Pillow turns 8 bits round where 0 means white, and leaves 16 bits as they are.
        return _WHITE_16 - stored if _tiff_tag(file, _PHOTOMETRIC_TAG) == _ZERO_IS_WHITE else stored
    if image.mode == "I":
        values = np.asarray(image)
        if int(values.min()) < 0 or int(values.max()) > _WHITE_16:
            raise ImageNotRecognised(
                "The image holds 32-bit integers outside 0 to 65535, and the file does not say which is white; "
                "save it with 8 or 16 bits."
            )
        return values
    return None


def _find_white(file: ImageFile.ImageFile) -> int:
    """Give the largest value the file can hold: 4095 for a 12-bit TIFF, which Pillow hands over unscaled."""
    return _WHITE_12 if _tiff_tag(file, _BITS_PER_SAMPLE_TAG) == (12,) else _WHITE_16


def _tiff_tag(file: ImageFile.ImageFile, tag: int) -> object:
    """Give what a TIFF says; None for another format. The file is asked, since a picture turned upright has no tags."""
    return file.tag_v2.get(tag) if isinstance(file, TiffImagePlugin.TiffImageFile) else None


def _scale_to_8_bits(grey: npt.NDArray[np.integer], *, white: int) -> UInt8Array:
    """Scale 0 to ``white`` onto 0 to 255 with rounding; a table is faster than arithmetic and needs no wide copy."""
    levels = np.arange(0x10000, dtype=np.uint32)
    table = np.minimum((levels * 255 + white // 2) // white, 255).astype(np.uint8)
    scaled: UInt8Array = table[grey]
    return scaled


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode of 8 bits or fewer to RGB."""
    if image.mode == "RGB":
        return image
    if image.mode in {"F", "LAB"}:
        name = "floating-point" if image.mode == "F" else "CIE L*a*b*"
        raise ImageNotRecognised(
            f"The image holds {name} pixels, and the file does not say how to show them; save it with 8 or 16 bits."
        )
    # Transparency in a palette would make Pillow warn; alpha is dropped here in any case.
    image.info.pop("transparency", None)
    if image.mode in {"RGBa", "La"}:
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    return image.convert("RGB")


def _classify(image: Image.Image) -> UInt8Array:
    """Find the class mask of a label of 8 bits or fewer a channel."""
    if image.mode == "L" and image.info.get(CLASS_MASK_KEY) == CLASS_MASK_VALUE:
        return _check_classes(np.asarray(image))
    if image.mode == "P":
        return _classify_palette(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in {"L", "LA", "La"}:
        return _classify_grey(np.asarray(image.convert("LA").getchannel("L")))
    return _classify_colour(np.asarray(_convert_to_rgb(image)))


def _check_classes(values: npt.NDArray[np.integer]) -> UInt8Array:
    is_class = _IS_CLASS[values]
    if not is_class.all():
        unknown = np.unique(values[~is_class])[:10].tolist()
        raise LabelValuesUnknown(
            f"The label holds the values {', '.join(map(str, unknown))}; "
            "0 is background, 1 defect, 255 ignored, and nothing else has a meaning.",
            values=unknown,
        )
    return values.astype(np.uint8)


def _classify_grey(values: UInt8Array) -> UInt8Array:
    # The cheap question first: hardly any file is asked the second one.
    if int(values.max()) == 255 and bool(_IS_CLASS[values].all()) and bool((values == 1).any()):  # noqa: PLR2004
        return values.copy()
    return _cut_grey(values)


def _cut_grey(values: UInt8Array) -> UInt8Array:
    cut = 0 if int(values.max()) <= 1 else NEAR_BLACK
    return (values > cut).astype(np.uint8)


def _classify_colour(values: UInt8Array) -> UInt8Array:
    bright = values > NEAR_BLACK
    return (bright[:, :, 0] | bright[:, :, 1] | bright[:, :, 2]).astype(np.uint8)


def _classify_palette(image: Image.Image) -> UInt8Array:
    indexes = np.asarray(image)
    used = np.bincount(indexes.ravel(), minlength=256) > 0
    if used[1] and used[255] and not used[2:255].any():
        return indexes.astype(np.uint8)
    palette = np.zeros(256 * 3, dtype=np.uint8)
    stored = (image.getpalette("RGB") or [])[: palette.size]
    palette[: len(stored)] = stored
    bright = np.asarray((palette.reshape(256, 3) > NEAR_BLACK).any(axis=1))
    is_defect = bright if bool((bright & used).any()) else np.arange(256) > 0
    class_mask: UInt8Array = is_defect.astype(np.uint8)[indexes]
    return class_mask
