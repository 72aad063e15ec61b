"""The calls about models: look, decide, import, download."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import httpx

from defectoscope.client.pages import each
from defectoscope.client.transport import Transport, is_loopback
from defectoscope.client.wire import ModelFile, ModelImport
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.storage import ObjectNotFound, StorageDenied, StorageFault, StorageUnavailable

_PIECE_BYTES = 1 << 20
#: Without it a request that names no champion would have no place for "none is in service".
_NOT_SAID = object()


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """Model versions: look, promote, roll back, retire, compare, import, download.

    Decisions are sent once. A repetition of one whose answer was lost could be a second decision.
    """

    transport: Transport

    def list(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield model versions, newest first."""
        return each(self.transport, "/v1/models", limit=limit)

    def get(self, number: int) -> dict[str, Any]:
        """Return a model version with its evaluations and its lines of the ledger."""
        return cast("dict[str, Any]", self.transport.call("GET", f"/v1/models/{number}"))

    def compare(self, a: int, b: int, *, dataset: str | None = None) -> dict[str, Any]:
        """Return version b against version a: means, interval, images, and what the gate makes of it."""
        query = {"a": a, "b": b, "dataset": dataset}
        return cast("dict[str, Any]", self.transport.call("GET", "/v1/models/compare", query=query))

    def history(self, *, as_of: datetime | None = None, limit: int | None = None) -> dict[str, Any]:
        """Return ``in_service``, the line behind the champion of a moment, and ``items``, the lines until then."""
        query = {"as_of": None if as_of is None else as_of.isoformat()}
        page = self.transport.call("GET", "/v1/models/history", query={**query, "limit": 1})
        lines = each(self.transport, "/v1/models/history", limit=limit, **query)
        return {"as_of": page["as_of"], "in_service": page["in_service"], "items": [*lines]}

    def promote(
        self, number: int, *, actor: str, reason: str, expected_champion: int | object | None = _NOT_SAID
    ) -> dict[str, Any]:
        """Put a version into service and return it.

        Args:
            number: of the version.
            actor: who decides.
            reason: why.
            expected_champion: what is in service as far as the caller knows, None for nothing; left out: whatever is.
        """
        body = _decision(actor, reason, expected_champion)
        return cast("dict[str, Any]", self.transport.call("POST", f"/v1/models/{number}/promote", json=body))

    def roll_back(
        self,
        *,
        actor: str,
        reason: str,
        to: int | None = None,
        expected_champion: int | object | None = _NOT_SAID,
    ) -> dict[str, Any]:
        """Put the version before the champion, or the one named, back into service and return it."""
        body = {**_decision(actor, reason, expected_champion), "to": to}
        return cast("dict[str, Any]", self.transport.call("POST", "/v1/models/rollback", json=body))

    def retire(self, number: int, *, actor: str, reason: str, drop_weights: bool = False) -> dict[str, Any]:
        """Retire a version, with or without its files, and return it."""
        body = {"actor": actor, "reason": reason, "drop_weights": drop_weights}
        return cast("dict[str, Any]", self.transport.call("POST", f"/v1/models/{number}/retire", json=body))

    def request_import(
        self, *, sha256: str, file_name: str, actor: str, options: Mapping[str, Any] | None = None
    ) -> ModelImport:
        """Ask for a stored file to be imported. Sent once: a repetition would import twice."""
        body = {"sha256": sha256, "file_name": file_name, "actor": actor, "options": dict(options or {})}
        return cast("ModelImport", self.transport.call("POST", "/v1/model-imports", json=body))

    def imports(self, *, limit: int | None = None) -> Iterator[ModelImport]:
        """Yield imports, newest first."""
        return each(self.transport, "/v1/model-imports", limit=limit)

    def get_import(self, import_id: int) -> ModelImport:
        """Return an import."""
        return cast("ModelImport", self.transport.call("GET", f"/v1/model-imports/{import_id}"))

    def file(self, number: int, precision: str) -> ModelFile:
        """Return where a version's file can be had for an hour."""
        return cast("ModelFile", self.transport.call("GET", f"/v1/models/{number}/files/{precision}"))

    def download(self, number: int, precision: str, path: Path) -> ModelFile:
        """Write a version's file to disk, where it appears whole and with its recorded hash, or not at all.

        Raises:
            InvalidRequest: the file cannot be written.
            StorageUnavailable: the object storage does not answer; trying again may help.
            ObjectNotFound, StorageDenied: it refuses.
            StorageFault: what it sent is not the recorded file.
            DefectoscopeError: the API refused.
        """
        file = self.file(number, precision)
        partial = path.with_name(path.name + ".partial")
        try:
            sha256 = _receive(file["url"], partial)
            if sha256 != file["sha256"]:
                raise StorageFault(f"The stored file of model version {number} does not have its recorded hash.")
            partial.replace(path)
        except OSError as exc:
            raise InvalidRequest(f"{path} cannot be written: {exc.strerror}.") from exc
        finally:
            partial.unlink(missing_ok=True)
        return file


def _decision(actor: str, reason: str, expected_champion: object) -> dict[str, Any]:
    said = {} if expected_champion is _NOT_SAID else {"expected_champion": expected_champion}
    return {"actor": actor, "reason": reason, **said}


def _receive(url: str, path: Path) -> str:
    """Write what is at a signed address to a file and return its hash."""
    digest = hashlib.sha256()
    try:
        with (
            # Requests to this machine must not go through a proxy of the environment.
            httpx.Client(timeout=60.0, trust_env=not is_loopback(httpx.URL(url).host)) as http,
            http.stream("GET", url) as response,
        ):
            if not response.is_success:
                raise _refusal(response.status_code)
            with path.open("wb") as file:
                for piece in response.iter_bytes(_PIECE_BYTES):
                    file.write(piece)
                    digest.update(piece)
    except httpx.TransportError as exc:
        raise StorageUnavailable(f"The connection to the object storage failed: {exc}.") from exc
    return digest.hexdigest()


def _refusal(status: int) -> StorageDenied | ObjectNotFound | StorageFault | StorageUnavailable:
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return StorageDenied(f"The object storage refuses the download (status {status}).")
    if status == HTTPStatus.NOT_FOUND:
        return ObjectNotFound("The object storage does not have the file.")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StorageUnavailable(f"The object storage answered {status}.")
    return StorageFault(f"The object storage answered {status} to the download.")
