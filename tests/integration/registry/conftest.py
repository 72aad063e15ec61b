"""Versions with small files, dataset revisions with images, and what was scored on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from defectoscope.database import (
    Champion,
    DatasetItem,
    DatasetRevision,
    Event,
    Image,
    Label,
    ModelVersion,
    Promotion,
    Split,
)
from defectoscope.registry import (
    ImageEvaluation,
    VariantFile,
    promote,
    publish,
    record_evaluation,
    retire,
    rollback,
)
from defectoscope.segmentation import PixelCounts
from defectoscope.storage import open_memory
from tests.models import CONTRACT


@pytest.fixture
def storage():
    return open_memory()


@dataclass(frozen=True)
class Registry:
    """What tests do to a registry, and what they look up in it."""

    database: object
    storage: object
    directory: Path

    def publish(self, *, precisions=("fp32",), weights=None, contract=CONTRACT, **origin):
        """Publish a version whose files are a few bytes that hold its number; return the number."""

        def build(numbered):
            files = []
            for precision in precisions:
                path = self.directory / f"{numbered.version}-{precision}.onnx"
                path.write_bytes(f"{precision} of {numbered.version}".encode())
                files.append(VariantFile(precision=precision, path=path, parity={"mask_iou": 1.0}))
            return files

        weights_path = None
        if weights is not None:
            weights_path = self.directory / "weights.safetensors"
            weights_path.write_bytes(weights)
        return publish(
            database=self.database,
            storage=self.storage,
            contract=contract,
            build=build,
            weights_path=weights_path,
            **{"training_run_id": None, "dataset_revision_id": None, **origin},
        )

    def put(self, *numbers, **given):
        """Promote versions one after the other."""
        for number in numbers:
            told = {"actor": "ann", "reason": "better", "figures": {}} | given
            promote(database=self.database, number=number, **told)

    def back(self, **given):
        """Roll back and return the version that is in service then."""
        return rollback(database=self.database, **{"actor": "bob", "reason": "false calls", **given}).number

    def withdraw(self, number, **given):
        """Retire a version."""
        told = {"storage": self.storage, "actor": "ann", "reason": "bad labels"} | given
        retire(database=self.database, number=number, **told)

    def storage_keys(self):
        """Where model files lie."""
        return [entry.key for entry in self.storage.list("models/")]

    def version(self, number):
        with self.database.transaction() as session:
            return session.scalars(select(ModelVersion).where(ModelVersion.number == number)).one()

    def champion(self):
        """The number of the version in service, or None."""
        with self.database.transaction() as session:
            return session.scalar(
                select(ModelVersion.number).join(Champion, Champion.model_version_id == ModelVersion.id)
            )

    def ledger(self):
        """Action and version of every line, oldest first."""
        with self.database.transaction() as session:
            rows = session.execute(
                select(Promotion.action, ModelVersion.number)
                .join(ModelVersion, ModelVersion.id == Promotion.model_version_id)
                .order_by(Promotion.id)
            )
            return [(action.value, number) for action, number in rows]

    def events(self):
        """Every event, oldest first."""
        with self.database.transaction() as session:
            return session.scalars(select(Event).order_by(Event.id)).all()

    def add_revision(self, images, *, number=1, groups=None):
        """Record a revision of "steel" whose validation side holds so many images; return its id and theirs."""
        with self.database.transaction() as session:
            revision = DatasetRevision(
                name="steel", number=number, sha256=f"{number:064x}", manifest_key="k", train_count=1, val_count=images
            )
            session.add(revision)
            session.flush()
            image_ids = []
            for index in range(images):
                sha256 = f"{index:064x}"
                image = session.scalar(select(Image).where(Image.sha256 == sha256))
                if image is None:
                    image = Image(
                        sha256=sha256, key=sha256, size_bytes=1, width=10, height=10, format="PNG", source_mode="RGB"
                    )
                    session.add(image)
                    session.flush()
                    session.add(Label(image_id=image.id, key="k", sha256=sha256, defect_px=1, source="dataset:steel"))
                    session.flush()
                label = session.scalars(select(Label).where(Label.image_id == image.id)).one()
                session.add(
                    DatasetItem(
                        revision_id=revision.id,
                        image_id=image.id,
                        label_id=label.id,
                        name=f"{index}.png",
                        split=Split.VAL,
                        group_key="" if groups is None else groups[index],
                    )
                )
                image_ids.append(image.id)
            return revision.id, image_ids

    def score(self, number, revision_id, tp_of, *, precision="fp32"):
        """Record an evaluation: of 10 defect pixels in each image, so many were found."""
        entries = [
            ImageEvaluation(image_id=image_id, counts=PixelCounts(tp, 0, 10 - tp, 90)) for image_id, tp in tp_of.items()
        ]
        with self.database.transaction() as session:
            return record_evaluation(
                session, number=number, revision_id=revision_id, precision=precision, entries=entries
            )


@pytest.fixture
def registry(database, storage, tmp_path):
    return Registry(database, storage, tmp_path)
