"""The training recipe as one frozen value, stored whole on the run so that every version can be explained years later.

It knows what may be asked for and refuses the rest. It refuses to import torch: the Celery parent reads it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from defectoscope.errors.api import InvalidRequest
from defectoscope.segmentation import ResizePolicy

#: Encoders halve the image five times, so that a side must be a multiple of two to the fifth.
_SIDE_MULTIPLE_PX = 32

#: Weight of a class in the loss. Beyond some hundreds a single mislabelled pixel outweighs a whole picture.
ClassWeight = Annotated[float, Field(gt=0, le=1000)]
Side = Annotated[int, Field(ge=2 * _SIDE_MULTIPLE_PX, le=2048, multiple_of=_SIDE_MULTIPLE_PX)]


class TrainingConfig(BaseModel):
    """A recipe. The defaults are the mission's: DeepLabV3+ with ResNet101, Adam at 1e-4, cross-entropy, 50 epochs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field("DeepLabV3Plus", description="architecture of segmentation-models-pytorch")
    encoder: str = Field("resnet101", description="encoder of segmentation-models-pytorch")
    encoder_weights: str | None = Field(
        "imagenet", description="imagenet, the path of a local .safetensors or .pth file, or null for a random start"
    )
    input_size_wh: tuple[Side, Side] = Field((256, 256), description="pixels the network sees, multiples of 32")
    resize_policy: ResizePolicy = Field(
        "stretch",
        description="how images come to that size: stretched, letterboxed, or cut into tiles; tiles keep what is small",
    )
    tile_overlap: int | None = Field(
        None, ge=0, description="least overlap of tiles in pixels the network sees; null: 64, or a quarter of a side"
    )
    model_scale: float = Field(
        1.0, ge=0.05, le=8, description="in tiles, pixels the network sees for each pixel of the image"
    )
    start: Literal["scratch", "champion"] = Field(
        "scratch", description="champion: from the weights of the version in service, where they fit the network"
    )
    loss: Literal["cross_entropy", "cross_entropy+dice", "focal", "focal+dice"] = Field(
        "cross_entropy", description="what is minimised; focal and dice help where defects are small or rare"
    )
    class_weights: Literal["none", "balanced"] | tuple[ClassWeight, ClassWeight] = Field(
        "none", description="of background and defect in the loss; balanced: from the pixels of the training labels"
    )
    optimizer: Literal["adam"] = Field("adam", description="how it is minimised")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="constant, or the peak of the one-cycle schedule")
    schedule: Literal["constant", "one_cycle"] = Field("constant", description="how the learning rate changes")
    epochs: int = Field(50, ge=1, le=10_000, description="passes over the training images, at most")
    half_size_share: float = Field(
        0, ge=0, le=1, description="share of the epochs, the first ones, trained at half the input size for speed"
    )
    batch_size: int = Field(8, ge=2, le=1024, description="images in a step; batch normalisation needs two")
    augmentation: Literal["none", "flips", "standard"] = Field(
        "none", description="flips: mirrored both ways; standard: also turned, moved, lit, blurred; at random"
    )
    autocast: Literal["auto", "bf16", "fp16", "off"] = Field(
        "auto",
        description="auto: bf16 arithmetic where the hardware has it, else fp16 on a GPU with tensor cores, else fp32",
    )
    channels_last: bool = Field(default=True, description="memory layout that convolutions prefer")
    devices: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        1, description="GPUs that share each batch; auto: as many as there are and as the batch can be divided among"
    )
    patience: int | None = Field(
        None, ge=1, description="epochs without a better one on validation after which training stops; null: never"
    )
    time_budget_s: float | None = Field(None, gt=0, description="no epoch is begun that would end later than this")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="start of every random choice")
    threshold: float = Field(0.5, gt=0, lt=1, description="defect probability from which a pixel counts as defect")
    min_area_px: int = Field(16, ge=0, description="smaller regions are dropped, pixels of the original image")
    escape_cost: float | None = Field(
        None, gt=0, description="cost of a defective part that passes, in any unit; null: no costs are known"
    )
    false_call_cost: float | None = Field(
        None, gt=0, description="cost of a good part that is called defective, in the same unit"
    )

    @model_validator(mode="after")
    def _costs_come_together(self) -> TrainingConfig:
        if (self.escape_cost is None) != (self.false_call_cost is None):
            raise ValueError("escape_cost and false_call_cost are given together, or neither")
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> TrainingConfig:
        if self.devices != "auto" and (self.batch_size % self.devices or self.batch_size < 2 * self.devices):
            raise ValueError("batch_size has to be a multiple of devices and leave each at least two images")
        return self

    @model_validator(mode="after")
    def _halves_fit(self) -> TrainingConfig:
        if self.half_size_share and any(side % (2 * _SIDE_MULTIPLE_PX) for side in self.input_size_wh):
            raise ValueError("half_size_share needs sides that are multiples of 64")
        return self

    @model_validator(mode="after")
    def _tiles_fit(self) -> TrainingConfig:
        if self.resize_policy != "tile" and (self.tile_overlap is not None or self.model_scale != 1):
            raise ValueError("tile_overlap and model_scale go with the resize_policy tile alone")
        if self.tile_overlap is not None and 2 * self.tile_overlap > min(self.input_size_wh):
            raise ValueError("tile_overlap is at most half the shorter side of input_size_wh")
        return self

    @classmethod
    def resolve(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Fill a request up to a whole recipe.

        Args:
            values: any fields of the recipe, and optionally ``preset``, the name of the recipe they change.

        Raises:
            InvalidRequest: an unknown preset or field, or a value out of range; the sentence names it.
        """
        changes = dict(values)
        preset = changes.pop("preset", "default")
        if preset not in PRESETS:
            raise InvalidRequest(f"There is no preset {preset!r}; there are {', '.join(PRESETS)}.", preset=str(preset))
        try:
            return cls.model_validate({**PRESETS[preset].model_dump(), **changes})
        except ValidationError as exc:
            problems = "; ".join(
                ": ".join(filter(None, [".".join(str(part) for part in error["loc"]), error["msg"]]))
                for error in exc.errors(include_url=False, include_input=False, include_context=False)
            )
            raise InvalidRequest(f"The training recipe is not usable: {problems}.") from exc

    def to_json(self) -> dict[str, Any]:
        """Return every field, defaults included, as JSON-ready values; `resolve` reads it back."""
        return self.model_dump(mode="json")


#: ``default`` is the mission's recipe. ``quick`` gives a usable model on two CPU cores in about two minutes: a small
#: encoder, most epochs at half size, a schedule that ends where the time does.
PRESETS: dict[str, TrainingConfig] = {
    "default": TrainingConfig(),
    "quick": TrainingConfig(
        encoder="mobilenet_v2",
        encoder_weights=None,
        loss="cross_entropy+dice",
        # At twice this rate two of four demos missed their IoU (docs/benchmarks.md).
        learning_rate=1e-3,
        schedule="one_cycle",
        epochs=11,
        half_size_share=0.64,
        augmentation="flips",
        # More than twice what it takes on free cores: a busy machine shall give the same model, only later.
        time_budget_s=300,
    ),
}
