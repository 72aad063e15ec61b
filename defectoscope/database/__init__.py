"""Tables, types and transactions. PostgreSQL is the truth about what is owed and what came out."""

from __future__ import annotations

from defectoscope.database.access import AccessScope, ApiToken, AuditEntry
from defectoscope.database.base import Base
from defectoscope.database.events import Event, Severity
from defectoscope.database.inspection import (
    Chunk,
    ChunkState,
    DefectRow,
    Image,
    ItemState,
    Job,
    JobItem,
    JobState,
    Label,
    Priority,
    QaScore,
    Result,
    Verdict,
)
from defectoscope.database.learning import (
    DatasetItem,
    DatasetRevision,
    Night,
    NightState,
    RunTrigger,
    Split,
    SplitAssignment,
    TrainingMetric,
    TrainingRun,
    TrainingRunState,
)
from defectoscope.database.models import (
    Champion,
    Evaluation,
    EvaluationImage,
    ImportState,
    LedgerAction,
    ModelImport,
    ModelOrigin,
    ModelVariant,
    ModelVersion,
    Promotion,
)
from defectoscope.database.quarantine import QuarantinedImage
from defectoscope.database.session import Database, after_commit
from defectoscope.database.webhooks import DeliveryState, Webhook, WebhookDelivery

__all__ = [
    "AccessScope",
    "ApiToken",
    "AuditEntry",
    "Base",
    "Champion",
    "Chunk",
    "ChunkState",
    "Database",
    "DatasetItem",
    "DatasetRevision",
    "DefectRow",
    "DeliveryState",
    "Evaluation",
    "EvaluationImage",
    "Event",
    "Image",
    "ImportState",
    "ItemState",
    "Job",
    "JobItem",
    "JobState",
    "Label",
    "LedgerAction",
    "ModelImport",
    "ModelOrigin",
    "ModelVariant",
    "ModelVersion",
    "Night",
    "NightState",
    "Priority",
    "Promotion",
    "QaScore",
    "QuarantinedImage",
    "Result",
    "RunTrigger",
    "Severity",
    "Split",
    "SplitAssignment",
    "TrainingMetric",
    "TrainingRun",
    "TrainingRunState",
    "Verdict",
    "Webhook",
    "WebhookDelivery",
    "after_commit",
]
