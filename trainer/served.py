"""The network as it is served: normalisation, softmax and rounding inside the graph, bytes in and bytes out."""

from __future__ import annotations

import torch
from torch import nn

from defectoscope.segmentation import Engine, UInt8Array
from trainer.network import Normalise


class ServedNetwork(nn.Module):
    """(N, h, w, 3) uint8 RGB in, (N, h, w) uint8 out, 255 for a certain defect: the signature of the model contract."""

    def __init__(self, network: nn.Module) -> None:
        """Args: network: normalised float32 to logits."""
        super().__init__()
        self.normalise = Normalise()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the defect probability in steps of 1/255."""
        logits = self.network(self.normalise(image.permute(0, 3, 1, 2)))  # (N, 2, h, w)
        return to_levels(logits)


def to_levels(logits: torch.Tensor) -> torch.Tensor:
    """Turn (N, 2, h, w) logits into (N, h, w) uint8 defect probabilities, 255 for certain.

    The softmax of two classes is the sigmoid of their difference, at half the arithmetic.
    """
    probabilities = torch.sigmoid(logits[:, 1] - logits[:, 0])
    return torch.round(probabilities * 255).to(torch.uint8)


def torch_engine(network: nn.Module) -> Engine:
    """Return an engine that runs a network as it is served, in fp32 where the network lies."""
    served = ServedNetwork(network).eval()

    def run(images: UInt8Array) -> UInt8Array:
        device = next(network.parameters()).device
        with torch.inference_mode():
            levels = served.to(device)(torch.from_numpy(images).to(device))
        array: UInt8Array = levels.cpu().numpy()
        return array

    return run
