"""Jobs: what may be asked for, how far one has come, and each of its images."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from api.schemas.base import Body, Count, Id, Moment, Problem, Text, Uri, shows
from api.schemas.scores import QaOut, ScoresOut
from defectoscope.database import ItemState, Job, JobState, Priority, Verdict
from defectoscope.inspection.params import JobParams, Overlays
from defectoscope.inspection.queries import ItemView, JobView
from defectoscope.inspection.sources import Archive, ExplicitImages, Manifest, Prefix, SourceImage
from defectoscope.segmentation import ResizePolicy

#: Images named one by one in one request; more of them go under a prefix or into a manifest.
MAX_IMAGES = 250_000
_NAMES_SHOWN = 5

Threshold = Annotated[float, Field(gt=0, le=1)]
AreaPx = Annotated[int, Field(ge=0, le=2**31)]
MmPerPx = Annotated[float, Field(gt=0, le=1000)]
Iou = Annotated[float, Field(ge=0, le=1)]
#: A month at most.
DeadlineS = Annotated[float, Field(gt=0, le=31 * 24 * 3600)]
Share = Annotated[float, Field(ge=0, le=1)]

_JOB_SOURCE = {"kind": "prefix", "uri": "s3://line-3/2026-11-20/images", "labels_uri": None}


class ImageIn(Body):
    """One image of a job, by address."""

    model_config = shows({"name": "a.png", "uri": "s3://line-3/a.png", "label_uri": "s3://line-3/labels/a.png"})

    name: Text = Field(description="unique within the job")
    uri: Uri
    label_uri: Uri | None = Field(None, description="ground-truth mask, for QA")
    etag: Text | None = Field(None, description="what the object must still have when it is read; else source_changed")


class ImagesIn(Body):
    """Images named one by one."""

    model_config = shows({"kind": "images", "images": [{"name": "a.png", "uri": "s3://line-3/a.png"}]})

    kind: Literal["images"]
    images: list[ImageIn] = Field(max_length=MAX_IMAGES)

    @field_validator("images")
    @classmethod
    def _names_are_unique(cls, images: list[ImageIn]) -> list[ImageIn]:
        twice = [name for name, count in Counter(image.name for image in images).items() if count > 1]
        if twice:
            raise PydanticCustomError(
                "names_twice",
                "names must be unique within a job; twice: {names}",
                {"names": ", ".join(sorted(twice)[:_NAMES_SHOWN])},
            )
        return images

    def to_source(self) -> ExplicitImages:
        """Return the source that this describes."""
        return ExplicitImages(
            images=tuple(
                SourceImage(name=image.name, uri=image.uri, etag=image.etag, label_uri=image.label_uri)
                for image in self.images
            )
        )


class PrefixIn(Body):
    """Every image below a prefix, with labels beside them or below `labels_uri`."""

    model_config = shows(_JOB_SOURCE)

    kind: Literal["prefix"]
    uri: Uri
    labels_uri: Uri | None = None

    def to_source(self) -> Prefix:
        """Return the source that this describes."""
        return Prefix(uri=self.uri, labels_uri=self.labels_uri)


class ArchiveIn(Body):
    """Every image in a zip archive."""

    model_config = shows({"kind": "archive", "uri": "s3://line-3/batch.zip"})

    kind: Literal["archive"]
    uri: Uri

    def to_source(self) -> Archive:
        """Return the source that this describes."""
        return Archive(uri=self.uri)


class ManifestIn(Body):
    """Every image that a CSV file in storage names, in columns `uri` and, if wanted, `name`, `label_uri` and `etag`."""

    model_config = shows({"kind": "manifest", "uri": "s3://line-3/images.csv"})

    kind: Literal["manifest"]
    uri: Uri

    def to_source(self) -> Manifest:
        """Return the source that this describes."""
        return Manifest(uri=self.uri)


PriorityName = Literal["low", "normal", "high"]


def priority_of(name: PriorityName) -> Priority:
    """Return the priority that goes by a name on the wire."""
    return Priority[name.upper()]


class PriorityIn(Body):
    """Which jobs a job goes before."""

    model_config = shows({"priority": "high"})

    priority: PriorityName


class JobIn(Body):
    """What to inspect. What is null gets its default: the champion, its threshold and least area, the setting."""

    model_config = shows({"name": "night shift", "source": _JOB_SOURCE, "overlays": "defective", "mm_per_px": 0.05})

    name: Text | None = None
    source: Annotated[ImagesIn | PrefixIn | ArchiveIn | ManifestIn, Field(discriminator="kind")]
    priority: PriorityName = Field("normal", description="workers take chunks of jobs with a higher one first")
    model_version: Id | None = Field(None, description="number of a model version; null: the champion")
    threshold: Threshold | None = Field(None, description="defect probability; null: the model's")
    min_area_px: AreaPx | None = Field(None, description="smaller defects are dropped; null: the model's")
    overlays: Literal["none", "defective", "all"] = "defective"
    mm_per_px: MmPerPx | None = Field(None, description="length of a pixel's side, for areas in square millimetres")
    qa_min_iou: Iou | None = Field(None, description="pooled defect IoU at which the job passes; null: the setting")
    resize_policy: ResizePolicy | None = Field(
        None, description="how images come to the model's size: stretched, letterboxed or in tiles; null: the model's"
    )
    deadline_s: DeadlineS | None = Field(
        None, description="seconds from now after which what is not done fails as deadline_exceeded; null: none"
    )
    max_failed_share: Share | None = Field(
        None,
        description="with a larger share of failed images, of 20 images at least, the job stops by itself and the rest "
        "fails as failure_budget_exceeded; 0: with the first one; null: never",
    )


class ImagesSourceOut(Body):
    """Images that were named one by one; they are the job's items."""

    model_config = shows({"kind": "images", "count": 200})

    kind: Literal["images"]
    count: int


class JobSummaryOut(Body):
    """A job in a list."""

    model_config = shows(
        {
            "id": 12,
            "name": "night shift",
            "state": "running",
            "priority": "normal",
            "paused": False,
            "source": _JOB_SOURCE,
            "model_version": 3,
            "created_at": "2026-11-20T21:00:00Z",
            "finished_at": None,
        }
    )

    id: int
    name: str | None
    state: JobState
    priority: PriorityName
    paused: bool = Field(description="no further chunk of it is begun until it is resumed")
    source: Annotated[ImagesSourceOut | PrefixIn | ArchiveIn | ManifestIn, Field(discriminator="kind")]
    model_version: int
    created_at: Moment
    finished_at: Moment | None

    @classmethod
    def of(cls, job: Job, model_version: int) -> Self:
        """Return a job as it goes over the wire."""
        return cls.model_validate(
            {
                "id": job.id,
                "name": job.name,
                "state": job.state,
                "priority": Priority(job.priority).name.lower(),
                "paused": job.paused_at is not None,
                "source": job.source,
                "model_version": model_version,
                "created_at": job.created_at,
                "finished_at": job.finished_at,
            }
        )


class JobParamsOut(Body):
    """The parameters of a job, with every default filled in."""

    model_config = shows(
        {
            "threshold": 0.5,
            "min_area_px": 16,
            "overlays": "defective",
            "mm_per_px": 0.05,
            "qa_min_iou": 0.5,
            "resize_policy": None,
        }
    )

    threshold: float
    min_area_px: int
    overlays: Overlays
    mm_per_px: float | None
    qa_min_iou: float
    resize_policy: ResizePolicy | None = Field(None, description="null: that of the model version")

    @classmethod
    def of(cls, params: JobParams) -> Self:
        """Return parameters as they go over the wire."""
        return cls.model_validate(params.to_json())


class ImageCountsOut(Body):
    """How many images of a job are in each state."""

    model_config = shows({"total": 200, "pending": 40, "succeeded": 158, "failed": 2, "cancelled": 0})

    total: Count
    pending: Count
    succeeded: Count
    failed: Count
    cancelled: Count


class JobOut(JobSummaryOut):
    """A job with everything counted."""

    model_config = shows(
        {
            **JobSummaryOut.example(),
            "params": JobParamsOut.example(),
            "images": ImageCountsOut.example(),
            "label_errors": 0,
            "defective_images": 21,
            "defects": 55,
            "enumerated": True,
            "cancel_requested": False,
            "deadline_at": "2026-11-21T06:00:00Z",
            "max_failed_share": 0.1,
            "error": None,
            "qa": QaOut.example(),
        }
    )

    params: JobParamsOut
    images: ImageCountsOut
    label_errors: Count
    defective_images: Count
    defects: Count
    enumerated: bool = Field(description="every image of the source is known")
    cancel_requested: bool
    deadline_at: Moment | None
    max_failed_share: float | None
    error: Problem | None
    qa: QaOut | None

    @classmethod
    def of_view(cls, view: JobView) -> Self:
        """Return a job as it goes over the wire."""
        counts = {state.value: count for state, count in view.counts.items()}
        return cls(
            **dict(JobSummaryOut.of(view.job, view.model_version)),
            params=JobParamsOut.of(view.params),
            images=ImageCountsOut(total=sum(counts.values()), **counts),
            label_errors=view.label_errors,
            defective_images=view.defective_images,
            defects=view.defects,
            enumerated=view.job.enumerated_at is not None,
            cancel_requested=view.job.cancel_requested_at is not None,
            deadline_at=view.job.deadline_at,
            max_failed_share=view.job.max_failed_share,
            error=Problem.of(view.job.error_code, view.job.error_message),
            qa=None if view.qa is None else QaOut.of(view.qa),
        )


class ItemOut(Body):
    """One image of a job, as far as it has come."""

    model_config = shows(
        {
            "id": 501,
            "name": "a.png",
            "state": "succeeded",
            "source_uri": "s3://line-3/a.png",
            "image_id": 77,
            "result_id": 90,
            "verdict": "defective",
            "defect_count": 2,
            "error": None,
            "label_error": None,
            "qa": ScoresOut.example(),
        }
    )

    id: int
    name: str
    state: ItemState
    source_uri: str
    image_id: int | None
    result_id: int | None
    verdict: Verdict | None
    defect_count: int | None
    error: Problem | None
    label_error: Problem | None
    qa: ScoresOut | None

    @classmethod
    def of(cls, view: ItemView) -> Self:
        """Return an image of a job as it goes over the wire."""
        item = view.item
        return cls(
            id=item.id,
            name=item.name,
            state=item.state,
            source_uri=item.source_uri,
            image_id=item.image_id,
            result_id=item.result_id,
            verdict=view.verdict,
            defect_count=view.defect_count,
            error=Problem.of(item.error_code, item.error_message),
            label_error=Problem.of(item.label_error_code, item.label_error_message),
            qa=None if view.counts is None else ScoresOut.of(view.counts),
        )
