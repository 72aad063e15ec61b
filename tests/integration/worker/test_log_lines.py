"""The log of a worker, as far as it tells which work a line is about."""

from __future__ import annotations

import pytest
import structlog
from structlog.contextvars import merge_contextvars

from tests.images import draw_part, encode

IDS = ("job", "chunk", "item", "image")


@pytest.fixture
def logs():
    """The events of the process, each with the ids that are bound where it is logged."""
    with structlog.testing.capture_logs(processors=[merge_contextvars]) as captured:
        yield captured


def of(logs, event):
    return [{name: line.get(name) for name in (*IDS, "code")} for line in logs if line["event"] == event]


def test_a_line_about_a_failing_image_names_it_its_chunk_and_its_job(bench, logs):
    good = encode(draw_part(height=64, width=64, seed=1)[0], "PNG")
    # The first is refused when it is fetched, the second when it is decoded: in other threads than the chunk's.
    job_id = bench.submit({"good.png": good, "none.png": b"no image", "half.png": good[: len(good) // 2]})
    (chunk_id,) = bench.owed(job_id)

    bench.work(job_id)

    items = {name: view.item.id for name, view in bench.items(job_id).items()}
    expected = [
        {"job": job_id, "chunk": chunk_id, "item": items[name], "image": name, "code": view.item.error_code}
        for name, view in bench.items(job_id).items()
        if name != "good.png"
    ]
    assert sorted(of(logs, "image.failed"), key=lambda line: line["item"]) == expected
    assert of(logs, "chunk.completed") == [
        {"job": job_id, "chunk": chunk_id, "item": None, "image": None, "code": None}
    ]


def test_a_line_about_a_bad_label_names_its_image(bench, logs):
    image = encode(draw_part(height=64, width=64, seed=1)[0], "PNG")
    job_id = bench.submit({"a.png": image}, labels={"a.png": b"no label"})

    bench.work(job_id)

    (item,) = bench.items(job_id).values()
    (line,) = of(logs, "label.failed")
    assert (line["job"], line["item"], line["image"]) == (job_id, item.item.id, "a.png")
    assert line["code"] == item.item.label_error_code
