"""Signatures of webhooks, as https://www.standardwebhooks.com describes them: made here, checked by receivers.

What is signed is ``ID.TIMESTAMP.BODY``, by HMAC-SHA256. The time is part of it, so that a recorded delivery cannot be
sent again later; the id is part of it, so that it cannot pass for a new one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from defectoscope.errors.webhooks import WebhookSignatureInvalid

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

SECRET_PREFIX = "whsec_"  # noqa: S105 -- what secrets begin with
_SECRET_BYTES = 32
#: Of the scheme, before each signature: a later one can stand beside it.
_VERSION = "v1"
#: How far the clocks of sender and receiver may be apart, and how long a delivery can be repeated by others, seconds.
TOLERANCE_S = 300


def new_secret() -> str:
    """Return a new secret, 256 bits by the system's random numbers."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a delivery, such as ``v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=``.

    Args:
        secret: as `new_secret` gives it.
        message_id: value of the id header.
        timestamp: value of the timestamp header, seconds since 1970.
        body: the bytes that are sent.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"{_VERSION},{base64.b64encode(digest).decode()}"


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secret: str,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Check that a delivery was sent by the Defectoscope that shares the secret, just now, and return its body.

    ::

        event = verify_webhook(request.body, request.headers, secret)
        if event["id"] not in seen: ...

    Args:
        body: the bytes as they came; a body that was parsed and written again has another signature.
        headers: of the request, in any case of letters.
        secret: as it was shown when the webhook was created.
        tolerance_s: how far from now the delivery may have been signed.
        now: the clock, seconds since 1970.

    Returns:
        The body: ``id``, ``type``, ``timestamp`` and ``data``.

    Raises:
        WebhookSignatureInvalid: it was not, or it is too old; do not act on it, and answer 400.
    """
    given = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER) if not given.get(name)]
    if missing:
        raise WebhookSignatureInvalid(f"The request has no header {missing[0]}.")
    message_id, stamp = given[ID_HEADER], given[TIMESTAMP_HEADER]
    if not (stamp.isascii() and stamp.isdecimal()):
        raise WebhookSignatureInvalid(f"The header {TIMESTAMP_HEADER} is not a number of seconds.")
    try:
        expected = sign(secret, message_id=message_id, timestamp=int(stamp), body=body)
    except (binascii.Error, ValueError) as exc:
        raise WebhookSignatureInvalid("The secret is not one of a webhook.") from exc
    # Several may be given, apart by spaces. How long the comparison takes must not tell how far one fits.
    signatures = given[SIGNATURE_HEADER].split(" ")
    if not any(hmac.compare_digest(signature.encode(), expected.encode()) for signature in signatures):
        raise WebhookSignatureInvalid
    # After the signature: only then the time is the sender's own word.
    if abs(now() - int(stamp)) > tolerance_s:
        raise WebhookSignatureInvalid(f"The delivery was signed more than {tolerance_s:g} s from now.")
    event: dict[str, Any] = json.loads(body)
    return event
