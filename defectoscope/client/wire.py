"""The shapes that travel over HTTP, as plain dictionaries with names for the type checker.

Nothing is validated here: the API is ours, and a field that a newer server adds must not break an older client.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Problem(TypedDict):
    """Why one image, label or job failed."""

    code: str
    message: str


class Scores(TypedDict):
    """Pixel counts and the scores derived from them, each in 0..1."""

    tp: int
    fp: int
    fn: int
    tn: int
    iou_defect: float
    iou_background: float
    iou_mean: float
    dice: float
    precision: float
    recall: float


class MeanScores(TypedDict):
    """Means over the labelled images, each in 0..1."""

    iou_defect: float
    iou_background: float
    iou: float
    dice: float


class Qa(TypedDict):
    """What the labels of a job say about its results."""

    images: int
    min_iou: float
    passed: bool
    pooled: Scores
    mean: MeanScores


class JobSummary(TypedDict):
    """A job in a list."""

    id: int
    name: str | None
    state: str
    priority: str
    paused: bool
    source: dict[str, Any]
    model_version: int
    created_at: str
    finished_at: str | None


class ImageCounts(TypedDict):
    """How many images of a job are in which state."""

    total: int
    pending: int
    succeeded: int
    failed: int
    cancelled: int


class Job(JobSummary):
    """A job with everything known about it."""

    params: dict[str, Any]
    images: ImageCounts
    label_errors: int
    defective_images: int
    defects: int
    enumerated: bool
    cancel_requested: bool
    deadline_at: str | None
    max_failed_share: float | None
    error: Problem | None
    qa: Qa | None


class JobItem(TypedDict):
    """One image of a job."""

    id: int
    name: str
    state: str
    source_uri: str
    image_id: int | None
    result_id: int | None
    verdict: str | None
    defect_count: int | None
    error: Problem | None
    label_error: Problem | None
    qa: Scores | None


class Defect(TypedDict):
    """One connected region of a result; coordinates and areas in pixels of the original image."""

    id: int
    result_id: int
    image_id: int
    image_name: str | None
    image_sha256: str
    source_uri: str | None
    model_version: int
    number: int
    box_xyxy: list[int]
    area_px: int
    area_mm2: float | None
    centroid_xy: list[float]
    major_axis_px: float
    minor_axis_px: float
    orientation_deg: float
    perimeter_px: float
    max_probability: float
    mean_probability: float
    touches_border: bool


class ImageObject(TypedDict):
    """An object to store: its content hash, its size and its media type."""

    sha256: str
    size_bytes: int
    content_type: str


class UploadTarget(TypedDict):
    """Where to PUT, and with which headers."""

    url: str
    headers: dict[str, str]


class Upload(TypedDict):
    """The address an object will have; ``upload`` is None when its bytes are stored already."""

    sha256: str
    uri: str
    upload: UploadTarget | None


class SourceImage(TypedDict):
    """One image of a submitted list."""

    name: str
    uri: str
    label_uri: str | None
    etag: NotRequired[str | None]


class ImagesSource(TypedDict):
    """A list of images."""

    kind: Literal["images"]
    images: list[SourceImage]


class PrefixSource(TypedDict):
    """Every image below ``s3://bucket/prefix``."""

    kind: Literal["prefix"]
    uri: str
    labels_uri: str | None


class ArchiveSource(TypedDict):
    """Every image in a stored zip archive."""

    kind: Literal["archive"]
    uri: str


class ManifestSource(TypedDict):
    """Every image that a stored CSV file names."""

    kind: Literal["manifest"]
    uri: str


JobSource = ImagesSource | PrefixSource | ArchiveSource | ManifestSource


class JobOptions(TypedDict, total=False):
    """What may be asked of a job; what is left out is the model's or the server's choice."""

    name: str | None
    priority: str
    model_version: int | None
    threshold: float | None
    min_area_px: int | None
    overlays: str
    mm_per_px: float | None
    qa_min_iou: float | None
    resize_policy: Literal["stretch", "letterbox", "tile"] | None
    deadline_s: float | None
    max_failed_share: float | None


class LabelEntry(TypedDict):
    """A label to register with its image, and the part that the image shows, if known."""

    name: str
    image_uri: str
    label_uri: str
    part: NotRequired[str | None]


class RegisteredLabel(TypedDict):
    """What became of one label entry."""

    name: str
    image_id: int | None
    label_id: int | None
    error: Problem | None


class DatasetEntry(TypedDict):
    """One label as a member of a dataset revision; without a split the server decides."""

    label_id: int
    name: str
    split: NotRequired[str | None]
    part: NotRequired[str | None]


class Dataset(TypedDict):
    """A dataset revision."""

    id: int
    name: str
    number: int
    reference: str
    sha256: str
    train_count: int
    val_count: int
    groups: int
    created_at: str


class Move(TypedDict):
    """An image that is not where, or not what, was asked."""

    name: str
    split: str
    code: str
    message: str


class CreatedDataset(Dataset):
    """A dataset revision as it was made, and what its maker may not have expected."""

    moves: list[Move]


class DatasetItem(TypedDict):
    """A labelled image of a revision; the addresses can be read for an hour."""

    name: str
    split: str
    group: str
    width: int
    height: int
    image_sha256: str
    label_sha256: str
    image_url: str
    label_url: str


class EpochMetrics(TypedDict):
    """What one epoch measured; None where it was not a finite number."""

    epoch: int
    values: dict[str, float | None]


class TrainingRun(TypedDict):
    """A training run."""

    id: int
    state: str
    stage: str | None
    trigger: str
    attempts: int
    checkpoint_epoch: int | None
    has_report: bool
    dataset: str
    config: dict[str, Any]
    error: Problem | None
    model_version: int | None
    metrics: list[EpochMetrics]
    figures: dict[str, Any] | None
    created_at: str
    started_at: str | None
    finished_at: str | None


class Night(TypedDict):
    """A night of the retraining schedule."""

    id: int
    night: str
    state: str
    reason: str
    new_labels: int | None
    training_run_id: int | None
    created_at: str


class ModelFile(TypedDict):
    """Where a file of a model version can be had for a while."""

    url: str
    expires_in_s: int
    file_name: str
    size_bytes: int
    sha256: str


class ModelImport(TypedDict):
    """The import of a foreign model file."""

    id: int
    state: str
    file_name: str
    sha256: str
    options: dict[str, Any]
    actor: str
    attempts: int
    error: Problem | None
    model_version: int | None
    created_at: str
    finished_at: str | None


class Event(TypedDict):
    """Something that happened, in one sentence."""

    id: int
    kind: str
    severity: str
    subject: str
    message: str
    details: dict[str, Any]
    created_at: str


class EventKind(TypedDict):
    """A kind of event, and when it happens."""

    kind: str
    meaning: str


class Webhook(TypedDict):
    """An address that is told of events, and what is owed to it."""

    id: int
    name: str | None
    url: str
    kinds: list[str]
    created_at: str
    disabled_at: str | None
    disabled_reason: str | None
    previous_secret_until: str | None
    failures: int
    pending: int
    dead: int


class NewWebhook(TypedDict):
    """A webhook that was just made, with its secret."""

    webhook: Webhook
    secret: str


class WebhookDelivery(TypedDict):
    """One event on its way to one webhook."""

    id: int
    webhook_id: int
    event_id: int
    message_id: str
    kind: str
    subject: str
    state: str
    attempts: int
    status: int | None
    error: str | None
    created_at: str
    next_attempt_at: str | None
    finished_at: str | None


class RetentionRule(TypedDict):
    """A rule of what is given up when it is old."""

    id: int
    what: str
    older_than_days: int
    keep_defective: bool
    job_id: int | None
    actor: str
    created_at: str


class Hold(TypedDict):
    """A job or an image of which nothing is given up."""

    id: int
    job_id: int | None
    image_id: int | None
    reason: str
    actor: str
    created_at: str


class ApiToken(TypedDict):
    """An API token as the server knows it; ``token``, its text, is there when it was just made."""

    id: int
    name: str
    scope: str
    created_by: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    token: NotRequired[str]


class Caller(TypedDict):
    """Who calls; ``token_id`` is None where the API needs no token."""

    token_id: int | None
    name: str
    scope: str


class AuditEntry(TypedDict):
    """Something that somebody asked to be changed; ``status`` is None when there was no answer."""

    id: int
    created_at: str
    token_id: int | None
    actor: str
    action: str
    subject: str | None
    request_id: str
    address: str | None
    status: int | None
    error_code: str | None


class Readiness(TypedDict):
    """Whether the API can work; each check is ``ok`` or a sentence."""

    status: str
    checks: dict[str, str]
    version: NotRequired[str]
