"""Requests to the API, and its answers."""

from __future__ import annotations

from typing import Any

from defectoscope.errors import AccessDenied, CallerError, Conflict, Fault, NotNow


class ApiUnavailable(NotNow):
    """The Defectoscope API does not answer; start it with `defectoscope up`."""


class ApiRefused(CallerError):
    """The API refused the request for a reason that this version does not know."""

    def __init__(self, message: str | None = None, *, server_code: str, **details: Any) -> None:
        """Args: message, details: as above; server_code: what ``code`` says for this one error."""
        super().__init__(message, **details)
        # Elsewhere the class decides the code. This class stands for codes of a newer server, which only it knows.
        self.__dict__["code"] = server_code


class ApiAnswerInvalid(Fault):
    """Something answers at this address, but not as the Defectoscope API does."""


class InvalidRequest(CallerError):
    """The request is not valid."""


class RequestTooLarge(CallerError):
    """The request body has more bytes than the limit allows."""


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with a different request."""


class HostNotAllowed(AccessDenied):
    """The request names a host this API does not answer for; use localhost, or allow remote access."""


class CrossSiteRequest(AccessDenied):
    """The request was sent by a page of another site."""


class TooManyRequests(CallerError):
    """Too many requests have come in a short time; wait before the next one."""
