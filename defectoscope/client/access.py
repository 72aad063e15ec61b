"""The calls about API tokens and the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from defectoscope.client.pages import each
from defectoscope.client.transport import Transport
from defectoscope.client.wire import ApiToken, AuditEntry, Caller


@dataclass(frozen=True, slots=True)
class TokenCalls:
    """API tokens: make, look, revoke."""

    transport: Transport

    def create(self, *, name: str, scope: str, expires_in_days: int | None = None) -> ApiToken:
        """Make a token; ``token`` in the answer is its text, which is shown this once."""
        body = {"name": name, "scope": scope, "expires_in_days": expires_in_days}
        return cast("ApiToken", self.transport.call("POST", "/v1/tokens", json=body))

    def list(self, *, limit: int | None = None) -> Iterator[ApiToken]:
        """Yield tokens, newest first."""
        return each(self.transport, "/v1/tokens", limit=limit)

    def revoke(self, token_id: int) -> ApiToken:
        """End a token at once and for good."""
        return cast("ApiToken", self.transport.call("POST", f"/v1/tokens/{token_id}/revoke", repeatable=True))

    def whose(self) -> Caller:
        """Return whose token this client sends and what it allows."""
        return cast("Caller", self.transport.call("GET", "/v1/tokens/self"))


@dataclass(frozen=True, slots=True)
class AuditCalls:
    """The audit log: look."""

    transport: Transport

    def list(self, *, token: int | None = None, limit: int | None = None) -> Iterator[AuditEntry]:
        """Yield lines, newest first; of one token when it is named."""
        return each(self.transport, "/v1/audit", token=token, limit=limit)
