"""Whether the process lives and whether the servers it needs answer."""

from __future__ import annotations

from typing import Literal

from api.schemas.base import Body, shows


class HealthOut(Body):
    """The process is alive."""

    model_config = shows({"status": "ok", "version": "0.1.0"})

    status: Literal["ok"]
    version: str


class Checks(Body):
    """`ok`, or a sentence that says what is wrong."""

    model_config = shows({"database": "ok", "queue": "ok", "storage": "The object storage does not answer."})

    database: str
    queue: str
    storage: str


class ReadyOut(Body):
    """Whether requests can be met now."""

    model_config = shows({"status": "ready", "checks": {"database": "ok", "queue": "ok", "storage": "ok"}})

    status: Literal["ready", "unready"]
    checks: Checks
