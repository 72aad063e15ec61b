"""What is inspected while things break: drawn pictures, spoilt files and jobs over them, the same for a seed."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from defectoscope.storage import S3Uri, Storage
from tests.images import declare_png, draw_part, encode

#: Height and width; 256 x 256 goes to the model as it is, the others are resized.
_SHAPES_HW = ((256, 256), (96, 128), (240, 320), (400, 300))
_PICTURES = 64
_LABELLED = 16
#: Jobs with different thresholds have different masks; so many thresholds there are.
_THRESHOLDS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job as it is submitted: to be sent again and again under its key until it is accepted."""

    key: str
    source: Mapping[str, Any]
    options: Mapping[str, Any]
    names: tuple[str, ...]

    def body(self, *, model_version: int | None) -> dict[str, Any]:
        return {"source": dict(self.source), **self.options, "model_version": model_version}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Files by name below ``in/``, labels below ``truth/``, and any number of jobs over them."""

    seed: int
    images: Mapping[str, bytes] = field(repr=False)
    labels: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def draw(cls, seed: int) -> Workload:
        images, labels = {}, {}
        for number in range(_PICTURES):
            height, width = _SHAPES_HW[number % len(_SHAPES_HW)]
            pixels, class_mask = draw_part(
                height=height, width=width, seed=1000 * seed + number, with_defect=number % 5 != 0
            )
            if number % 2:
                images[f"part-{number:03}.jpg"] = encode(pixels, "JPEG", quality=92)
            else:
                images[f"part-{number:03}.png"] = encode(pixels, "PNG", compress_level=1)
            if number < _LABELLED:
                labels[f"part-{number:03}.png"] = encode(class_mask * np.uint8(255), "PNG")
        whole = images["part-000.png"]
        spoilt = {
            "bomb.png": declare_png(30_000, 30_000),
            "empty.jpg": b"",
            "flipped.png": whole[:100] + bytes([whole[100] ^ 0xFF]) + whole[101:],
            "truncated.jpg": images["part-001.jpg"][:1500],
            "words.png": b"not an image",
        }
        # A label of another size than its image: the result stands, the label is an error.
        tiny = io.BytesIO()
        Image.new("L", (3, 3)).save(tiny, "PNG")
        labels["part-020.png"] = tiny.getvalue()
        return cls(seed=seed, images=images | spoilt, labels=labels)

    def store(self, storage: Storage) -> None:
        files = {f"in/{name}": data for name, data in self.images.items()}
        files |= {f"truth/{name}": data for name, data in self.labels.items()}
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: storage.put(key, files[key], content_type="application/octet-stream"), files))

    def job(self, number: int, *, bucket: str) -> JobSpec:
        """Job ``number``: every fourth lists a prefix, the others name images; every second pair shares parameters."""
        rng = random.Random(f"{self.seed}-{number}")  # noqa: S311 -- a schedule, not a secret
        options = {
            "threshold": round(0.3 + 0.005 * (number // 2 % _THRESHOLDS), 4),
            "min_area_px": 4,
            # The same for all: who inspects a picture first decides whether its result has an overlay.
            "overlays": "defective",
            "mm_per_px": 0.05,
            "name": f"job {number}",
        }
        key = f"faults-{self.seed}-{number}"
        if number % 4 == 3:
            source = {
                "kind": "prefix",
                "uri": str(S3Uri(bucket, "in")),
                "labels_uri": str(S3Uri(bucket, "truth")),
            }
            return JobSpec(key=key, source=source, options=options, names=tuple(sorted(self.images)))
        names = [*rng.sample(sorted(self.images), 40), "missing.png"]
        entries = [{"name": name, "uri": str(S3Uri(bucket, f"in/{name}"))} for name in names]
        for entry in entries:
            label = f"{entry['name'].rpartition('.')[0]}.png"
            if label in self.labels:
                entry["label_uri"] = str(S3Uri(bucket, f"truth/{label}"))
        source = {"kind": "images", "images": entries}
        return JobSpec(key=key, source=source, options=options, names=tuple(sorted(names)))
