"""The ids that every line of the log about a piece of work carries, bound in this one place.

Work that is handed to another thread takes them along by `defectoscope.logs.carrying`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from structlog.contextvars import bound_contextvars

from defectoscope.inspection.chunks import ClaimedChunk, ClaimedItem


def about_job(job_id: int) -> AbstractContextManager[None]:
    """Have every line within the block say which job it is about."""
    return bound_contextvars(job=job_id)


def about_chunk(chunk: ClaimedChunk) -> AbstractContextManager[None]:
    """Have every line within the block say which chunk of which job it is about."""
    return bound_contextvars(job=chunk.job_id, chunk=chunk.chunk_id)


def about_image(item: ClaimedItem) -> AbstractContextManager[None]:
    """Have every line within the block say which image it is about: the id of its item, and its name in the job."""
    return bound_contextvars(item=item.item_id, image=item.name)
