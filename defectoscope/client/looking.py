"""The calls about jobs and what came out of them: jobs, images, results, defects."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from defectoscope.client.pages import each
from defectoscope.client.transport import Transport
from defectoscope.client.wire import Defect, Job, JobItem, JobOptions, JobSource, JobSummary
from defectoscope.errors.api import InvalidRequest

_DOWNLOAD_BYTES = 1 << 20
#: For a job of very many images, which are recorded before the server answers.
_LONG_S = 300.0


@dataclass(frozen=True, slots=True)
class JobCalls:
    """Jobs: submit, look, pause, prioritise, cancel, retry."""

    transport: Transport

    def submit(
        self, source: JobSource, *, options: JobOptions | None = None, idempotency_key: str | None = None
    ) -> Job:
        """Submit a job.

        Args:
            source: where the images are.
            options: what to ask of it.
            idempotency_key: the same key with the same request gives the same job. By default a random one, so that a
                request repeated after a broken connection cannot make two jobs.
        """
        key = idempotency_key or secrets.token_urlsafe(24)
        body = {"source": source, **(options or {})}
        answer = self.transport.call(
            "POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key}, repeatable=True, timeout_s=_LONG_S
        )
        return cast("Job", answer)

    def list(self, *, state: str | None = None, limit: int | None = None) -> Iterator[JobSummary]:
        """Yield jobs, newest first."""
        return each(self.transport, "/v1/jobs", state=state, limit=limit)

    def get(self, job_id: int) -> Job:
        """Return a job."""
        return cast("Job", self.transport.call("GET", f"/v1/jobs/{job_id}"))

    def items(self, job_id: int, *, state: str | None = None, limit: int | None = None) -> Iterator[JobItem]:
        """Yield the images of a job."""
        return each(self.transport, f"/v1/jobs/{job_id}/items", state=state, limit=limit)

    def cancel(self, job_id: int) -> Job:
        """Ask that the rest of a job be left out."""
        return cast("Job", self.transport.call("POST", f"/v1/jobs/{job_id}/cancel"))

    def pause(self, job_id: int) -> Job:
        """Ask that nothing more of a job be begun for now."""
        return cast("Job", self.transport.call("POST", f"/v1/jobs/{job_id}/pause"))

    def resume(self, job_id: int) -> Job:
        """Ask that a paused job go on."""
        return cast("Job", self.transport.call("POST", f"/v1/jobs/{job_id}/resume"))

    def prioritise(self, job_id: int, priority: str) -> Job:
        """Set which jobs a job goes before: ``low``, ``normal`` or ``high``."""
        return cast("Job", self.transport.call("POST", f"/v1/jobs/{job_id}/priority", json={"priority": priority}))

    def retry(self, job_id: int) -> Job:
        """Put the failed images of a job to work again."""
        return cast("Job", self.transport.call("POST", f"/v1/jobs/{job_id}/retry"))


@dataclass(frozen=True, slots=True)
class ImageCalls:
    """Images: add, look, download, let out of quarantine."""

    transport: Transport

    def list(self, *, sha256: str | None = None, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield images."""
        return each(self.transport, "/v1/images", sha256=sha256, limit=limit)

    def get(self, image_id: int) -> dict[str, Any]:
        """Return an image."""
        return cast("dict[str, Any]", self.transport.call("GET", f"/v1/images/{image_id}"))

    def add(self, path: Path) -> dict[str, Any]:
        """Store and register a file; the same bytes are the same image.

        Raises:
            InvalidRequest: the file cannot be read.
            InvalidImage: it is no usable image.
        """
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise InvalidRequest(f"{path} cannot be read: {exc.strerror}.") from exc
        answer = self.transport.call("POST", "/v1/images", files={"file": (path.name, data)}, repeatable=True)
        return cast("dict[str, Any]", answer)

    def quarantined(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield images that took down their workers, the latest first."""
        return each(self.transport, "/v1/quarantine", limit=limit)

    def release(self, quarantined_id: int) -> dict[str, Any]:
        """Let an image out of quarantine, and return what it was."""
        return cast("dict[str, Any]", self.transport.call("POST", f"/v1/quarantine/{quarantined_id}/release"))

    def download(self, image_id: int, path: Path) -> None:
        """Write the original bytes to a file."""
        download(self.transport, f"/v1/images/{image_id}/content", path)


@dataclass(frozen=True, slots=True)
class ResultCalls:
    """Results: look, download masks and overlays."""

    transport: Transport

    def list(
        self,
        *,
        job: int | None = None,
        image: int | None = None,
        verdict: str | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield results."""
        return each(self.transport, "/v1/results", job=job, image=image, verdict=verdict, limit=limit)

    def get(self, result_id: int) -> dict[str, Any]:
        """Return a result."""
        return cast("dict[str, Any]", self.transport.call("GET", f"/v1/results/{result_id}"))

    def download_mask(self, result_id: int, path: Path) -> None:
        """Write the mask, a PNG, to a file."""
        download(self.transport, f"/v1/results/{result_id}/mask", path)

    def download_overlay(self, result_id: int, path: Path) -> None:
        """Write the overlay, a JPEG, to a file.

        Raises:
            ObjectNotFound: the job kept none.
        """
        download(self.transport, f"/v1/results/{result_id}/overlay", path)


@dataclass(frozen=True, slots=True)
class DefectCalls:
    """Defects: look."""

    transport: Transport

    def list(
        self,
        *,
        job: int | None = None,
        image: int | None = None,
        result: int | None = None,
        model_version: int | None = None,
        min_area_px: int | None = None,
        min_probability: float | None = None,
        order: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Defect]:
        """Yield defects; ``order`` is ``id`` or ``area`` (largest first)."""
        return each(
            self.transport,
            "/v1/defects",
            job=job,
            image=image,
            result=result,
            model_version=model_version,
            min_area_px=min_area_px,
            min_probability=min_probability,
            order=order,
            limit=limit,
        )


def download(transport: Transport, path: str, target: Path) -> None:
    """Write the body of a GET to a file, which appears only when it is whole.

    Raises:
        InvalidRequest: the file cannot be written.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        with transport.stream(path) as response, partial.open("wb") as file:
            for piece in response.iter_bytes(_DOWNLOAD_BYTES):
                file.write(piece)
        partial.replace(target)
    except OSError as exc:
        raise InvalidRequest(f"{target} cannot be written: {exc.strerror}.") from exc
    finally:
        partial.unlink(missing_ok=True)
