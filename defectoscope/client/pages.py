"""Reads a cursor-paged list as one iterator, asking for the next page only when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from defectoscope.client.transport import Transport

#: The most that the API returns at once.
PAGE_SIZE = 1000


def each(transport: Transport, path: str, *, limit: int | None = None, **query: Any) -> Iterator[Any]:
    """Yield the items of a list, over all pages.

    Args:
        transport: the connection.
        path: of the list.
        limit: at most so many; None for all.
        query: filters; those that are None are left out.
    """
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        size = PAGE_SIZE if left is None else min(left, PAGE_SIZE)
        page = transport.call("GET", path, query={**query, "cursor": cursor, "limit": size})
        yield from page["items"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return
        if left is not None:
            left -= len(page["items"])
