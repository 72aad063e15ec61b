"""Whether the process lives, and whether it can work."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api import version
from api.readiness import OK, check_servers
from api.schemas.health import Checks, HealthOut, ReadyOut
from api.services import Parts

router = APIRouter(tags=["health"])


@router.get("/healthz")
def read_health() -> HealthOut:
    """Say that the process is alive; nothing is touched."""
    return HealthOut(status="ok", version=version())


@router.get("/readyz", responses={503: {"model": ReadyOut, "description": "A server does not answer."}})
def read_readiness(services: Parts, response: Response) -> ReadyOut:
    """Ask the database, the queue and the storage whether they answer."""
    checks = check_servers(services)
    is_ready = all(check == OK for check in checks.values())
    response.status_code = 200 if is_ready else 503
    return ReadyOut(status="ready" if is_ready else "unready", checks=Checks(**checks))
