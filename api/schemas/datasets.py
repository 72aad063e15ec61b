"""Dataset revisions: immutable sets of labelled images."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

from api.schemas.base import Body, Id, Moment, Text, shows
from defectoscope.database import DatasetRevision, Split
from defectoscope.dataset import RevisionEntry

#: The largest set of parameters that PostgreSQL takes in one statement is 65 535.
MAX_ENTRIES = 50_000

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
DatasetName = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]
#: A name means its latest revision.
DatasetReference = Annotated[str, StringConstraints(pattern=f"^{_NAME}(@[1-9][0-9]{{0,8}})?$")]


class DatasetEntryIn(Body):
    """A labelled image and the side of the split it goes to."""

    model_config = shows({"label_id": 15, "name": "a.png", "split": "train"})

    label_id: Id
    name: Text
    split: Split


class DatasetIn(Body):
    """A set of labelled images."""

    model_config = shows(
        {"name": "steel", "entries": [DatasetEntryIn.example(), {"label_id": 16, "name": "b.png", "split": "val"}]}
    )

    name: DatasetName
    entries: list[DatasetEntryIn] = Field(min_length=1, max_length=MAX_ENTRIES)

    @field_validator("entries")
    @classmethod
    def _names_are_unique(cls, entries: list[DatasetEntryIn]) -> list[DatasetEntryIn]:
        twice = sorted(name for name, count in Counter(entry.name for entry in entries).items() if count > 1)
        if twice:
            raise PydanticCustomError(
                "names_twice", "names must be unique within a dataset; twice: {names}", {"names": ", ".join(twice[:5])}
            )
        return entries

    def to_entries(self) -> list[RevisionEntry]:
        """Return the entries as the use case wants them."""
        return [RevisionEntry(label_id=entry.label_id, name=entry.name, split=entry.split) for entry in self.entries]


class DatasetOut(Body):
    """A revision of a dataset."""

    model_config = shows(
        {
            "id": 4,
            "name": "steel",
            "number": 1,
            "reference": "steel@1",
            "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            "train_count": 160,
            "val_count": 40,
            "created_at": "2026-11-20T20:00:00Z",
        }
    )

    id: int
    name: str
    number: int
    reference: str
    sha256: str
    train_count: int
    val_count: int
    created_at: Moment

    @classmethod
    def of(cls, revision: DatasetRevision) -> Self:
        """Return a revision as it goes over the wire."""
        return cls(
            id=revision.id,
            name=revision.name,
            number=revision.number,
            reference=f"{revision.name}@{revision.number}",
            sha256=revision.sha256,
            train_count=revision.train_count,
            val_count=revision.val_count,
            created_at=revision.created_at,
        )
