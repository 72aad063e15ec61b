"""What every peer does alike, and what is asked of them."""

from __future__ import annotations

import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers.running import PEERS, PeerFailed, make_environment, run_peer
from benchmarks.peers.steps import Work, decode, encode


@pytest.fixture
def work():
    return Work(
        endpoint_url="http://127.0.0.1:1",
        region="us-east-1",
        bucket="images",
        keys=("in/0.jpg", "in/1.jpg"),
        warm_up_keys=("in/0.jpg",),
        mask_prefix="masks/loop",
        model="model.onnx",
        weights="weights.safetensors",
        encoder="resnet101",
        size_wh=(64, 32),
        threshold=0.5,
        batch_size=8,
        threads=2,
        session_entries={},
    )


def test_work_arrives_as_it_was_sent(work):
    arrived = Work.from_json(work.to_json())

    assert arrived == work


def test_the_mask_of_an_image_has_a_key_of_its_own(work):
    keys = {work.mask_key(key) for key in work.keys}

    assert keys == {"masks/loop/0.jpg.png", "masks/loop/1.jpg.png"}


def test_a_peer_brings_an_image_to_the_models_size_and_remembers_its_own():
    jpeg = BytesIO()
    Image.new("L", (640, 480), 200).save(jpeg, "JPEG")

    pixels, size_wh = decode(jpeg.getvalue(), (64, 32))

    assert (pixels.shape, pixels.dtype, size_wh) == ((32, 64, 3), np.uint8, (640, 480))


def test_a_peers_mask_has_the_images_size_and_is_white_where_the_model_is_sure():
    probabilities = np.zeros((32, 64), dtype=np.uint8)
    probabilities[:, 32:] = 255

    mask = np.asarray(Image.open(BytesIO(encode(probabilities, (640, 320), threshold=0.5))))

    assert (mask.shape, mask[:, 330:].all(), mask[:, :310].any()) == ((320, 640), True, False)


def test_a_peer_without_requirements_of_its_own_runs_in_our_environment(tmp_path):
    (notebook,) = [peer for peer in PEERS if peer.module == "notebook"]

    python = make_environment(notebook, directory=tmp_path)

    assert str(python) == sys.executable
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.requirements], ids=lambda peer: peer.module)
def test_the_packages_of_a_peer_are_pinned(peer):
    lines = peer.requirements.read_text().split()

    assert all(line.count("==") == 1 for line in lines)
    assert any(line.startswith("onnxruntime==1.31.") for line in lines)


def test_a_peer_that_ends_early_fails_with_what_it_said(work, tmp_path):
    (loop,) = [peer for peer in PEERS if peer.module == "pillow_loop"]
    environment = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}

    with pytest.raises(PeerFailed, match="ended early") as failed:
        run_peer(loop, work, python=sys.executable, environment=environment, log=tmp_path / "log")

    assert "model.onnx" in str(failed.value)
