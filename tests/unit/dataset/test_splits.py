"""Sides of the split, decided import after import: groups stay whole, wishes are kept where they can be."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectoscope.database import Split
from defectoscope.dataset.groups import Candidate, Placed
from defectoscope.dataset.splits import MoveCode, Reason, decide

SIZE = (100, 100)
#: Hashes that are far from each other, and have more like them at three bits.
LOOKS = [0x00FF_00FF_00FF_00FF, 0x0F0F_0F0F_0F0F_0F0F, 0x3333_3333_3333_3333, 0x5555_5555_5555_5555]


def _image(number, *, asked=None, part=None, look=None, shade=0, shows_defect=True):
    """A candidate; images of one look differ by at most two bits when their shades do."""
    return Candidate(
        image_id=number,
        sha256=f"{number * 7919 % 9973:064x}",
        name=f"{number}.png",
        asked=asked,
        part=part,
        perceptual_hash=None if look is None else LOOKS[look] ^ (1 << (40 + shade)),
        size_wh=SIZE,
        shows_defect=shows_defect,
    )


def _decide(candidates, placed=(), *, counted=None, val_fraction=0.2):
    return decide(candidates, list(placed), counted=counted or {}, val_fraction=val_fraction)


def _placed(candidates, decisions):
    return [
        Placed(
            image_id=image.image_id,
            name=image.name,
            split=decision.split,
            group_key=decision.group_key,
            part=image.part,
            perceptual_hash=image.perceptual_hash,
            size_wh=image.size_wh,
        )
        for image, decision in zip(candidates, decisions, strict=True)
    ]


def _placed_one(number, split, *, part=None, look=None):
    image = _image(number, part=part, look=look)
    return Placed(
        image_id=number,
        name=image.name,
        split=split,
        group_key=f"group-{number}",
        part=part,
        perceptual_hash=image.perceptual_hash,
        size_wh=SIZE,
    )


images = st.builds(
    dict,
    asked=st.sampled_from([None, Split.TRAIN, Split.VAL]),
    part=st.sampled_from([None, None, "p", "q", "r"]),
    look=st.sampled_from([None, 0, 1, 2, 3]),
    shade=st.integers(0, 5),
    shows_defect=st.booleans(),
)


@settings(deadline=None)
@given(imports=st.lists(st.lists(images, min_size=1, max_size=5), min_size=1, max_size=4))
def test_no_group_and_no_part_is_ever_on_both_sides_however_images_arrive(imports):
    placed, number = [], 0
    for listed in imports:
        candidates = [_image(number := number + 1, **facts) for facts in listed]
        decisions, _ = _decide(candidates, placed)
        placed += _placed(candidates, decisions)

    sides = defaultdict(set)
    for image in placed:
        sides["group", image.group_key].add(image.split)
        if image.part is not None:
            sides["part", image.part].add(image.split)
    assert [which for which, splits in sides.items() if len(splits) > 1] == []


@settings(deadline=None)
@given(
    listed=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from([None, *Split])), max_size=11),
    cuts=st.lists(st.integers(1, 10), max_size=3),
)
def test_images_of_one_look_are_on_one_side_however_they_arrive(listed, cuts):
    candidates = [_image(at, look=look, shade=shade, asked=asked) for at, (look, shade, asked) in enumerate(listed)]
    edges = sorted({0, *(cut for cut in cuts if cut < len(candidates)), len(candidates)})
    placed = []
    for start, end in pairwise(edges):
        decisions, _ = _decide(candidates[start:end], placed)
        placed += _placed(candidates[start:end], decisions)

    sides = defaultdict(set)
    for (look, _, _), image in zip(listed, placed, strict=True):
        sides[look].add(image.split)
    assert [look for look, splits in sides.items() if len(splits) > 1] == []


@settings(deadline=None)
@given(listed=st.lists(images, min_size=2, max_size=11), order=st.randoms())
def test_the_order_of_a_request_changes_nothing_for_images_without_parts(listed, order):
    candidates = [_image(at, **{**facts, "part": None}) for at, facts in enumerate(listed)]
    shuffled = order.sample(candidates, len(candidates))

    decisions, _ = _decide(candidates)
    again, _ = _decide(shuffled)

    sides = {decision.image_id: (decision.split, decision.group_key) for decision in decisions}
    assert {decision.image_id: (decision.split, decision.group_key) for decision in again} == sides


def test_wishes_are_kept_for_new_groups():
    decisions, moves = _decide([_image(1, asked=Split.VAL), _image(2, asked=Split.TRAIN), _image(3, asked=Split.VAL)])

    assert [decision.split for decision in decisions] == [Split.VAL, Split.TRAIN, Split.VAL]
    assert {decision.reason for decision in decisions} == {Reason.GIVEN}
    assert moves == []


@pytest.mark.parametrize(
    ("placed", "candidate", "split", "reason", "told"),
    [
        pytest.param(
            _placed_one(1, Split.VAL, look=0),
            _image(2, asked=Split.TRAIN, look=0),
            Split.VAL,
            Reason.NEAR_DUPLICATE,
            (MoveCode.DUPLICATE_OF_VALIDATION, "It looks the same as 1.png, which is in validation."),
            id="asked-for-training-looks-like-validation",
        ),
        pytest.param(
            _placed_one(1, Split.VAL, look=0),
            _image(2, look=0),
            Split.VAL,
            Reason.NEAR_DUPLICATE,
            (MoveCode.DUPLICATE_OF_VALIDATION, "It looks the same as 1.png, which is in validation."),
            id="asked-for-nothing-looks-like-validation",
        ),
        pytest.param(
            _placed_one(1, Split.TRAIN, look=0),
            _image(2, asked=Split.VAL, look=0),
            Split.TRAIN,
            Reason.NEAR_DUPLICATE,
            (MoveCode.DUPLICATE_OF_TRAINING, "It looks the same as 1.png, which is in training."),
            id="asked-for-validation-looks-like-training",
        ),
        pytest.param(
            _placed_one(1, Split.TRAIN, part="p"),
            _image(2, asked=Split.VAL, part="p"),
            Split.TRAIN,
            Reason.PART,
            (MoveCode.DUPLICATE_OF_TRAINING, "It shows the same part as 1.png, which is in training."),
            id="asked-for-validation-part-in-training",
        ),
        pytest.param(
            _placed_one(1, Split.VAL, part="p"),
            _image(2, part="p"),
            Split.VAL,
            Reason.PART,
            None,
            id="asked-for-nothing-part-in-validation",
        ),
        pytest.param(
            _placed_one(1, Split.VAL, part="p", look=0),
            _image(2, asked=Split.TRAIN, part="q", look=0),
            Split.TRAIN,
            Reason.GIVEN,
            None,
            id="another-part-of-the-same-look",
        ),
        pytest.param(
            _placed_one(1, Split.VAL, part="p", look=0),
            _image(2, asked=Split.TRAIN, look=0),
            Split.VAL,
            Reason.NEAR_DUPLICATE,
            (MoveCode.DUPLICATE_OF_VALIDATION, "It looks the same as 1.png, which is in validation."),
            id="no-part-and-the-look-of-one",
        ),
    ],
)
def test_a_new_image_goes_where_its_group_is(placed, candidate, split, reason, told):
    [decision], moves = _decide([candidate], [placed])

    joins = reason is not Reason.GIVEN
    assert (decision.split, decision.reason) == (split, reason)
    assert (decision.group_key == placed.group_key) is joins
    assert [(move.name, move.split, (move.code, move.message)) for move in moves] == (
        [] if told is None else [("2.png", split, told)]
    )


def test_what_looks_like_both_sides_goes_to_validation():
    placed = [_placed_one(1, Split.TRAIN, look=0), _placed_one(2, Split.VAL, look=0)]

    [decision], [move] = _decide([_image(3, asked=Split.TRAIN, look=0)], placed)

    assert (decision.split, decision.group_key) == (Split.VAL, "group-2")
    assert move.message == "It looks the same as 2.png, which is in validation."


def test_a_group_given_on_both_sides_goes_to_validation():
    candidates = [
        _image(1, asked=Split.TRAIN, look=0),
        _image(2, asked=Split.VAL, look=0, shade=1),
        _image(3, asked=Split.TRAIN, part="p"),
        _image(4, asked=Split.VAL, part="p"),
        _image(5, asked=Split.TRAIN),
    ]

    decisions, moves = _decide(candidates)

    assert [decision.split for decision in decisions] == [*[Split.VAL] * 4, Split.TRAIN]
    assert [(move.name, move.code, move.message) for move in moves] == [
        ("1.png", MoveCode.DUPLICATE_OF_VALIDATION, "It looks the same as 2.png, which is in validation."),
        ("3.png", MoveCode.DUPLICATE_OF_VALIDATION, "It shows the same part as 4.png, which is in validation."),
    ]


def test_an_image_that_looks_like_two_parts_does_not_make_them_one():
    candidates = [_image(1, part="p", look=0), _image(2, look=0, shade=1), _image(3, part="q", look=0)]

    decisions, _ = _decide(candidates)

    keys = [decision.group_key for decision in decisions]
    assert keys[0] == "part:p"
    assert keys[2] == "part:q"
    assert keys[1] in {"part:p", "part:q"}


@pytest.mark.parametrize("val_fraction", [0.1, 0.2, 0.5])
def test_what_is_drawn_comes_near_its_share_with_and_without_defects(val_fraction):
    candidates = [_image(number, shows_defect=number % 4 == 0) for number in range(400)]

    decisions, moves = _decide(candidates, val_fraction=val_fraction)

    val = Counter(
        image.shows_defect for image, decision in zip(candidates, decisions, strict=True) if decision.split is Split.VAL
    )
    assert (val[True], val[False]) == (round(100 * val_fraction), round(300 * val_fraction))
    assert {decision.reason for decision in decisions} == {Reason.DRAWN}
    assert moves == []


def test_what_is_in_the_dataset_already_counts_for_the_share():
    counted = {(Split.TRAIN, True): 80, (Split.VAL, True): 40}

    decisions, _ = _decide([_image(number) for number in range(80)], counted=counted)

    assert {decision.split for decision in decisions} == {Split.TRAIN}


@pytest.mark.parametrize("val_fraction", [0.01, 0.2, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_handful_of_groups_stands_on_both_sides(count, val_fraction):
    candidates = [_image(number, shows_defect=number == 0) for number in range(count)]

    decisions, _ = _decide(candidates, val_fraction=val_fraction)

    assert {decision.split for decision in decisions} == set(Split)


def test_a_single_group_stays_on_one_side():
    decisions, _ = _decide([_image(1, part="p"), _image(2, part="p")])

    assert len({decision.split for decision in decisions}) == 1


def test_a_crowd_by_one_camera_keeps_the_wishes_and_its_maker_is_told():
    candidates = [_image(number, look=0, asked=Split.VAL if number % 5 == 0 else Split.TRAIN) for number in range(40)]

    decisions, moves = _decide(candidates)

    assert [decision.split for decision in decisions] == [image.asked for image in candidates]
    assert [(move.code, move.message) for move in moves] == [
        (
            MoveCode.TOO_ALIKE,
            (
                "40 images look so much alike that near-duplicates among them cannot be told; "
                "name the part that each of them shows."
            ),
        )
    ]
