"""A dataset revision of drawn parts on the real servers, and a way to start the trainer's own process on a run."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from defectoscope.database import Image, Label, Split, TrainingRun, TrainingRunState
from defectoscope.dataset import RevisionEntry, create_revision
from defectoscope.segmentation import encode_mask
from defectoscope.storage import content_key, put_content
from defectoscope.training import request_training
from tests.images import draw_part, encode

#: The mission's architecture on the smallest encoder there is for it.
RECIPE = {
    "encoder": "tu-resnet10t",
    "encoder_weights": None,
    "input_size_wh": [64, 64],
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
}


def _add_part(session, storage, *, number):
    height, width = (64, 64) if number % 2 else (56, 80)
    pixels, class_mask = draw_part(height=height, width=width, seed=number, with_defect=number % 4 != 3)
    data = encode(pixels, "PNG")
    sha256 = put_content(storage, data, content_type="image/png")
    image = Image(
        sha256=sha256,
        key=content_key(sha256),
        size_bytes=len(data),
        width=width,
        height=height,
        format="PNG",
        source_mode="RGB",
    )
    session.add(image)
    session.flush()
    label_sha256 = put_content(storage, encode_mask(class_mask), content_type="image/png")
    label = Label(
        image_id=image.id,
        key=content_key(label_sha256),
        sha256=label_sha256,
        source="import",
        defect_px=int(class_mask.sum()),
    )
    session.add(label)
    session.flush()
    return label.id


@pytest.fixture
def revision(database, storage):
    """Six parts to train on and three to validate on."""
    with database.transaction() as session:
        entries = [
            RevisionEntry(
                label_id=_add_part(session, storage, number=number),
                name=f"part-{number}.png",
                split=Split.VAL if number >= 6 else Split.TRAIN,
            )
            for number in range(9)
        ]
    return create_revision(database=database, storage=storage, name="parts", entries=entries).revision


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Asks for runs and starts the trainer's process on them, with the settings of a test in its environment."""

    database: object
    queue: object
    environment: dict[str, str]

    def request(self, revision, **changes):
        with self.database.transaction() as session:
            return request_training(
                session=session,
                queue=self.queue,
                dataset_revision_id=revision.id,
                config={**RECIPE, **changes},
            )

    def start(self, run_id):
        return self._start("trainer", "run", str(run_id))

    def start_worker(self):
        """Start a Celery worker as `defectoscope up` does."""
        options = ("-Q", "training", "-P", "threads", "-c", "2", "--without-mingle", "--without-gossip")
        return self._start("celery", "--quiet", "-A", "trainer.app", "worker", *options)

    def _start(self, module, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def row(self, run_id):
        with self.database.transaction() as session:
            return session.scalars(select(TrainingRun).where(TrainingRun.id == run_id)).one()

    def is_running(self, run_id):
        return self.row(run_id).state is TrainingRunState.RUNNING


@pytest.fixture
def trainer(settings, database, queue, tmp_path):
    """The trainer's process, ready to be started."""
    environment = {
        **os.environ,
        "DEFECTOSCOPE_CONNECTION_FILE": str(tmp_path / "no-connection.env"),
        "DEFECTOSCOPE_DATABASE__URL": settings.database.url.get_secret_value(),
        "DEFECTOSCOPE_QUEUE__URL": settings.queue.url.get_secret_value(),
        "DEFECTOSCOPE_QUEUE__KEY_PREFIX": settings.queue.key_prefix,
        "DEFECTOSCOPE_STORAGE__ENDPOINT_URL": settings.storage.endpoint_url,
        "DEFECTOSCOPE_STORAGE__REGION": settings.storage.region,
        "DEFECTOSCOPE_STORAGE__ACCESS_KEY": settings.storage.access_key,
        "DEFECTOSCOPE_STORAGE__SECRET_KEY": settings.storage.secret_key.get_secret_value(),
        "DEFECTOSCOPE_STORAGE__BUCKET": settings.storage.bucket,
        "DEFECTOSCOPE_TRAINER__DEVICE": "cpu",
        "DEFECTOSCOPE_TRAINER__WORK_DIR": str(tmp_path / "work"),
        "DEFECTOSCOPE_TRAINER__LEASE_S": "30",
        # Three validation images are too few to judge by, and two epochs too few to learn much.
        "DEFECTOSCOPE_GATE__MIN_GROUPS": "1",
        "DEFECTOSCOPE_GATE__FIRST_MIN_IOU": "0",
        "DEFECTOSCOPE_GATE__MIN_POOLED_IOU": "0.0001",
        "OMP_NUM_THREADS": "1",
    }
    return Trainer(database=database, queue=queue, environment=environment)
