from __future__ import annotations

import pytest

from defectoscope.training import claim_run, release_run
from trainer.stored_checkpoints import StoredCheckpoints


@pytest.fixture
def claim(trainer, revision, database):
    run_id = trainer.request(revision)

    def claim():
        return claim_run(database=database, run_id=run_id, owner="test", lease_s=60)

    return claim


@pytest.fixture
def keys(storage):
    return lambda: [info.key for info in storage.list("training/")]


def _write(path, content):
    path.write_bytes(content)
    return path


def test_a_run_that_begins_has_no_checkpoint(claim, database, storage, tmp_path):
    checkpoints = StoredCheckpoints(claim(), database=database, storage=storage)

    assert checkpoints.fetch(tmp_path) is None


def test_another_trainer_gets_the_last_checkpoint_and_only_that_is_kept(claim, database, storage, tmp_path, keys):
    run = claim()
    checkpoints = StoredCheckpoints(run, database=database, storage=storage)
    for epoch in (1, 2):
        checkpoints.save(_write(tmp_path / "checkpoint", b"epoch %d" % epoch), epoch)
    release_run(database=database, run=run, count_attempt=False)

    second = claim()
    fetched = StoredCheckpoints(second, database=database, storage=storage).fetch(tmp_path)

    assert second.checkpoint.epoch == 2
    assert fetched.read_bytes() == b"epoch 2"
    assert keys() == [second.checkpoint.key]


def test_a_trainer_that_lost_its_run_does_not_disturb_its_successor(claim, database, storage, tmp_path):
    run = claim()
    late = StoredCheckpoints(run, database=database, storage=storage)
    late.save(_write(tmp_path / "checkpoint", b"first"), 1)
    release_run(database=database, run=run, count_attempt=False)
    second = claim()

    late.save(_write(tmp_path / "checkpoint", b"late"), 2)

    fetched = StoredCheckpoints(second, database=database, storage=storage).fetch(tmp_path)
    assert fetched.read_bytes() == b"first"


@pytest.mark.parametrize("harm", ["gone", "altered"])
def test_a_checkpoint_that_is_not_what_was_recorded_is_not_used(claim, database, storage, tmp_path, harm):
    run = claim()
    StoredCheckpoints(run, database=database, storage=storage).save(_write(tmp_path / "checkpoint", b"first"), 1)
    release_run(database=database, run=run, count_attempt=False)
    second = claim()
    if harm == "gone":
        storage.delete([second.checkpoint.key])
    else:
        storage.put(second.checkpoint.key, b"other", content_type="application/octet-stream")

    assert StoredCheckpoints(second, database=database, storage=storage).fetch(tmp_path) is None


def test_nothing_is_left_when_the_run_needs_it_no_more(claim, database, storage, tmp_path, keys):
    checkpoints = StoredCheckpoints(claim(), database=database, storage=storage)
    checkpoints.save(_write(tmp_path / "checkpoint", b"first"), 1)

    checkpoints.forget()

    assert keys() == []
