"""Batches: every image once an epoch, in an order of the epoch's own, divided evenly among processes."""

from __future__ import annotations

import pytest

from trainer.batches import EpochBatches, seed_of


def _epoch(epoch, *, count=21, batch_size=8, seed=3, **processes):
    batches = EpochBatches(count, batch_size=batch_size, seed=seed, **processes)
    batches.begin(epoch)
    return list(batches)


def test_an_epoch_shows_every_image_once():
    batches = _epoch(0)

    assert [len(batch) for batch in batches] == [8, 8, 5]
    assert sorted(index for batch in batches for index in batch) == list(range(21))


def test_the_order_follows_from_seed_and_epoch_alone():
    assert _epoch(5) == _epoch(5)
    assert _epoch(5) != _epoch(6)
    assert _epoch(5) != _epoch(5, seed=4)


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        pytest.param(9, 4, [4, 4], id="a last batch of one is left out"),
        pytest.param(10, 4, [4, 4, 2], id="a last batch of two is not"),
        pytest.param(3, 8, [3], id="fewer images than a batch"),
    ],
)
def test_no_step_has_a_single_image(count, batch_size, sizes):
    batches = EpochBatches(count, batch_size=batch_size, seed=0)

    assert [len(batch) for batch in batches] == sizes
    assert len(batches) == len(sizes)


@pytest.mark.parametrize("count", [16, 19, 20, 21])
def test_processes_divide_each_batch_into_parts_of_one_size(count):
    parts = [_epoch(2, count=count, rank=rank, world=2) for rank in range(2)]

    assert [len(batch) for batch in parts[0]] == [len(batch) for batch in parts[1]]
    assert all(len(batch) >= 2 for part in parts for batch in part)
    whole = _epoch(2, count=count)
    for number, (first, second) in enumerate(zip(*parts, strict=True)):
        assert first + second == whole[number][: len(first) * 2]


def test_seeds_of_neighbours_differ():
    seeds = {seed_of(seed, epoch, rank) for seed in range(5) for epoch in range(5) for rank in range(2)}

    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
