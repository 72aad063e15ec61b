"""The process that decodes: takes its limits upon itself, then one file after the other, until its parent is gone.

Orders and answers are JSON messages on one socket, each perhaps with one descriptor of shared memory beside it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
import warnings
from typing import Any

import cv2
import numpy as np

from defectoscope.errors import DefectoscopeError
from defectoscope.errors.catalogue import to_json
from defectoscope.segmentation.arrays import UInt8Array
from defectoscope.segmentation.decode import decode_label
from defectoscope.segmentation.image_file import DecodeLimits
from defectoscope.segmentation.isolation.shared import read_shared, share
from defectoscope.segmentation.quick_decode import open_image

MAX_MESSAGE_BYTES = 64 * 2**10

#: Files that are open at once: standard streams, the socket, a file, its pixels.
_DESCRIPTORS = 32
_CHANNELS = 3


def main() -> None:
    """Serve the socket whose descriptor is the first argument, under the limits that the second one names."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    limits = json.loads(sys.argv[2])
    decode_limits = DecodeLimits(max_bytes=limits["max_bytes"], max_pixels=limits["max_pixels"])
    # The parent decides when this ends; an interrupt from a terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("error", category=UserWarning, module="PIL")
    cv2.setNumThreads(1)
    for kind, amount in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, _CHANNELS * limits["max_pixels"]),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        _limit(kind, amount)
    connection.send(b"{}")
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 1)
        if not message:
            return
        _limit(resource.RLIMIT_CPU, int(time.process_time() + limits["timeout_s"]) + 1)
        answer, pixels = _serve(json.loads(message), read_shared(descriptors[0]), limits=decode_limits)
        _reply(connection, answer, pixels)


def _serve(order: dict[str, Any], data: bytes, *, limits: DecodeLimits) -> tuple[dict[str, Any], UInt8Array | None]:
    """Do what is asked: an answer in JSON, and the pixels that belong to it."""
    try:
        if order["do"] == "label":
            class_mask = decode_label(data, limits=limits)
            return {"shape": class_mask.shape}, class_mask
        opened = open_image(data, limits=limits)
        facts = {"shape_hw": opened.shape_hw, "format": opened.format, "source_mode": opened.source_mode}
        if order["do"] == "open":
            return facts, None
        enough = order["least_size_wh"]
        pixels = opened.decode(least_size_wh=None if enough is None else (enough[0], enough[1])).pixels
    except DefectoscopeError as exc:
        return {"error": to_json(exc)}, None
    return {**facts, "shape": pixels.shape}, pixels


def _reply(connection: socket.socket, answer: dict[str, Any], pixels: UInt8Array | None) -> None:
    message = json.dumps(answer).encode()
    if pixels is None:
        connection.send(message)
        return
    descriptor = share(np.ascontiguousarray(pixels).data.cast("B"))
    socket.send_fds(connection, [message], [descriptor])
    os.close(descriptor)


def _limit(kind: int, amount: int) -> None:
    """Set a limit, as far as what was given to this process allows."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


if __name__ == "__main__":
    main()
