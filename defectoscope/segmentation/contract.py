"""What every served model promises: one signature, and the facts about it that travel inside the ONNX file.

The facts are strings in the file's ``metadata_props``, so that a model copied by hand still says how to feed it. This
module knows neither ONNX nor an engine: it turns the facts into strings and back, and refuses what does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from defectoscope.errors import InvalidModel
from defectoscope.segmentation.arrays import UInt8Array

INPUT_NAME = "image"
OUTPUT_NAME = "defect"

#: (N, H, W, 3) uint8 RGB in, (N, H, W) uint8 out; 255 is a certain defect.
Engine = Callable[[UInt8Array], UInt8Array]

#: Version of the set of keys below; a file with another one is refused.
SCHEMA_VERSION = "1"

_PREFIX = "defectoscope."
_CLASS_NAMES = ("background", "defect")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContract:
    """The facts a model file carries.

    Attributes:
        input_size_wh: width and height the model sees, in pixels.
        resize_policy: how an image of another size is brought to it; "stretch" ignores the aspect ratio.
        threshold: in (0, 1]; a pixel is defect when its probability is at least this.
        min_area_px: smaller regions are dropped, in pixels of the image at its own resolution.
        class_names: ("background", "defect").
        architecture: of the network, such as "DeepLabV3Plus".
        encoder: of the network, such as "resnet101".
        dataset_revision: what it was trained on; None when unknown (a foreign model).
        version: its number in the registry; None before it is registered.
    """

    input_size_wh: tuple[int, int]
    resize_policy: Literal["stretch"]
    threshold: float
    min_area_px: int
    class_names: tuple[str, ...]
    architecture: str
    encoder: str
    dataset_revision: str | None
    version: int | None

    def __post_init__(self) -> None:
        _demand(
            len(self.input_size_wh) == 2 and min(self.input_size_wh) >= 1,  # noqa: PLR2004 -- width and height
            "input_size_wh",
            "must be a width and a height of at least 1",
        )
        _demand(self.resize_policy == "stretch", "resize_policy", 'must be "stretch"')
        _demand(0 < self.threshold <= 1, "threshold", "must be above 0 and at most 1")
        _demand(self.min_area_px >= 0, "min_area_px", "must not be negative")
        _demand(self.class_names == _CLASS_NAMES, "class_names", 'must be "background,defect"')
        _demand(bool(self.architecture), "architecture", "must not be empty")
        _demand(bool(self.encoder), "encoder", "must not be empty")
        _demand(self.dataset_revision != "", "dataset_revision", "must not be empty where it is given")
        _demand(self.version is None or self.version >= 1, "version", "must be at least 1 where it is given")

    def to_metadata(self) -> dict[str, str]:
        """Write the contract as the strings of an ONNX file's ``metadata_props``; unknown facts are left out."""
        width, height = self.input_size_wh
        facts = {
            "contract": SCHEMA_VERSION,
            "input_size_wh": f"{width}x{height}",
            "resize_policy": self.resize_policy,
            "threshold": repr(float(self.threshold)),
            "min_area_px": str(self.min_area_px),
            "class_names": ",".join(self.class_names),
            "architecture": self.architecture,
            "encoder": self.encoder,
        }
        if self.dataset_revision is not None:
            facts["dataset_revision"] = self.dataset_revision
        if self.version is not None:
            facts["version"] = str(self.version)
        return {_PREFIX + name: value for name, value in facts.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> ModelContract:
        """Read the contract back from the metadata of a model file.

        Args:
            metadata: all strings of the file; keys of others are ignored.

        Returns:
            The contract; ``from_metadata(c.to_metadata()) == c``.

        Raises:
            InvalidModel: a key is missing or its value is bad; ``details["key"]`` names it.
        """
        schema_version = _text(metadata, "contract")
        _demand(schema_version == SCHEMA_VERSION, "contract", f'is "{schema_version}" and must be "{SCHEMA_VERSION}"')
        resize_policy = _text(metadata, "resize_policy")
        if resize_policy != "stretch":
            raise _bad("resize_policy", f'is "{resize_policy}" and must be "stretch"')
        return cls(
            input_size_wh=_size(metadata, "input_size_wh"),
            resize_policy="stretch",
            threshold=_real(metadata, "threshold"),
            min_area_px=_whole(metadata, "min_area_px"),
            class_names=tuple(_text(metadata, "class_names").split(",")),
            architecture=_text(metadata, "architecture"),
            encoder=_text(metadata, "encoder"),
            dataset_revision=metadata.get(_PREFIX + "dataset_revision"),
            version=_whole(metadata, "version") if _PREFIX + "version" in metadata else None,
        )


def _bad(name: str, problem: str) -> InvalidModel:
    key = _PREFIX + name
    return InvalidModel(f"The model's {key} {problem}.", key=key)


def _demand(holds: bool, name: str, problem: str) -> None:  # noqa: FBT001 -- reads as "demand that"
    if not holds:
        raise _bad(name, problem)


def _text(metadata: Mapping[str, str], name: str) -> str:
    key = _PREFIX + name
    if key not in metadata:
        raise InvalidModel(f"The model file lacks the metadata key {key}.", key=key)
    return metadata[key]


def _whole(metadata: Mapping[str, str], name: str) -> int:
    text = _text(metadata, name)
    if not (text.isascii() and text.isdigit()):
        raise _bad(name, f'is "{text}" and must be a whole number')
    return int(text)


def _real(metadata: Mapping[str, str], name: str) -> float:
    text = _text(metadata, name)
    try:
        value = float(text)
    except ValueError as exc:
        raise _bad(name, f'is "{text}" and must be a number') from exc
    _demand(math.isfinite(value), name, f'is "{text}" and must be a number')
    return value


def _size(metadata: Mapping[str, str], name: str) -> tuple[int, int]:
    text = _text(metadata, name)
    width, _, height = text.partition("x")
    if not (text.isascii() and width.isdigit() and height.isdigit()):
        raise _bad(name, f'is "{text}" and must be a width and a height, such as "256x256"')
    return int(width), int(height)
