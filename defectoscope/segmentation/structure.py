"""Walks the outer structure of an image file before any decoder does, and refuses what would only keep one busy.

A file well within the limits of bytes and pixels can still hold a million empty chunks, ten thousand scans over the
same pixels, or one tag with a hundred million values. Pillow reads such parts one by one in Python, and libjpeg goes
over the whole picture for every scan; both would take minutes. The walk counts them and reads none. What Pillow would
only warn about is refused here as damage, so that a file has one outcome whatever Python does with warnings.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from defectoscope.errors.images import ImageTooComplex, ImageTruncated

#: Chunks of a PNG beside those of the pixels; text in hundreds of chunks is known from microscopes.
MAX_PNG_CHUNKS = 1000
#: Of these, chunks that are unpacked while the file is opened, up to a megabyte each.
MAX_PNG_PACKED_CHUNKS = 100
#: Chunks of pixels; encoders write 8192 bytes in each, some of them one row.
MAX_PNG_PIXEL_CHUNKS = 200_000

#: Segments in front of a JPEG's pixels; a thermal camera puts its own data into a few hundred.
MAX_JPEG_SEGMENTS = 4096
#: Segments of any kind that Pillow takes apart, where honest files have one to four.
MAX_JPEG_TABLES = 64
#: Bytes between two segments that are no segment; the standard allows fillers.
MAX_JPEG_FILLERS = 4096
#: Scans of a JPEG; progressive ones have 10, rarely 20.
MAX_JPEG_SCANS = 100
#: Scans times pixels, five seconds of work: twelve scans of an image as large as the default limit allows.
MAX_JPEG_PIXEL_SCANS = 2_500_000_000

#: Tags of a TIFF.
MAX_TIFF_TAGS = 4096
#: Numbers in one tag, which Pillow makes objects of; the longest honest ones list strips or tiles.
MAX_TIFF_VALUES = 2**18

#: What the run-length encoded BMP, decoded in Python, may weigh.
MAX_RLE_PIXELS = 25_000_000
MAX_RLE_BYTES = 16 * 2**20

_PNG_CHUNK = struct.Struct(">I4s")
_PNG_PACKED = frozenset({b"iCCP", b"zTXt", b"iTXt"})
_MAX_FRAMES = 0x80000000

_JPEG_MARKER = re.compile(rb"\xff([\x01-\xfe])")
#: In the midst of pixels a stuffed zero and the restarts are no markers.
_JPEG_MARKER_AFTER_PIXELS = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_START_OF_SCAN, _END_OF_IMAGE, _PHOTOSHOP, _EXIF_OR_XMP = 0xDA, 0xD9, 0xED, 0xE1
_FIRST_APPLICATION_MARKER = 0xE0
#: Beginnings of frames that are not progressive: baseline, extended, and extended with arithmetic coding.
_SEQUENTIAL_FRAMES = frozenset({0xC0, 0xC1, 0xC9})
_RESTARTS = 0xDD
#: Markers without a length behind them.
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})

#: Bytes of a value, by its type; other types Pillow leaves alone.
_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
#: Types whose values stay one block of bytes.
_TIFF_BLOCKS = frozenset({1, 2, 6, 7})
#: Tags that Pillow reads and that have one value: sizes, kinds of pixels, orientation, resolution.
_TIFF_SINGLE = frozenset({256, 257, 259, 262, 266, 274, 277, 278, 282, 283, 284, 296, 322, 323})
_TILE_WIDTH, _TILE_LENGTH = 322, 323

_RUN_LENGTHS = frozenset({1, 2})


def check_structure(data: bytes, image_format: str, *, max_pixels: int) -> None:
    """Refuse a file whose parts are too many or contradict each other.

    Args:
        data: the whole file.
        image_format: "PNG", "JPEG", "TIFF", "BMP" or "WEBP", as its first bytes say.
        max_pixels: the most pixels that anything in it may have.

    Raises:
        ImageTooComplex: it has more parts than any honest file.
        ImageTruncated: a part that Pillow would skip with a warning is damaged.
    """
    check = _CHECKS.get(image_format)
    if check is not None:
        check(data, max_pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegFacts:
    """What the segments in front of a JPEG's pixels say.

    Attributes:
        has_one_scan: every component in one scan, as in most files; no further scan is decoded then.
        has_restarts: the decoder begins anew every so many blocks, and goes on after damage.
        scan_at: where the first scan begins; the length of the file where there is none.
    """

    has_one_scan: bool
    has_restarts: bool
    scan_at: int


def read_jpeg(data: bytes) -> JpegFacts:
    """Walk through the segments in front of the pixels of a JPEG that `check_structure` let through."""
    components, has_restarts = 0, False
    for marker, position in _segments(data):
        if marker in _SEQUENTIAL_FRAMES:
            components = int.from_bytes(data[position + 7 : position + 8], "big")
        elif marker == _RESTARTS:
            has_restarts = any(data[position + 2 : position + 4])
        elif marker == _START_OF_SCAN:
            has_one_scan = components > 0 and data[position + 2 : position + 3] == bytes([components])
            return JpegFacts(has_one_scan=has_one_scan, has_restarts=has_restarts, scan_at=position - 2)
    return JpegFacts(has_one_scan=False, has_restarts=has_restarts, scan_at=len(data))


def check_scans(data: bytes, *, pixels: int) -> None:
    """Refuse a JPEG that goes over its pixels again and again.

    Args:
        data: a whole JPEG that `check_structure` let through.
        pixels: of the picture.

    Raises:
        ImageTooComplex: it has too many scans, or too many for its size.
    """
    facts = read_jpeg(data)
    if facts.has_one_scan:
        return
    most = min(MAX_JPEG_SCANS, max(1, MAX_JPEG_PIXEL_SCANS // max(pixels, 1)))
    # The cheap question first: two bytes that begin a scan occur in no compressed data, but in tables and comments.
    if data.count(b"\xff\xda", facts.scan_at) > most and _count_scans(data, facts.scan_at, at_most=most) > most:
        raise ImageTooComplex(f"The JPEG has more than {most} scans over its {pixels} pixels.", max_scans=most)


def _check_png(data: bytes, max_pixels: int) -> None:
    del max_pixels
    position, others, packed, of_pixels, animations = 8, 0, 0, 0, 0
    while position + 8 <= len(data):
        length, kind = _PNG_CHUNK.unpack_from(data, position)
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            of_pixels += 1
        else:
            others += 1
            packed += kind in _PNG_PACKED
            if kind == b"acTL":
                animations += 1
                frames = int.from_bytes(data[position + 8 : position + 12], "big")
                if animations > 1 or not 1 <= frames <= _MAX_FRAMES:
                    raise _damaged("PNG", "invalid animation header")
        if others > MAX_PNG_CHUNKS or packed > MAX_PNG_PACKED_CHUNKS or of_pixels > MAX_PNG_PIXEL_CHUNKS:
            raise ImageTooComplex("The PNG has more chunks than any honest file.", position=position)
        position += 12 + length


def _check_jpeg(data: bytes, max_pixels: int) -> None:
    del max_pixels
    seen: Counter[int] = Counter()
    for marker, position in _segments(data):
        if _is_taken_apart(marker, data[position + 2 : position + 8]):
            seen[marker] += 1
            if seen[marker] > MAX_JPEG_TABLES:
                raise ImageTooComplex(
                    f"The JPEG has more than {MAX_JPEG_TABLES} segments of one kind.", marker=f"FF{marker:02X}"
                )


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Walk as Pillow will: yield the marker of each segment and where its length stands, the first scan's last."""
    position = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        found = _JPEG_MARKER.search(data, position, position + MAX_JPEG_FILLERS + 2)
        if found is None:
            if position + MAX_JPEG_FILLERS + 2 >= len(data):
                return  # The file ends here, which Pillow says in its own words.
            raise ImageTooComplex("The JPEG has thousands of bytes between two of its segments.", position=position)
        marker, position = found[1][0], found.end()
        if marker in _BARE_MARKERS:
            continue
        yield marker, position
        if marker == _START_OF_SCAN:
            return
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    raise ImageTooComplex(f"The JPEG has more than {MAX_JPEG_SEGMENTS} segments in front of its pixels.")


def _is_taken_apart(marker: int, begins: bytes) -> bool:
    """Tell whether Pillow does more with a segment than keep it."""
    if marker == _EXIF_OR_XMP:
        return begins == b"Exif\0\0"
    return marker < _FIRST_APPLICATION_MARKER or marker == _PHOTOSHOP


def _count_scans(data: bytes, position: int, *, at_most: int) -> int:
    """Count the scans of the first picture from its first one on, to one beyond ``at_most`` where there are more."""
    scans = 0
    for _ in range(MAX_JPEG_SEGMENTS):
        found = _JPEG_MARKER_AFTER_PIXELS.search(data, position)
        if found is None or found[1][0] == _END_OF_IMAGE:
            return scans
        marker, position = found[1][0], found.end()
        if marker in _BARE_MARKERS:
            continue
        scans += marker == _START_OF_SCAN
        if scans > at_most:
            return scans
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return at_most + 1


def _check_tiff(data: bytes, max_pixels: int) -> None:
    """Look at every tag of the first directory; only its kind and the number of its values are read."""
    order = "<" if data.startswith(b"II") else ">"
    is_big = data[2:3] == b"+"
    entry = struct.Struct(order + ("HHQQ" if is_big else "HHLL"))
    try:
        (directory,) = struct.unpack_from(order + ("Q" if is_big else "L"), data, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, directory)
        if count > MAX_TIFF_TAGS:
            raise ImageTooComplex(f"The TIFF has {count} tags; at most {MAX_TIFF_TAGS} are accepted.", tags=count)
        first = directory + (8 if is_big else 2)
        entries = [entry.unpack_from(data, first + entry.size * index) for index in range(count)]
    except (struct.error, OverflowError) as exc:
        raise _damaged("TIFF", "its directory lies outside the file") from exc
    room, total = 8 if is_big else 4, 0
    sides = {}
    for tag, kind, number, where in entries:
        size = number * _TIFF_TYPE_BYTES.get(kind, 0)
        if size > room:
            total += size
            if where + size > len(data) or total > len(data):
                raise _damaged("TIFF", f"the tag {tag} lies outside the file")
        if kind in _TIFF_BLOCKS:
            continue
        if size and tag in _TIFF_SINGLE and number != 1:
            raise _damaged("TIFF", f"the tag {tag} has {number} values instead of one")
        if size and number > MAX_TIFF_VALUES:
            raise ImageTooComplex(
                f"The tag {tag} of the TIFF has {number} values; at most {MAX_TIFF_VALUES} are accepted.", tag=tag
            )
        if tag in {_TILE_WIDTH, _TILE_LENGTH}:
            # A value shorter than the room for it stands in the first bytes of the room, whatever their order.
            sides[tag] = where >> 8 * (room - size) if order == ">" else where & (1 << 8 * size) - 1
    _check_tile(sides, max_pixels)


def _check_tile(sides: Mapping[int, int], max_pixels: int) -> None:
    """A tile is unpacked as a whole, however little of it lies in the image."""
    if sides.get(_TILE_WIDTH, 1) * sides.get(_TILE_LENGTH, 1) > max_pixels:
        raise ImageTooComplex(
            f"The TIFF declares tiles of {sides[_TILE_WIDTH]} x {sides[_TILE_LENGTH]} pixels; "
            f"at most {max_pixels} are accepted.",
            max_pixels=max_pixels,
        )


def _check_bmp(data: bytes, max_pixels: int) -> None:
    del max_pixels
    if len(data) < 34 or int.from_bytes(data[30:34], "little") not in _RUN_LENGTHS:  # noqa: PLR2004 -- the header
        return
    if int.from_bytes(data[14:18], "little") < 40:  # noqa: PLR2004 -- the old header has no compression
        return
    width, height = struct.unpack_from("<ii", data, 18)
    if len(data) > MAX_RLE_BYTES or abs(width * height) > MAX_RLE_PIXELS:
        raise ImageTooComplex(
            f"The BMP is run-length encoded; of this kind at most {MAX_RLE_PIXELS} pixels in {MAX_RLE_BYTES} bytes are "
            "accepted."
        )


def _damaged(image_format: str, reason: str) -> ImageTruncated:
    return ImageTruncated(f"The {image_format} data ends early or is damaged ({reason}).")


_CHECKS: Mapping[str, Callable[[bytes, int], None]] = {
    "PNG": _check_png,
    "JPEG": _check_jpeg,
    "TIFF": _check_tiff,
    "BMP": _check_bmp,
}
