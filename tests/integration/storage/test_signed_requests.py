"""Requests signed for clients: S3 itself refuses what they were not signed for."""

from __future__ import annotations

import hashlib
import time

import httpx
import pytest

from defectoscope.errors.storage import InvalidStorageKey
from defectoscope.storage.buckets import Buckets
from defectoscope.storage.open import open_s3

PNG = "image/png"
CONTENT = b"exactly these bytes"


def presign(config, key="uploads/ü 1.png", *, data=CONTENT, expires_in_s=60):
    return Buckets(config).presign_put(
        key,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        content_type=PNG,
        expires_in_s=expires_in_s,
    )


def post(form, data, *, content_type=None):
    fields = form.fields if content_type is None else {**form.fields, "Content-Type": content_type}
    return httpx.post(form.url, data=fields, files={"file": ("name.png", data, PNG)})


def test_a_signed_put_accepts_the_bytes_it_was_signed_for(s3_config):
    request = presign(s3_config)

    response = httpx.put(request.url, content=CONTENT, headers=request.headers)

    assert response.status_code == 200, response.text
    assert open_s3(s3_config).get("uploads/ü 1.png") == CONTENT


def test_a_signed_put_refuses_other_bytes_of_the_same_size(s3_config):
    request = presign(s3_config)

    response = httpx.put(request.url, content=CONTENT[::-1], headers=request.headers)

    assert response.status_code == 400
    assert not open_s3(s3_config).exists("uploads/ü 1.png")


def test_a_signed_put_refuses_another_size(s3_config):
    request = presign(s3_config)
    headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}

    response = httpx.put(request.url, content=CONTENT + b"!", headers=headers)

    assert response.status_code == 403
    assert not open_s3(s3_config).exists("uploads/ü 1.png")


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"Content-Type": "text/html"}, id="type"),
        pytest.param({"x-amz-checksum-sha256": "A" * 43 + "="}, id="checksum"),
        pytest.param({"If-None-Match": None}, id="without-condition"),
    ],
)
def test_a_signed_put_refuses_other_headers(s3_config, changed):
    request = presign(s3_config)
    headers = {name: value for name, value in {**request.headers, **changed}.items() if value is not None}

    response = httpx.put(request.url, content=CONTENT, headers=headers)

    assert response.status_code == 403
    assert not open_s3(s3_config).exists("uploads/ü 1.png")


def test_a_signed_put_refuses_a_second_write(s3_config):
    request = presign(s3_config)

    statuses = [httpx.put(request.url, content=CONTENT, headers=request.headers).status_code for _ in range(2)]

    assert statuses == [200, 412]


def test_a_signature_ends(s3_config):
    request = presign(s3_config, expires_in_s=1)
    time.sleep(2.1)

    response = httpx.put(request.url, content=CONTENT, headers=request.headers)

    assert response.status_code == 403


def test_a_signed_form_accepts_an_upload_within_its_limits(s3_config):
    form = Buckets(s3_config).presign_post("uploads/2.png", max_bytes=100, content_type=PNG, expires_in_s=60)

    response = post(form, b"x" * 100)

    assert response.status_code in {200, 201, 204}, response.text
    assert open_s3(s3_config).get("uploads/2.png") == b"x" * 100


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        pytest.param(b"x" * 101, None, id="too-large"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"x", "text/html", id="type"),
    ],
)
def test_a_signed_form_refuses_what_it_was_not_signed_for(s3_config, data, content_type):
    form = Buckets(s3_config).presign_post("uploads/2.png", max_bytes=100, content_type=PNG, expires_in_s=60)

    response = post(form, data, content_type=content_type)

    assert response.status_code in {400, 403}
    assert not open_s3(s3_config).exists("uploads/2.png")


def test_a_form_that_would_let_the_client_choose_the_key_is_not_signed(s3_config):
    with pytest.raises(InvalidStorageKey):
        Buckets(s3_config).presign_post("uploads/${filename}", max_bytes=1, content_type=PNG, expires_in_s=60)


def test_a_signed_get_gives_the_object_under_the_name_asked_for(s3_config):
    open_s3(s3_config).put("masks/ü 1.png", CONTENT, content_type=PNG)
    url = Buckets(s3_config).presign_get("masks/ü 1.png", expires_in_s=60, download_name='m"1\r\n.png')

    response = httpx.get(url)

    assert response.content == CONTENT
    assert response.headers["content-type"] == PNG
    assert response.headers["content-disposition"] == 'attachment; filename="m_1__.png"'


def test_what_carries_a_secret_or_a_signature_is_not_shown(s3_config):
    form = Buckets(s3_config).presign_post("k", max_bytes=1, content_type=PNG, expires_in_s=60)

    shown = f"{s3_config!r} {presign(s3_config)!r} {form!r} {open_s3(s3_config)!r}"

    assert s3_config.secret_key not in shown
    assert "ignature" not in shown
