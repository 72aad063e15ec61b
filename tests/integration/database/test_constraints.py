from __future__ import annotations

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from defectoscope.database import (
    Chunk,
    DefectRow,
    Image,
    Job,
    JobItem,
    Label,
    ModelVersion,
    QaScore,
    Result,
    TrainingRun,
)

SHA256 = "0" * 64
IMAGE = {
    "sha256": SHA256,
    "key": "k",
    "size_bytes": 1,
    "width": 4,
    "height": 3,
    "format": "PNG",
    "source_mode": "RGB",
}
DEFECT = {
    "result_id": 1,
    "number": 1,
    "x_min": 0,
    "y_min": 0,
    "x_max": 1,
    "y_max": 1,
    "area_px": 1,
    "centroid_x": 0.0,
    "centroid_y": 0.0,
    "major_axis_px": 1.0,
    "minor_axis_px": 1.0,
    "orientation_deg": 0.0,
    "perimeter_px": 1.0,
    "max_probability": 1.0,
    "mean_probability": 1.0,
    "touches_border": False,
}
RESULT = {
    "image_id": 1,
    "model_version_id": 1,
    "params_sha256": SHA256,
    "verdict": "clean",
    "defect_px": 0,
    "defect_count": 0,
    "threshold": 0.5,
    "min_area_px": 1,
    "mask_key": "k",
    "mask_sha256": SHA256,
    "variant": "fp32",
    "provider": "p",
    "runtime_version": "1",
    "latency_ms": 1.0,
}
JOB = {"source": {}, "params": {}, "model_version_id": 1, "request_sha256": SHA256}


_COLUMNS = ", ".join(RESULT)
TWICE = f"INSERT INTO results ({_COLUMNS}) SELECT {_COLUMNS} FROM results"  # noqa: S608 -- our own names


@pytest.fixture
def filled(database):
    """One row in each table that others point to."""
    with database.transaction() as session:
        session.execute(insert(ModelVersion).values(number=1, contract={}))
        session.execute(insert(Image).values(**IMAGE))
        session.execute(insert(Job).values(**JOB))
        session.execute(insert(Chunk).values(job_id=1))
        session.execute(insert(JobItem).values(job_id=1, chunk_id=1, name="a.png", source_uri="s3://b/a.png"))
        session.execute(insert(Result).values(**RESULT))
        session.execute(insert(DefectRow).values(**DEFECT))
        session.execute(insert(Label).values(image_id=1, key="k", sha256=SHA256, defect_px=0, source="x"))
        session.execute(insert(QaScore), [{"result_id": 1, "label_id": 1, "tp": 0, "fp": 0, "fn": 0, "tn": 12}])
        session.execute(
            text(
                "INSERT INTO dataset_revisions (name, number, sha256, manifest_key, train_count, val_count)"
                " VALUES ('d', 1, '0', 'k', 1, 1)"
            )
        )
        session.execute(insert(TrainingRun).values(dataset_revision_id=1, config={}))
    return database


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        pytest.param("UPDATE jobs SET state = 'sleeping'", "jobstate", id="job-state"),
        pytest.param("UPDATE chunks SET state = 'failed'", "chunkstate", id="chunk-state"),
        pytest.param("UPDATE job_items SET state = 'RUNNING'", "itemstate", id="item-state"),
        pytest.param("UPDATE results SET verdict = 'maybe'", "verdict", id="verdict"),
        pytest.param("UPDATE training_runs SET state = 'cancelled'", "trainingrunstate", id="run-state"),
        pytest.param("UPDATE images SET width = 0", "ck_images_size", id="image-width"),
        pytest.param("UPDATE images SET height = -1", "ck_images_size", id="image-height"),
        pytest.param("UPDATE defects SET area_px = 0", "ck_defects_area", id="defect-area"),
        pytest.param("UPDATE qa_scores SET fn = -1", "ck_qa_scores_counts", id="negative-count"),
        pytest.param("UPDATE model_versions SET number = 0", "ck_model_versions_number", id="version-number"),
        pytest.param("UPDATE job_items SET chunk_id = 99", "fk_job_items_chunk_id_chunks", id="no-such-chunk"),
        pytest.param("DELETE FROM images", "fk_", id="image-in-use"),
        pytest.param(
            "INSERT INTO job_items (job_id, name, source_uri) VALUES (1, 'a.png', 'x')",
            "uq_job_items_job_id_name",
            id="name-twice-in-a-job",
        ),
        pytest.param(
            TWICE,
            "uq_results_image_id_model_version_id_params_sha256",
            id="result-twice",
        ),
    ],
)
def test_the_database_refuses_a_row_that_breaks_a_rule(filled, statement, constraint):
    with pytest.raises(IntegrityError) as caught, filled.transaction() as session:
        session.execute(text(statement))

    assert constraint in str(caught.value.orig)
