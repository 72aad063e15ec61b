from __future__ import annotations

import threading

from structlog.contextvars import get_contextvars

from defectoscope.inspection.chunks import ClaimedChunk, ClaimedItem
from defectoscope.inspection.params import JobParams, Overlays
from worker.log_context import about_chunk, about_image, about_job
from worker.repeating import Repeating

ITEM = ClaimedItem(item_id=5, name="a/b.png", source_uri="s3://b/k", source_etag=None, label_uri=None)
CHUNK = ClaimedChunk(
    chunk_id=2,
    job_id=1,
    token=1,
    model_version=1,
    model_version_id=1,
    params=JobParams(threshold=0.5, min_area_px=1, overlays=Overlays.NONE, mm_per_px=None, qa_min_iou=0.5),
    items=(ITEM,),
)


def test_lines_about_an_image_name_its_chunk_and_its_job():
    with about_chunk(CHUNK):
        with about_image(ITEM):
            within = get_contextvars()
        between = get_contextvars()

    assert within == {"job": 1, "chunk": 2, "item": 5, "image": "a/b.png"}
    assert between == {"job": 1, "chunk": 2}
    assert get_contextvars() == {}


def test_lines_about_a_job_name_it():
    with about_job(7):
        assert get_contextvars() == {"job": 7}


def test_what_is_repeated_for_a_chunk_names_it_from_its_own_thread():
    seen = []
    looked = threading.Event()

    def look():
        seen.append((threading.current_thread().name, get_contextvars()))
        looked.set()
        return False

    with about_chunk(CHUNK), Repeating(look, interval_s=0.01, name="lease-2"):
        assert looked.wait(10)

    assert seen == [("lease-2", {"job": 1, "chunk": 2})]
