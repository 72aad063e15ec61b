"""Imports of foreign model files as rows: asked for, claimed by a lease, ended. Wrapping the file is the trainer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, cast, func, or_, select, update
from sqlalchemy.orm import Session

from defectoscope.database import Database, ImportState, ModelImport, ModelVersion, Severity, after_commit
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.models import ImportAbandoned, ModelImportNotFound
from defectoscope.events import record_event
from defectoscope.queue import Queue, messages, send_or_leave


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedImport:
    """An import that this trainer holds. Every later write names the token, so that a successor is not overwritten.

    Attributes:
        import_id: which one.
        token: fences off whoever held it before.
        attempt: 1 for the first claim.
        key: of the file as it was given.
        sha256: of that file.
        file_name: under which it was given.
        options: what was asked for, such as ``threshold``; what is left out is the trainer's choice.
        actor: who asked.
    """

    import_id: int
    token: int
    attempt: int
    key: str
    sha256: str
    file_name: str
    options: dict[str, Any]
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportView:
    """An import and the number of the version that came out."""

    row: ModelImport
    model_version: int | None


def request_import(
    session: Session, queue: Queue, *, key: str, sha256: str, file_name: str, options: dict[str, Any], actor: str
) -> int:
    """Record an import; a trainer is asked for it after the commit.

    Args:
        session: of the transaction.
        queue: where the message goes.
        key: of the stored file.
        sha256: of its content.
        file_name: as people know it.
        options: JSON-ready facts about the model that the file does not hold.
        actor: who asks.

    Returns:
        The import's id.
    """
    row = ModelImport(
        file_name=file_name, key=key, sha256=sha256, options=options, actor=actor, dispatched_at=func.now()
    )
    session.add(row)
    session.flush()
    message = messages.import_model(row.id)
    after_commit(session, lambda: send_or_leave(queue, [message]))
    return row.id


def claim_import(*, database: Database, import_id: int, lease_s: int) -> ClaimedImport | None:
    """Take a pending import, or None when nothing is owed there (a second delivery, an ended import)."""
    with database.transaction() as session:
        row = session.scalar(
            update(ModelImport)
            .where(ModelImport.id == import_id, ModelImport.state == ImportState.PENDING)
            .values(
                state=ImportState.RUNNING,
                attempts=ModelImport.attempts + 1,
                lease_token=ModelImport.lease_token + 1,
                lease_expires_at=_from_now(lease_s),
            )
            .returning(ModelImport)
        )
        if row is None:
            return None
        return ClaimedImport(
            import_id=row.id,
            token=row.lease_token,
            attempt=row.attempts,
            key=row.key,
            sha256=row.sha256,
            file_name=row.file_name,
            options=row.options,
            actor=row.actor,
        )


def renew_import(*, database: Database, claimed: ClaimedImport, lease_s: int) -> bool:
    """Keep an import for longer. Returns False when it is no longer ours."""
    with database.transaction() as session:
        return _write(session, claimed, {"lease_expires_at": _from_now(lease_s)}) is not None


def release_import(*, database: Database, claimed: ClaimedImport) -> bool:
    """Give an import back that could not be done for a reason that is not its own, the attempt not counted.

    The reconciler sends its message again.

    Returns:
        False when it is no longer ours.
    """
    with database.transaction() as session:
        values = {
            "state": ImportState.PENDING,
            "attempts": ModelImport.attempts - 1,
            "lease_expires_at": None,
            "dispatched_at": func.now(),
        }
        return _write(session, claimed, values) is not None


def complete_import(*, database: Database, claimed: ClaimedImport) -> bool:
    """End an import well, once `publish` has bound it to its version. Returns False when it is no longer ours."""
    with database.transaction() as session:
        values = {"state": ImportState.SUCCEEDED, "finished_at": func.now(), "lease_expires_at": None}
        return _write(session, claimed, values) is not None


def fail_import(*, database: Database, claimed: ClaimedImport, error: DefectoscopeError) -> bool:
    """End an import with a named error, and raise an event. Returns False when it is no longer ours."""
    with database.transaction() as session:
        row = _write(session, claimed, _failure(error))
        if row is None:
            return False
        _tell_of_failure(session, row)
        return True


def reconcile_imports(*, database: Database, queue: Queue, resend_after_s: int, max_attempts: int) -> None:
    """Send the message of imports that are owed and held by nobody again; give up those that lost too many trainers.

    Args:
        database: holds the imports.
        queue: where messages go.
        resend_after_s: a message older than this is taken for lost.
        max_attempts: claims of an import before it is given up.
    """
    stale = func.now() - cast(timedelta(seconds=resend_after_s), Interval)
    is_lost = ModelImport.state == ImportState.RUNNING, ModelImport.lease_expires_at < func.now()
    with database.transaction() as session:
        given_up = session.scalars(
            update(ModelImport)
            .where(*is_lost, ModelImport.attempts >= max_attempts)
            .values(_failure(ImportAbandoned()))
            .returning(ModelImport)
        ).all()
        for row in given_up:
            _tell_of_failure(session, row)
        session.execute(
            update(ModelImport)
            .where(*is_lost)
            .values(state=ImportState.PENDING, lease_expires_at=None, dispatched_at=None)
        )
        owed = session.scalars(
            update(ModelImport)
            .where(
                ModelImport.state == ImportState.PENDING,
                or_(ModelImport.dispatched_at.is_(None), ModelImport.dispatched_at < stale),
            )
            .values(dispatched_at=func.now())
            .returning(ModelImport.id)
        ).all()
        if owed:
            after_commit(session, lambda: send_or_leave(queue, [messages.import_model(row_id) for row_id in owed]))


def view_import(session: Session, import_id: int) -> ImportView:
    """Return one import.

    Raises:
        ModelImportNotFound: there is none.
    """
    found = _views(session, ModelImport.id == import_id, limit=1)
    if not found:
        raise ModelImportNotFound(f"There is no import {import_id}.", import_id=import_id)
    return found[0]


def list_imports(session: Session, *, before: int | None = None, limit: int = 50) -> Sequence[ImportView]:
    """Return imports, newest first, those with an id below ``before``."""
    return _views(session, *([] if before is None else [ModelImport.id < before]), limit=limit)


def _views(session: Session, *conditions: Any, limit: int) -> list[ImportView]:
    rows = session.execute(
        select(ModelImport, ModelVersion.number)
        .outerjoin(ModelVersion, ModelVersion.id == ModelImport.model_version_id)
        .where(*conditions)
        .order_by(ModelImport.id.desc())
        .limit(limit)
    )
    return [ImportView(row=row, model_version=number) for row, number in rows]


def _write(session: Session, claimed: ClaimedImport, values: dict[str, Any]) -> ModelImport | None:
    """Change an import while it is ours; return it, or None when it is not."""
    return session.scalar(
        update(ModelImport)
        .where(
            ModelImport.id == claimed.import_id,
            ModelImport.lease_token == claimed.token,
            ModelImport.state == ImportState.RUNNING,
        )
        .values(**values)
        .returning(ModelImport)
    )


def _failure(error: DefectoscopeError) -> dict[str, Any]:
    return {
        "state": ImportState.FAILED,
        "error_code": error.code,
        "error_message": error.message,
        "finished_at": func.now(),
        "lease_expires_at": None,
    }


def _tell_of_failure(session: Session, row: ModelImport) -> None:
    record_event(
        session,
        kind="model.import_failed",
        subject=f"model_import:{row.id}",
        message=f"The import of {row.file_name} failed: {row.error_message}",
        severity=Severity.ERROR,
        code=row.error_code,
        actor=row.actor,
    )


def _from_now(seconds: int) -> Any:
    return func.now() + cast(timedelta(seconds=seconds), Interval)
