"""The network: where its encoder's weights come from, and what is said when they cannot be had."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import save_file
from structlog.testing import capture_logs

from defectoscope.errors import EncoderWeightsInvalid, InvalidRequest
from trainer.config import TrainingConfig
from trainer.network import Normalise, build_network


def _config(**changes):
    return TrainingConfig.resolve({"encoder": "resnet18", "input_size_wh": (64, 64), **changes})


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A weights hub that nobody listens at, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("no_hub")
def test_an_unreachable_hub_costs_seconds_and_the_encoder_starts_at_random():
    began_at = time.monotonic()

    with capture_logs() as events:
        built = build_network(_config(encoder_weights="imagenet"))

    assert built.encoder_weights_used == "random"
    assert time.monotonic() - began_at < 10
    (warning,) = [event for event in events if event["event"] == "encoder_weights.unavailable"]
    assert warning["log_level"] == "warning"
    assert "give a local file as encoder_weights" in warning["reason"]
    assert warning["consequence"] == "the encoder starts at random"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file_gives_the_encoder_its_weights(tmp_path, suffix):
    donor = build_network(_config(encoder_weights=None)).network.encoder.state_dict()
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".pth":
        torch.save(donor, path)
    else:
        save_file(donor, path)

    built = build_network(_config(encoder_weights=str(path)))

    assert built.encoder_weights_used == path.name
    loaded = built.network.encoder.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in donor.items())


class _RunsCode:
    def __reduce__(self):
        return (print, ("code of the file was run",))


@pytest.mark.parametrize(
    ("name", "write", "sentence"),
    [
        pytest.param("none.pth", lambda _: None, "cannot be read", id="no such file"),
        pytest.param("bad.safetensors", lambda path: path.write_bytes(b"no tensors"), "cannot be read", id="damaged"),
        pytest.param("bad.pth", lambda path: torch.save(_RunsCode(), path), "cannot be read", id="a pickle with code"),
        pytest.param("other.pth", lambda path: torch.save({"a": torch.zeros(1)}, path), "does not fit", id="others"),
        pytest.param("list.pth", lambda path: torch.save([1, 2], path), "does not fit", id="no weights at all"),
    ],
)
def test_a_file_that_holds_no_weights_of_the_encoder_is_refused(tmp_path, capsys, name, write, sentence):
    path = tmp_path / name
    write(path)

    with pytest.raises(EncoderWeightsInvalid, match=sentence):
        build_network(_config(encoder_weights=str(path)))

    assert "code of the file" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"architecture": "NoSuchNet"}, "NoSuchNet", id="architecture"),
        pytest.param({"encoder": "no_such_encoder"}, "no_such_encoder", id="encoder"),
    ],
)
def test_a_network_that_does_not_exist_is_refused(changes, named):
    with pytest.raises(InvalidRequest, match=named):
        build_network(_config(encoder_weights=None, **changes))


def test_normalisation_follows_imagenet():
    image = torch.tensor([[[[0, 255]], [[0, 255]], [[0, 255]]]], dtype=torch.uint8)

    normalised = Normalise()(image)

    expected = torch.tensor([[[[-2.1179, 2.2489]], [[-2.0357, 2.4286]], [[-1.8044, 2.6400]]]])
    assert torch.allclose(normalised, expected, atol=1e-4)
