"""Whether the servers this process needs answer; asked all at once, so that one that is silent costs its time once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from api.services import Services
from defectoscope.errors import DefectoscopeError

OK = "ok"


def check_servers(services: Services) -> dict[str, str]:
    """Return `ok` or a sentence for each server. Our bucket is made here when it is missing."""
    checks: dict[str, Callable[[], None]] = {
        "database": services.database.ping,
        "queue": services.queue.ping,
        "storage": lambda: services.buckets.ensure(services.bucket),
    }
    with ThreadPoolExecutor(len(checks)) as threads:
        return dict(zip(checks, threads.map(_sentence, checks.values()), strict=True))


def _sentence(check: Callable[[], None]) -> str:
    try:
        check()
    except DefectoscopeError as exc:
        return exc.message
    return OK
