"""Listings in key order over servers of both orders, made up by Hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectoscope.storage.contract import ObjectInfo
from defectoscope.storage.ordering import KeyOrder

NAMES = st.text(alphabet="ab-. 0é", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})
KEYS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
TEXTS = st.one_of(st.none(), KEYS, KEYS.map(lambda key: key + "/"))


def by_bytes(key):
    return key.encode()


def by_folder(key):
    return key.split("/")


def server(keys, order):
    """List as a server does that walks its keys in an order of its own, and count the requests."""
    requests = []

    def read_folder(folder, *, offset):
        requests.append(folder)
        for key in sorted(keys, key=order):
            if key.startswith(folder) and key != folder and (offset is None or order(key) > order(offset)):
                yield ObjectInfo(key=key, size_bytes=1, etag=None, modified_at=datetime(2026, 1, 1, tzinfo=UTC))

    return read_folder, requests


@pytest.mark.parametrize("order", [by_bytes, by_folder])
@given(keys=st.sets(KEYS, max_size=25), after=TEXTS, held_limit=st.integers(0, 4))
@settings(max_examples=300)
def test_any_server_is_listed_in_key_order_from_anywhere(order, keys, after, held_limit):
    read_folder, _ = server(keys, order)

    listed = [info.key for info in KeyOrder(read_folder, held_limit=held_limit).walk("", after=after)]

    assert listed == sorted(key for key in keys if after is None or key > after)


@pytest.mark.parametrize("order", [by_bytes, by_folder])
@given(keys=st.sets(KEYS, max_size=25), after=TEXTS, folder=KEYS.map(lambda key: key + "/"))
@settings(max_examples=200)
def test_a_folder_is_listed_without_its_sisters(order, keys, after, folder):
    read_folder, _ = server(keys, order)

    listed = [info.key for info in KeyOrder(read_folder, held_limit=2).walk(folder, after=after)]

    assert listed == sorted(key for key in keys if key.startswith(folder) and (after is None or key > after))


def test_small_folders_cost_no_further_request():
    read_folder, requests = server({f"job-{job}/{image}" for job in range(100) for image in range(5)}, by_folder)

    listed = list(KeyOrder(read_folder).walk("", after=None))

    assert len(listed) == 500
    assert requests == [""]


def test_a_large_folder_costs_two_further_requests():
    read_folder, requests = server({f"large/{image:05}" for image in range(3000)} | {"large-1", "z"}, by_folder)

    listed = [info.key for info in KeyOrder(read_folder).walk("", after=None)]

    assert listed[0] == "large-1"
    assert len(listed) == 3002
    assert requests == ["", "", "large/"]
