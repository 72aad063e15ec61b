"""Takes in models that others made: a foreign ONNX file is checked, wrapped into the model contract and proven equal.

A foreign file is what a notebook exports: float32 (N, 3, H, W) in, normalised by the statistics of ImageNet, logits of
two channels or of one out. Nothing here imports torch, and nothing reads a file that the model names.
"""

from __future__ import annotations

from trainer.foreign.limits import FileLimits, ProcessLimits
from trainer.foreign.process import wrap_in_process
from trainer.foreign.prove import Proof
from trainer.foreign.wrap import ForeignFacts, WrapReport, wrap_foreign

__all__ = [
    "FileLimits",
    "ForeignFacts",
    "ProcessLimits",
    "Proof",
    "WrapReport",
    "wrap_foreign",
    "wrap_in_process",
]
