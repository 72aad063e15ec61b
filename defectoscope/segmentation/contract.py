"""What every served model promises: one signature, and the facts about it that travel inside the ONNX file.

The facts are strings in the file's ``metadata_props``, so that a model copied by hand still says how to feed it. This
module knows neither ONNX nor an engine: it turns the facts into strings and back, and refuses what does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from defectoscope.errors.models import InvalidModel
from defectoscope.segmentation.arrays import UInt8Array

INPUT_NAME = "image"
OUTPUT_NAME = "defect"

#: (N, H, W, 3) uint8 RGB in, (N, H, W) uint8 out; 255 is a certain defect.
Engine = Callable[[UInt8Array], UInt8Array]

#: How an image of another size than the model's comes to it: as a whole without regard to its aspect ratio, as a whole
#: with it, or cut into overlapping tiles.
ResizePolicy = Literal["stretch", "letterbox", "tile"]
RESIZE_POLICIES: tuple[ResizePolicy, ...] = get_args(ResizePolicy)

#: Version of the set of keys below; a file with another one is refused.
SCHEMA_VERSION = "1"

_PREFIX = "defectoscope."
_CLASS_NAMES = ("background", "defect")
_LEAST_SCALE, _GREATEST_SCALE = 0.01, 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContract:
    """The facts a model file carries.

    Attributes:
        input_size_wh: width and height the model sees, in pixels.
        resize_policy: how an image of another size is brought to it; see `ResizePolicy`.
        threshold: in (0, 1]; a pixel is defect when its probability is at least this.
        min_area_px: smaller regions are dropped, in pixels of the image at its own resolution.
        class_names: ("background", "defect").
        architecture: of the network, such as "DeepLabV3Plus".
        encoder: of the network, such as "resnet101".
        dataset_revision: what it was trained on; None when unknown (a foreign model).
        version: its number in the registry; None before it is registered.
        tile_overlap_px: least overlap of neighbouring tiles, in pixels of the input, at most half its shorter side;
            None where the file does not say, as files from before there were tiles.
        model_scale: pixels of the input for each pixel of the image in a tile, 0.01 to 100; None where the file does
            not say.
    """

    input_size_wh: tuple[int, int]
    resize_policy: ResizePolicy
    threshold: float
    min_area_px: int
    class_names: tuple[str, ...]
    architecture: str
    encoder: str
    dataset_revision: str | None
    version: int | None
    tile_overlap_px: int | None = None
    model_scale: float | None = None

    def __post_init__(self) -> None:
        _demand(
            len(self.input_size_wh) == 2 and min(self.input_size_wh) >= 1,  # noqa: PLR2004 -- width and height
            "input_size_wh",
            "must be a width and a height of at least 1",
        )
        _demand(self.resize_policy in RESIZE_POLICIES, "resize_policy", f"must be one of {', '.join(RESIZE_POLICIES)}")
        _demand(0 < self.threshold <= 1, "threshold", "must be above 0 and at most 1")
        _demand(self.min_area_px >= 0, "min_area_px", "must not be negative")
        _demand(self.class_names == _CLASS_NAMES, "class_names", 'must be "background,defect"')
        _demand(bool(self.architecture), "architecture", "must not be empty")
        _demand(bool(self.encoder), "encoder", "must not be empty")
        _demand(self.dataset_revision != "", "dataset_revision", "must not be empty where it is given")
        _demand(self.version is None or self.version >= 1, "version", "must be at least 1 where it is given")
        _demand(
            self.tile_overlap_px is None or 0 <= 2 * self.tile_overlap_px <= min(self.input_size_wh),
            "tile_overlap_px",
            "must be between 0 and half the shorter side of the input",
        )
        _demand(
            self.model_scale is None or _LEAST_SCALE <= self.model_scale <= _GREATEST_SCALE,
            "model_scale",
            f"must be between {_LEAST_SCALE:g} and {_GREATEST_SCALE:g}",
        )

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
        if self.tile_overlap_px is not None:
            facts["tile_overlap_px"] = str(self.tile_overlap_px)
        if self.model_scale is not None:
            facts["model_scale"] = repr(float(self.model_scale))
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
        return cls(
            input_size_wh=_size(metadata, "input_size_wh"),
            resize_policy=_policy(metadata, "resize_policy"),
            threshold=_real(metadata, "threshold"),
            min_area_px=_whole(metadata, "min_area_px"),
            class_names=tuple(_text(metadata, "class_names").split(",")),
            architecture=_text(metadata, "architecture"),
            encoder=_text(metadata, "encoder"),
            dataset_revision=metadata.get(_PREFIX + "dataset_revision"),
            version=_whole(metadata, "version") if _PREFIX + "version" in metadata else None,
            tile_overlap_px=(_whole(metadata, "tile_overlap_px") if _PREFIX + "tile_overlap_px" in metadata else None),
            model_scale=_real(metadata, "model_scale") if _PREFIX + "model_scale" in metadata else None,
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


def _policy(metadata: Mapping[str, str], name: str) -> ResizePolicy:
    text = _text(metadata, name)
    for policy in RESIZE_POLICIES:
        if text == policy:
            return policy
    raise _bad(name, f'is "{text}" and must be one of {", ".join(RESIZE_POLICIES)}')


def _size(metadata: Mapping[str, str], name: str) -> tuple[int, int]:
    text = _text(metadata, name)
    width, _, height = text.partition("x")
    if not (text.isascii() and width.isdigit() and height.isdigit()):
        raise _bad(name, f'is "{text}" and must be a width and a height, such as "256x256"')
    return int(width), int(height)
