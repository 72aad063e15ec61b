"""The calls about retention: rules of what is given up, and holds on what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from defectoscope.client.pages import each
from defectoscope.client.transport import Transport
from defectoscope.client.wire import Hold, RetentionRule

#: For answers that look at every result or image, or delete for a while.
_LONG_S = 120.0


@dataclass(frozen=True, slots=True)
class RetentionCalls:
    """Rules of retention: add, look, remove, count, apply."""

    transport: Transport

    def add(
        self,
        *,
        what: str,
        older_than_days: int,
        keep_defective: bool = True,
        job_id: int | None = None,
        actor: str | None = None,
    ) -> RetentionRule:
        """Write a rule. Sent once: a repetition would write a second one.

        Args:
            what: ``masks``, with overlays, or ``originals``.
            older_than_days: since it was made, and since the last job that used it.
            keep_defective: spare results with defects, and images that have one.
            job_id: only what this job used and no other.
            actor: for whom, if not for the holder of the token.
        """
        body = {
            "what": what,
            "older_than_days": older_than_days,
            "keep_defective": keep_defective,
            "job_id": job_id,
            "actor": actor,
        }
        return cast("RetentionRule", self.transport.call("POST", "/v1/retention-rules", json=body))

    def list(self, *, limit: int | None = None) -> Iterator[RetentionRule]:
        """Yield rules, newest first."""
        return each(self.transport, "/v1/retention-rules", limit=limit)

    def remove(self, rule_id: int) -> RetentionRule:
        """Take a rule back; returns what it was."""
        return cast("RetentionRule", self.transport.call("DELETE", f"/v1/retention-rules/{rule_id}"))

    def due(self) -> Mapping[int, int]:
        """Return how many rows each rule would give up now, by the rule's id."""
        body = self.transport.call("GET", "/v1/retention-rules/due", timeout_s=_LONG_S)
        return {count["rule_id"]: count["rows"] for count in body["items"]}

    def apply(self) -> Mapping[int, int]:
        """Follow the rules until there is nothing left to give up; returns how many rows each gave up."""
        given_up: Counter[int] = Counter()
        while True:
            body = self.transport.call("POST", "/v1/retention-rules/apply", timeout_s=_LONG_S)
            for count in body["items"]:
                given_up[count["rule_id"]] += count["rows"]
            if body["is_done"]:
                return given_up


@dataclass(frozen=True, slots=True)
class HoldCalls:
    """Holds: add, look, remove."""

    transport: Transport

    def add(
        self, *, reason: str, job_id: int | None = None, image_id: int | None = None, actor: str | None = None
    ) -> Hold:
        """Have nothing of a job, or of an image, deleted until the hold is removed. Sent once.

        Args:
            reason: for whoever wants to remove it.
            job_id: the job; or
            image_id: the image.
            actor: for whom, if not for the holder of the token.
        """
        body = {"reason": reason, "job_id": job_id, "image_id": image_id, "actor": actor}
        return cast("Hold", self.transport.call("POST", "/v1/holds", json=body))

    def list(self, *, limit: int | None = None) -> Iterator[Hold]:
        """Yield holds, newest first."""
        return each(self.transport, "/v1/holds", limit=limit)

    def remove(self, hold_id: int) -> Hold:
        """Remove a hold; returns what it was."""
        return cast("Hold", self.transport.call("DELETE", f"/v1/holds/{hold_id}"))
