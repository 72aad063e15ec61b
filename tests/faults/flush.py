"""Ten thousand images owed, and the broker forgets everything: before anybody works, and again in the middle."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.place import Place, numbered
from defectoscope.connect import open_database, open_queue, s3_config
from defectoscope.database import Job, ModelVersion
from defectoscope.inspection.params import JobParams, Overlays
from defectoscope.inspection.sources import ExplicitImages, SourceImage
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.storage import S3Uri, open_s3
from tests.faults.checker import count_orphans, find_flaws, find_missing_masks, read_outcomes
from tests.faults.fleet import SECTIONS, Fleet
from tests.faults.seed_run import publish_versions, wait_until_at_rest
from tests.faults.servers import Servers, new_place
from tests.images import draw_part, encode

_PICTURES = 50
_WITHIN_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """What became of the images: owed when the broker was flushed the first and the second time, and in the end."""

    images: int
    owed_at_flushes: tuple[int, ...]
    succeeded: int
    flaws: dict[str, int]
    missing_masks: int
    orphans: int
    seconds: float


def run_flush(images: int, *, servers: Servers, scratch: Path, workers: int = 2) -> Flushed:
    """Owe so many images, flush the broker, start the workers, flush it again when half is done, and wait."""
    place = new_place(
        servers,
        scratch=scratch,
        bucket=f"flush-{secrets.token_hex(4)}",
        sections={name: dict(values) for name, values in SECTIONS.items()},
    )
    storage, database = open_s3(s3_config(place.settings)), open_database(place.settings)
    pictures = [encode(draw_part(height=64, width=96, seed=seed)[0], "JPEG", quality=90) for seed in range(_PICTURES)]

    def put(number: int) -> None:
        data = numbered(pictures[number % _PICTURES], number)
        storage.put(f"in/{number:06}.jpg", data, content_type="image/jpeg")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(images)))
    publish_versions(database, storage, scratch=scratch)
    job_id = _submit(place, images)

    def owed() -> int:
        with database.transaction() as session:
            return session.get_one(Job, job_id, populate_existing=True).pending_images

    owed_at_flushes = [owed()]
    servers.flush_broker()
    began_at = time.monotonic()
    with Fleet(place, directory=scratch / "flush", workers=workers):
        while owed() > images // 2 and time.monotonic() - began_at < _WITHIN_S:
            time.sleep(0.2)
        owed_at_flushes.append(owed())
        servers.flush_broker()
        wait_until_at_rest(database, jobs=1, within_s=_WITHIN_S)
    seconds = time.monotonic() - began_at
    outcomes = read_outcomes(database)
    flushed = Flushed(
        images=images,
        owed_at_flushes=tuple(owed_at_flushes),
        succeeded=sum(outcome[0] == "succeeded" for outcome in outcomes.values()),
        flaws=find_flaws(database),
        missing_masks=len(find_missing_masks(database, storage)),
        orphans=count_orphans(database, storage),
        seconds=seconds,
    )
    database.close()
    return flushed


def _submit(place: Place, images: int) -> int:
    bucket = place.settings.storage.bucket
    source = ExplicitImages(
        images=tuple(
            SourceImage(name=f"{number:06}.jpg", uri=str(S3Uri(bucket, f"in/{number:06}.jpg")))
            for number in range(images)
        )
    )
    params = JobParams(threshold=0.5, min_area_px=4, overlays=Overlays.NONE, mm_per_px=None, qa_min_iou=0.5)
    database = open_database(place.settings)
    with database.transaction() as session:
        version_id = session.scalars(select(func.min(ModelVersion.id))).one()
    request = JobRequest(source=source, params=params, model_version_id=version_id, idempotency_key="flush")
    job_id = submit_job(
        database=database,
        queue=open_queue(place.settings, name="faults"),
        request=request,
        chunk_size=place.settings.inspection.chunk_size,
    )
    database.close()
    return job_id
