"""Bytes that two processes share: anonymous files, handed over by descriptor and sealed by whoever reads them.

A seal is the reader's own guarantee: once it holds, the other side can neither change what was checked nor cut it
short, which would end the reader by a signal.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

import numpy as np

from defectoscope.segmentation.arrays import UInt8Array

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def share(data: bytes | memoryview) -> int:
    """Return the descriptor of a new anonymous file with this content; the caller closes it."""
    descriptor = os.memfd_create("defectoscope", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return descriptor


def read_shared(descriptor: int) -> bytes:
    """Return the whole content, and close the descriptor."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def map_pixels(descriptor: int, shape: Sequence[int]) -> UInt8Array:
    """Seal what the other side wrote, and return it as an array without a copy; closes the descriptor.

    Args:
        descriptor: of an anonymous file.
        shape: that the array shall have.

    Returns:
        uint8, writable; what is written stays in this process.

    Raises:
        OSError: the other side still holds the content open for writing.
        ValueError: it has another size than the shape.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        size = os.fstat(descriptor).st_size
        if size != int(np.prod(shape)) or size == 0:
            raise ValueError("the content has another size than the shape")
        mapped = mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptor)
    return np.frombuffer(mapped, dtype=np.uint8).reshape(shape)
