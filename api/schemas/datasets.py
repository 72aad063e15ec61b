"""Dataset revisions: immutable sets of labelled images."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

from api.schemas.base import Body, Id, Moment, Text, shows
from api.services import Services
from api.uploading import EXPIRES_IN_S
from defectoscope.database import DatasetRevision, Split
from defectoscope.dataset import VAL_FRACTION, CreatedRevision, Move, MoveCode, RevisionEntry
from defectoscope.dataset.queries import RevisionItem

#: A body of so many is about 5 MB.
MAX_ENTRIES = 50_000

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
DatasetName = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]
#: A name means its latest revision.
DatasetReference = Annotated[str, StringConstraints(pattern=f"^{_NAME}(@[1-9][0-9]{{0,8}})?$")]


class DatasetEntryIn(Body):
    """A labelled image, and what is known of it."""

    model_config = shows({"label_id": 15, "name": "a.png", "split": "train", "part": "tile-55"})

    label_id: Id
    name: Text
    split: Split | None = Field(None, description="the side it is wished on; null leaves that to the server")
    part: Text | None = Field(None, description="the part or place it shows: images of one part stay on one side")


class DatasetIn(Body):
    """A set of labelled images. An image keeps for ever, in every dataset, the side it has once been on."""

    model_config = shows(
        {
            "name": "steel",
            "extends": False,
            "val_fraction": VAL_FRACTION,
            "entries": [DatasetEntryIn.example(), {"label_id": 16, "name": "b.png", "split": None, "part": None}],
        }
    )

    name: DatasetName
    extends: bool = Field(False, description="whether what the latest revision has stays in")
    val_fraction: float = Field(
        VAL_FRACTION, gt=0, lt=1, description="share of validation that is aimed at where no side is wished"
    )
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
        return [
            RevisionEntry(label_id=entry.label_id, name=entry.name, split=entry.split, part=entry.part)
            for entry in self.entries
        ]


_DATASET = {
    "id": 4,
    "name": "steel",
    "number": 1,
    "reference": "steel@1",
    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "train_count": 160,
    "val_count": 40,
    "groups": 118,
    "created_at": "2026-11-20T20:00:00Z",
}


class DatasetOut(Body):
    """A revision of a dataset."""

    model_config = shows(_DATASET)

    id: int
    name: str
    number: int
    reference: str
    sha256: str
    train_count: int
    val_count: int
    groups: int = Field(description="of images that are never on both sides; 0: not counted")
    created_at: Moment

    @classmethod
    def of(cls, revision: DatasetRevision) -> Self:
        """Return a revision as it goes over the wire."""
        return cls(**_fields(revision))


class MoveOut(Body):
    """An image that is not where, or not what, was asked."""

    model_config = shows(
        {
            "name": "b.png",
            "split": "val",
            "code": "duplicate_of_validation",
            "message": "It looks the same as a.png, which is in validation.",
        }
    )

    name: str
    split: Split
    code: MoveCode
    message: str

    @classmethod
    def of(cls, move: Move) -> Self:
        """Return a move as it goes over the wire."""
        return cls(name=move.name, split=move.split, code=move.code, message=move.message)


class CreatedDatasetOut(DatasetOut):
    """A revision as it was made, and what the caller may not have expected."""

    model_config = shows({**_DATASET, "moves": [MoveOut.example()]})

    moves: list[MoveOut]

    @classmethod
    def of_created(cls, created: CreatedRevision) -> Self:
        """Return a new revision as it goes over the wire."""
        return cls(**_fields(created.revision), moves=[MoveOut.of(move) for move in created.moves])


class DatasetItemOut(Body):
    """A labelled image of a revision. Whoever has the URLs may read the files, for an hour."""

    model_config = shows(
        {
            "name": "a.png",
            "split": "train",
            "group": "part:tile-55",
            "width": 1920,
            "height": 1080,
            "image_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "label_sha256": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
            "image_url": "http://127.0.0.1:8333/defectoscope/objects/sha256/9f/86?X-Amz-Signature=5b1e",
            "label_url": "http://127.0.0.1:8333/defectoscope/objects/sha256/fc/de?X-Amz-Signature=0c77",
        }
    )

    name: str
    split: Split
    group: str = Field(description="images of one group are never on both sides")
    width: int
    height: int
    image_sha256: str
    label_sha256: str
    image_url: str
    label_url: str = Field(description="of the mask file as it was given")

    @classmethod
    def of(cls, item: RevisionItem, services: Services) -> Self:
        """Return a labelled image as it goes over the wire."""
        image, (width, height) = item.image, item.size_wh
        return cls(
            name=image.name,
            split=image.split,
            group=image.group,
            width=width,
            height=height,
            image_sha256=image.image_sha256,
            label_sha256=image.label_sha256,
            image_url=services.signer.presign_get(image.image_key, expires_in_s=EXPIRES_IN_S),
            label_url=services.signer.presign_get(image.label_key, expires_in_s=EXPIRES_IN_S),
        )


def _fields(revision: DatasetRevision) -> dict[str, Any]:
    return {
        "id": revision.id,
        "name": revision.name,
        "number": revision.number,
        "reference": f"{revision.name}@{revision.number}",
        "sha256": revision.sha256,
        "train_count": revision.train_count,
        "val_count": revision.val_count,
        "groups": revision.group_count,
        "created_at": revision.created_at,
    }
