"""Somebody who wants images inspected and does not give up: jobs through the real API, each under its own key."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from tests.faults.workload import JobSpec

_ANSWER_WITHIN_S = 8.0
_AGAIN_AFTER_S = 0.3
_PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A job that the API has said yes to."""

    spec: JobSpec
    job_id: int
    model_version: int


@dataclass(slots=True)
class Submitter:
    """Sends a job until it is accepted.

    Attributes:
        url: of the API.
        headers: sent with every request.
        refusals: how often what was answered instead: an error code or the kind of a broken connection.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    refusals: Counter[str] = field(default_factory=Counter)

    def submit(self, spec: JobSpec, *, model_version: int | None = None) -> Accepted:
        """Send a job again and again, as a client does that must not lose it and must not have it twice."""
        deadline = time.monotonic() + _PATIENCE_S
        body = spec.body(model_version=model_version)
        while True:
            answer = self._post(body, key=spec.key)
            if answer is not None:
                job = answer.json()
                return Accepted(spec=spec, job_id=job["id"], model_version=job["model_version"])
            assert time.monotonic() < deadline, f"{spec.key} was not accepted: {self.refusals}"
            time.sleep(_AGAIN_AFTER_S)

    def _post(self, body: dict[str, object], *, key: str) -> httpx.Response | None:
        headers = {**self.headers, "Idempotency-Key": key}
        try:
            # A connection for each: the API it was made to may be dead by now.
            response = httpx.post(
                f"{self.url}/v1/jobs", json=body, headers=headers, timeout=_ANSWER_WITHIN_S, trust_env=False
            )
        except httpx.TransportError as exc:
            self.refusals[type(exc).__name__] += 1
            return None
        if response.is_success:
            return response
        code = response.json()["error"]["code"] if "json" in response.headers.get("content-type", "") else "no JSON"
        self.refusals[f"{response.status_code} {code}"] += 1
        # Whoever is told that the request is wrong need not send it again.
        assert response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS, response.text
        return None


class Load(threading.Thread):
    """Keeps a number of images owed until it is told to stop."""

    def __init__(
        self,
        submitter: Submitter,
        make_job: Callable[[int], JobSpec],
        *,
        count_owed: Callable[[], int | None],
        most_owed: int,
    ) -> None:
        super().__init__(name="load")
        self.accepted: list[Accepted] = []
        self.began_at = time.time()
        self.failure: BaseException | None = None
        self._submitter = submitter
        self._make_job = make_job
        self._count_owed = count_owed
        self._most_owed = most_owed
        self._enough = threading.Event()

    def run(self) -> None:
        try:
            while not self._enough.is_set():
                owed = self._count_owed()
                if owed is None or owed >= self._most_owed:
                    self._enough.wait(0.2)
                else:
                    self.accepted.append(self._submitter.submit(self._make_job(len(self.accepted))))
        except AssertionError as exc:
            self.failure = exc

    def end(self) -> list[Accepted]:
        """Submit nothing more; return what was accepted."""
        self._enough.set()
        self.join()
        if self.failure is not None:
            raise self.failure
        return self.accepted
