"""Signatures of webhooks: a published vector, one of ours, and everything that must not pass."""

from __future__ import annotations

import json

import pytest

from defectoscope.client import verify_webhook
from defectoscope.errors.webhooks import WebhookSignatureInvalid
from defectoscope.webhooks.signature import new_secret, sign

#: From the documentation of Svix, whose scheme the standard is.
PUBLISHED = {
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "message_id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp": 1614265330,
    "body": b'{"test": 2432232314}',
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
#: In docs/webhooks.md, for whoever writes a receiver in another language.
OURS = {
    "secret": "whsec_ZGVmZWN0b3Njb3BlIHRlc3QgdmVjdG9yIDMyIGJ5dGU=",
    "message_id": "evt_41",
    "timestamp": 1795000000,
    "body": '{"id":"evt_41","type":"webhook.test","data":{"message":"Größe 3 µm²"}}'.encode(),
}


def signed(body=OURS["body"], *, at=OURS["timestamp"], secret=OURS["secret"], message_id=OURS["message_id"]):
    return {
        "Webhook-Id": message_id,
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": sign(secret, message_id=message_id, timestamp=at, body=body),
    }


def check(body=OURS["body"], headers=None, secret=OURS["secret"], *, now=OURS["timestamp"] + 12.5, **tolerance):
    return verify_webhook(body, headers or signed(), secret, now=lambda: now, **tolerance)


def test_the_published_vector_comes_out():
    vector = dict(PUBLISHED)

    expected = vector.pop("signature")

    assert sign(vector.pop("secret"), **vector) == expected


def test_the_vector_of_the_documentation_is_the_codes_own(repository):
    vector = dict(OURS)

    signature = sign(vector.pop("secret"), **vector)

    page = (repository / "docs" / "webhooks.md").read_text(encoding="utf-8")
    for shown in (signature, OURS["secret"], OURS["body"].decode(), str(OURS["timestamp"])):
        assert shown in page


def test_a_delivery_that_was_just_signed_is_taken():
    assert check() == json.loads(OURS["body"])


def test_one_good_signature_among_several_is_enough():
    headers = signed()
    headers["Webhook-Signature"] = f"v2,abc v1,AAAA {headers['Webhook-Signature']}"

    assert check(headers=headers)["id"] == "evt_41"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"body": OURS["body"] + b" "}, id="another body"),
        pytest.param({"secret": new_secret()}, id="another secret"),
        pytest.param({"secret": "whsec_no base64"}, id="no secret"),
        pytest.param({"now": OURS["timestamp"] + 301}, id="too old"),
        pytest.param({"now": OURS["timestamp"] - 301}, id="from the future"),
        pytest.param({"now": OURS["timestamp"] + 61, "tolerance_s": 60}, id="too old for a shorter window"),
        pytest.param({"headers": signed() | {"Webhook-Id": "evt_42"}}, id="another id"),
        pytest.param({"headers": signed() | {"Webhook-Timestamp": "1795000001"}}, id="another time"),
        pytest.param({"headers": signed() | {"Webhook-Timestamp": "soon"}}, id="no time"),
        pytest.param({"headers": signed() | {"Webhook-Timestamp": "١٢"}}, id="a time in other digits"),
        pytest.param({"headers": signed() | {"Webhook-Signature": "v1,"}}, id="an empty signature"),
        pytest.param({"headers": signed() | {"Webhook-Signature": "v1,ä"}}, id="a signature that is no base64"),
        pytest.param({"headers": {"Webhook-Id": "evt_41"}}, id="no signature"),
    ],
)
def test_anything_else_is_refused(change):
    with pytest.raises(WebhookSignatureInvalid):
        check(**change)


def test_a_signature_of_another_version_alone_is_refused():
    headers = signed()
    headers["Webhook-Signature"] = headers["Webhook-Signature"].replace("v1,", "v2,")

    with pytest.raises(WebhookSignatureInvalid):
        check(headers=headers)


def test_secrets_are_new_each_time_and_long():
    secrets = {new_secret() for _ in range(100)}

    assert len(secrets) == 100
    assert all(len(secret) >= 50 for secret in secrets)
