"""The Defectoscope API as Python calls, grouped by noun. Answers are plain dictionaries, lists are iterators.

::

    with Client.from_settings() as client:
        job = client.jobs.submit({"kind": "prefix", "uri": "s3://line-3/2026/", "labels_uri": None})
        for defect in client.defects.list(job=job["id"]):
            print(defect["area_px"])
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

from defectoscope.client.access import AuditCalls, TokenCalls
from defectoscope.client.events import EventCalls
from defectoscope.client.learning import DatasetCalls, LabelCalls, TrainingCalls
from defectoscope.client.looking import DefectCalls, ImageCalls, JobCalls, ResultCalls
from defectoscope.client.models import ModelCalls
from defectoscope.client.retention import HoldCalls, RetentionCalls
from defectoscope.client.transport import Transport
from defectoscope.client.webhooks import WebhookCalls
from defectoscope.client.wire import ImageObject, Readiness, Upload


class Client:
    """One API. Usable from several threads; close it, or use it as a context manager.

    Args:
        base_url: where the API answers, such as ``http://127.0.0.1:8000``.
        token: API token, ``dsk_…``; None where none is needed.
        timeout_s: for connecting and for each read or write.

    Raises:
        InvalidRequest: the address is not usable.
        TokenMalformed: the token was mistyped.
    """

    def __init__(self, base_url: str, *, token: str | None = None, timeout_s: float = 30.0) -> None:
        self._transport = Transport(base_url, timeout_s=timeout_s, token=token)
        self.jobs = JobCalls(self._transport)
        self.images = ImageCalls(self._transport)
        self.results = ResultCalls(self._transport)
        self.defects = DefectCalls(self._transport)
        self.labels = LabelCalls(self._transport)
        self.datasets = DatasetCalls(self._transport)
        self.training = TrainingCalls(self._transport)
        self.models = ModelCalls(self._transport)
        self.events = EventCalls(self._transport)
        self.webhooks = WebhookCalls(self._transport)
        self.retention = RetentionCalls(self._transport)
        self.holds = HoldCalls(self._transport)
        self.tokens = TokenCalls(self._transport)
        self.audit = AuditCalls(self._transport)

    @classmethod
    def from_settings(cls, *, timeout_s: float = 30.0) -> Self:
        """Return a client of the API that the environment or the connection file of `defectoscope up` names.

        Raises:
            SettingMissing: a setting cannot be read.
            InvalidRequest, TokenMalformed: the address or the token is not usable.
        """
        from defectoscope.settings import load_settings  # noqa: PLC0415 -- slow, and not needed with an address

        api = load_settings().api
        return cls(api.url, token=api.token.get_secret_value() if api.token else None, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @property
    def base_url(self) -> str:
        """Where the API answers."""
        return self._transport.base_url

    def version(self) -> str:
        """Return the version of the server."""
        return str(self._transport.call("GET", "/healthz")["version"])

    def readiness(self) -> Readiness:
        """Return what the server says about the parts it depends on, ready or not. Sent once, never repeated."""
        _, body = self._transport.probe("/readyz")
        return cast("Readiness", body)

    def request_uploads(self, objects: Sequence[ImageObject]) -> list[Upload]:
        """Ask where some objects are to be PUT; at most 1000. Those stored already need no upload."""
        body = self._transport.call("POST", "/v1/uploads", json={"objects": list(objects)}, repeatable=True)
        return cast("list[Upload]", body["items"])
