"""Labelled images as arrays of the network's input size: decoded once, kept in memory when they fit.

Augmentation changes image and label together. What chance does to an image, cropping included, depends on the seed, the
epoch and the image's place alone: not on the number of reading processes, and not on whether the training was resumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import structlog
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from defectoscope.errors.datasets import InvalidDataset
from defectoscope.segmentation import ModelContract, UInt8Array
from trainer.augmentation import make_augmentation
from trainer.data import LabelledFile, LabelledFiles, decode_ahead
from trainer.samples import Sample, cut_sample, draw_crop, fit_whole, place_scored_tiles

log = structlog.get_logger(__name__)

#: Decoded arrays of one side of the split are kept in memory up to this many bytes; beyond, files are read each epoch.
MEMORY_BOUND_BYTES = 2 * 2**30

#: Tells the chance of crops from that of the augmentation.
_OF_CROPS = 1


class SampleSet(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One side of the split. An item is a (3, h, w) uint8 image and a (h, w) uint8 class mask.

    There is an item for each image. Where the contract cuts images into tiles, there is one for each tile instead; or,
    where crops are drawn, as many crops of an image as tiles cover it, others in each epoch.
    """

    def __init__(
        self,
        files: Sequence[LabelledFile],
        *,
        contract: ModelContract,
        augmentation: str = "none",
        seed: int = 0,
        draws_crops: bool = False,
        memory_bound_bytes: int = MEMORY_BOUND_BYTES,
    ) -> None:
        """Decode every file once, so that a bad one is found before the first epoch.

        Args:
            files: read in the background; they are read again in each epoch when they exceed the bound.
            contract: gives the network's input size and the resize policy.
            augmentation: by the name that the recipe gives it; see `trainer.augmentation`.
            seed: of the augmentation and of the crops.
            draws_crops: whether images that the contract cuts into tiles are cropped at random.
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
        self._is_tiled = contract.resize_policy == "tile"
        self._draws_crops = self._is_tiled and draws_crops
        self.in_memory = True
        self._kept: list[Sample] = []
        #: By item: which file, and which part of it; None for the whole or for a crop.
        self._places: list[tuple[int, tuple[int, int, int, int] | None]] = []
        self.defect_px = self.background_px = kept_bytes = 0
        for number, sample in enumerate(decode_ahead(self._files, self._to_sample)):
            self._places += self._place(number, sample)
            self.defect_px += int(np.count_nonzero(sample.class_mask == 1))
            self.background_px += int(np.count_nonzero(sample.class_mask == 0))
            kept_bytes += sample.pixels.nbytes + sample.class_mask.nbytes
            if kept_bytes > memory_bound_bytes:
                self.in_memory = False
                self._kept.clear()
            elif self.in_memory:
                self._kept.append(sample)
        self._augment = make_augmentation(augmentation)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next items are for; it must be said before a loader's iterator is made.

        Args:
            epoch: any number of 0 or more; the same number gives the same items again.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an image and its class mask, augmented alike."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return a batch, as `DataLoader` asks for it when a data set can: its files are read together."""
        numbers = dict.fromkeys(self._places[index][0] for index in indices)
        if self.in_memory:
            samples = {number: self._kept[number] for number in numbers}
        else:
            decoded = decode_ahead([self._files[number] for number in numbers], self._to_sample)
            samples = dict(zip(numbers, decoded, strict=True))
        return [self._to_item(samples[self._places[index][0]], index) for index in indices]

    def _to_sample(self, _: LabelledFile, pixels: UInt8Array, class_mask: UInt8Array) -> Sample:
        sample = Sample(pixels, class_mask)
        return sample if self._is_tiled else fit_whole(sample, contract=self._contract)

    def _place(self, number: int, sample: Sample) -> list[tuple[int, tuple[int, int, int, int] | None]]:
        if not self._is_tiled:
            return [(number, None)]
        height, width = sample.class_mask.shape
        grid = place_scored_tiles((height, width), contract=self._contract)
        return [(number, None if self._draws_crops else grid.box_xyxy(index)) for index in range(grid.count)]

    def _to_item(self, sample: Sample, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        _, box_xyxy = self._places[index]
        if box_xyxy is not None:
            sample = cut_sample(sample, box_xyxy, contract=self._contract)
        elif self._draws_crops:
            chance = np.random.default_rng([self._seed, int(self._epoch), index, _OF_CROPS])
            sample = draw_crop(sample, contract=self._contract, chance=chance)
        image = tv_tensors.Image(torch.from_numpy(sample.pixels).permute(2, 0, 1))  # (3, h, w)
        mask = tv_tensors.Mask(torch.from_numpy(sample.class_mask))  # (h, w)
        if self._augment is not None:
            state = np.random.SeedSequence([self._seed, int(self._epoch), index]).generate_state(1, np.uint64)
            with torch.random.fork_rng(devices=[]):
                # The CPU's generator alone: `torch.manual_seed` would set that of the GPU back for each image.
                torch.default_generator.manual_seed(int(state[0]))
                image, mask = self._augment(image, mask)
        return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)


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
        contract: gives the network's input size and the resize policy.
        augmentation: of the training side, by the name that the recipe gives it.
        seed: of the augmentation and of the crops.
        memory_bound_bytes: a side that takes more is read again in each epoch.

    Returns:
        The training side, augmented and cropped, and the validation side as it is.

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
        draws_crops=True,
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
