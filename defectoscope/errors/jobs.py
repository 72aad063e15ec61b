"""Jobs, from their submission to their results."""

from __future__ import annotations

from defectoscope.errors import CallerError, Conflict, Fault, NotFound


class NoImagesFound(CallerError):
    """No image was found there."""


class ManifestInvalid(CallerError):
    """The manifest is not a CSV file whose first line names its columns."""


class JobNotFound(NotFound):
    """No job has this id."""


class ImageNotFound(NotFound):
    """No image has this id."""


class ResultNotFound(NotFound):
    """No result has this id."""


class JobNotCancellable(Conflict):
    """The job has already ended."""


class JobNotPausable(Conflict):
    """The job has already ended or is being cancelled."""


class JobNotRetryable(Conflict):
    """The job is still running or has no failed image."""


class DeadlineExceeded(CallerError):
    """The deadline of the job passed before all of its images were inspected."""


class FailureBudgetExceeded(CallerError):
    """More images of the job failed than it allows; those that were left were not inspected."""


class ImageQuarantined(CallerError):
    """The image took down its workers before and is in quarantine; `defectoscope images release` lets it out."""


class QuarantinedImageNotFound(NotFound):
    """No image in quarantine has this id."""


class WorkerLost(Fault):
    """The worker stopped while this image was being segmented, several times; it was given up."""


class InspectionBroken(Fault):
    """The inspection of this image ended in an unexpected error, several times; the log has its trace."""
