"""API tokens and what they allow."""

from __future__ import annotations

from defectoscope.errors import AccessDenied, NotFound


class NotAuthenticated(AccessDenied):
    """The request does not show who sends it."""


class TokenMissing(NotAuthenticated):
    """The request needs an API token; the command line takes it from DEFECTOSCOPE_API__TOKEN."""


class TokenMalformed(NotAuthenticated):
    """What was sent is no API token of Defectoscope, or it was mistyped or cut off."""


class TokenUnknown(NotAuthenticated):
    """The API token is not known here."""


class TokenExpired(NotAuthenticated):
    """The API token has expired."""


class TokenRevoked(NotAuthenticated):
    """The API token was revoked."""


class ScopeTooSmall(AccessDenied):
    """The API token does not allow this."""


class TokenNotFound(NotFound):
    """No API token has this id."""
