from __future__ import annotations

import pytest

from defectoscope.database import ItemState, JobState
from defectoscope.inspection.manifests import MAX_LINE_BYTES, PAGE_SIZE
from defectoscope.inspection.sources import Manifest
from defectoscope.inspection.submission import submit_job
from tests.integration.inspection.stores import OWN, memory_buckets, run_enumeration, submit_manifest


def _enumerate(scene, text, *, buckets=None, **limits):
    buckets = buckets or memory_buckets()
    job_id = submit_manifest(scene, buckets, text if isinstance(text, bytes) else text.encode())
    run_enumeration(scene, buckets, job_id, **limits)
    return job_id


def test_the_images_of_a_manifest_come_in_its_order_with_their_names_and_labels(scene):
    job_id = _enumerate(
        scene,
        "\ufeffname,uri,label_uri\r\n"
        f"zwei,s3://{OWN}/b.png,s3://{OWN}/truth/b.png\r\n"
        "\r\n"
        f',s3://{OWN}/lot/a.png,\r\n'
        f'"with, comma and ""quotes""",s3://{OWN}/c.png,\r\n',
    )  # fmt: skip

    items = scene.items(job_id)
    assert [(item.name, item.source_uri, item.label_uri) for item in items] == [
        ("zwei", f"s3://{OWN}/b.png", f"s3://{OWN}/truth/b.png"),
        ("lot/a.png", f"s3://{OWN}/lot/a.png", None),
        ('with, comma and "quotes"', f"s3://{OWN}/c.png", None),
    ]
    assert scene.job(job_id).state is JobState.RUNNING
    assert scene.job(job_id).enumerated_at is not None
    assert scene.job(job_id).pending_images == 3


def test_an_etag_is_pinned_where_it_is_given(scene):
    job_id = _enumerate(scene, f'uri,etag\ns3://{OWN}/a.png,"""abc"""\ns3://{OWN}/b.png,\n')

    assert [item.source_etag for item in scene.items(job_id)] == ['"abc"', None]


def test_an_address_is_enough(scene):
    job_id = _enumerate(scene, f"uri\ns3://{OWN}/a.png\ns3://{OWN}/b.png")

    assert [item.name for item in scene.items(job_id)] == ["a.png", "b.png"]


def test_a_wrong_address_fails_its_image_by_name_and_spares_the_others(scene):
    job_id = _enumerate(
        scene,
        "uri,name,label_uri\n"
        f"http://elsewhere/a.png,a,\ns3://forbidden-bucket/b.png,b,\ns3://{OWN}/c.png,c,nowhere\ns3://{OWN}/d.png,d,\n",
    )

    assert [(item.name, item.state, item.error_code, item.label_error_code) for item in scene.items(job_id)] == [
        ("a", ItemState.FAILED, "invalid_storage_uri", None),
        ("b", ItemState.FAILED, "bucket_not_allowed", None),
        ("c", ItemState.PENDING, None, "invalid_storage_uri"),
        ("d", ItemState.PENDING, None, None),
    ]
    job = scene.job(job_id)
    assert (job.pending_images, job.failed_images, job.label_errors) == (2, 2, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "Line 1", id="empty-file"),
        pytest.param(f"s3://{OWN}/a.png\n", "Line 1", id="no-header"),
        pytest.param("uri,uri\n", "Line 1", id="column-twice"),
        pytest.param("uri,colour\n", "Line 1", id="unknown-column"),
        pytest.param("uri,name\ns3://b-1/a.png\n", "Line 2", id="too-few-values"),
        pytest.param("uri\n\ns3://b-1/a.png,a\n", "Line 3", id="too-many-values"),
        pytest.param(f"uri\ns3://{OWN}/a.png\ns3://{OWN}/a.png\n", "Line 3", id="name-twice"),
        pytest.param('uri\n"s3://b-1/a".png\n', "Line 2", id="wrong-quotes"),
        pytest.param("uri\n" + "x" * MAX_LINE_BYTES + "\n", "Line 2", id="overlong-line"),
        pytest.param(b"uri\ns3://b-1/\xff.png\n", "Line 2", id="not-utf-8"),
        pytest.param(f"uri,name\ns3://{OWN}/a.png,{'n' * 1025}\n", "Line 2", id="overlong-name"),
        pytest.param("uri\n,\n", "Line 2", id="values-without-columns"),
    ],
)
def test_a_manifest_that_cannot_be_read_ends_the_job_with_the_number_of_the_line(scene, text, words):
    job_id = _enumerate(scene, text)

    job = scene.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "manifest_invalid")
    assert words in job.error_message


def test_a_name_that_a_page_before_has_ends_the_job_with_the_number_of_the_line(scene):
    lines = [f"s3://{OWN}/{number}.png" for number in range(PAGE_SIZE + 5)]

    job_id = _enumerate(scene, "\n".join(["uri", *lines, lines[7]]))

    job = scene.job(job_id)
    assert (job.state, job.error_code) == (JobState.RUNNING, "manifest_invalid")
    assert f"Line {PAGE_SIZE + 7} " in job.error_message
    assert job.pending_images == len(scene.items(job_id)) == PAGE_SIZE


def test_what_was_enumerated_before_a_bad_line_runs_to_its_end(scene):
    lines = [f"s3://{OWN}/{number}.png" for number in range(PAGE_SIZE)]

    job_id = _enumerate(scene, "\n".join(["uri", *lines, "a,b"]))
    for chunk_id in scene.owed(job_id):
        scene.finish(chunk_id, defects=())

    job = scene.job(job_id)
    assert (job.state, job.error_code, job.succeeded_images) == (JobState.PARTIAL, "manifest_invalid", PAGE_SIZE)


def test_a_manifest_without_images_is_no_job(scene):
    job_id = _enumerate(scene, "uri\n")

    assert (scene.job(job_id).state, scene.job(job_id).error_code) == (JobState.FAILED, "no_images_found")


def test_an_enumeration_goes_on_after_the_page_that_was_recorded_last(scene):
    names = [f"{number}.png" for number in range(2 * PAGE_SIZE + 3)]
    buckets = memory_buckets()
    job_id = submit_manifest(scene, buckets, "\n".join(["uri", *(f"s3://{OWN}/{name}" for name in names)]).encode())
    run_enumeration(scene, buckets, job_id)
    # As a kill after the first page would have left it.
    scene.execute("DELETE FROM job_items WHERE id > 1000")
    scene.execute("DELETE FROM chunks WHERE id > 63")
    first_line_bytes = len("uri\n") + sum(len(f"s3://{OWN}/{name}\n") for name in names[:PAGE_SIZE])
    etag = buckets.own.head("images.csv").etag
    cursor = f"[{_json(etag)}, {first_line_bytes}, {PAGE_SIZE + 1}]"
    scene.execute(f"UPDATE jobs SET enumerated_at = NULL, enumeration_cursor = '{cursor}'")  # noqa: S608

    run_enumeration(scene, buckets, job_id)

    assert [item.name for item in scene.items(job_id)] == names


def test_a_manifest_that_was_replaced_meanwhile_ends_the_job(scene):
    buckets = memory_buckets()
    job_id = submit_manifest(scene, buckets, f"uri\ns3://{OWN}/a.png\n".encode())
    scene.execute("""UPDATE jobs SET enumeration_cursor = '["other", 4, 1]'""")

    run_enumeration(scene, buckets, job_id)

    assert (scene.job(job_id).state, scene.job(job_id).error_code) == (JobState.FAILED, "source_changed")


def test_a_manifest_above_the_limit_or_missing_ends_the_job(scene):
    large = _enumerate(scene, f"uri\ns3://{OWN}/a.png\n", max_manifest_bytes=10)
    request = scene.request(Manifest(uri=f"s3://{OWN}/missing.csv"))
    missing = submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=16)
    run_enumeration(scene, memory_buckets(), missing)

    assert [scene.job(job_id).error_code for job_id in (large, missing)] == ["object_too_large", "object_not_found"]


def _json(text):
    return "null" if text is None else '"' + text.replace('"', '\\"') + '"'
