"""Pages of lists: where the next one begins. A cursor names the last row of a page, so deep pages cost no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

Row = TypeVar("Row")

#: How many at the most.
Limit = Annotated[int, Query(ge=1, le=1000, description="how many at the most")]
#: Opaque to the caller: the id of the last row of the page before.
Cursor = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before", examples=["41"])
]
#: Opaque to the caller: the id, and before it the area where the list is ordered by that.
AreaCursor = Annotated[
    str | None,
    Query(pattern=r"^([0-9]{1,18}-)?[0-9]{1,18}$", description="`next_cursor` of the page before", examples=["41"]),
]


def last_id(cursor: str | None) -> int | None:
    """Return the id that a cursor names, or None for the first page."""
    return None if cursor is None else int(cursor.rpartition("-")[2])


def last_area_px(cursor: str | None) -> int | None:
    """Return the area that a cursor names, or None where it names none."""
    area = "" if cursor is None else cursor.rpartition("-")[0]
    return int(area) if area else None


def cut(rows: Sequence[Row], limit: int, cursor_of: Callable[[Row], int | str]) -> tuple[Sequence[Row], str | None]:
    """Cut a page from rows that were asked for with one more than the limit.

    Returns:
        The rows of the page, and the cursor of the next one; None when there is none.
    """
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], str(cursor_of(rows[limit - 1]))
