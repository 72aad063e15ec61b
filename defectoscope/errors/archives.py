"""Zip archives of images."""

from __future__ import annotations

from defectoscope.errors import CallerError


class ArchiveInvalid(CallerError):
    """The file is not a readable zip archive."""


class ArchiveMemberUnsafe(CallerError):
    """The archive member has an absolute or escaping path, or is a link, encrypted or nested; it was not read."""


class ArchiveTooLarge(CallerError):
    """The archive or a member of it unpacks to more than the limit allows."""
