"""Checkpoints of a training run in the object storage, so that another trainer, on another machine, can go on.

Only the last one is kept. A storage that is away costs the run nothing but this: it would go on from an earlier epoch.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from defectoscope.database import Database
from defectoscope.errors import NotFound, NotNow
from defectoscope.storage import Storage, hash_file
from defectoscope.training import Checkpoint, ClaimedRun, record_checkpoint

log = structlog.get_logger(__name__)


class StoredCheckpoints:
    """The checkpoints of one claimed run; what `trainer.fit` takes to save them."""

    def __init__(self, run: ClaimedRun, *, database: Database, storage: Storage) -> None:
        """Args: run: claimed; database: says which checkpoint is the last; storage: keeps it."""
        self._run = run
        self._database = database
        self._storage = storage
        self._last = run.checkpoint

    def fetch(self, directory: Path) -> Path | None:
        """Bring the last checkpoint to local disk.

        Args:
            directory: existing.

        Returns:
            The file, or None when the run begins afresh: there is no checkpoint, or not the one that was recorded.

        Raises:
            StorageUnavailable: the storage does not answer.
        """
        if self._last is None:
            return None
        path = directory / "resume.safetensors"
        try:
            self._storage.get_to_file(self._last.key, path)
        except NotFound as exc:
            log.warning("checkpoint.gone", run_id=self._run.run_id, reason=exc.message, consequence="begins afresh")
            return None
        if hash_file(path) != self._last.sha256:
            log.warning("checkpoint.altered", run_id=self._run.run_id, key=self._last.key, consequence="begins afresh")
            return None
        log.info("checkpoint.fetched", run_id=self._run.run_id, epoch=self._last.epoch)
        return path

    def save(self, path: Path, epoch: int) -> None:
        """Store the checkpoint of an epoch and forget the one before."""
        # The token in the key: a trainer that lost the run without knowing writes beside its successor, not over it.
        key = f"{_prefix(self._run)}{self._run.token}-{epoch}.safetensors"
        checkpoint = Checkpoint(key=key, sha256=hash_file(path), epoch=epoch)
        try:
            self._storage.put_file(key, path, content_type="application/octet-stream")
            recorded = record_checkpoint(database=self._database, run=self._run, checkpoint=checkpoint)
            if recorded and self._last is not None:
                self._storage.delete([self._last.key])
        except NotNow as exc:
            log.warning("checkpoint.not_stored", run_id=self._run.run_id, epoch=epoch, reason=exc.message)
            return
        self._last = checkpoint

    def forget(self) -> None:
        """Delete what is stored, of earlier trainers too, when the run needs it no more."""
        self._storage.delete(info.key for info in self._storage.list(_prefix(self._run)))
        self._last = None


def _prefix(run: ClaimedRun) -> str:
    return f"training/{run.run_id}/checkpoints/"
