"""Turns what obstore raises into our errors, in one place, for S3, local directories and memory alike.

obstore gives one class, `GenericError`, to most failures, so its text is read: an HTTP status and an S3 code, or the
number of the operating system's error. A failure that is not recognised is never silenced: it is `StorageUnavailable`
when the network was involved and `StorageFault` otherwise.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import obstore.exceptions as vendor

from defectoscope.errors import DefectoscopeError
from defectoscope.errors.images import SourceChanged
from defectoscope.errors.storage import (
    BucketNotFound,
    InvalidStorageKey,
    ObjectExists,
    ObjectNotFound,
    StorageDenied,
    StorageFault,
    StorageUnavailable,
)

_HTTP_STATUS = re.compile(r"status code: (\d{3})")
_S3_CODE = re.compile(r"<Code>(\w+)</Code>")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")

_FAULTY_CONFIGURATION = ("Received redirect without LOCATION", "error parsing", "URL scheme is not allowed")
_KEY_UNFIT_FOR_A_FILE = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP}
_NOT_ALLOWED_TO_FILE = {errno.EACCES, errno.EPERM, errno.EROFS}


_BY_S3_CODE: Final[dict[str, type[DefectoscopeError]]] = {
    "NoSuchBucket": BucketNotFound,
    "InvalidBucketName": BucketNotFound,
    "KeyTooLongError": InvalidStorageKey,
    "BucketAlreadyExists": StorageDenied,
    # S3's "a conditional write is being decided, try again" and "another operation is under way".
    "ConditionalRequestConflict": StorageUnavailable,
    "OperationAborted": StorageUnavailable,
    "SlowDown": StorageUnavailable,
}

_BY_HTTP_STATUS: Final[dict[int, type[DefectoscopeError]]] = {
    HTTPStatus.UNAUTHORIZED: StorageDenied,
    HTTPStatus.FORBIDDEN: StorageDenied,
    HTTPStatus.NOT_FOUND: ObjectNotFound,
    HTTPStatus.PRECONDITION_FAILED: SourceChanged,
    HTTPStatus.REQUEST_TIMEOUT: StorageUnavailable,
    HTTPStatus.TOO_MANY_REQUESTS: StorageUnavailable,
}


def from_s3_answer(status: int, s3_code: str | None, **details: Any) -> DefectoscopeError:
    """Return our error for an answer of an S3 server that is not a success.

    Args:
        status: HTTP status.
        s3_code: The `Code` of the answer; a HEAD has none.
        details: Facts to attach.
    """
    otherwise = StorageUnavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else StorageFault
    kind = _BY_S3_CODE.get(s3_code or "") or _BY_HTTP_STATUS.get(status, otherwise)
    facts = {**details, "http_status": status, "s3_code": s3_code}
    if kind is StorageUnavailable:
        # It does answer. A server whose disk is full says no more than this, and to its own log why.
        return kind(
            f"The object storage answers with status {status} ({s3_code or 'no code'}); look at its log.", **facts
        )
    return kind(**facts)


def _from_text(exc: BaseException, details: dict[str, Any]) -> DefectoscopeError:
    """Judge a failure by its text when its class says nothing."""
    text = str(exc)
    if status := _HTTP_STATUS.search(text):
        code = _S3_CODE.search(text)
        return from_s3_answer(int(status[1]), code[1] if code else None, **details)
    if number := _OS_ERROR.search(text):
        return _from_os_error(int(number[1]), details)
    if "LocalFileSystem" in text:
        return (
            InvalidStorageKey("A local directory cannot hold this key.", **details)
            if "are not supported" in text
            else StorageFault(**details)
        )
    if any(sign in text for sign in _FAULTY_CONFIGURATION):
        return StorageFault("The endpoint or region of the object storage is configured wrongly.", **details)
    return StorageUnavailable(**details)


def _from_os_error(number: int, details: dict[str, Any]) -> DefectoscopeError:
    """Judge an error of the operating system: a local directory's, or a socket's below an HTTP client."""
    facts = {**details, "os_error": errno.errorcode.get(number, str(number))}
    if number in _KEY_UNFIT_FOR_A_FILE:
        return InvalidStorageKey("A local directory cannot hold this key.", **facts)
    if number in _NOT_ALLOWED_TO_FILE:
        return StorageDenied(**facts)
    return StorageUnavailable(**facts)


def _not_found(exc: BaseException, details: dict[str, Any]) -> DefectoscopeError:
    """Tell a missing bucket from a missing object; only the S3 code differs."""
    code = _S3_CODE.search(str(exc))
    return BucketNotFound(**details) if code and code[1] == "NoSuchBucket" else ObjectNotFound(**details)


def _permission_denied(exc: BaseException, details: dict[str, Any]) -> DefectoscopeError:
    """Keep the S3 code: a wrong secret and a missing right have different cures."""
    code = _S3_CODE.search(str(exc))
    return StorageDenied(**details, s3_code=code[1] if code else None)


_Translation = Callable[[BaseException, dict[str, Any]], DefectoscopeError]

# Every class obstore can raise, and the built-in ones it borrows; a test fails when obstore grows a new one.
TRANSLATIONS: Final[dict[type[BaseException], _Translation]] = {
    FileNotFoundError: _not_found,
    vendor.NotFoundError: _not_found,
    vendor.AlreadyExistsError: lambda _exc, details: ObjectExists(**details),
    vendor.PreconditionError: lambda _exc, details: SourceChanged(**details),
    vendor.NotModifiedError: lambda _exc, details: SourceChanged(**details),
    vendor.PermissionDeniedError: _permission_denied,
    vendor.UnauthenticatedError: _permission_denied,
    vendor.InvalidPathError: lambda _exc, details: InvalidStorageKey(**details),
    vendor.NotSupportedError: lambda _exc, details: StorageFault("The storage does not support this.", **details),
    vendor.UnknownConfigurationKeyError: lambda _exc, details: StorageFault(
        "The object storage is configured wrongly.", **details
    ),
    vendor.JoinError: lambda _exc, details: StorageFault(**details),
    NotImplementedError: lambda _exc, details: StorageFault("The storage does not support this.", **details),
    ValueError: lambda _exc, details: InvalidStorageKey(**details),
    vendor.GenericError: _from_text,
    vendor.BaseError: _from_text,
}


@contextmanager
def translated(**details: Any) -> Iterator[None]:
    """Run vendor calls; what they raise leaves as one of our errors.

    Args:
        details: JSON-ready facts to attach, such as the bucket and the key.
    """
    try:
        yield
    except tuple(TRANSLATIONS) as exc:
        for vendor_class, translation in TRANSLATIONS.items():
            if isinstance(exc, vendor_class):
                raise translation(exc, details) from exc
        raise
