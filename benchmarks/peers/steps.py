"""What every peer does alike: hear its work, fetch, decode, store, and say how long the timed part took.

A peer is a program. It reads its work from standard input as one line of JSON, makes itself ready and says so, waits
for ``go``, works, and prints its result as one line. What is timed: from ``go`` to the last mask stored; each image is
fetched from S3, decoded, run through the model, and its mask is stored at the image's own size as a 1-bit PNG. What is
not timed, of any: start of processes and servers, imports, loading the model, and one pass over the warm-up images.

This module and the peers import nothing of the product: their environments do not have it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from time import perf_counter
from typing import Any, TextIO

import boto3
import numpy as np
import numpy.typing as npt
from botocore.config import Config
from PIL import Image

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a peer is to do. Secrets come in the environment: ``AWS_ACCESS_KEY_ID`` and its like.

    Attributes:
        endpoint_url: of S3.
        region: of S3.
        bucket: with the images; the masks go there too.
        keys: of the images, in order.
        warm_up_keys: of images that are inspected before the clock starts.
        mask_prefix: in front of the masks' keys.
        model: ONNX file of the contract: (N, h, w, 3) uint8 RGB in, (N, h, w) uint8 out, 255 for a certain defect.
        weights: the same network for PyTorch, as safetensors.
        encoder: of that network, a DeepLabV3+.
        size_wh: of the model's input.
        threshold: probability from which a pixel is a defect.
        batch_size: images handed to the model at once, where the peer makes batches.
        threads: cores to use.
        session_entries: configuration of ONNX Runtime's session that makes the variant exact on this processor.
    """

    endpoint_url: str
    region: str
    bucket: str
    keys: tuple[str, ...]
    warm_up_keys: tuple[str, ...]
    mask_prefix: str
    model: str
    weights: str
    encoder: str
    size_wh: tuple[int, int]
    threshold: float
    batch_size: int
    threads: int
    session_entries: dict[str, str]

    def to_json(self) -> str:
        """Return one line that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Work:
        """Return the work that `to_json` wrote."""
        values: dict[str, Any] = json.loads(line)
        for name in ("keys", "warm_up_keys", "size_wh"):
            values[name] = tuple(values[name])
        return cls(**values)

    def mask_key(self, key: str) -> str:
        """Return where the mask of an image goes."""
        return f"{self.mask_prefix}/{key.rpartition('/')[2]}.png"


#: Makes a peer ready, warm-up included; inside the context, the call does all of the work.
Prepare = Callable[[Work], AbstractContextManager[Callable[[], None]]]


def take_part(prepare: Prepare, *, packages: tuple[str, ...]) -> None:
    """Run a peer as a program.

    Args:
        prepare: makes it ready.
        packages: whose versions belong to the result, where they are installed.
    """
    # Libraries print what they like; only our two lines may reach whoever reads us.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    work = Work.from_json(sys.stdin.readline())
    with prepare(work) as start:
        _say(answers, {"ready": True, "versions": _versions(packages)})
        if sys.stdin.readline().strip() != "go":
            return
        began_at = perf_counter()
        start()
        _say(answers, {"images": len(work.keys), "seconds": perf_counter() - began_at})


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        # ONNX Runtime comes as one of two packages.
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")


def open_s3(work: Work, *, connections: int = 16) -> Any:
    """Return a client of the object storage; threads may share it."""
    # Checksums that the storage does not ask for cost CPU time.
    config = Config(
        max_pool_connections=connections,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    return boto3.client("s3", endpoint_url=work.endpoint_url, region_name=work.region, config=config)


def fetch(s3: Any, work: Work, key: str) -> bytes:
    """Return the bytes of an image."""
    data: bytes = s3.get_object(Bucket=work.bucket, Key=key)["Body"].read()
    return data


def decode(data: bytes, size_wh: tuple[int, int]) -> tuple[UInt8Array, tuple[int, int]]:
    """Return the model's input and the image's own size; JPEG is decoded no larger than needed.

    Returns:
        (h, w, 3) uint8 RGB, and (width, height) of the image.
    """
    image = Image.open(BytesIO(data))
    own_size_wh = image.size
    image.draft("RGB", size_wh)
    return np.asarray(image.convert("RGB").resize(size_wh, Image.Resampling.BILINEAR)), own_size_wh


def encode(probabilities: UInt8Array, size_wh: tuple[int, int], *, threshold: float) -> bytes:
    """Return the mask as a 1-bit PNG of the image's size.

    Args:
        probabilities: (h, w) uint8, 255 for a certain defect.
        size_wh: of the image.
        threshold: probability.
    """
    level = threshold * 255
    enlarged = Image.fromarray(probabilities).resize(size_wh, Image.Resampling.BILINEAR)
    mask = enlarged.point([255 if value >= level else 0 for value in range(256)], mode="1")
    png = BytesIO()
    mask.save(png, "PNG", compress_level=1)
    return png.getvalue()


def store(s3: Any, work: Work, key: str, png: bytes) -> None:
    """Store the mask of an image."""
    s3.put_object(Bucket=work.bucket, Key=work.mask_key(key), Body=png, ContentType="image/png")


def open_session(work: Work, *, threads: int) -> Any:
    """Return the model in ONNX Runtime on the CPU, set up as the product does: threads do not spin between calls."""
    # The notebook's environment may lack it.
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in work.session_entries.items():
        options.add_session_config_entry(name, value)
    return onnxruntime.InferenceSession(work.model, options, providers=["CPUExecutionProvider"])


def run_model(session: Any, batch: UInt8Array) -> UInt8Array:
    """Return (N, h, w) uint8 probabilities of (N, h, w, 3) uint8 images."""
    probabilities: UInt8Array = session.run(["defect"], {"image": batch})[0]
    return probabilities
