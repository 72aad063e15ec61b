"""Keeps the model in service loaded and warm, so that the first job after a promotion does not wait for it.

Jobs are pinned to a version when they are submitted: those that run finish on theirs, and both stay loaded.
"""

from __future__ import annotations

import structlog

from defectoscope.database import Database, Severity
from defectoscope.errors import DefectoscopeError, NotNow
from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.errors.models import ModelNotReady
from defectoscope.events import record_event
from defectoscope.registry import find_champion
from worker import metrics
from worker.lane import Lane
from worker.models import LoadedModels
from worker.repeating import Repeating

log = structlog.get_logger(__name__)


class ChampionWatch(Repeating):
    """Looks every few seconds which version is in service, and loads a new one beside the old one."""

    def __init__(self, *, database: Database, models: LoadedModels, lane: Lane, owner: str, interval_s: float) -> None:
        """Watch the champion.

        Args:
            database: says which version is in service.
            models: where it is loaded.
            lane: where it is warmed.
            owner: this process, as events name it.
            interval_s: seconds between two looks.
        """
        super().__init__(self._look, interval_s=interval_s, name="champion-watch")
        self._database = database
        self._models = models
        self._owner = owner
        self._lane = lane
        self._settled: int | None = None

    def _look(self) -> bool:
        try:
            with self._database.transaction() as session:
                number = find_champion(session).number
            if number != self._settled:
                self._switch(number)
        except ModelNotReady:
            return True
        except NotNow as exc:
            log.warning("champion.not_looked_at", code=exc.code, reason=exc.message)
        return True

    def _switch(self, number: int) -> None:
        """Load and warm a version; one that cannot be loaded is said once, and tried again when it is promoted again.

        Raises:
            NotNow: a server is away; the next look tries again.
        """
        try:
            model = self._models.get(number)
            self._lane.warm(model.engine).result()
        except NotNow:
            raise
        except DefectoscopeError as exc:
            self._settled = number
            log.error("champion.not_loaded", version=number, code=exc.code, reason=exc.message)  # noqa: TRY400
            self._tell(
                kind="worker.switch_failed",
                severity=Severity.ERROR,
                number=number,
                message=f"Worker {self._owner} cannot load model {number}: {exc.message}",
            )
            return
        self._settled = number
        metrics.show_model_version(number, variant=model.variant, provider=model.engine.provider)
        log.info("champion.warm", version=number, variant=model.variant, provider=model.engine.provider)
        self._tell(
            kind="worker.switched",
            severity=Severity.INFO,
            number=number,
            message=f"Worker {self._owner} is warm on model {number}.",
        )

    def _tell(self, *, kind: str, severity: Severity, number: int, message: str) -> None:
        try:
            with self._database.transaction() as session:
                record_event(
                    session,
                    kind=kind,
                    severity=severity,
                    subject=f"model:{number}",
                    message=message,
                    worker=self._owner,
                    model_version=number,
                )
        except DatabaseUnavailable as exc:
            log.warning("champion.not_told", version=number, reason=exc.message)
