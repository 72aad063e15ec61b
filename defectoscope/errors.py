"""Every error the product raises on purpose, and nothing else.

A class docstring is the default message; ``code`` is stable, snake_case and part of the public contract
(`docs/errors.md` lists them all). No HTTP status lives here: `api/error_handlers.py` maps the branches.

::

    DefectoscopeError
    ├── CallerError             the caller is wrong; trying again unchanged cannot help
    │   ├── NotFound            the thing named does not exist
    │   ├── Conflict            it exists, in a state that does not allow this
    │   └── AccessDenied        the caller may not do this
    ├── NotNow                  a part we depend on is away; the same request may succeed later
    └── Fault                   we are wrong, or the installation is
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar


class DefectoscopeError(Exception):
    """Something went wrong in Defectoscope."""

    code: ClassVar[str] = "defectoscope_error"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Derive ``code`` from the class name unless the class sets its own."""
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, message: str | None = None, **details: Any) -> None:
        """Args: message: one sentence for a person; details: JSON-ready facts for a program."""
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.details = details
        super().__init__(self.message)


class CallerError(DefectoscopeError):
    """The request cannot be met as it stands."""


class NotFound(CallerError):
    """The thing named does not exist."""


class Conflict(CallerError):
    """The present state does not allow this."""


class AccessDenied(CallerError):
    """The caller may not do this."""


class NotNow(DefectoscopeError):
    """A part we depend on is away; try again later."""


class Fault(DefectoscopeError):
    """Defectoscope itself or its installation is at fault."""


# Images and labels -------------------------------------------------------------------------------------------------


class InvalidImage(CallerError):
    """The file cannot be used as an image."""


class ImageEmpty(InvalidImage):
    """The file is empty."""


class ImageNotRecognised(InvalidImage):
    """The file is not an image of an accepted format (PNG, JPEG, TIFF, BMP, WebP)."""


class ImageTruncated(InvalidImage):
    """The image data ends early or is damaged."""


class ImageTooLarge(InvalidImage):
    """The image has more pixels or bytes than the limit allows."""


class ImageTooComplex(InvalidImage):
    """The file has more parts than any honest one, and would only keep the decoder busy."""


class ImageMultiFrame(InvalidImage):
    """The file holds several frames (animation or multi-page); send one image per file."""


class ImageDecodeTimeout(InvalidImage):
    """Decoding the file took longer than one image may take."""


class ImageDecoderDied(InvalidImage):
    """The process that decoded the file died of it, twice; the file is damaged or hostile, or memory is short."""


class InvalidLabel(CallerError):
    """The label cannot be used as a defect mask."""


class LabelSizeMismatch(InvalidLabel):
    """The label and its image differ in size."""


class LabelValuesUnknown(InvalidLabel):
    """The label holds values other than 0 (background), 1 (defect) and 255 (ignored)."""


class PolygonInvalid(InvalidLabel):
    """A polygon of the label has fewer than three points, or coordinates that are no places in the image."""


class RunLengthsInvalid(InvalidLabel):
    """A run-length encoded region of the label does not fit the image's size or cannot be read."""


class RegionKindUnknown(InvalidLabel):
    """The label has a region that is neither polygon nor brush, and so no mask."""


class SourceChanged(CallerError):
    """The object changed in storage after it was registered."""


# Archives ----------------------------------------------------------------------------------------------------------


class ArchiveInvalid(CallerError):
    """The file is not a readable zip archive."""


class ArchiveMemberUnsafe(CallerError):
    """The archive member has an absolute or escaping path, or is a link, encrypted or nested; it was not read."""


class ArchiveTooLarge(CallerError):
    """The archive or a member of it unpacks to more than the limit allows."""


# Manifests ---------------------------------------------------------------------------------------------------------


class ManifestInvalid(CallerError):
    """The manifest is not a CSV file whose first line names its columns."""


# Storage -----------------------------------------------------------------------------------------------------------


class ObjectNotFound(NotFound):
    """No object has this key."""


class BucketNotFound(NotFound):
    """The bucket does not exist."""


class BucketNotAllowed(CallerError):
    """Images may not be read from this bucket; add it to DEFECTOSCOPE_STORAGE__INPUT_BUCKETS."""


class InvalidStorageUri(CallerError):
    """The address is not of the form s3://bucket/prefix."""


class ObjectExists(Conflict):
    """An object with this key exists already."""


class InvalidStorageKey(CallerError):
    """The text cannot be the key of a stored object."""


class ObjectTooLarge(CallerError):
    """The stored object has more bytes than the limit allows."""


class DeletedByRetention(NotFound):
    """It was deleted under a rule of retention; what was found in it stays on record."""


class HoldNotFound(NotFound):
    """There is no such hold."""


class RetentionRuleNotFound(NotFound):
    """There is no such rule of retention."""


class BackupInvalid(CallerError):
    """The directory holds no whole backup that this release can read."""


class DatabaseNotEmpty(Conflict):
    """A backup is restored into an empty database only."""


class CollectionRunning(Conflict):
    """Another process is deleting unused objects; it goes on by itself."""


class StorageDenied(Fault):
    """The object storage refuses the credentials, or they do not allow this."""


class StorageFault(Fault):
    """The object storage answered in a way that was not expected."""


class StorageUnavailable(NotNow):
    """The object storage does not answer."""


class DiskFull(NotNow):
    """A local disk is full; free some of it."""


class DecoderUnavailable(NotNow):
    """No process that decodes files can be started; memory may be short."""


class DatabaseUnavailable(NotNow):
    """The database does not answer."""


class QueueUnavailable(NotNow):
    """The message broker does not answer."""


class ObjectsBeingDeleted(NotNow):
    """Stored objects were collected as unused at this very moment; the same request will store them again."""


class ApiUnavailable(NotNow):
    """The Defectoscope API does not answer; start it with `defectoscope up`."""


class ApiRefused(CallerError):
    """The API refused the request for a reason that this version does not know."""

    def __init__(self, message: str | None = None, *, server_code: str, **details: Any) -> None:
        """Args: message, details: as above; server_code: what ``code`` says for this one error."""
        super().__init__(message, **details)
        # Elsewhere the class decides the code. This class stands for codes of a newer server, which only it knows.
        self.__dict__["code"] = server_code


class ApiAnswerInvalid(Fault):
    """Something answers at this address, but not as the Defectoscope API does."""


# Jobs --------------------------------------------------------------------------------------------------------------


class NoImagesFound(CallerError):
    """No image was found there."""


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


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with a different request."""


class InvalidRequest(CallerError):
    """The request is not valid."""


class RequestTooLarge(CallerError):
    """The request body has more bytes than the limit allows."""


class HostNotAllowed(AccessDenied):
    """The request names a host this API does not answer for; use localhost, or allow remote access."""


class CrossSiteRequest(AccessDenied):
    """The request was sent by a page of another site."""


class ImageQuarantined(CallerError):
    """The image took down its workers before and is in quarantine; `defectoscope images release` lets it out."""


class QuarantinedImageNotFound(NotFound):
    """No image in quarantine has this id."""


class NotAuthenticated(AccessDenied):
    """The request does not show who sends it."""


class TokenMissing(NotAuthenticated):
    """The request needs an API token; the command line takes it from DEFECTOSCOPE_API__TOKEN."""


class TokenMalformed(NotAuthenticated):
    """What was sent is no API token of Defectoscope, or it was mistyped or cut off."""


class TokenUnknown(NotAuthenticated):
    """The API token is not known here."""


class TokenExpired(NotAuthenticated):
    """The API token has expired."""


class TokenRevoked(NotAuthenticated):
    """The API token was revoked."""


class ScopeTooSmall(AccessDenied):
    """The API token does not allow this."""


class TooManyRequests(CallerError):
    """Too many requests have come in a short time; wait before the next one."""


class TokenNotFound(NotFound):
    """No API token has this id."""


class WorkerLost(Fault):
    """The worker stopped while this image was being segmented, several times; it was given up."""


class InspectionBroken(Fault):
    """The inspection of this image ended in an unexpected error, several times; the log has its trace."""


class OutOfMemory(Fault):
    """The memory of this process is used up; what it worked on is tried again."""


class Unexpected(Fault):
    """An unexpected error occurred; the log has its trace under this id."""


# Models and training -----------------------------------------------------------------------------------------------


class ModelNotReady(Conflict):
    """No model version is in service; train one, or see `defectoscope models history` for what was refused."""


class ModelVersionNotFound(NotFound):
    """No model version has this number."""


class ChampionChanged(Conflict):
    """Another model version is in service than the one that this was decided against."""


class AlreadyChampion(Conflict):
    """The model version is in service already."""


class ModelInService(Conflict):
    """The model version is in service; promote another one or roll back first."""


class ModelInUse(Conflict):
    """Jobs that have not ended use the model version."""


class ModelRetired(Conflict):
    """The model version was retired."""


class ModelWeightsDropped(Conflict):
    """The files of the model version were dropped; its record is all that is left."""


class ModelVariantUnavailable(Conflict):
    """The model version has no file of this precision."""


class NothingToRollBackTo(Conflict):
    """No model version was in service before this one that could serve again."""


class ModelImportNotFound(NotFound):
    """No import of a model has this id."""


class ImportAbandoned(Fault):
    """The trainer stopped before the import ended, several times; it was given up."""


class InvalidModel(CallerError):
    """The file does not keep the model contract."""


class ScoresNotComparable(CallerError):
    """The model versions were not scored on the same images with the same labels."""


class ModelNotOnnx(InvalidModel):
    """The file is not an ONNX model."""


class ModelTooLarge(InvalidModel):
    """The model, or a tensor in it, is larger than the limit allows."""


class ModelExternalData(InvalidModel):
    """The model keeps its weights in other files; save it as one file."""


class ModelOpsetRefused(InvalidModel):
    """The model is written for an operator set older than 11; export it again with a newer one."""


class ModelOperatorRefused(InvalidModel):
    """The model uses an operator outside the ONNX standard, or one whose time or outcome is not fixed."""


class ModelInputRefused(InvalidModel):
    """The model's input is not one float32 tensor of (N, 3, H, W)."""


class ModelOutputRefused(InvalidModel):
    """The model's output is not one float32 tensor of (N, 2, H, W) or (N, 1, H, W) logits as large as the input."""


class ModelOutputNotLogits(InvalidModel):
    """The model's output is not logits, and what was done to them cannot be undone; export the logits."""


class ModelSizeUnknown(InvalidModel):
    """The model takes images of any size; say the size it was trained on."""


class ModelSizeConflict(InvalidModel):
    """The model takes images of another size than the one that was said."""


class ModelBatchFixed(InvalidModel):
    """The model cannot be made to take any number of images; export it with a dynamic batch."""


class ModelNotRunnable(InvalidModel):
    """ONNX Runtime cannot load or run the model."""


class ModelNotEqual(InvalidModel):
    """The converted model does not give the masks of the original; it was not kept."""


class ModelCheckTimeout(InvalidModel):
    """The check of the model took longer than the limit allows."""


class ModelCheckCrashed(InvalidModel):
    """The check of the model ended without an answer; the model needs too much memory or breaks the runtime."""


class PlainExportRefused(InvalidModel):
    """Only an fp32 model that begins with normalisation and ends with a sigmoid can be exported as plain ONNX."""


class EngineFailed(Fault):
    """ONNX Runtime could not run the model."""


class EngineOutOfMemory(EngineFailed):
    """The model needs more memory than there is."""


class ProviderUnavailable(Fault):
    """The demanded execution provider cannot be used on this machine."""


class DeviceLost(ProviderUnavailable):
    """The GPU has failed, and this process cannot use it any more."""


class SampleDirectoryNotEmpty(Conflict):
    """The directory holds images or labels already; choose another one or empty it."""


class DatasetNotFound(NotFound):
    """There is no dataset there."""


class InvalidDataset(CallerError):
    """The dataset cannot be trained on."""


class AnnotationFileInvalid(CallerError):
    """The file does not hold annotations of a known format."""


class ExportDirectoryNotEmpty(Conflict):
    """The directory for the export holds files already; choose another one or empty it."""


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


# Webhooks ----------------------------------------------------------------------------------------------------------


class WebhookNotFound(NotFound):
    """No webhook has this id."""


class WebhookDeliveryNotFound(NotFound):
    """The webhook has no delivery of this id."""


class WebhookKindUnknown(CallerError):
    """There are no events of this kind."""


class WebhookAddressRefused(CallerError):
    """Events may not be sent to this address."""


class WebhookSignatureInvalid(CallerError):
    """The signature does not fit the body; it was not sent by a Defectoscope that knows the secret."""


class TooManyWebhooks(Conflict):
    """There are as many webhooks as there may be."""


class WebhookDisabled(Conflict):
    """The webhook is disabled."""


class WebhookDeliveryPending(Conflict):
    """The delivery is still owed and tried by itself."""


class WebhookDeliveryFailed(NotNow):
    """The receiver did not take the event."""


# Installation ------------------------------------------------------------------------------------------------------


class SettingMissing(CallerError):
    """A setting that is needed is not set."""


class PlatformUnsupported(Fault):
    """The embedded servers are not available for this platform."""


class DataDirectoryBusy(Conflict):
    """Another Defectoscope runs on this data directory."""


class ServerStartFailed(Fault):
    """An embedded server did not start."""


class ComponentMissing(Fault):
    """A part of Defectoscope is not installed here."""


# By code -----------------------------------------------------------------------------------------------------------


def classes_by_code() -> dict[str, type[DefectoscopeError]]:
    """Return every class by its code, to raise here what another process of ours has raised."""
    return {kind.code: kind for kind in _descendants(DefectoscopeError)}


def _descendants(kind: type[DefectoscopeError]) -> Iterator[type[DefectoscopeError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
