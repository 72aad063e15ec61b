"""From what a caller asks to a job: the model version, the defaults it brings, and a look at the source.

The registry knows models and inspection knows jobs; neither knows the other, so they meet here.
"""

from __future__ import annotations

from api.schemas.jobs import JobIn, priority_of
from api.services import Services
from defectoscope.database import Job, ModelVersion
from defectoscope.errors.api import IdempotencyConflict
from defectoscope.errors.jobs import NoImagesFound
from defectoscope.errors.storage import BucketNotFound
from defectoscope.inspection.listing import list_prefix
from defectoscope.inspection.params import JobParams, Overlays
from defectoscope.inspection.queries import find_job_by_key
from defectoscope.inspection.sources import Archive, ExplicitImages, Manifest, Prefix, Source
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.registry import find_champion, find_version
from defectoscope.segmentation import ModelContract
from defectoscope.storage import S3Uri


def submit(services: Services, wanted: JobIn, *, token_id: int | None, idempotency_key: str | None) -> tuple[int, bool]:
    """Record a job.

    Args:
        services: the parts to work with.
        wanted: as the caller asks; what is None gets the model's or the installation's default.
        token_id: of the caller; None where none is needed.
        idempotency_key: the same key of a token with the same request gives the same job, also after another version
            was promoted: the defaults are then those of the version that the job is pinned to.

    Returns:
        The job's id, and whether this call made it.

    Raises:
        ModelNotReady, ModelVersionNotFound: there is no such model to inspect with.
        BucketNotAllowed, BucketNotFound, ObjectNotFound, InvalidStorageUri: the source cannot be read.
        NoImagesFound: there is no image below the prefix, or the list is empty.
        IdempotencyConflict: the token used the key for a different request.
    """
    known, version = _resolve(services, wanted, token_id, idempotency_key)
    source = wanted.source.to_source()
    if known is None:
        _check_source(services, source)
    job_id = submit_job(
        database=services.database,
        queue=services.queue,
        request=JobRequest(
            source=source,
            params=_params(services, wanted, ModelContract.from_metadata(version.contract)),
            model_version_id=version.id,
            name=wanted.name,
            token_id=token_id,
            idempotency_key=idempotency_key,
            priority=priority_of(wanted.priority),
            deadline_s=wanted.deadline_s,
            max_failed_share=wanted.max_failed_share,
        ),
        chunk_size=services.chunk_size,
    )
    return job_id, known is None


def _resolve(
    services: Services, wanted: JobIn, token_id: int | None, idempotency_key: str | None
) -> tuple[Job | None, ModelVersion]:
    """Return the job that the key belongs to, if any, and the version to inspect with."""
    with services.database.transaction() as session:
        found = None if idempotency_key is None else find_job_by_key(session, idempotency_key, token_id=token_id)
        if found is not None:
            job, version = found
            if wanted.model_version not in {None, version.number}:
                raise IdempotencyConflict(job_id=job.id)
            return job, version
        if wanted.model_version is None:
            return None, find_champion(session)
        return None, find_version(session, wanted.model_version)


def _params(services: Services, wanted: JobIn, contract: ModelContract) -> JobParams:
    return JobParams(
        threshold=contract.threshold if wanted.threshold is None else wanted.threshold,
        min_area_px=contract.min_area_px if wanted.min_area_px is None else wanted.min_area_px,
        overlays=Overlays(wanted.overlays),
        mm_per_px=wanted.mm_per_px,
        qa_min_iou=services.qa_min_iou if wanted.qa_min_iou is None else wanted.qa_min_iou,
        # Asking for what the model does anyway gives the results that are there already.
        resize_policy=None if wanted.resize_policy == contract.resize_policy else wanted.resize_policy,
    )


def _check_source(services: Services, source: Source) -> None:
    """Find out now what would otherwise only be seen when the job has failed."""
    match source:
        case ExplicitImages(images=images):
            uris = {image.uri for image in images} | {image.label_uri for image in images if image.label_uri}
            for bucket in {S3Uri.parse(uri).bucket for uri in uris}:
                services.input_buckets.open(bucket)
        case Prefix(uri=uri, labels_uri=labels_uri):
            for address in filter(None, (uri, labels_uri)):
                _check_bucket(services, S3Uri.parse(address).bucket)
            if not next(list_prefix(source, buckets=services.input_buckets)).images:
                raise NoImagesFound(f"No image was found below {uri}.", uri=uri)
        case Archive(uri=uri) | Manifest(uri=uri):
            file = S3Uri.parse(uri)
            _check_bucket(services, file.bucket)
            services.input_buckets.open(file.bucket).head(file.key)


def _check_bucket(services: Services, bucket: str) -> None:
    services.input_buckets.open(bucket)
    if not services.buckets.exists(bucket):
        raise BucketNotFound(f"There is no bucket {bucket}.", bucket=bucket)
