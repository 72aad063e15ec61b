"""Labelled images as arrays of the network's input size: decoded once, kept in memory when they fit.

Preprocessing is serving's own (`defectoscope.segmentation`); only the label's resizing is defined here. Augmentation
changes image and label together.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import structlog
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from defectoscope.errors import InvalidDataset
from defectoscope.segmentation import ModelContract, UInt8Array, to_model_input
from trainer.data import LabelledFile, LabelledFiles

log = structlog.get_logger(__name__)

#: Class of pixels that neither loss nor score looks at.
IGNORED = 255
#: Decoded arrays of one side of the split are kept in memory up to this many bytes; beyond, files are read each epoch.
MEMORY_BOUND_BYTES = 2 * 2**30
_DECODE_THREADS = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """One image at the network's input size.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        class_mask: (h, w) uint8, 0 background, 1 defect, 255 ignored.
    """

    pixels: UInt8Array
    class_mask: UInt8Array


class SampleSet(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One side of the split. An item is a (3, h, w) uint8 image and a (h, w) uint8 class mask."""

    def __init__(
        self,
        files: Sequence[LabelledFile],
        *,
        contract: ModelContract,
        augmentation: str = "none",
        memory_bound_bytes: int = MEMORY_BOUND_BYTES,
    ) -> None:
        """Decode every file once, so that a bad one is found before the first epoch.

        Raises:
            InvalidDataset: a file cannot be used.
        """
        self._files = tuple(files)
        self._contract = contract
        width, height = contract.input_size_wh
        self.in_memory = len(self._files) * width * height * 4 <= memory_bound_bytes
        self._kept: list[Sample] = []
        self.defect_px = self.background_px = 0
        with ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="decode") as pool:
            for sample in pool.map(self._load, self._files):
                self.defect_px += int(np.count_nonzero(sample.class_mask == 1))
                self.background_px += int(np.count_nonzero(sample.class_mask == 0))
                if self.in_memory:
                    self._kept.append(sample)
        self._augment: Any = None
        if augmentation == "flips":
            self._augment = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an image and its class mask, augmented alike."""
        sample = self._kept[index] if self.in_memory else self._load(self._files[index])
        image = tv_tensors.Image(torch.from_numpy(sample.pixels).permute(2, 0, 1))  # (3, h, w)
        mask = tv_tensors.Mask(torch.from_numpy(sample.class_mask))  # (h, w)
        if self._augment is not None:
            image, mask = self._augment(image, mask)
        return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)

    def _load(self, file: LabelledFile) -> Sample:
        pixels, class_mask = file.decode()
        return Sample(
            to_model_input(pixels, contract=self._contract),
            resize_label(class_mask, size_wh=self._contract.input_size_wh),
        )


def resize_label(class_mask: UInt8Array, *, size_wh: tuple[int, int]) -> UInt8Array:
    """Bring a class mask to the network's input size by nearest neighbour: classes do not mix."""
    if class_mask.shape == size_wh[::-1]:
        return class_mask
    return np.asarray(cv2.resize(class_mask, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def load_samples(
    files: LabelledFiles, *, contract: ModelContract, augmentation: str, memory_bound_bytes: int = MEMORY_BOUND_BYTES
) -> tuple[SampleSet, SampleSet]:
    """Decode both sides and check that they can be trained on.

    Returns:
        The training side, augmented, and the validation side as it is.

    Raises:
        InvalidDataset: a side is too small, a file cannot be used, or the training labels show one class only.
    """
    if len(files.train) < 2:  # noqa: PLR2004 -- batch normalisation needs two
        raise InvalidDataset(
            f"Training needs at least two labelled images; there are {len(files.train)}.", train_count=len(files.train)
        )
    if not files.val:
        raise InvalidDataset("There is no labelled image to validate on.", val_count=0)
    train = SampleSet(files.train, contract=contract, augmentation=augmentation, memory_bound_bytes=memory_bound_bytes)
    for present, name in ((train.defect_px, "defect"), (train.background_px, "background")):
        if not present:
            raise InvalidDataset(
                f"No label of the training images shows any {name}; there is nothing to tell apart.", missing=name
            )
    val = SampleSet(files.val, contract=contract, memory_bound_bytes=memory_bound_bytes)
    if not val.defect_px:
        log.warning(
            "dataset.one_sided",
            reason="no validation label shows a defect",
            consequence="the best epoch is chosen by what is wrongly claimed, not by what is found",
        )
    return train, val
