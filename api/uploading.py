"""Signs uploads: for bytes that are not stored yet, the one request with which a client may send exactly them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from api.services import Services
from defectoscope.objects import lease_objects
from defectoscope.storage import content_key
from defectoscope.storage.buckets import PresignedRequest

#: A signature holds so long; a batch of a thousand files must get through on a slow line.
EXPIRES_IN_S = 3600

#: Objects looked up at once.
_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A file that a client has and describes before it sends it."""

    sha256: str
    size_bytes: int
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Where a file will lie, and how to send it; None when it is there already."""

    sha256: str
    uri: str
    request: PresignedRequest | None


def sign_uploads(services: Services, files: Sequence[Announced]) -> list[Upload]:
    """Return how to send each file, in the order given.

    What is stored already stays for as long as what is sent now would, even if nothing refers to it.

    Raises:
        ObjectsBeingDeleted: one of them is being deleted as unused at this moment; try again in a few seconds.
        StorageUnavailable: the storage does not answer.
    """
    with services.database.transaction() as session:
        # Before it is looked whether they are there: what is there then stays.
        lease_objects(session, [content_key(file.sha256) for file in files], lasts=services.grace)
    with ThreadPoolExecutor(min(_THREADS, len(files))) as threads:
        stored = list(threads.map(lambda file: services.storage.exists(content_key(file.sha256)), files))
    return [
        Upload(
            sha256=file.sha256,
            uri=services.uri(content_key(file.sha256)),
            request=None if is_stored else _sign(services, file),
        )
        for file, is_stored in zip(files, stored, strict=True)
    ]


def _sign(services: Services, file: Announced) -> PresignedRequest:
    return services.signer.presign_put(
        content_key(file.sha256),
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        content_type=file.content_type,
        expires_in_s=EXPIRES_IN_S,
    )
