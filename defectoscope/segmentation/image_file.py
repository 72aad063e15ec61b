"""Opens the bytes of an image file behind every guard, decodes them and turns the picture upright.

Nothing here trusts a name, a header or the sender: the content decides the format, size limits hold before any pixel
is decoded, and whatever Pillow raises for bad data leaves as an error of ours.

Why the plugin classes are called and not ``Image.open``: ``Image.open`` warns above 89 million pixels and raises above
179 million. The only switches are the global ``Image.MAX_IMAGE_PIXELS`` and the process-wide warning filters; both
would change Pillow for the whole process, and ``warnings.catch_warnings`` is not thread-safe before Python 3.14.
``Image.open`` only picks a plugin by its magic number, makes one object and then does that check; doing the first
two here leaves our own limit in charge and touches nothing global. What Pillow would only warn about, a damaged tag of
a TIFF and an invalid animation header of a PNG, `structure` has refused before.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from defectoscope.errors.images import ImageEmpty, ImageMultiFrame, ImageNotRecognised, ImageTooLarge, ImageTruncated
from defectoscope.segmentation.exif import read_orientation
from defectoscope.segmentation.structure import check_scans, check_structure

#: What Pillow raises for damaged data, found by reading its plugins and by cutting and flipping bytes of real files.
_DAMAGED = (
    OSError,  # truncated data, a decoder's error code; also Pillow's UnidentifiedImageError
    SyntaxError,  # a header that a plugin cannot follow
    ValueError,  # bad sizes, oversized text chunks; also UnicodeDecodeError
    EOFError,  # a WebP frame that cannot be decoded
    TypeError,  # a tag of an unexpected kind
    KeyError,  # an unknown compression or mode
    IndexError,  # a header that is too short
    AttributeError,  # a chunk that comes before the one it depends on
    OverflowError,  # an offset beyond the platform's integers
    ZeroDivisionError,  # a resolution with a zero denominator
    RuntimeError,  # WebP memory; also NotImplementedError
    struct.error,  # a header that is too short
    zlib.error,  # a damaged compressed chunk
    UserWarning,  # Pillow's warnings about metadata, where Python runs with -W error
)

#: Pillow's words for a file that is whole but of a kind it does not read.
_UNSUPPORTED = ("unsupported", "unknown pixel mode", "unknown data organization", "not yet supported")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Those that swap width and height.
QUARTER_TURNS = frozenset(
    {Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270, Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE}
)

_BMP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)
_ORIENTATION_TAG = 274
_PLANAR_CONFIGURATION_TAG = 284
_PLANAR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What a file may weigh; both limits hold before any pixel is decoded."""

    max_bytes: int = 256 * 2**20
    max_pixels: int = 200_000_000


DEFAULT_LIMITS = DecodeLimits()


class _JpegFile(JpegImagePlugin.JpegImageFile):
    """A JPEG whose resolution is not looked up: that would parse (and warn about) the whole EXIF block."""

    def _read_dpi_from_exif(self) -> None:
        """Leave the resolution unknown."""


class _TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF without Pillow's own size check and without its own turning upright (both are done here for all)."""

    def check_coverage(self) -> None:
        """Refuse a file whose strips or tiles leave a part of the image out, which Pillow would show as black."""
        width, height = self.size
        is_layered = self.tag_v2.get(_PLANAR_CONFIGURATION_TAG) == _PLANAR and not self.use_load_libtiff
        extents = [tile.extents for tile in self.tile if tile.extents is not None]
        covered = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in extents)
        if covered < width * height * (len(self.getbands()) if is_layered else 1):
            raise ValueError("strips are missing")

    def load_prepare(self) -> None:
        """Reserve the pixels; the plugin would first do the check that ``Image.open`` does."""
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self) -> None:
        """Undo the plugin's early swap of width and height: here the pixels are still as stored."""
        self._size = self._tile_size


_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": _JpegFile,
    "TIFF": _TiffFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}


def open_checked(data: bytes, *, limits: DecodeLimits) -> ImageFile.ImageFile:
    """Run every guard that holds before a pixel is decoded; the file's header is read and nothing else."""
    if not data:
        raise ImageEmpty
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The file has {len(data)} bytes; at most {limits.max_bytes} are accepted.",
            size_bytes=len(data),
            max_bytes=limits.max_bytes,
        )
    image_format = _recognise(data)
    if image_format is None:
        raise ImageNotRecognised
    if image_format == "WEBP":
        # libwebp reserves the canvas as soon as its decoder is made, so the header is read first.
        _check_pixels(_read_webp_size_wh(data), limits=limits)
    check_structure(data, image_format, max_pixels=limits.max_pixels)
    with _naming_damage(image_format):
        image = _PLUGINS[image_format](io.BytesIO(data))
        _check_pixels(image.size, limits=limits)
        if image_format == "JPEG":
            check_scans(data, pixels=image.size[0] * image.size[1])
        if getattr(image, "is_animated", False):
            raise ImageMultiFrame
        if isinstance(image, _TiffFile):
            image.check_coverage()
        image.format = image_format
        return image


def load_upright(image: ImageFile.ImageFile) -> ImageFile.ImageFile | Image.Image:
    """Decode the pixels of a file that `open_checked` let through and turn them upright."""
    image_format = str(image.format)
    with _naming_damage(image_format):
        # verify() calls a truncated JPEG or TIFF sound; only decoding tells.
        image.load()
        turn = read_turn(image)
        turned = image if turn is None else image.transpose(turn)
    turned.format = image_format
    return turned


def demand_whole(data: bytes) -> None:
    """Demand that the compressed data of a JPEG, which `open_checked` let through, lasts to its last block.

    An eighth of the picture is decoded: all of the compressed data has to be gone through for that, and little else.

    Raises:
        ImageTruncated: the data is damaged, so that a part of the picture would be made up.
    """
    with _naming_damage("JPEG"):
        image = _JpegFile(io.BytesIO(data))
        width, height = image.size
        image.draft(None, (max(1, width // 8), max(1, height // 8)))
        image.load()


def read_turn(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """Give what turns the stored pixels upright, None where they are."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        value = image.tag_v2.get(_ORIENTATION_TAG, 1)
        return _TURNS.get(value) if isinstance(value, int) else None
    exif = image.info.get("exif", b"")
    return _TURNS.get(read_orientation(exif)) if isinstance(exif, bytes) else None


def read_shape_hw(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Give height and width, upright, of a file that `open_checked` let through."""
    # The TIFF plugin swaps its size early, and differently from release to release; that of its tiles is as stored.
    width, height = image._tile_size if isinstance(image, _TiffFile) else image.size  # noqa: SLF001
    return (width, height) if read_turn(image) in QUARTER_TURNS else (height, width)


@contextmanager
def naming_shortage() -> Iterator[None]:
    """Have a lack of memory leave as an error of ours, wherever on the way to pixels it shows."""
    try:
        yield
    except (MemoryError, Image.DecompressionBombError) as exc:
        raise ImageTooLarge("The image needs more memory than there is for one image.") from exc


@contextmanager
def _naming_damage(image_format: str) -> Iterator[None]:
    """Have whatever Pillow raises for bad data leave as an error of ours."""
    try:
        with naming_shortage():
            yield
    except _DAMAGED as exc:
        reason = str(exc)
        if any(words in reason.lower() for words in _UNSUPPORTED):
            raise ImageNotRecognised(f"This kind of {image_format} is not accepted ({reason}).") from exc
        raise ImageTruncated(f"The {image_format} data ends early or is damaged ({reason}).") from exc


def _recognise(data: bytes) -> str | None:
    """Tell the format by its magic number; BMP's two letters are weak, so its header size must be right as well."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    # Not MM, 0, +: Pillow takes a large TIFF of that byte order for a small one.
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0")):
        return "TIFF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    return None


def _read_webp_size_wh(data: bytes) -> tuple[int, int]:
    """Read the declared canvas from the first chunk (RFC 9649, sections 2.5 to 2.7); (0, 0) where it is unreadable."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:  # noqa: PLR2004 -- flags, reserved, width - 1 and height - 1 in 24 bits
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:  # noqa: PLR2004 -- 14 bits each
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) == 10:  # noqa: PLR2004 -- 14 bits each
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0


def _check_pixels(size_wh: tuple[int, int], *, limits: DecodeLimits) -> None:
    width, height = size_wh
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"The image declares {width} x {height} pixels; at most {limits.max_pixels} are accepted.",
            width=width,
            height=height,
            max_pixels=limits.max_pixels,
        )
