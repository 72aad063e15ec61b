"""A worker names an image in quarantine without touching its content, and notes a suspect before it does."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select

from defectoscope.database import Chunk, JobState, QuarantinedImage
from tests.images import draw_part, encode

GOOD = encode(draw_part(height=64, width=64, seed=1)[0], "PNG")
KILLER = encode(draw_part(height=64, width=64, seed=2)[0], "PNG")


@pytest.mark.parametrize("known_by", ["content", "address"])
def test_an_image_in_quarantine_fails_by_name_and_spares_the_others(bench, known_by):
    sha256 = hashlib.sha256(KILLER).hexdigest() if known_by == "content" else None
    address = "s3://elsewhere/killer.png" if known_by == "content" else bench.uri("in/killer.png")
    with bench.database.transaction() as session:
        session.add(QuarantinedImage(sha256=sha256, source_uri=address, name="killer.png"))
    job_id = bench.submit({"good.png": GOOD, "killer.png": KILLER})

    bench.work(job_id)

    items = bench.items(job_id)
    assert items["killer.png"].item.error_code == "image_quarantined"
    assert items["good.png"].verdict is not None
    assert bench.job(job_id).state is JobState.PARTIAL


def test_the_content_of_a_suspect_is_noted(bench):
    job_id = bench.submit({"killer.png": KILLER}, chunk_size=1)
    with bench.database.transaction() as session:
        session.scalars(select(Chunk)).one().attempts = 1

    bench.work(job_id)

    with bench.database.transaction() as session:
        noted = session.scalars(select(Chunk.suspect_sha256)).one()
    assert noted == hashlib.sha256(KILLER).hexdigest()
    assert bench.job(job_id).state is JobState.SUCCEEDED
