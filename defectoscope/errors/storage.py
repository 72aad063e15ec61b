"""Objects in storage, and the disks they come to."""

from __future__ import annotations

from defectoscope.errors import CallerError, Conflict, Fault, NotFound, NotNow


class ObjectNotFound(NotFound):
    """No object has this key."""


class BucketNotFound(NotFound):
    """The bucket does not exist."""


class BucketNotAllowed(CallerError):
    """Images may not be read from this bucket; add it to DEFECTOSCOPE_STORAGE__INPUT_BUCKETS."""


class InvalidStorageUri(CallerError):
    """The address is not of the form s3://bucket/prefix."""


class ObjectExists(Conflict):
    """An object with this key exists already."""


class InvalidStorageKey(CallerError):
    """The text cannot be the key of a stored object."""


class ObjectTooLarge(CallerError):
    """The stored object has more bytes than the limit allows."""


class StorageDenied(Fault):
    """The object storage refuses the credentials, or they do not allow this."""


class StorageFault(Fault):
    """The object storage answered in a way that was not expected."""


class StorageUnavailable(NotNow):
    """The object storage does not answer."""


class DiskFull(NotNow):
    """A local disk is full; free some of it."""


class ObjectsBeingDeleted(NotNow):
    """Stored objects were collected as unused at this very moment; the same request will store them again."""
