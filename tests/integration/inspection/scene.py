"""Puts rows where a test of inspection needs them, through the product, and tells what became of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import func, select, text

from defectoscope.database import Chunk, ChunkState, Database, Image, Job, JobItem, ModelVersion
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.inspection.completion import ItemOutcome, LabelFacts, ResultFacts, complete_chunk
from defectoscope.inspection.images import ImageFacts
from defectoscope.inspection.params import JobParams, Overlays
from defectoscope.inspection.reconciliation import reconcile
from defectoscope.inspection.sources import ExplicitImages, SourceImage
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.queue import MemoryQueue, messages
from defectoscope.segmentation import Defect, PixelCounts
from tests.models import CONTRACT

PARAMS = JobParams(threshold=0.5, min_area_px=1, overlays=Overlays.DEFECTIVE, mm_per_px=None, qa_min_iou=0.5)

DEFECT = Defect(
    number=1,
    box_xyxy=(1, 2, 5, 6),
    area_px=16,
    centroid_xy=(2.5, 3.5),
    major_axis_px=4.6,
    minor_axis_px=4.6,
    orientation_deg=0.0,
    perimeter_px=16.0,
    max_probability=0.9,
    mean_probability=0.8,
    touches_border=False,
)


@dataclass(frozen=True)
class Scene:
    """A database with one model version in it, and a queue that keeps what it is given."""

    database: Database
    queue: MemoryQueue
    model_version_id: int

    def request(self, source, **changes):
        return JobRequest(source=source, params=PARAMS, model_version_id=self.model_version_id, **changes)

    def submit(self, *, images=4, chunk_size=2, prefix="image", params=PARAMS, **changes):
        """Submit a job of images called image-0, image-1 and so on, and return its id."""
        source = ExplicitImages(images=tuple(named(f"{prefix}-{number}") for number in range(images)))
        request = replace(self.request(source, **changes), params=params)
        return submit_job(database=self.database, queue=self.queue, request=request, chunk_size=chunk_size)

    def claim_next(self, *, lease_s=60, owner="worker", max_attempts=3):
        return claim_next_chunk(database=self.database, owner=owner, lease_s=lease_s, max_attempts=max_attempts)

    def claim(self, chunk_id, **claim):
        """Claim one certain chunk: every other one is in somebody's hand meanwhile, and so passed over."""
        with self.database.transaction() as session:
            others = select(Chunk.id).where(Chunk.id != chunk_id)
            session.execute(others.with_for_update(skip_locked=True)).all()
            chunk = self.claim_next(**claim)
        assert chunk is None or chunk.chunk_id == chunk_id
        return chunk

    def finish(self, chunk_id, **outcome):
        """Claim a chunk and complete it with one good outcome for each image."""
        return self.finish_claimed(self.claim(chunk_id), **outcome)

    def finish_claimed(self, chunk, **outcome):
        return self.complete(chunk, [succeeded(item, **outcome) for item in chunk.items])

    def complete(self, chunk, outcomes):
        return complete_chunk(database=self.database, chunk=chunk, outcomes=outcomes)

    def finish_with(self, job_id, contents):
        """Complete the one chunk of a job; its pictures are told apart by ``contents``."""
        chunk = self.claim(*self.owed(job_id))
        outcomes = [succeeded(item, content=content) for item, content in zip(chunk.items, contents, strict=True)]
        return complete_chunk(database=self.database, chunk=chunk, outcomes=outcomes)

    def reconcile(self, *, resend_after_s=60, max_attempts=3):
        reconcile(database=self.database, queue=self.queue, resend_after_s=resend_after_s, max_attempts=max_attempts)

    def chunks(self, job_id):
        with self.database.transaction() as session:
            return session.scalars(select(Chunk).where(Chunk.job_id == job_id).order_by(Chunk.id)).all()

    def chunk(self, chunk_id):
        with self.database.transaction() as session:
            return session.get_one(Chunk, chunk_id)

    def owed(self, job_id):
        return [c.id for c in self.chunks(job_id) if c.state in {ChunkState.PENDING, ChunkState.RUNNING}]

    def job(self, job_id):
        with self.database.transaction() as session:
            return session.get_one(Job, job_id)

    def items(self, job_id):
        with self.database.transaction() as session:
            return session.scalars(select(JobItem).where(JobItem.job_id == job_id).order_by(JobItem.id)).all()

    def count(self, table):
        with self.database.transaction() as session:
            return session.scalar(select(func.count()).select_from(table))

    def image_ids(self):
        with self.database.transaction() as session:
            return dict(session.execute(select(Image.sha256, Image.id)).tuples().all())

    def doorbells(self):
        """How many doorbells for chunks wait."""
        return self.queue.messages.count(messages.process_next_chunk())

    def expire_leases(self):
        """Have every holder fall silent, and whatever rests wake up."""
        self.execute("UPDATE chunks SET lease_expires_at = now() - interval '1 hour' WHERE state = 'running'")
        self.wake_up()

    def wake_up(self):
        """Have every chunk that rests after a fault have rested."""
        self.execute("UPDATE chunks SET next_run_at = now() WHERE next_run_at IS NOT NULL")

    def pass_deadlines(self):
        self.execute("UPDATE jobs SET deadline_at = now() - interval '1 second' WHERE deadline_at IS NOT NULL")

    def age_messages(self):
        self.execute("UPDATE jobs SET dispatched_at = now() - interval '1 hour'")

    def execute(self, statement):
        with self.database.transaction() as session:
            session.execute(text(statement))


def add_model_version(database):
    """Record a model version without a file."""
    with database.transaction() as session:
        version = ModelVersion(number=1, contract=CONTRACT.to_metadata())
        session.add(version)
        session.flush()
        return version.id


def named(name, **facts):
    return SourceImage(name=name, uri=f"s3://bucket/{name}", **facts)


def image_facts(name):
    sha256 = name.encode().hex().rjust(64, "0")[-64:]
    return ImageFacts(
        sha256=sha256,
        key=f"objects/sha256/{sha256[:2]}/{sha256}",
        size_bytes=100,
        width=64,
        height=48,
        format="PNG",
        source_mode="RGB",
        source_uri=f"s3://bucket/{name}",
    )


def result_facts(*, defects=(DEFECT,)):
    return ResultFacts(
        mask_key="masks/a.png",
        mask_sha256="0" * 64,
        overlay_key=None,
        defect_px=sum(defect.area_px for defect in defects),
        defects=defects,
        variant="fp32",
        provider="CPUExecutionProvider",
        runtime_version="1",
        latency_ms=1.0,
        resize_policy="stretch",
        tile_count=1,
        model_scale=0.5,
    )


def label_facts(name, counts=PixelCounts(16, 0, 0, 3056)):  # noqa: B008 -- a frozen value
    sha256 = image_facts(f"label of {name}").sha256
    return LabelFacts(sha256=sha256, key=f"objects/sha256/{sha256[:2]}/{sha256}", defect_px=16, counts=counts)


def succeeded(item, *, content=None, label=None, **result):
    """A good outcome; ``content`` tells images apart, the item's name where it is not given."""
    return ItemOutcome(
        item_id=item.item_id,
        image=image_facts(content or item.name),
        result=result_facts(**result),
        label=label,
    )
