"""Labelled images as arrays of the network's input size: decoded once, kept in memory when they fit.

Preprocessing is serving's own (`defectoscope.segmentation`); only the label's resizing is defined here. Augmentation
changes image and label together. What chance does to an image depends on the seed, the epoch and the image's place
alone: not on the number of reading processes, and not on whether the training was resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import structlog
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from defectoscope.errors import InvalidDataset
from defectoscope.segmentation import ModelContract, UInt8Array, to_model_input
from trainer.augmentation import make_augmentation
from trainer.data import LabelledFile, LabelledFiles, decode_ahead

log = structlog.get_logger(__name__)

#: Decoded arrays of one side of the split are kept in memory up to this many bytes; beyond, files are read each epoch.
MEMORY_BOUND_BYTES = 2 * 2**30


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
        seed: int = 0,
        memory_bound_bytes: int = MEMORY_BOUND_BYTES,
    ) -> None:
        """Decode every file once, so that a bad one is found before the first epoch.

        Args:
            files: read in the background; they are read again in each epoch when they exceed the bound.
            contract: gives the network's input size.
            augmentation: by the name that the recipe gives it; see `trainer.augmentation`.
            seed: of the augmentation.
            memory_bound_bytes: samples are kept in memory up to this size.

        Raises:
            InvalidDataset: a file cannot be used.
            InvalidRequest: there is no such augmentation.
        """
        self._files = tuple(files)
        self._contract = contract
        self._seed = seed
        # In shared memory: reading processes live through many epochs, and have to hear which one it is.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        width, height = contract.input_size_wh
        self.in_memory = len(self._files) * width * height * 4 <= memory_bound_bytes
        self._kept: list[Sample] = []
        self.defect_px = self.background_px = 0
        for sample in decode_ahead(self._files, self._to_sample):
            self.defect_px += int(np.count_nonzero(sample.class_mask == 1))
            self.background_px += int(np.count_nonzero(sample.class_mask == 0))
            if self.in_memory:
                self._kept.append(sample)
        self._augment = make_augmentation(augmentation)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next items are for; it must be said before a loader's iterator is made.

        Args:
            epoch: any number of 0 or more; the same number gives the same items again.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an image and its class mask, augmented alike."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return a batch, as `DataLoader` asks for it when a data set can: its files are read together."""
        if self.in_memory:
            samples = [self._kept[index] for index in indices]
        else:
            samples = list(decode_ahead([self._files[index] for index in indices], self._to_sample))
        return [self._to_item(sample, index) for sample, index in zip(samples, indices, strict=True)]

    def _to_sample(self, _: LabelledFile, pixels: UInt8Array, class_mask: UInt8Array) -> Sample:
        return Sample(
            to_model_input(pixels, contract=self._contract),
            resize_label(class_mask, size_wh=self._contract.input_size_wh),
        )

    def _to_item(self, sample: Sample, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = tv_tensors.Image(torch.from_numpy(sample.pixels).permute(2, 0, 1))  # (3, h, w)
        mask = tv_tensors.Mask(torch.from_numpy(sample.class_mask))  # (h, w)
        if self._augment is not None:
            state = np.random.SeedSequence([self._seed, int(self._epoch), index]).generate_state(1, np.uint64)
            with torch.random.fork_rng(devices=[]):
                # The CPU's generator alone: `torch.manual_seed` would set that of the GPU back for each image.
                torch.default_generator.manual_seed(int(state[0]))
                image, mask = self._augment(image, mask)
        return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)


def resize_label(class_mask: UInt8Array, *, size_wh: tuple[int, int]) -> UInt8Array:
    """Bring a class mask to the network's input size by nearest neighbour: classes do not mix."""
    if class_mask.shape == size_wh[::-1]:
        return class_mask
    return np.asarray(cv2.resize(class_mask, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)


def load_samples(
    files: LabelledFiles,
    *,
    contract: ModelContract,
    augmentation: str,
    seed: int = 0,
    memory_bound_bytes: int = MEMORY_BOUND_BYTES,
) -> tuple[SampleSet, SampleSet]:
    """Decode both sides and check that they can be trained on.

    Args:
        files: both sides of the split.
        contract: gives the network's input size.
        augmentation: of the training side, by the name that the recipe gives it.
        seed: of the augmentation.
        memory_bound_bytes: a side that takes more is read again in each epoch.

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
    train = SampleSet(
        files.train,
        contract=contract,
        augmentation=augmentation,
        seed=seed,
        memory_bound_bytes=memory_bound_bytes,
    )
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
