"""Where a benchmark works: a database of its own on embedded servers, settings for it, drawn images in its bucket."""

from __future__ import annotations

import math
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import sqlalchemy
from PIL import Image, ImageOps

from defectoscope.database.migrate import upgrade
from defectoscope.embedded.server import Server
from defectoscope.embedded.stack import Connections
from defectoscope.inspection.params import JobParams, Overlays
from defectoscope.samples import draw_sample
from defectoscope.segmentation import UInt8Array
from defectoscope.settings import ENVIRONMENT_PREFIX, Settings
from defectoscope.storage import Storage

_CHECKOUT = Path(__file__).resolve().parents[1]
_JPEG_QUALITY = 90
#: A JPEG begins with these two bytes; segments follow, of which this one is a comment.
_JPEG_START = b"\xff\xd8"
_JPEG_COMMENT = b"\xff\xfe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database without tables of anybody else, and how to reach everything.

    Attributes:
        settings: for parts built in this process.
        environment: the same for other processes; holds secrets.
    """

    settings: Settings
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnImage:
    """A JPEG and the (H, W) mask of 0 and 1 that was drawn with it."""

    jpeg: bytes
    class_mask: UInt8Array


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Yield an empty directory that other users may pass through, and delete it in the end."""
    with tempfile.TemporaryDirectory(prefix="defectoscope-bench-", ignore_cleanup_errors=True) as directory:
        scratch = Path(directory)
        # PostgreSQL runs as another user when we are root and has to get in.
        scratch.chmod(0o711)
        yield scratch


def make_place(
    connections: Connections, *, scratch: Path, sections: Mapping[str, Mapping[str, Any]] | None = None
) -> Place:
    """Create a database and return how to reach it.

    Args:
        connections: running servers.
        scratch: existing; models are kept below it.
        sections: further settings, as ``{"worker": {"batch_size": 8}}``.
    """
    url = sqlalchemy.make_url(connections.database_url)
    name = f"bench_{secrets.token_hex(4)}"
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    database_url = url.set(database=name).render_as_string(hide_password=False)
    upgrade(database_url)
    ours: dict[str, dict[str, Any]] = {
        "database": {"url": database_url},
        # Messages of an earlier benchmark on the same broker are not for us.
        "queue": {"url": connections.queue_url, "key_prefix": f"{name}:"},
        "storage": {
            "endpoint_url": connections.s3_endpoint_url,
            "access_key": connections.s3_access_key,
            "secret_key": connections.s3_secret_key,
            "region": connections.s3_region,
            "bucket": connections.bucket,
        },
        "worker": {"device": "cpu", "model_cache_dir": str(scratch / "models")},
    }
    for section, values in (sections or {}).items():
        ours.setdefault(section, {}).update(values)
    environment = {
        f"{ENVIRONMENT_PREFIX}{section}__{key}".upper(): str(value)
        for section, values in ours.items()
        for key, value in values.items()
    }
    return Place(settings=Settings.model_validate(ours), environment=environment)


def worker_process(place: Place, *, name: str, cwd: Path, app: str = "worker.app") -> Server:
    """Return a worker as `defectoscope up` starts it, to be run by the supervisor of the servers.

    Args:
        place: what it works for.
        name: of the process.
        cwd: where it runs.
        app: module of its Celery application.
    """
    return Server(
        name=name,
        argv=(
            *(sys.executable, "-m", "celery", "--quiet", "-A", app, "worker"),
            *("-Q", "control,inspection", "-n", f"{name}@%h", "--without-mingle", "--without-gossip"),
        ),
        env={
            **os.environ,
            **place.environment,
            "PYTHONPATH": str(_CHECKOUT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
        },
        cwd=cwd,
    )


def job_params(*, threshold: float, min_area_px: int = 16) -> JobParams:
    """Return parameters of a job that writes masks and no pictures."""
    return JobParams(
        threshold=threshold, min_area_px=min_area_px, overlays=Overlays.NONE, mm_per_px=None, qa_min_iou=0.5
    )


def draw_images(count: int, *, size_wh: tuple[int, int], seed: int) -> list[DrawnImage]:
    """Draw samples, enlarged to a size, as JPEG files with their masks.

    Args:
        count: how many.
        size_wh: of every image.
        seed: another one gives other images.
    """
    drawn = []
    for number in range(count):
        sample = draw_sample(seed=seed, number=number)
        jpeg = BytesIO()
        Image.fromarray(sample.pixels).resize(size_wh, Image.Resampling.BICUBIC).save(
            jpeg, "JPEG", quality=_JPEG_QUALITY
        )
        mask = Image.fromarray(sample.class_mask).resize(size_wh, Image.Resampling.NEAREST)
        drawn.append(DrawnImage(jpeg=jpeg.getvalue(), class_mask=np.array(mask, dtype=np.uint8)))
    return drawn


def draw_turned(count: int, *, side_px: int, seed: int) -> list[bytes]:
    """Draw square pictures as JPEG files, each sample in its eight turns and reflections: eight different masks.

    Args:
        count: how many; an eighth of them is drawn.
        side_px: of every picture.
        seed: another one gives other pictures.
    """
    drawn = []
    for number in range(math.ceil(count / 8)):
        sample = Image.fromarray(draw_sample(seed=seed, number=number).pixels).resize((side_px, side_px))
        for picture in (sample, ImageOps.mirror(sample)):
            for degrees in (0, 90, 180, 270):
                jpeg = BytesIO()
                picture.rotate(degrees).save(jpeg, "JPEG", quality=_JPEG_QUALITY)
                drawn.append(jpeg.getvalue())
    return drawn[:count]


def numbered(jpeg: bytes, number: int) -> bytes:
    """Return the same picture as another file: a comment with a number makes its bytes, and so its hash, differ.

    Args:
        jpeg: a JPEG.
        number: 0 or more.
    """
    text = f"{number:012}".encode()
    length = (len(text) + 2).to_bytes(2, "big")
    return _JPEG_START + _JPEG_COMMENT + length + text + jpeg[len(_JPEG_START) :]


def store_images(files: Sequence[bytes], *, storage: Storage, prefix: str) -> list[str]:
    """Store JPEG files under ``PREFIX/000000.jpg`` and so on, and return their keys in order."""
    keys = [f"{prefix}/{number:06}.jpg" for number in range(len(files))]

    def put(key: str, data: bytes) -> None:
        storage.put(key, data, content_type="image/jpeg")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, keys, files))
    return keys
