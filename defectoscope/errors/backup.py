"""Backup and restore."""

from __future__ import annotations

from defectoscope.errors import CallerError, Conflict


class BackupInvalid(CallerError):
    """The directory holds no whole backup that this release can read."""


class DatabaseNotEmpty(Conflict):
    """A backup is restored into an empty database only."""
