"""An image that took down its workers is named at once by later jobs, until somebody lets it out."""

from __future__ import annotations

import pytest

from defectoscope.database import QuarantinedImage
from defectoscope.errors.jobs import QuarantinedImageNotFound
from defectoscope.inspection.leases import Release, release_chunk
from defectoscope.inspection.quarantine import list_quarantined, note_suspect, release_image
from defectoscope.inspection.sources import ExplicitImages
from defectoscope.inspection.submission import submit_job
from tests.integration.inspection.scene import named

SHA256 = "a" * 64


def _submit_one(scene, name="killer.png", **facts):
    source = ExplicitImages(images=(named(name, **facts),))
    return submit_job(database=scene.database, queue=scene.queue, request=scene.request(source), chunk_size=1)


def _lose_three_workers(scene, *, sha256=None):
    for _ in range(3):
        chunk = scene.claim_next()
        if sha256 is not None and chunk.is_suspect:
            note_suspect(database=scene.database, chunk=chunk, sha256=sha256)
        scene.expire_leases()
    scene.reconcile()


def _quarantine(scene):
    with scene.database.transaction() as session:
        return list_quarantined(session)


def test_an_image_that_was_never_read_is_known_by_its_address_and_etag(scene):
    job_id = _submit_one(scene, etag="e1")
    _lose_three_workers(scene)

    (image,) = _quarantine(scene)
    assert (image.sha256, image.source_uri, image.source_etag) == (None, "s3://bucket/killer.png", "e1")
    assert (image.name, image.job_id) == ("killer.png", job_id)


@pytest.mark.parametrize(
    ("name", "etag", "is_quarantined"),
    [
        pytest.param("killer.png", "e1", True, id="the-same"),
        pytest.param("killer.png", "e2", False, id="other-bytes-there"),
        pytest.param("killer.png", None, False, id="bytes-unknown"),
        pytest.param("other.png", "e1", False, id="another-address"),
    ],
)
def test_a_later_job_hears_of_an_address_in_quarantine(scene, name, etag, is_quarantined):
    _submit_one(scene, etag="e1")
    _lose_three_workers(scene)

    _submit_one(scene, name, etag=etag)
    chunk = scene.claim_next()

    assert [item.is_quarantined for item in chunk.items] == [is_quarantined]
    assert chunk.quarantined_sha256s == frozenset()


def test_an_image_that_was_read_is_known_by_its_content_wherever_it_is(scene):
    _submit_one(scene)
    _lose_three_workers(scene, sha256=SHA256)

    _submit_one(scene, "copy.png")
    chunk = scene.claim_next()

    assert [image.sha256 for image in _quarantine(scene)] == [SHA256]
    assert chunk.quarantined_sha256s == {SHA256}
    assert not chunk.items[0].is_quarantined


def test_only_an_image_alone_after_a_fault_is_suspect(scene):
    scene.submit(images=2, chunk_size=2)
    first = scene.claim_next()
    scene.expire_leases()
    together = scene.claim_next()
    scene.expire_leases()
    scene.reconcile()
    alone = scene.claim_next()
    scene.expire_leases()
    again = scene.claim(alone.chunk_id)

    assert [chunk.is_suspect for chunk in (first, together, alone, again)] == [False, False, False, True]


def test_a_holder_that_was_overtaken_notes_nothing(scene):
    (chunk_id,) = scene.owed(scene.submit(images=1))
    late = scene.claim_next()
    scene.expire_leases()
    scene.claim_next()

    note_suspect(database=scene.database, chunk=late, sha256=SHA256)

    assert scene.chunk(chunk_id).suspect_sha256 is None


def test_the_same_image_is_in_quarantine_once(scene):
    for _ in range(2):
        _submit_one(scene)
        _lose_three_workers(scene)

    assert len(_quarantine(scene)) == 1


def test_an_image_whose_work_ended_in_an_error_of_ours_is_not_in_quarantine(scene):
    _submit_one(scene)
    for _ in range(3):
        release_chunk(database=scene.database, chunk=scene.claim_next(), why=Release.BROKEN, fault="Error")
        scene.wake_up()
    scene.reconcile()

    assert scene.count(QuarantinedImage) == 0


def test_an_image_that_is_let_out_is_handed_to_workers_again(scene):
    _submit_one(scene)
    _lose_three_workers(scene)
    (image,) = _quarantine(scene)

    released = release_image(database=scene.database, quarantined_id=image.id)

    _submit_one(scene)
    assert released.name == "killer.png"
    assert _quarantine(scene) == []
    assert not scene.claim_next().items[0].is_quarantined


def test_what_is_not_in_quarantine_cannot_be_let_out(scene):
    with pytest.raises(QuarantinedImageNotFound):
        release_image(database=scene.database, quarantined_id=1)
