"""The runtime that segments, and its device."""

from __future__ import annotations

from defectoscope.errors import Fault


class EngineFailed(Fault):
    """ONNX Runtime could not run the model."""


class EngineOutOfMemory(EngineFailed):
    """The model needs more memory than there is."""


class ProviderUnavailable(Fault):
    """The demanded execution provider cannot be used on this machine."""


class DeviceLost(ProviderUnavailable):
    """The GPU has failed, and this process cannot use it any more."""
