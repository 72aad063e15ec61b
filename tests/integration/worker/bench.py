"""A worker on its bench: jobs in, work done in this process, masks and rows out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update

from defectoscope.database import Chunk, ChunkState, Database, DefectRow, Image, Job, JobItem, ModelVersion, Result
from defectoscope.inspection.params import JobParams, Overlays
from defectoscope.inspection.queries import list_items, view_job
from defectoscope.inspection.sources import ExplicitImages, SourceImage
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.queue import MemoryQueue
from defectoscope.segmentation import decode_mask
from defectoscope.settings import Settings
from defectoscope.storage import Storage
from tests.models import put_in_service
from worker.inspector import Inspector


@dataclass(frozen=True)
class Bench:
    settings: Settings
    database: Database
    queue: MemoryQueue
    storage: Storage
    inspector: Inspector

    def put_model_in_service(self, directory):
        return put_in_service(database=self.database, storage=self.storage, directory=directory)

    def params(self, **changes):
        defaults = {
            "threshold": 0.5,
            "min_area_px": 1,
            "overlays": Overlays.DEFECTIVE,
            "mm_per_px": None,
            "qa_min_iou": 0.5,
        }
        return JobParams(**defaults | changes)

    def submit(self, images, *, labels=None, etags=None, chunk_size=4, **params):
        """Store images (name to bytes) and labels under keys of their own and submit them as a job."""
        labels, etags = labels or {}, etags or {}
        files = {f"in/{name}": data for name, data in images.items()}
        files |= {f"truth/{name}": data for name, data in labels.items()}
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: self.storage.put(key, files[key], content_type="image/png"), files))
        source = ExplicitImages(
            images=tuple(
                SourceImage(
                    name=name,
                    uri=self.uri(f"in/{name}"),
                    etag=etags.get(name),
                    label_uri=self.uri(f"truth/{name}") if name in labels else None,
                )
                for name in images
            )
        )
        return self.submit_source(source, chunk_size=chunk_size, **params)

    def submit_source(self, source, *, chunk_size=4, **params):
        """Submit a job of images that are stored already."""
        with self.database.transaction() as session:
            version_id = session.scalar(select(ModelVersion.id).order_by(ModelVersion.id.desc()).limit(1))
        request = JobRequest(source=source, params=self.params(**params), model_version_id=version_id)
        return submit_job(database=self.database, queue=self.queue, request=request, chunk_size=chunk_size)

    def uri(self, key):
        return f"s3://{self.settings.storage.bucket}/{key}"

    def owed(self, job_id):
        with self.database.transaction() as session:
            return session.scalars(
                select(Chunk.id)
                .where(Chunk.job_id == job_id, Chunk.state.in_((ChunkState.PENDING, ChunkState.RUNNING)))
                .order_by(Chunk.id)
            ).all()

    def work(self, job_id):
        while self.owed(job_id):
            assert self.inspector.process_next_chunk()

    def wake_up(self):
        """Have every chunk that rests after a fault have rested."""
        with self.database.transaction() as session:
            session.execute(update(Chunk).values(next_run_at=None))

    def expire_leases(self):
        """Have every holder have fallen silent long ago."""
        with self.database.transaction() as session:
            session.execute(
                update(Chunk)
                .where(Chunk.state == ChunkState.RUNNING)
                .values(lease_expires_at=func.now() - timedelta(hours=1))
            )

    def job(self, job_id):
        with self.database.transaction() as session:
            return session.get_one(Job, job_id)

    def chunk(self, chunk_id):
        with self.database.transaction() as session:
            return session.get_one(Chunk, chunk_id)

    def view(self, job_id):
        with self.database.transaction() as session:
            return view_job(session, job_id)

    def items(self, job_id):
        with self.database.transaction() as session:
            return {view.item.name: view for view in list_items(session, job_id, limit=1000)}

    def results(self, job_id):
        """Name to (result, image) of what has a result."""
        with self.database.transaction() as session:
            rows = session.execute(
                select(JobItem.name, Result, Image)
                .join(Result, Result.id == JobItem.result_id)
                .join(Image, Image.id == JobItem.image_id)
                .where(JobItem.job_id == job_id)
            ).all()
        return {name: (result, image) for name, result, image in rows}

    def defects(self, result_id):
        with self.database.transaction() as session:
            return session.scalars(
                select(DefectRow).where(DefectRow.result_id == result_id).order_by(DefectRow.number)
            ).all()

    def mask(self, result):
        return decode_mask(self.storage.get(result.mask_key))
