"""The network: where its encoder's weights come from, and what is said when they cannot be had."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import save_file
from structlog.testing import capture_logs

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.training import EncoderWeightsInvalid
from trainer.config import TrainingConfig
from trainer.network import Normalise, build_network
from trainer.weights import copy_weights, save_weights


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


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    """Weights of a whole network, as a version in service has them."""
    config = _config(encoder_weights=None)
    weights = copy_weights(build_network(config).network)
    path = tmp_path_factory.mktemp("champion") / "weights.safetensors"
    save_weights(weights, path, config=config)
    return path, weights


def test_a_network_goes_on_from_the_champion_and_asks_no_hub(champion):
    path, weights = champion

    built = build_network(_config(start="champion", encoder_weights="imagenet"), initial_weights=path)

    loaded = built.network.state_dict()
    assert (built.encoder_weights_used, built.start_note) == ("champion", None)
    assert all(torch.equal(value, loaded[name]) for name, value in weights.items())


def test_a_network_from_scratch_does_not_look_at_the_champion(champion):
    path, weights = champion

    built = build_network(_config(encoder_weights=None), initial_weights=path)

    assert built.start_note is None
    assert not torch.equal(
        built.network.state_dict()["segmentation_head.0.weight"], weights["segmentation_head.0.weight"]
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"encoder": "resnet34"}, "of DeepLabV3Plus with resnet18, and the recipe asks for", id="encoder"),
        pytest.param({"architecture": "Unet"}, "asks for Unet with resnet18", id="architecture"),
    ],
)
def test_a_champion_of_another_network_is_not_used_and_the_note_says_why(champion, changes, reason):
    path, _ = champion

    with capture_logs() as events:
        built = build_network(_config(start="champion", encoder_weights=None, **changes), initial_weights=path)

    assert built.encoder_weights_used == "random"
    assert built.start_note.startswith("The network does not start from the champion: they are")
    assert reason in built.start_note
    assert [event["event"] for event in events] == ["champion_weights.not_used"]


def test_tensors_without_a_head_are_judged_by_name_and_size(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)

    built = build_network(_config(start="champion", encoder_weights=None), initial_weights=path)

    assert "their tensors have other names or sizes" in built.start_note


def test_where_no_weights_of_the_champion_are_kept_the_note_says_so():
    built = build_network(_config(start="champion", encoder_weights=None))

    assert built.start_note == "The network does not start from the champion: no weights of it are kept."


def test_damaged_weights_of_the_champion_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"no tensors")

    with pytest.raises(EncoderWeightsInvalid, match=r"weights\.safetensors cannot be read"):
        build_network(_config(start="champion", encoder_weights=None), initial_weights=path)
