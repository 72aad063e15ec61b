"""Tables, types and transactions. PostgreSQL is the truth about what is owed and what came out."""

from __future__ import annotations

from defectoscope.database.base import Base
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
    QaScore,
    Result,
    Verdict,
)
from defectoscope.database.learning import (
    Champion,
    DatasetItem,
    DatasetRevision,
    Evaluation,
    EvaluationImage,
    ModelVariant,
    ModelVersion,
    Promotion,
    Split,
    TrainingMetric,
    TrainingRun,
    TrainingRunState,
)
from defectoscope.database.session import Database, after_commit

__all__ = [
    "Base",
    "Champion",
    "Chunk",
    "ChunkState",
    "Database",
    "DatasetItem",
    "DatasetRevision",
    "DefectRow",
    "Evaluation",
    "EvaluationImage",
    "Image",
    "ItemState",
    "Job",
    "JobItem",
    "JobState",
    "Label",
    "ModelVariant",
    "ModelVersion",
    "Promotion",
    "QaScore",
    "Result",
    "Split",
    "TrainingMetric",
    "TrainingRun",
    "TrainingRunState",
    "Verdict",
    "after_commit",
]
