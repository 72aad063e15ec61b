"""The installation, its settings and its servers."""

from __future__ import annotations

from defectoscope.errors import CallerError, Conflict, Fault, NotNow


class SettingMissing(CallerError):
    """A setting that is needed is not set."""


class PlatformUnsupported(Fault):
    """The embedded servers are not available for this platform."""


class DataDirectoryBusy(Conflict):
    """Another Defectoscope runs on this data directory."""


class ServerStartFailed(Fault):
    """An embedded server did not start."""


class ComponentMissing(Fault):
    """A part of Defectoscope is not installed here."""


class DatabaseUnavailable(NotNow):
    """The database does not answer."""


class QueueUnavailable(NotNow):
    """The message broker does not answer."""


class OutOfMemory(Fault):
    """The memory of this process is used up; what it worked on is tried again."""


class Unexpected(Fault):
    """An unexpected error occurred; the log has its trace under this id."""
