"""Training runs and what they export."""

from __future__ import annotations

from defectoscope.errors import CallerError, Conflict, Fault, NotFound, NotNow


class TrainingRunNotFound(NotFound):
    """No training run has this id."""


class ReportNotFound(NotFound):
    """The training run has no report yet."""


class TrainingRunNotCancellable(Conflict):
    """The training run has already ended."""


class TrainingCancelled(CallerError):
    """The training run was cancelled."""


class TrainingFailed(Fault):
    """The training run failed."""


class TrainerLost(Fault):
    """The trainer stopped before the run ended, several times; the run was given up."""


class EncoderWeightsUnavailable(NotNow):
    """The pretrained encoder weights cannot be fetched."""


class EncoderWeightsInvalid(CallerError):
    """The file does not hold weights of this encoder."""


class CheckpointInvalid(Fault):
    """The checkpoint is damaged or of another training; the training has to start afresh."""


class TrainingInterrupted(Fault):
    """The trainer was told to stop before the run ended; it goes on from its last checkpoint."""


class ExportParityFailed(Fault):
    """The exported model does not give the same masks as the trained one; it was not registered."""


class VariantNotMade(Fault):
    """The fp16 or int8 file could not be made from the fp32 file; the fp32 file is not affected."""
