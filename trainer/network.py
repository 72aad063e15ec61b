"""The network: architecture and encoder from segmentation-models-pytorch, and the weights it starts from.

Normalisation is defined here once, for training and for the exported graph. An unreachable weights hub costs a few
seconds and a warning, never minutes and never the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError

import huggingface_hub
import segmentation_models_pytorch as smp
import structlog
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.training import EncoderWeightsInvalid, EncoderWeightsUnavailable
from trainer.config import TrainingConfig
from trainer.weights import try_to_load

log = structlog.get_logger(__name__)

#: Background and defect.
CLASS_COUNT = 2
#: Mean and standard deviation of the ImageNet photographs, RGB, of values from 0 to 255.
_MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
_STD = tuple(255 * value for value in (0.229, 0.224, 0.225))
#: How long the hub may take to say that a file exists.
HUB_TIMEOUT_S = 5.0

#: What the hub's library raises. Its own error derives from the base error of whichever HTTP library it is built on.
_HUB_ERRORS: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, EntryNotFoundError, OfflineModeIsEnabled)


class Normalise(nn.Module):
    """(N, 3, H, W) uint8 to float32 by the statistics of ImageNet."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        """Hold the statistics as buffers, so that they follow the network to its device."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return (N, 3, H, W) float32."""
        return (image.float() - self.mean) * self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltNetwork:
    """A network and where its weights came from.

    Attributes:
        network: to be trained.
        encoder_weights_used: "imagenet", "random", the name of a local file, or "champion" where the whole network
            goes on from the version in service.
        start_note: why a network that was to start from the champion does not, in a sentence; else None.
    """

    network: nn.Module
    encoder_weights_used: str
    start_note: str | None = None


def build_network(
    config: TrainingConfig, *, initial_weights: Path | None = None, hub_timeout_s: float = HUB_TIMEOUT_S
) -> BuiltNetwork:
    """Build the network of a recipe; without the weights it was to start from when they cannot be had, and say so.

    Args:
        config: the recipe.
        initial_weights: the champion's weights, as `trainer.weights.save_weights` writes them; looked at only where
            the recipe starts from the champion. Weights of another architecture or encoder are not used: the network
            then starts as if from scratch, and the note says why.
        hub_timeout_s: how long the weights hub may take to answer.

    Raises:
        InvalidRequest: the architecture or encoder does not exist, or they do not go together.
        EncoderWeightsInvalid: the local weights file does not fit the encoder, or the champion's is damaged.
    """
    if config.start == "scratch":
        return _build_from_scratch(config, hub_timeout_s=hub_timeout_s)
    reason: str | None = "no weights of it are kept"
    if initial_weights is not None:
        network = create_network(config)
        reason = try_to_load(network, initial_weights, config=config)
        if reason is None:
            return BuiltNetwork(network=network, encoder_weights_used="champion")
    note = f"The network does not start from the champion: {reason}."
    log.warning("champion_weights.not_used", reason=reason, consequence="the network starts from scratch")
    return replace(_build_from_scratch(config, hub_timeout_s=hub_timeout_s), start_note=note)


def create_network(config: TrainingConfig) -> nn.Module:
    """Create the network of a recipe with random weights; no hub is asked and no file is read.

    Raises:
        InvalidRequest: the architecture or encoder does not exist, or they do not go together.
    """
    return _create(config, weights=None)


def _build_from_scratch(config: TrainingConfig, *, hub_timeout_s: float) -> BuiltNetwork:
    if config.encoder_weights is None:
        return BuiltNetwork(network=create_network(config), encoder_weights_used="random")
    if config.encoder_weights != "imagenet":
        network = create_network(config)
        path = Path(config.encoder_weights)
        _load_encoder(network, path)
        return BuiltNetwork(network=network, encoder_weights_used=path.name)
    try:
        _demand_hub(config.encoder, timeout_s=hub_timeout_s)
        return BuiltNetwork(network=_create(config, weights="imagenet"), encoder_weights_used="imagenet")
    except EncoderWeightsUnavailable as exc:
        log.warning("encoder_weights.unavailable", reason=exc.message, consequence="the encoder starts at random")
        return BuiltNetwork(network=create_network(config), encoder_weights_used="random")


def _create(config: TrainingConfig, *, weights: str | None) -> nn.Module:
    universal = config.encoder.startswith("tu-")
    try:
        network: nn.Module = smp.create_model(
            config.architecture,
            encoder_name=config.encoder,
            # Encoders of timm name their weights in the encoder's name and take a truth value here.
            encoder_weights=(True if weights else None) if universal else weights,
            in_channels=3,
            classes=CLASS_COUNT,
        )
    except _HUB_ERRORS as exc:
        raise _unavailable(config.encoder, exc) from exc
    except (KeyError, ValueError, NotImplementedError, RuntimeError) as exc:
        raise InvalidRequest(
            f"{config.architecture} with {config.encoder} cannot be built: {exc}",
            architecture=config.architecture,
            encoder=config.encoder,
        ) from exc
    return network


def _demand_hub(encoder: str, *, timeout_s: float) -> None:
    """Ask the hub for the head of the weights file, once, unless the file is in the local cache.

    The library itself would retry for half a minute when refused, and for six when packets vanish.

    Raises:
        EncoderWeightsUnavailable: no answer, or a refusal.
        InvalidRequest: there are no such weights for this encoder.
    """
    repository, revision = _hub_address(encoder)
    filename = "model.safetensors"
    if isinstance(huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision), str):
        return
    url = huggingface_hub.hf_hub_url(repository, filename, revision=revision)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=timeout_s)
    except _HUB_ERRORS as exc:
        raise _unavailable(encoder, exc) from exc


def _hub_address(encoder: str) -> tuple[str, str | None]:
    if encoder.startswith("tu-"):
        pretrained = timm.get_pretrained_cfg(encoder.removeprefix("tu-"), allow_unregistered=True)
        if pretrained is None or not pretrained.hf_hub_id:
            raise InvalidRequest(f"There are no pretrained weights for the encoder {encoder}.", encoder=encoder)
        return str(pretrained.hf_hub_id), None
    known = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings") or {}
    if "imagenet" not in known:
        raise InvalidRequest(f"There are no imagenet weights for the encoder {encoder}.", encoder=encoder)
    return str(known["imagenet"]["repo_id"]), str(known["imagenet"]["revision"])


def _unavailable(encoder: str, cause: BaseException) -> EncoderWeightsUnavailable:
    return EncoderWeightsUnavailable(
        f"The imagenet weights of {encoder} cannot be fetched ({type(cause).__name__}); "
        "give a local file as encoder_weights to start from them.",
        encoder=encoder,
    )


def _load_encoder(network: nn.Module, path: Path) -> None:
    """Load encoder weights from a file; a pickle that holds anything but tensors is refused by torch."""
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path, device="cpu")
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, UnpicklingError, EOFError, RuntimeError) as exc:
        raise EncoderWeightsInvalid(f"{path.name} cannot be read as weights: {type(exc).__name__}.") from exc
    try:
        network.get_submodule("encoder").load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as exc:
        first = str(exc).partition("\n")[0]
        raise EncoderWeightsInvalid(f"{path.name} does not fit the encoder: {first}") from exc
