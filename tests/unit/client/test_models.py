"""Downloads of model files against a storage that fails. A good one is shown against the real storage."""

from __future__ import annotations

import hashlib

import pytest

from defectoscope.client import Client
from defectoscope.errors.api import ApiUnavailable, InvalidRequest
from defectoscope.errors.models import ModelWeightsDropped
from defectoscope.errors.storage import ObjectNotFound, StorageDenied, StorageFault, StorageUnavailable
from tests.unit.client.conftest import RESET, Answer, refuse

CONTENT = b"content of a model"


@pytest.fixture
def download(serve, tmp_path):
    """Download a file from a storage with one answer; return what is on disk afterwards, by name."""

    def run(answer, *, path=tmp_path / "model.onnx"):
        storage = serve(answer)
        file = {"url": f"{storage.url}/bucket/key?signed", "sha256": hashlib.sha256(CONTENT).hexdigest()}
        with Client(serve(Answer(200, file)).url) as client:
            try:
                client.models.download(1, "fp32", path)
            finally:
                run.left = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
        return run.left

    return run


def test_a_whole_file_appears_under_its_name(download):
    assert download(Answer(200, CONTENT)) == {"model.onnx": CONTENT}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(Answer(200, b"other content"), StorageFault, id="other content"),
        pytest.param(Answer(403), StorageDenied, id="403"),
        pytest.param(Answer(404), ObjectNotFound, id="404"),
        pytest.param(Answer(418), StorageFault, id="418"),
        pytest.param(Answer(503), StorageUnavailable, id="503"),
        pytest.param(RESET, StorageUnavailable, id="reset"),
    ],
)
def test_a_download_that_fails_is_named_and_leaves_nothing(download, answer, error):
    with pytest.raises(error):
        download(answer)

    assert download.left == {}


def test_a_folder_that_is_not_there_is_named(download, tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be written"):
        download(Answer(200, CONTENT), path=tmp_path / "no" / "model.onnx")


def test_a_refusal_of_the_api_keeps_its_name(serve, tmp_path):
    api = serve(refuse(409, "model_weights_dropped", "The files of model version 1 were dropped."))

    with Client(api.url) as client, pytest.raises(ModelWeightsDropped, match="model version 1"):
        client.models.download(1, "fp32", tmp_path / "model.onnx")


def test_a_decision_whose_answer_is_lost_is_not_sent_again(serve):
    api = serve(Answer(503), Answer(200, {}))

    with Client(api.url) as client, pytest.raises(ApiUnavailable, match="server is away"):
        client.models.promote(2, actor="ann", reason="better", expected_champion=None)

    assert [seen.method for seen in api.seen] == ["POST"]
    assert b'"expected_champion":null' in api.seen[0].body.replace(b" ", b"")


def test_a_champion_that_nobody_named_is_not_sent(serve):
    api = serve(Answer(200, {}))

    with Client(api.url) as client:
        client.models.roll_back(actor="ann", reason="worse")

    assert b"expected_champion" not in api.seen[0].body
