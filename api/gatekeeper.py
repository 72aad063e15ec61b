"""Decides who sends a request, from its token, and whether too many came. What a token allows is `access`'s matter."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import structlog
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from api.limits import RateLimit, origin_of
from defectoscope.access.store import Principal, authenticate
from defectoscope.access.tokens import Token, read_token
from defectoscope.database import AccessScope, Database
from defectoscope.errors.access import NotAuthenticated, TokenMalformed, TokenMissing
from defectoscope.errors.api import TooManyRequests
from defectoscope.settings import ApiSettings

log = structlog.get_logger(__name__)

#: Whoever calls an API that needs no token. Such an API answers this machine only.
ANYBODY: Final = Principal(None, "anybody", AccessScope.ADMIN)

#: So many seconds' worth of requests may come at once.
_BURST_S: Final = 10
#: Many people may sit behind one address.
_TOKENS_OF_AN_ADDRESS: Final = 2
#: Tokens remembered as good, by their hashes, so that wrong ones from the same address cannot keep them out.
_MOST_GOOD: Final = 10_000


class Gatekeeper:
    """Authenticates requests and counts them; one for an application.

    Args:
        settings: whether tokens are needed, and how many requests may come.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._needs_token = settings.require_token
        per_s = settings.max_requests_per_s
        self._of_tokens = RateLimit(per_s=per_s, burst=per_s * _BURST_S)
        self._of_addresses = RateLimit(
            per_s=per_s * _TOKENS_OF_AN_ADDRESS, burst=per_s * _BURST_S * _TOKENS_OF_AN_ADDRESS
        )
        refusals = settings.max_refused_tokens_per_min
        self._refusals = RateLimit(per_s=refusals / 60, burst=refusals)
        self._good: OrderedDict[str, None] = OrderedDict()

    def count(self, address: str) -> TooManyRequests | None:
        """Count a request of an address; return an error if too many have come from there."""
        wait_s = self._of_addresses.take(origin_of(address))
        return _too_many("from this address", wait_s) if wait_s else None

    async def admit(self, request: Request) -> Principal:
        """Return who sends a request.

        Raises:
            TokenMissing, TokenMalformed, TokenUnknown, TokenRevoked, TokenExpired: nobody that is known.
            TooManyRequests: too many have come with this token, or too many wrong ones from this address.
            DatabaseUnavailable: tokens cannot be looked up now.
        """
        if not self._needs_token:
            return ANYBODY
        origin = origin_of(address_of(request))
        try:
            token = _token_of(request)
            self._check_refusals(origin, token)
            principal = await run_in_threadpool(_look_up, request.app.state.services.database, token)
        except NotAuthenticated as exc:
            self._refuse(origin, exc)
            raise
        self._remember(token)
        if wait_s := self._of_tokens.take(str(principal.token_id)):
            raise _too_many("with this API token", wait_s)
        return principal

    def _check_refusals(self, origin: str, token: Token) -> None:
        # A token that was good a moment ago is still looked up: it may belong to a neighbour behind the same address.
        if token.sha256 not in self._good and (wait_s := self._refusals.wait_s(origin)):
            raise _too_many("without a valid API token from this address", wait_s)

    def _refuse(self, origin: str, error: NotAuthenticated) -> None:
        wait_s = self._refusals.take(origin)
        if wait_s:
            raise _too_many("without a valid API token from this address", wait_s) from error
        log.warning("access.refused", code=error.code, address=origin, **error.details)

    def _remember(self, token: Token) -> None:
        self._good[token.sha256] = None
        self._good.move_to_end(token.sha256)
        if len(self._good) > _MOST_GOOD:
            self._good.popitem(last=False)


def address_of(request: Request) -> str:
    """Return where a request comes from: the peer, never what a header says of it."""
    return request.client.host if request.client else "unknown"


def _token_of(request: Request) -> Token:
    header = request.headers.get("authorization")
    if header is None:
        raise TokenMissing
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer":
        raise TokenMalformed
    return read_token(text.strip())


def _look_up(database: Database, token: Token) -> Principal:
    with database.transaction() as session:
        return authenticate(session, token)


def _too_many(whose: str, wait_s: float) -> TooManyRequests:
    return TooManyRequests(
        f"Too many requests have come {whose}; wait {wait_s:.1f} s before the next one.", retry_after_s=round(wait_s, 1)
    )
