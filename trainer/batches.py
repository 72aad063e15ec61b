"""Which images make up which step: shuffled anew in each epoch, by the seed and the epoch alone.

A resumed training therefore sees what an uninterrupted one would have seen, and each of several processes takes its
part of every batch without asking the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from trainer.arrays import SampleSet

Batch = tuple[torch.Tensor, torch.Tensor]

_READING_WORKERS = 2
#: Batch normalisation needs two images.
_FEWEST_IMAGES = 2


class EpochBatches(Sampler[list[int]]):
    """The batches of one process in one epoch, as lists of indices. Every process has the same number of them."""

    def __init__(self, count: int, *, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        """Plan epochs.

        Args:
            count: images, two at least for each process.
            batch_size: images in a step over all processes; a last, smaller batch is divided as far as it goes.
            seed: of the order.
            rank: this process, from 0.
            world: processes; a batch is divided among them evenly.
        """
        self._count = count
        self._batch_size = min(batch_size, count)
        self._seed = seed
        self._rank = rank
        self._world = world
        self._epoch = 0

    def begin(self, epoch: int) -> None:
        """Say which epoch the next iteration is for, from 0. Not called `set_epoch`: Lightning would count for us."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        full, rest = divmod(self._count, self._batch_size)
        # A last batch of one image would have a single value in each channel after global pooling, and batch
        # normalisation would fail.
        return full + (rest // self._world >= _FEWEST_IMAGES)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each step."""
        order = torch.randperm(self._count, generator=torch.Generator().manual_seed(seed_of(self._seed, self._epoch)))
        for step in range(len(self)):
            whole = order[step * self._batch_size : (step + 1) * self._batch_size].tolist()
            share = len(whole) // self._world
            yield whole[self._rank * share : (self._rank + 1) * share]


def seed_of(*parts: int) -> int:
    """Return a seed of 63 bits that follows from others and is unlike that of any other parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


class TrainingBatches:
    """The training side, batch by batch."""

    def __init__(self, samples: SampleSet, *, batch_size: int, seed: int, rank: int, world: int) -> None:
        """Make the loader; see `EpochBatches` for the arguments."""
        self._samples = samples
        self._order = EpochBatches(len(samples), batch_size=batch_size, seed=seed, rank=rank, world=world)
        self.steps_per_epoch = len(self._order)
        self.loader: DataLoader[Batch] = DataLoader(
            samples, batch_sampler=self._order, **_options(in_memory=samples.in_memory)
        )

    def begin(self, epoch: int) -> None:
        """Say which epoch the next iteration is for, from 0: it decides order and augmentation."""
        self._order.begin(epoch)
        self._samples.set_epoch(epoch)


def validation_loader(samples: SampleSet, *, batch_size: int, rank: int, world: int) -> DataLoader[Batch]:
    """Return a loader of one process's part of the validation side: each image is in exactly one part."""
    return DataLoader(
        samples,
        # A range of indices serves as a sampler: nothing is drawn.
        sampler=range(rank, len(samples), world),
        batch_size=batch_size,
        **_options(in_memory=samples.in_memory),
    )


def _options(*, in_memory: bool) -> dict[str, Any]:
    # A loader draws a number for each iterator. From the generator of all it would shift the dropout that follows, and
    # not alike in the first epoch of a training and in the first after a resumption.
    options: dict[str, Any] = {"generator": torch.Generator()}
    if not in_memory:
        # Started afresh rather than forked: this process has threads, and a fork copies their locks as they are.
        options |= {"num_workers": _READING_WORKERS, "multiprocessing_context": "spawn", "persistent_workers": True}
    return options
