from __future__ import annotations

import hashlib

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from defectoscope.settings import DecodeSettings
from defectoscope.storage import content_key
from tests.images import declare_png, draw_part, encode, encode_frames

BASE_URL = "http://127.0.0.1:8000"


def picture(seed=0, **size):
    return encode(draw_part(seed=seed, **size)[0], "PNG")


def send(client, data, name="a.png"):
    return client.post("/v1/images", files={"file": (name, data)})


def announce(client, *contents):
    return client.post(
        "/v1/uploads",
        json={
            "objects": [
                {
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size_bytes": len(data),
                    "content_type": "image/png",
                }
                for data in contents
            ]
        },
    )


def test_an_uploaded_image_is_stored_under_its_content(client, services, bucket):
    data = picture(height=30, width=40)
    sha256 = hashlib.sha256(data).hexdigest()

    answer = send(client, data)

    image = answer.json()
    assert answer.status_code == 201
    assert (image["width"], image["height"], image["format"], image["source_mode"]) == (40, 30, "PNG", "RGB")
    assert (image["sha256"], image["size_bytes"]) == (sha256, len(data))
    assert image["uri"] == image["source_uri"] == f"s3://{bucket}/{content_key(sha256)}"
    assert services.storage.get(content_key(sha256)) == data
    assert client.get(f"/v1/images/{image['id']}").json() == image


def test_the_same_bytes_are_one_image(client):
    first = send(client, picture())

    second = send(client, picture(), name="other name.png")

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "image_empty", id="no bytes"),
        pytest.param(b"<svg onload='alert(1)'/>", "image_not_recognised", id="markup"),
        pytest.param(picture()[:-40], "image_truncated", id="an end missing"),
        pytest.param(encode_frames("WEBP"), "image_multi_frame", id="an animation"),
        pytest.param(declare_png(60_000, 60_000), "image_too_large", id="a bomb"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(2**20), "image_too_large", id="too many bytes for an image"),
    ],
)
def test_a_file_that_is_no_image_is_refused_by_name_and_not_kept(client, walk, services, data, code):
    answer = send(client, data)

    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == code
    assert walk("/v1/images") == []
    assert list(services.storage.list()) == []


def test_an_upload_beyond_the_limit_is_cut_off(client, walk):
    answer = send(client, bytes(2**21))

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert walk("/v1/images") == []


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"content": b"x", "headers": {"Content-Type": "image/png"}}, id="a bare body"),
        pytest.param({"files": {"picture": ("a.png", b"x")}}, id="another field"),
        pytest.param({"data": {"file": "text"}}, id="a field that is no file"),
        pytest.param(
            {"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, id="a form without its boundary"
        ),
    ],
)
def test_a_request_without_the_file_is_refused(client, request_):
    answer = client.post("/v1/images", **request_)

    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_request"


def test_the_original_bytes_come_back_as_an_attachment(client):
    image = send(client, picture()).json()

    answer = client.get(f"/v1/images/{image['id']}/content")

    assert answer.content == picture()
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="image-{image["id"]}.png"'
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_images_are_found_by_their_hash_and_walked_once(client, walk):
    ids = [send(client, picture(seed)).json()["id"] for seed in range(5)]

    by_hash = walk("/v1/images", sha256=hashlib.sha256(picture(3)).hexdigest())

    assert [image["id"] for image in by_hash] == [ids[3]]
    assert [image["id"] for image in walk("/v1/images", limit=2)] == ids[::-1]
    assert walk("/v1/images", sha256="0" * 64) == []


@pytest.mark.parametrize("path", ["/v1/images/999", "/v1/images/999/content"])
def test_an_unknown_image_is_not_found(client, path):
    answer = client.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "image_not_found"


@pytest.mark.parametrize("data", [pytest.param(picture(), id="an image"), pytest.param(b"", id="an empty file")])
def test_a_signed_upload_stores_the_bytes_and_is_then_not_needed(client, services, bucket, data):
    [wanted] = announce(client, data).json()["items"]

    put = httpx.put(wanted["upload"]["url"], content=data, headers=wanted["upload"]["headers"])

    assert put.status_code == 200
    assert services.storage.get(content_key(wanted["sha256"])) == data
    assert wanted["uri"] == f"s3://{bucket}/{content_key(wanted['sha256'])}"
    assert announce(client, data).json()["items"] == [{**wanted, "upload": None}]


def test_a_signed_upload_takes_only_the_bytes_it_was_signed_for(client, services):
    data = picture()
    [wanted] = announce(client, data).json()["items"]

    other = httpx.put(wanted["upload"]["url"], content=bytes(len(data)), headers=wanted["upload"]["headers"])

    assert other.is_client_error
    assert not services.storage.exists(content_key(wanted["sha256"]))


def test_somebody_else_may_be_faster(client):
    data = picture()
    [wanted] = announce(client, data).json()["items"]
    httpx.put(wanted["upload"]["url"], content=data, headers=wanted["upload"]["headers"])

    put = httpx.put(wanted["upload"]["url"], content=data, headers=wanted["upload"]["headers"])

    assert put.status_code == 412


def test_many_uploads_are_signed_in_the_order_asked(client):
    contents = [f"file {n}".encode() for n in range(1000)]

    items = announce(client, *contents).json()["items"]

    assert [item["sha256"] for item in items] == [hashlib.sha256(data).hexdigest() for data in contents]
    assert all(item["upload"] for item in items)


def test_decoding_in_processes_of_their_own_changes_no_answer(api_settings, client, admin):
    good, bad = picture(seed=5), encode_frames("TIFF")
    isolated = api_settings.model_copy(update={"decode": DecodeSettings(isolation="process", processes=1)})

    with TestClient(create_app(isolated), base_url=BASE_URL, headers=admin) as other:
        there = [send(other, good).json(), send(other, bad).json()]
    here = [send(client, good).json(), send(client, bad).json()]

    assert there[0] == here[0]
    assert there[1]["error"]["code"] == here[1]["error"]["code"] == "image_multi_frame"
