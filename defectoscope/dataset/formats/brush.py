"""Run lengths of Label Studio's brush: all four channels of a picture, of which the last says what is painted.

The packing is that of thi.ng/rle-pack, which Label Studio uses: a bit stream with the number of values (32 bits), the
bits of a value (5, less one) and of four kinds of lengths (4 each, less one); then records of a flag (repeated value or
values one by one), the kind of its length (2 bits), the length less one, and the value or values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from defectoscope.errors.images import RunLengthsInvalid
from defectoscope.segmentation import UInt8Array

_CHANNELS = 4
_VALUE_BITS = 8
#: The kinds of lengths that we write; any are read.
_LENGTH_BITS = (3, 4, 8, 16)


def decode_brush(values: Sequence[object], *, shape_hw: tuple[int, int]) -> UInt8Array:
    """Return how much of each pixel is painted.

    Args:
        values: the bytes of the stream, as numbers.
        shape_hw: of the image.

    Returns:
        (H, W) uint8, the last channel: 255 painted.

    Raises:
        RunLengthsInvalid: the stream cannot be followed, or is not of this size.
    """
    height, width = shape_hw
    stream = _BitStream(values)
    count = stream.read(32)
    value_bits = stream.read(5) + 1
    length_bits = [stream.read(4) + 1 for _ in range(4)]
    if value_bits != _VALUE_BITS:
        raise RunLengthsInvalid(f"The brush stroke has values of {value_bits} bits; 8 are expected.")
    if count != height * width * _CHANNELS:
        raise RunLengthsInvalid(
            f"The brush stroke holds {count // _CHANNELS} pixels; the image has {width} x {height}.",
            pixels=count // _CHANNELS,
            shape_hw=list(shape_hw),
        )
    painted = np.zeros(height * width, dtype=np.uint8)
    at = 0
    while at < count:
        is_repeated = stream.read(1)
        end = at + 1 + stream.read(length_bits[stream.read(2)])
        if end > count:
            raise RunLengthsInvalid("The brush stroke goes on beyond the last pixel.")
        # Of value number 4 k + 3, the last channel of pixel k, only those between the bounds.
        first, last = at // _CHANNELS, end // _CHANNELS
        if is_repeated:
            painted[first:last] = stream.read(_VALUE_BITS)
        else:
            row = np.frombuffer(stream.read_bytes(end - at), dtype=np.uint8)
            painted[first:last] = row[first * _CHANNELS + _CHANNELS - 1 - at :: _CHANNELS]
        at = end
    return painted.reshape(height, width)


def encode_brush(mask: UInt8Array) -> list[int]:
    """Return the stream for a mask, as Label Studio itself writes it.

    Args:
        mask: (H, W) uint8; it becomes all four channels.
    """
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = np.diff(np.concatenate([starts, [flat.size]])) * _CHANNELS
    bits = [f"{flat.size * _CHANNELS:032b}{_VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    longest = 1 << _LENGTH_BITS[-1]
    for length, value in zip(lengths.tolist(), flat[starts].tolist(), strict=True):
        left = length
        while left:
            piece = min(left, longest)
            kind = next(kind for kind, size in enumerate(_LENGTH_BITS) if piece <= 1 << size)
            bits.append(f"1{kind:02b}{piece - 1:0{_LENGTH_BITS[kind]}b}{value:08b}")
            left -= piece
    stream = "".join(bits)
    # Their encoder adds a whole byte where none is missing; readers stop at the last value.
    stream += "0" * (8 - len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8))


class _BitStream:
    """Bits, the highest of each byte first."""

    def __init__(self, values: Sequence[object]) -> None:
        data = bytearray()
        for value in values:
            if not isinstance(value, int) or not 0 <= value <= 255:  # noqa: PLR2004 -- a byte
                raise RunLengthsInvalid("The brush stroke is not a list of bytes.")
            data.append(value)
        self._bits = f"{int.from_bytes(data):0{len(data) * 8}b}" if data else ""
        self._at = 0

    def read(self, count: int) -> int:
        """Return a number of some bits."""
        end = self._at + count
        if end > len(self._bits):
            raise RunLengthsInvalid("The brush stroke ends early.")
        number = int(self._bits[self._at : end], 2)
        self._at = end
        return number

    def read_bytes(self, count: int) -> bytes:
        """Return some values of eight bits."""
        return self.read(count * _VALUE_BITS).to_bytes(count)
