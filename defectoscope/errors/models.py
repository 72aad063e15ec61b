"""Model versions and files of models."""

from __future__ import annotations

from defectoscope.errors import CallerError, Conflict, Fault, NotFound


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
